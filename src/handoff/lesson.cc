#include "handoff/lesson.h"

#include <utility>
#include <vector>

#include "wire/build.h"

namespace twinstack::handoff {
namespace {

FlowKey seen_from_peer(FlowKey flow) {
  std::swap(flow.local, flow.remote);
  std::swap(flow.local_port, flow.remote_port);
  return flow;
}

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
  return (min.options & tcp::kOptTimestamps) != 0 && min.srtt_us != 0;
}

tcp::MinTcp before_lesson(const tcp::MinTcp& min) noexcept {
  tcp::MinTcp before = min;
  before.snd_una -= kLessonBytes;
  return before;
}

Result<> teach(Connection& conn, const tcp::MinTcp& min, std::uint32_t ts_val) {
  constexpr std::uint32_t kUsPerTick = 1000;
  const bool microseconds = (min.options & tcp::kOptTsMicroseconds) != 0;
  const std::uint32_t round_trip = microseconds ? min.srtt_us : (min.srtt_us + kUsPerTick - 1) / kUsPerTick;
  wire::Segment ack = last_ack(min);
  ack.options.has_timestamps = true;
  ack.options.ts_val = min.ts_recent;  // 0 when not known, which Linux takes for just that
  ack.options.ts_ecr = ts_val - round_trip;
  if (ack.options.ts_ecr == 0) --ack.options.ts_ecr;  // 0 is none
  const FlowKey flow = seen_from_peer(min.flow);
  std::vector<std::byte> frame(wire::header_bytes(flow, ack));
  wire::write_headers(frame, {}, flow, ack, 0);
  wire::fill_checksum(frame);
  const ByteView part(frame);
  const nic::RxFrame whole{.parts = {&part, 1}, .length_bytes = static_cast<std::uint32_t>(frame.size())};
  return conn.path->inject({&whole, 1});
}

void forget_lesson(const Connection& conn, kernel::Snapshot& snapshot) noexcept {
  if (!conn.lesson_una || snapshot.min.snd_una + kLessonBytes != *conn.lesson_una) return;
  snapshot.min.snd_una += kLessonBytes;
  snapshot.unacked = snapshot.unacked.subspan(kLessonBytes);
}

}  // namespace twinstack::handoff
