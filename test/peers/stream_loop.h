// The single-threaded loops of stream_peer: client and server on Readiness.
#pragma once

#include "base/result.h"
#include "stream_options.h"
#include "stream_report.h"

namespace twinstack::peers {

// Runs until all connections have ended (client) or until told to stop (server: SIGTERM, or exit_after_connections).
[[nodiscard]] Result<> run_stream_loop(Role role, const StreamOptions& options, StreamReport& report);

// The header for connection number `index` of this client.
[[nodiscard]] StreamHeader make_header(const StreamOptions& options, std::uint64_t index);
// When a client that sends by time has to stop; 0 = it sends by bytes.
[[nodiscard]] std::uint64_t stop_time_ns(const StreamOptions& options);

}  // namespace twinstack::peers
