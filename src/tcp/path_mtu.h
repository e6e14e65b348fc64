// Path MTU: what an ICMP error says after the checks of RFC 5927, and what no ICMP error says (RFC 4821, RFC 8899): a
// path that swallows full segments is noticed by its timeouts; segments become small, and later grow again by probes
// that cost nothing when they are lost. Sizes are of payload and options of each segment, as MinTcp::mss.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"

namespace twinstack::tcp {

// What is known of the path beyond what the interface, the route and the peer allow (`top`); in the ColdState while
// there is a search, or a router's word holds. Full segments are as large as `high`, and in a search as `low`.
// INVARIANT: low <= high <= top while in_use().
struct PathMtu {
  bool searching = false;  // for the largest segment that the path carries
  bool proved = false;     // ... of which `low` is known to arrive
  bool told = false;       // a router has lowered `high`
  bool suspected = false;  // ... since something larger seems not to arrive: by timeouts, or as known from before
  bool narrow = false;     // ... and a probe was lost lately
  std::uint16_t low = 0;   // what is sent
  std::uint16_t high = 0;  // the most there could be
  std::uint16_t top = 0;
  std::uint16_t probe = 0;  // under way with this size; 0 = none
  Seq probe_seq;
  Seq probe_end;
  Seq una;          // snd_una when segments became as small as `low`: anything beyond proves it
  Time told_at{};   // when `high` was last lowered by a router
  Time raise_at{};  // from then on `top` is tried again

  [[nodiscard]] bool in_use() const noexcept { return searching || told; }
};

// The retransmission timer has run out again and again (RFC 4821 7.7): the path may swallow large segments. True when
// the segments were made smaller.
bool suspect_black_hole(ControlBlock& cb, Time now);

// The next new segment as a probe of a larger size (RFC 4821 7.4), when one is due and there is enough to send behind
// it to tell its loss from others. True when planned.
bool plan_size_probe(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan);

// snd_una has moved: the probe may have arrived.
void size_probe_on_ack(ControlBlock& cb) noexcept;

// Something goes again: whether a probe arrives can no longer be told by the ACKs (Linux __tcp_retransmit_skb()).
void forget_size_probe(ControlBlock& cb) noexcept;

// A loss was found. When it is the probe's, it says nothing about congestion (RFC 4821 7.6.2): the segment goes again
// in smaller pieces and true is returned.
bool size_probe_lost(ControlBlock& cb);

}  // namespace twinstack::tcp
