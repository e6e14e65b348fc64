// Recovery: Linux's tcp_ca_state machine. It is told what an ACK, the reordering timer or a timeout brought, moves
// between the states, begins and ends reductions, and says what may be repaired now. Which segments are lost is decided
// by rack.h and loss_marks.h; cwnd's growth is the congestion control's.
#pragma once

#include <cstdint>

#include "tcp/ack_news.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

void set_recovery(ControlBlock& cb, RecoveryState next);

// Open, or Disorder while something is out of order or was repeated.
void try_keep_open(ControlBlock& cb);

// An ACK that is not the plain progress of an undisturbed flight (Linux tcp_fastretrans_alert()). REQUIRES: a flight.
void recovery_on_ack(ControlBlock& cb, AckNews& news, Counters& counters, Time now);

// The reordering timer has run out.
void recovery_on_reorder_timer(ControlBlock& cb, Counters& counters, Time now);

// What is marked lost goes again: Loss without a loss window, as no more data is in the network than before, and nothing
// to undo (Linux tcp_non_congestion_loss_retransmit()). REQUIRES: a flight.
void repair_uncongested(ControlBlock& cb);

// The retransmission timer has run out (RFC 6298 5.4-5.6, RFC 5681 3.1, RFC 5682).
void recovery_on_timeout(ControlBlock& cb, Time now);

}  // namespace twinstack::tcp
