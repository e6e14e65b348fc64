// TCP_INFO of a connection that moves: its counters never run backwards. Pure.
#pragma once

#include <sys/socket.h>

#include "ipc/messages.h"

namespace twinstack::sockets {

// `info` is the kernel socket's answer; what the engine knows replaces it. `base`: of ConnSlot.
void put_engine_state(const ipc::HwConnState& state, const tcp::InfoCounters& base, tcp::TcpInfo& info) noexcept;

// The kernel has answered with `length` bytes of a struct tcp_info, which may be older or newer than ours.
void add_base(const tcp::InfoCounters& base, void* info, socklen_t length) noexcept;

}  // namespace twinstack::sockets
