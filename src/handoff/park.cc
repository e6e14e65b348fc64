#include "handoff/park.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "handoff/inject.h"
#include "wire/build.h"

namespace twinstack::handoff {
namespace {

using engine::CommandOp;

// A segment that could have brought it. `known`: the state of the stack that is to take it.
std::vector<std::byte> segment_with(const Connection& conn, const kernel::LateBytes& late, const tcp::MinTcp& known) {
  const FlowKey from_peer = reversed(conn.kernel->flow());
  wire::Segment segment;
  segment.seq = Seq(late.first_seq);
  segment.ack = max(Seq(late.snd_una), Seq(known.snd_una));
  segment.flags = static_cast<std::uint8_t>(wire::kAck | (late.fin ? wire::kFin : 0));
  segment.window = static_cast<std::uint16_t>(known.snd_wnd >> known.snd_wscale);
  // Not before the peer's clock is known: a made-up value would have PAWS drop what it sends.
  if ((known.options & tcp::kOptTimestamps) != 0 && known.ts_recent != 0) {
    segment.options.has_timestamps = true;
    segment.options.ts_val = known.ts_recent;
  }
  std::vector<std::byte> frame(wire::kMaxHeaderBytes + late.bytes.size());
  const auto payload_bytes = static_cast<std::uint32_t>(late.bytes.size());
  const std::uint32_t head = wire::write_headers(frame, {}, from_peer, segment, payload_bytes);
  std::copy(late.bytes.begin(), late.bytes.end(), frame.begin() + head);
  frame.resize(head + late.bytes.size());
  wire::fill_checksum(frame);
  return frame;
}

}  // namespace

Result<> park(Connection& conn, MoveTools& tools) {
  ASSIGN_OR_RETURN(const kernel::LateBytes late, conn.kernel->park(tools.receive_room));
  const bool is_owed = !late.bytes.empty() || late.fin;
  const Seq end = Seq(late.first_seq) + static_cast<std::uint32_t>(late.bytes.size());
  conn.acknowledged_fin.reset();
  if (late.fin) conn.acknowledged_fin = end;
  // What went wrong with what only the kernel had is no failure like others.
  const auto told = [is_owed](auto result) -> decltype(result) {
    if (result || !is_owed) return result;
    return error(ErrorCode::kBroken, "late bytes: " + result.error().message());
  };
  engine::Command silent{.op = CommandOp::kSilent, .id = conn.hw};
  silent.min.snd_nxt = late.snd_nxt;
  ASSIGN_OR_RETURN(const engine::Reply reply, told(conn.port->request(silent)));
  const tcp::MinTcp& known = reply.state.min;
  if (!is_owed && Seq(late.snd_una) <= Seq(known.snd_una)) return {};
  // One IP packet carries less than 64 KB.
  constexpr std::size_t kMost = 32768;
  kernel::LateBytes piece = late;
  piece.fin = false;
  std::size_t done = 0;
  do {
    piece.first_seq = late.first_seq + static_cast<std::uint32_t>(done);
    piece.bytes = late.bytes.subspan(done, std::min(kMost, late.bytes.size() - done));
    const auto handed = told(inject_frame(conn, segment_with(conn, piece, known)));
    if (!handed && !late.bytes.empty()) return handed;  // an acknowledgement alone can be missed
    done += piece.bytes.size();
  } while (done < late.bytes.size());
  if (late.bytes.empty()) return {};
  ASSIGN_OR_RETURN(const engine::Reply after, told(conn.port->request({.op = CommandOp::kQuery, .id = conn.hw})));
  if (Seq(after.state.min.rcv_nxt) < end) return error(ErrorCode::kBroken, "the engine had no room for late bytes");
  return {};
}

Result<> give_acknowledged_fin(Connection& conn, const tcp::MinTcp& known) {
  if (!conn.acknowledged_fin) return {};
  const Seq seq = *std::exchange(conn.acknowledged_fin, std::nullopt);
  const kernel::LateBytes fin{
      .first_seq = seq.raw(), .bytes = {}, .fin = true, .snd_una = known.snd_una, .snd_nxt = known.snd_nxt};
  // Without a timestamp: what was injected before it may carry a newer one than is known here (PAWS).
  tcp::MinTcp without_stamps = known;
  without_stamps.options = static_cast<std::uint8_t>(without_stamps.options & ~tcp::kOptTimestamps);
  const std::vector<std::byte> frame = segment_with(conn, fin, without_stamps);
  const ByteView part(frame);
  const nic::RxFrame whole{.parts = {&part, 1}, .length_bytes = static_cast<std::uint32_t>(frame.size())};
  (void)conn.kernel->make_room(1);
  const auto given = conn.path->inject({&whole, 1});
  if (given) return {};
  return error(ErrorCode::kBroken, "the peer's FIN: " + given.error().message());
}

}  // namespace twinstack::handoff
