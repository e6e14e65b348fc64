// segment_text: a segment as scripts write it, to SegmentSpec and, for what was sent, back to text.
#pragma once

#include <string>

#include "base/result.h"
#include "line.h"
#include "script.h"
#include "wire/segment.h"

namespace twinstack::conformance {

// Reads the rest of the line: [flow:] FLAGS SEQ[+BYTES] [ack N] [win N] ...
Result<SegmentSpec> read_segment(Line& line);

// As read_segment(), and every number must be exact, so that the segment can be made.
Result<SegmentSpec> read_exact_segment(Line& line);

// The n-th of the segments that `spec` stands for.
[[nodiscard]] SegmentSpec repetition(const SegmentSpec& spec, std::uint32_t n);

// What segments of a flow count from.
struct FlowBase {
  Seq sender_initial;
  Seq receiver_initial;
  std::uint32_t sender_first_ts = 0;
  std::uint32_t receiver_first_ts = 0;
};

// The segment in the scripts' words, numbers relative to `base`.
[[nodiscard]] std::string to_text(const wire::Segment& segment, std::uint32_t payload_bytes, const FlowBase& base);

// Empty when `segment` is as `wanted` says, else the first difference in words.
[[nodiscard]] std::string difference(const SegmentSpec& wanted, const wire::Segment& segment,
                                     std::uint32_t payload_bytes, std::uint8_t ttl, const FlowBase& base);

}  // namespace twinstack::conformance
