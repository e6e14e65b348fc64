// SocketHost: what the TCP core asks of the stack while it works on one connection.
#pragma once

#include <algorithm>

#include "stack/stack.h"

namespace twinstack::stack {

class SoftStack::SocketHost final : public tcp::Host {
 public:
  SocketHost(const SoftStack& stack, Socket& socket) noexcept
      : tcp::Host(socket.conn->counters, socket.conn->delivery_rate), stack_(stack), socket_(socket) {}

  // After close() nobody will read it.
  std::uint32_t deliver(const Payload& payload) override {
    if (socket_.orphan) return payload.size();
    ReceiveBuffer& receive = socket_.conn->receive;
    const std::uint32_t taken = std::min(payload.size(), receive.room(socket_.conn->cb));
    if (taken > 0) receive.bytes.append(payload.narrow(0, taken));
    return taken;
  }
  std::uint32_t receive_space() override {
    return socket_.conn->receive.window_space(stack_.config_, socket_.conn->cb);
  }
  std::uint16_t announced_mss() override { return socket_.conn->advmss; }
  std::uint32_t receive_capacity() override { return socket_.conn->receive.full_window(stack_.config_); }
  bool all_read() override { return socket_.conn->receive.bytes.empty(); }

 private:
  const SoftStack& stack_;
  Socket& socket_;
};

}  // namespace twinstack::stack
