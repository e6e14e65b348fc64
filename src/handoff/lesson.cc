#include "handoff/lesson.h"

#include <vector>

#include "tcp/congestion/congestion.h"
#include "wire/build.h"

namespace twinstack::handoff {
namespace {

wire::Segment last_ack(const tcp::MinTcp& min) {
  wire::Segment ack;
  ack.seq = Seq(min.rcv_nxt);
  ack.ack = Seq(min.snd_una);
  ack.flags = wire::kAck;
  ack.window = static_cast<std::uint16_t>(min.snd_wnd >> min.snd_wscale);
  return ack;
}

}  // namespace

bool can_be_taught(const tcp::MinTcp& min) noexcept {
  constexpr std::uint32_t kShare = 64;  // of the window, which may be lost
  const bool waits_for_more = (min.flags & tcp::kFlagMoreFollows) != 0;
  const std::uint32_t rounded_off = min.snd_wnd & ((1U << min.snd_wscale) - 1);
  const bool window_fits = rounded_off <= min.snd_wnd / kShare;
  return (min.options & tcp::kOptTimestamps) != 0 && min.srtt_us != 0 && !waits_for_more && window_fits;
}

tcp::MinTcp before_lesson(const tcp::MinTcp& min) noexcept {
  tcp::MinTcp before = min;
  before.snd_una -= kLessonBytes;
  // Which takes every acknowledged segment on while it knows no bandwidth, as none does that has just been restored.
  const bool is_bbr = tcp::congestion_kind(before.congestion.data()) == tcp::CongestionKind::kBbr;
  if (is_bbr && before.cwnd_segments > 1) --before.cwnd_segments;
  return before;
}

Result<> teach(const Connection& conn, const tcp::MinTcp& min, bool with_clock) {
  constexpr std::uint32_t kUsPerTick = 1000;
  const bool microseconds = (min.options & tcp::kOptTsMicroseconds) != 0;
  const std::uint32_t round_trip = microseconds ? min.srtt_us : (min.srtt_us + kUsPerTick - 1) / kUsPerTick;
  ASSIGN_OR_RETURN(const std::uint32_t now, conn.kernel->timestamp_clock());
  wire::Segment ack = last_ack(min);
  ack.options.has_timestamps = true;
  ack.options.ts_val = with_clock ? min.ts_recent : 0;  // Linux takes 0 for not known
  ack.options.ts_ecr = now - round_trip;
  if (ack.options.ts_ecr == 0) --ack.options.ts_ecr;  // 0 is none
  const FlowKey flow = reversed(conn.kernel->flow());
  std::vector<std::byte> frame(wire::header_bytes(flow, ack));
  wire::write_headers(frame, {}, flow, ack, 0);
  wire::fill_checksum(frame);
  const ByteView part(frame);
  const nic::RxFrame whole{.parts = {&part, 1}, .length_bytes = static_cast<std::uint32_t>(frame.size())};
  return conn.path->inject({&whole, 1});
}

}  // namespace twinstack::handoff
