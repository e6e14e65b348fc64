// The threaded form of stream_peer: blocking sockets, two threads per connection, time-outs by SO_RCVTIMEO/SO_SNDTIMEO.
#pragma once

#include "base/result.h"
#include "stream_options.h"
#include "stream_report.h"

namespace twinstack::peers {

[[nodiscard]] Result<> run_stream_threads(Role role, const StreamOptions& options, StreamReport& report);

}  // namespace twinstack::peers
