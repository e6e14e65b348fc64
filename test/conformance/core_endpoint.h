// CoreEndpoint: the portable stack (src/stack) as the host under test, in virtual time: as fast as it computes, the
// same every time. MovingEndpoint puts the engine beside it. One thread at a time.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "endpoint.h"
#include "stack/stack.h"

namespace twinstack::conformance {

class CoreEndpoint : public Endpoint, private stack::Outlet {
 public:
  explicit CoreEndpoint(bool v6) noexcept : v6_(v6) {}

  Result<> start(std::span<const std::pair<std::string, std::string>> settings) override;
  void finish() override;
  [[nodiscard]] Addresses addresses() const override;
  [[nodiscard]] Tolerance tolerance() const override;
  [[nodiscard]] Duration patience() const override { return Duration(0); }

  [[nodiscard]] Time now() override { return now_; }
  void advance(Time until) override;
  [[nodiscard]] std::optional<SentPacket> take_sent() override;
  void inject(ByteView packet) override;

  CallResult socket() override;
  CallResult listen(SocketId socket, int backlog) override;
  CallResult accept(SocketId socket) override;
  CallResult connect(SocketId socket, std::uint16_t peer_port) override;
  CallResult send(SocketId socket, ByteView bytes, int flags) override;
  CallResult receive(SocketId socket, std::span<std::byte> room, int flags) override;
  CallResult shutdown(SocketId socket, int how) override;
  CallResult close(SocketId socket) override;
  CallResult set_option(SocketId socket, std::string_view name, std::int64_t value, const std::string& text) override;
  CallResult get_option(SocketId socket, std::string_view name) override;
  int poll(SocketId socket) override;
  Result<Info> info(SocketId socket) override;

 protected:
  // TCP_INFO of a socket that is open; 0 or a negative errno.
  virtual int read_info(SocketId socket, tcp::TcpInfo& out);
  void note_sent(ByteView ip_packet) { sent_.push_back({now_, {ip_packet.begin(), ip_packet.end()}, cause_}); }

  stack::Config config_;
  std::unique_ptr<stack::SoftStack> stack_;
  std::deque<SentPacket> sent_;
  Time now_{};
  SendCause cause_ = SendCause::kUsual;  // of what is sent now

 private:
  struct Known {
    FlowKey flow;  // for what happens after close()
    bool closed = false;
  };

  void transmit(ByteView ip_packet) override { note_sent(ip_packet); }
  void learn_flow(SocketId socket);

  bool v6_;
  std::map<SocketId, Known> known_;
};

}  // namespace twinstack::conformance
