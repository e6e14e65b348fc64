// offload(): moves a connection from the kernel to the engine, in ordered steps each of which can be undone. From any
// step before the commit a failure leaves the connection running in the kernel as if nothing had been tried, with the
// reason.
#pragma once

#include "base/result.h"
#include "handoff/connection.h"

namespace twinstack::handoff {

// May the connection move? Nothing is stopped for it, and nothing stays as it was found: offload() looks again for what
// the peer may have changed, and refuses when the program has set an option (Connection::options_changed()).
// REQUIRES: as offload().
[[nodiscard]] Result<> check(Connection& conn, const MoveTools& tools);

// REQUIRES: conn.kernel in phase kRunning, owner kKernel; check() before, with success; conn.port, path, ring,
// hop_index are set; hw is 0. On success hw is the id. kNotEligible: it may not move (now), or check() is due again;
// kNoResource: no slot, chunk or map entry; kTimeout: a call of the program did not end in time. When the socket cannot
// be put back as it was (a holder of the descriptor hinders it: !conn.kernel->is_untouched()), the owner stays
// kToEngine: the caller resets the socket and gives the owner record back then.
[[nodiscard]] Result<MoveReport> offload(Connection& conn, MoveTools& tools);

}  // namespace twinstack::handoff
