// Epilogue: what follows a script with moves, whatever it wanted: the program writes some more and reads all, the peer
// sends some more and acknowledges all, until nothing is missing. Acts by the hooks alone. Single thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "endpoint.h"
#include "flow_state.h"
#include "script.h"

namespace twinstack::conformance {

// A socket of the program, as the run knows it.
struct Socket {
  SocketId id = -1;
  std::uint64_t sent = 0;      // position in the host's stream
  std::uint64_t received = 0;  // position in the peer's stream
  bool ended = false;          // by the program, in its direction
  bool closed = false;
};

// What is missing. Empty: nothing.
struct Ending {
  std::string unwritten{};
  std::string unsent{};
  std::string unread{};

  [[nodiscard]] bool is_whole() const noexcept { return unwritten.empty() && unsent.empty() && unread.empty(); }
  [[nodiscard]] std::string text() const;
  // What is missing here and not in `other`.
  [[nodiscard]] std::string worse_than(const Ending& other) const;
};

class Epilogue {
 public:
  struct Hooks {
    const FlowState& flow;
    std::function<void(SegmentSpec)> inject;
    std::function<void(Duration)> pass;
    std::function<CallResult(std::int64_t bytes)> write;
    std::function<CallResult(std::int64_t bytes)> read;
    std::function<Result<Info>()> info;
    std::function<Time()> now;
  };
  explicit Epilogue(Hooks hooks);

  // `readable`: what the program receives is the peer's stream, byte for byte.
  [[nodiscard]] Ending carry_out(const Socket& socket, bool readable);

 private:
  [[nodiscard]] bool is_over() const;
  [[nodiscard]] std::string write_more(const Socket& socket);
  void read_all(const Socket& socket);
  void send_and_acknowledge(const Socket& socket);
  [[nodiscard]] std::string unsent(const Socket& socket) const;
  [[nodiscard]] std::string unread(const Socket& socket) const;

  Hooks hooks_;
  std::uint64_t bytes_to_take_;  // of the peer's stream
  std::int64_t bytes_to_write_;
};

}  // namespace twinstack::conformance
