// Stats: what a host's TCP has counted, named as Linux's SNMP and TcpExt counters (nstat).
#pragma once

#include <cstdint>

namespace twinstack::stack {

struct Stats {
  std::uint64_t active_opens = 0;
  std::uint64_t passive_opens = 0;
  std::uint64_t attempt_fails = 0;
  std::uint64_t estab_resets = 0;
  std::uint64_t in_segs = 0;
  std::uint64_t out_segs = 0;
  std::uint64_t out_rsts = 0;
  std::uint64_t in_errs = 0;       // not TCP over IP, or damaged
  std::uint64_t not_for_us = 0;    // another destination, a source that nobody may have
  std::uint64_t no_ports = 0;      // for no socket: answered by RST
  std::uint64_t listen_drops = 0;  // SYNs and ACKs that a full queue cost
  std::uint64_t listen_overflows = 0;
  std::uint64_t peer_limit_drops = 0;  // ... the bound of one peer
  std::uint64_t time_wait_overflow = 0;
  std::uint64_t time_wait_recycled = 0;  // a new connection took one over
  std::uint64_t time_wait_killed = 0;    // by a RST
  std::uint64_t abort_on_data = 0;       // data after close()
  std::uint64_t abort_on_close = 0;      // unread data at close()
  std::uint64_t abort_on_linger = 0;
  std::uint64_t abort_on_timeout = 0;
  std::uint64_t abort_failed = 0;
  std::uint64_t defer_accept_drops = 0;
  std::uint64_t out_of_window_icmps = 0;
  std::uint64_t icmps = 0;  // that belonged to a connection
  std::uint64_t orphans_refused = 0;
};

}  // namespace twinstack::stack
