#include "tcp/fast_open.h"

#include <algorithm>

#include "base/assert.h"
#include "tcp/connection.h"
#include "tcp/flight.h"
#include "tcp/loss_marks.h"
#include "tcp/recovery.h"
#include "tcp/timers.h"

namespace twinstack::tcp {

void repeat_syn_data(ControlBlock& cb, std::uint32_t bytes, Time now) {
  ASSERT(cb.snd_nxt == cb.snd_una && cb.snd_nxt == cb.write_seq);
  on_queued(cb, bytes, false);
  while (cb.snd_nxt != cb.write_seq) {
    const std::uint32_t here = std::min<std::uint32_t>(bytes_between(cb.snd_nxt, cb.write_seq), cb.mss);
    add_sent(cb, cb.snd_nxt, here, now);
    cb.snd_nxt += here;
  }
  Flight& f = *cb.flight;
  f.sent.back().set(kPushed);
  for (auto p = f.sent.first(); p != f.sent.end(); ++p) mark_lost(cb, p);
  repair_uncongested(cb);
  rearm_retransmit(cb, now);
}

void hold_ack_for_data(ControlBlock& cb, Time now) {
  cb.ack_timeout_ms = kShortestAckTimeoutMs;
  cb.clear(kAckNow);
  cb.set(kAckOwed);
  arm_delayed_ack(cb, now);
}

}  // namespace twinstack::tcp
