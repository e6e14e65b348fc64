// The segment that answers a request: nothing is out, all that is queued fits into one segment and into the peer's
// window, and nothing else is to be said. plan_lone_segment() does what transmit.cc would find step by step to be done.
// fast_path_test.cc holds it against transmit.cc.
#pragma once

#include "base/clock.h"
#include "tcp/connection.h"

namespace twinstack::tcp {

// False, and nothing done, when it is not such a segment.
[[nodiscard]] bool plan_lone_segment(ControlBlock& cb, Host& host, Time now, SegmentPlan& plan);

}  // namespace twinstack::tcp
