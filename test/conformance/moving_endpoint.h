// MovingEndpoint: CoreEndpoint with the engine beside it. The portable stack stands for the kernel (SoftKernelConn,
// with Linux's quirks); the product's own hand-off moves connections between the two. Packets are told apart by their
// flow; the program's calls go through rings, or to the stack, by who has the connection, as the socket layer decides
// it. What the engine does not do (the end of a connection, options, urgent data) brings the connection back, as the
// service does it; after an option it moves again at once.
//
// Left out is the driver: nothing is drained before a return, and a return is never put off. Virtual time; one thread.
#pragma once

#include <memory>

#include "core_endpoint.h"
#include "moving/engine_side.h"

namespace twinstack::conformance {

class MovingEndpoint final : public CoreEndpoint {
 public:
  // What the kernel of a MovingEndpoint makes of what Linux cannot be told when it takes a connection back.
  enum class Memory : std::uint8_t { kAsLinux, kWhole };
  explicit MovingEndpoint(bool v6, Memory memory = Memory::kAsLinux) noexcept : CoreEndpoint(v6), memory_(memory) {}

  Result<> start(std::span<const std::pair<std::string, std::string>> settings) override;
  void finish() override;
  void advance(Time until) override;
  void inject(ByteView packet) override;

  CallResult send(SocketId socket, ByteView bytes, int flags) override;
  CallResult receive(SocketId socket, std::span<std::byte> room, int flags) override;
  CallResult shutdown(SocketId socket, int how) override;
  CallResult close(SocketId socket) override;
  CallResult set_option(SocketId socket, std::string_view name, std::int64_t value, const std::string& text) override;
  CallResult get_option(SocketId socket, std::string_view name) override;
  int poll(SocketId socket) override;

  Result<> move(SocketId socket, Stack to) override;
  Result<std::vector<std::string>> take_moves() override;

 private:
  struct Mover {
    moving::EngineConn* conn = nullptr;  // once it has been to the engine
    bool wanted = false;                 // in the engine, where it may be
    bool stays = false;                  // in the kernel, for good
  };

  int read_info(SocketId socket, tcp::TcpInfo& out) override;
  [[nodiscard]] bool in_engine(SocketId socket) const;
  [[nodiscard]] moving::SendLimits send_limits(SocketId socket);
  void to_kernel(ByteView packet);
  void deliver_late();
  void work();
  Result<> offload(SocketId socket);
  Result<> upload(SocketId socket);
  // Moves that nobody but the program's call or the engine has asked for.
  void bring_back(SocketId socket, const std::string& cause, bool stays);
  void move_again(SocketId socket);

  Memory memory_;
  std::unique_ptr<moving::EngineSide> engine_;
  std::map<SocketId, Mover> movers_;
  std::vector<std::string> moves_;
  std::optional<Error> failure_;
};

}  // namespace twinstack::conformance
