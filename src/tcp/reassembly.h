// Reassembly: data above rcv_nxt, and the SACK blocks that report it (RFC 2018, RFC 2883).
#pragma once

#include <cstdint>

#include "tcp/cold_state.h"
#include "tcp/connection.h"
#include "wire/payload.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// Keeps the bytes of `payload`, which starts at `seq` > rcv_nxt and lies within the window, that are not held yet.
// False when the limit of blocks, or of memory, left nothing of it.
bool keep_out_of_order(ControlBlock& cb, Seq seq, const Payload& payload, Host& host);

// Gives the block that lies farthest ahead up, whether it was reported or not. REQUIRES: there is one.
void drop_farthest(ColdState& cold) noexcept;

// Delivers what has become in order; rcv_nxt advances. Stops early when the host takes less: the rest stays.
void deliver_in_order(ControlBlock& cb, Host& host);

// [left, right) was received twice: to be reported in the next ACK. Does nothing when SACK was not negotiated.
void note_duplicate(ControlBlock& cb, Seq left, Seq right);

// rcv_nxt has come from `from`: what of that had been held out of order was received twice (RFC 2883 4.2.1).
void note_overlap(ControlBlock& cb, Seq from);

// Puts the blocks that fit beside the options already there, most recent first. True when there are any.
bool fill_sack_blocks(const ControlBlock& cb, wire::TcpOptions& options);

// A segment with these blocks was sent.
void sack_blocks_sent(ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
