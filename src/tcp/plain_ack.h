// The ACK that nearly all are where programs ask and answer: it acknowledges a lone segment (lone_segment.h), and
// nothing waits behind that. What ack.cc finds out step by step is known then; take_plain_ack() only does what comes of
// it. fast_path_test.cc holds it against ack.cc.
#pragma once

#include "base/clock.h"
#include "tcp/connection.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// False, and nothing done, when it is not such an ACK. REQUIRES: as process_ack(); no SACK option, no ECN echo, no
// ColdState; timestamps or none are as negotiated.
[[nodiscard]] bool take_plain_ack(ControlBlock& cb, const wire::Segment& segment, Host& host, Time now);

}  // namespace twinstack::tcp
