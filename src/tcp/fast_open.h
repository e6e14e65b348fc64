// fast_open: what a connection that began with data in the SYN (RFC 7413) does otherwise than others, right after
// establish(). The handshake itself: handshake.h.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// `bytes` of the SYN's data were not acknowledged with it: they are in flight and lost, and go again at once (Linux
// tcp_rcv_fastopen_synack()). They must lie in the program's queue from snd_nxt on.
void repeat_syn_data(ControlBlock& cb, std::uint32_t bytes, Time now);

// The program is about to send more than the SYN took: the ACK of the SYN-ACK goes with it (Linux
// tcp_rcv_synsent_state_process(), sk_write_pending).
void hold_ack_for_data(ControlBlock& cb, Time now);

}  // namespace twinstack::tcp
