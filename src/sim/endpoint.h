// Endpoint: one end of a connection as its program uses it, without blocking: through the socket layer on the moving
// host, straight on the software stack elsewhere. One thread.
#pragma once

#include <cstdint>
#include <span>

#include "sim/host_stack.h"

namespace twinstack::sim {

class Endpoint {
 public:
  virtual ~Endpoint() = default;

  virtual Moved send(std::span<const std::byte> bytes, bool more) = 0;
  virtual Moved receive(std::span<std::byte> room) = 0;
  // 0, -EAGAIN (it is on its way to where that can be done), or another error.
  virtual Moved shutdown_send() = 0;
  virtual Moved set_flags(std::uint16_t min_tcp_flags) = 0;
  // When a call that said -EAGAIN because the connection is on its way asks again by itself; kNever: it does not.
  [[nodiscard]] virtual Time asks_again() const { return kNever; }
  virtual void set_abortive() = 0;
  // Nothing may be called any more but the destructor.
  virtual void close() = 0;
};

class StackEndpoint final : public Endpoint {
 public:
  // REQUIRES: stack and `now` outlive it.
  StackEndpoint(HostStack& stack, SocketId socket, const Time& now) : stack_(stack), socket_(socket), now_(now) {}

  Moved send(std::span<const std::byte> bytes, bool more) override { return stack_.send(socket_, bytes, more, now_); }
  Moved receive(std::span<std::byte> room) override { return stack_.receive(socket_, room, now_); }
  Moved shutdown_send() override { return stack_.shutdown_send(socket_, now_); }
  Moved set_flags(std::uint16_t flags) override {
    stack_.set_flags(socket_, flags, now_);
    return 0;
  }
  void set_abortive() override { stack_.set_abortive(socket_, now_); }
  void close() override { stack_.close(socket_, now_); }

 private:
  HostStack& stack_;
  SocketId socket_;
  const Time& now_;
};

}  // namespace twinstack::sim
