// TCP_INFO of a connection that the engine owns: the kernel socket's answer of the time when it was moved, and what the
// engine has done since. Pure.
#pragma once

#include <linux/tcp.h>

#include "ipc/messages.h"

namespace twinstack::sockets {

void add_engine_state(const ipc::HwConnState& state, tcp_info& info) noexcept;

}  // namespace twinstack::sockets
