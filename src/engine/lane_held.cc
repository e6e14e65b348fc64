// Packets that wait for a move to end, copied into chunks of the session: in order, each processed once by the owner
// that comes out of the move.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "engine/lane.h"
#include "tcp/cold_state.h"
#include "wire/build.h"

namespace twinstack::engine {
namespace {

// Per connection; beyond it packets are dropped, and the peer sends them again.
constexpr std::uint32_t kMaxHeldBytes = 4U << 20;
// Each frame of the peer counts for so much more: all are processed in one go when the move ends, and small ones take
// as long.
constexpr std::uint32_t kHeldFrameBytes = 512;
// Of one frame: 64 KiB in chunks of at least 2 KiB, and one for a begun chunk.
constexpr std::size_t kMaxFramePieces = 64;
// A frame begins where so much of it fits before the chunk ends: all its headers lie in its first piece (nic/link.h).
constexpr std::size_t kHeaderRoom = 256;
// Payload of the packets that out-of-order data is turned back into.
constexpr std::size_t kOutOfOrderPiece = 1200;
constexpr std::size_t kSmallestPiece = 256;

}  // namespace

// Lets the last piece, of the same frame, grow into the rest of its chunk. Pieces of frames that are complete never
// change: the driver may be reading them.
bool Lane::extend_last(PieceList& list, LaneSession& session, ByteView& bytes) {
  Piece& last = pieces_.at(list.tail);
  const std::uint32_t end = last.offset + last.bytes();
  const auto here = static_cast<std::uint32_t>(std::min<std::size_t>(session.chunk_bytes() - end, bytes.size()));
  if (here == 0) return false;
  std::memcpy(session.arena().chunk(last.chunk).data() + end, bytes.data(), here);
  last.length += here;
  bytes = bytes.subspan(here);
  return true;
}

// Appends bytes to a held list. `start`: flags of a frame's first piece, 0 once that is there. REQUIRES: there are
// pieces and chunks for them.
void Lane::hold_bytes(PieceList& list, LaneSession& session, ByteView bytes, std::uint32_t& start) {
  while (!bytes.empty()) {
    if (start == 0 && extend_last(list, session, bytes)) continue;
    std::uint32_t chunk = kNone;
    std::uint32_t offset = 0;
    if (!list.empty()) {
      const Piece& last = pieces_.at(list.tail);
      chunk = last.chunk;
      offset = last.offset + last.bytes();
    }
    if (chunk == kNone || session.chunk_bytes() - offset < (start != 0 ? std::min(kHeaderRoom, bytes.size()) : 1)) {
      chunk = session.pool().take();
      offset = 0;
    }
    ASSERT(chunk != kNone);
    const auto room = session.arena().chunk(chunk).subspan(offset);
    const std::size_t here = std::min(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), here);
    const std::uint32_t flags = Piece::kEngineChunk | std::exchange(start, 0U);
    const bool appended = pieces_.append(
        list, Piece{.chunk = chunk, .offset = offset, .length = static_cast<std::uint32_t>(here) | flags});
    ASSERT(appended);
    bytes = bytes.subspan(here);
  }
}

Waiting* Lane::waiting_of(std::uint32_t index) noexcept {
  const std::uint16_t at = conns_[index].waiting;
  return at == kNoWaiting ? nullptr : &waiting_.at(at);
}

Waiting* Lane::want_waiting(std::uint32_t index) noexcept {
  if (conns_[index].waiting == kNoWaiting) conns_[index].waiting = waiting_.take();
  return waiting_of(index);
}

void Lane::end_waiting(std::uint32_t index) noexcept {
  const Waiting* waiting = waiting_of(index);
  if (waiting == nullptr || !waiting->empty()) return;
  waiting_.put_back(std::exchange(conns_[index].waiting, kNoWaiting));
}

bool Lane::hold_frame(std::uint32_t index, WaitingFrames which, std::span<const ByteView> parts, std::uint32_t length,
                      std::uint32_t charged) {
  Waiting* waiting = want_waiting(index);
  LaneSession& owner = owner_of(conns_[index]);
  // All or nothing: a frame without its end would be a wrong packet. The room is counted first.
  const std::uint32_t needed = length / owner.chunk_bytes() + 2;
  const std::uint32_t charge = length + (charged != 0 ? kHeldFrameBytes : 0);
  if (waiting == nullptr || waiting->held_bytes + charge > kMaxHeldBytes || owner.pool().available() < needed ||
      pieces_.available() < needed) {
    ++counters_.held_dropped;
    return false;
  }
  ++counters_.held_frames;
  waiting->held_bytes += charge;
  std::uint32_t start = Piece::kFrameStart | charged;
  Payload(parts, 0, length).for_each([&](ByteView piece) { hold_bytes(waiting->*which, owner, piece, start); });
  return true;
}

// The kernel will see this very packet, injected after the return. Until then the peer may repeat it as often as it
// likes, or anybody who can guess its numbers: one of each kind waits, and the peer sends again what the kernel lacks.
void Lane::hold_for_kernel(std::uint32_t index, tcp::Arrival arrival, std::span<const ByteView> parts,
                           std::uint32_t length) {
  const auto kind = static_cast<std::uint8_t>(
      1U << (static_cast<unsigned>(arrival) - static_cast<unsigned>(tcp::Arrival::kToSoftwareReset)));
  if (const Waiting* waiting = waiting_of(index); waiting != nullptr && (waiting->for_kernel & kind) != 0) {
    ++counters_.held_repeated;
  } else if (hold_frame(index, &Waiting::held, parts, length)) {
    waiting_of(index)->for_kernel |= kind;
  }
}

// Takes up to `count` pieces off the front; returns what they were charged.
std::uint32_t Lane::drop_pieces(PieceList& list, LaneSession& session, std::uint32_t count) {
  std::uint32_t bytes = 0;
  for (; count > 0 && !list.empty(); --count) {
    const Piece piece = pieces_.at(list.head);
    bytes += piece.bytes() + ((piece.length & Piece::kCharged) != 0 ? kHeldFrameBytes : 0);
    pieces_.pop_front(list);
    // Pieces of one chunk follow each other; the chunk goes with the last of them.
    const bool last = list.empty() || pieces_.at(list.head).chunk != piece.chunk;
    if (last) session.pool().drop(piece.chunk);
  }
  return bytes;
}

void Lane::drop_held(std::uint32_t index, std::uint32_t late_pieces, std::uint32_t held_pieces) {
  Waiting* waiting = waiting_of(index);
  if (waiting == nullptr) return;
  LaneSession& owner = owner_of(conns_[index]);
  waiting->held_bytes -= drop_pieces(waiting->late, owner, late_pieces);
  waiting->held_bytes -= drop_pieces(waiting->held, owner, held_pieces);
}

// What waits lies in chunks that the program can write. A frame is used as a copy of our own, and only if that is still
// one of this connection: a program may spoil its own stream, and nobody else's. Empty: it is not.
ByteView Lane::own_copy(std::uint32_t index, std::span<const ByteView> parts, std::uint32_t length) {
  held_copy_.resize(length);
  Payload(parts, 0, length).copy_to(held_copy_);
  const ByteView copy(held_copy_);
  wire::TcpPacket packet;
  const auto verdict = wire::parse_frame({&copy, 1}, length, wire::ChecksumMode::kAcceptPartial, packet);
  if (verdict == wire::ParseVerdict::kOk && packet.flow == records_[index].flow) return copy;
  ++counters_.held_dropped;
  return {};
}

void Lane::for_each_frame(std::uint32_t index, const PieceList& list, const FrameFn& fn) {
  const auto& arena = owner_of(conns_[index]).arena();
  std::array<ByteView, kMaxFramePieces> parts;
  std::uint32_t at = list.head;
  while (at != kNone) {
    std::size_t count = 0;
    std::uint32_t length = 0;
    do {
      const Piece& piece = pieces_.at(at);
      parts[count++] = arena.chunk(piece.chunk).subspan(piece.offset, piece.bytes());
      length += piece.bytes();
      at = piece.next;
    } while (at != kNone && (pieces_.at(at).length & Piece::kFrameStart) == 0 && count < parts.size());
    const ByteView copy = own_copy(index, {parts.data(), count}, length);
    if (!copy.empty()) fn({&copy, 1}, length);
  }
}

// The connection goes, and nobody has taken over the frames that waited: they are the kernel's.
void Lane::held_to_strays(std::uint32_t index) {
  const Waiting* waiting = waiting_of(index);
  if (waiting == nullptr) return;
  const auto keep = [this](std::span<const ByteView> parts, std::uint32_t length) { keep_stray(parts, length); };
  for_each_frame(index, waiting->late, keep);
  for_each_frame(index, waiting->held, keep);
  drop_held(index, UINT32_MAX, UINT32_MAX);
}

std::uint32_t Lane::count_pieces(const PieceList& list) {
  std::uint32_t count = 0;
  for (std::uint32_t at = list.head; at != kNone; at = pieces_.at(at).next) ++count;
  return count;
}

void Lane::report_held(std::uint32_t index, Reply& reply) {
  const Waiting* waiting = waiting_of(index);
  if (waiting == nullptr) return;
  reply.late_head = waiting->late.head;
  reply.late_pieces = count_pieces(waiting->late);
  reply.held_head = waiting->held.head;
  reply.held_pieces = count_pieces(waiting->held);
}

// What lies above rcv_nxt was reported by SACK, and Linux takes no out-of-order queue back: it becomes packets again,
// as the peer could have sent them, that the kernel receives after the return.
void Lane::hold_out_of_order(std::uint32_t index) {
  HwConn& conn = conns_[index];
  if (!tcp::has_out_of_order_data(conn.tcb)) return;
  const HwConnRecord& record = records_[index];
  const FlowKey from_peer = reversed(record.flow);
  wire::Segment segment;
  segment.ack = conn.tcb.snd_una;
  segment.window = static_cast<std::uint16_t>(conn.tcb.snd_wnd >> conn.tcb.snd_wscale);
  segment.flags = wire::kAck;
  if ((conn.tcb.options & tcp::kOptTimestamps) != 0 && conn.tcb.has(tcp::kTsRecentValid)) {
    segment.options.has_timestamps = true;
    segment.options.ts_val = conn.tcb.ts_recent;  // echoes nothing: no round trip is to be measured by it
  }
  // No larger than the peer's own, from which the kernel takes the peer's segment size.
  const std::size_t piece_bytes = std::clamp<std::size_t>(conn.tcb.rcv_mss, kSmallestPiece, kOutOfOrderPiece);
  std::array<std::byte, wire::kMaxHeaderBytes + kOutOfOrderPiece> frame;
  for (const tcp::OutOfOrderBlock& block : conn.tcb.cold->out_of_order) {
    for (std::size_t done = 0; done < block.bytes.size(); done += piece_bytes) {
      const auto here = ByteView(block.bytes).subspan(done, std::min(piece_bytes, block.bytes.size() - done));
      segment.seq = block.seq + static_cast<std::uint32_t>(done);
      const auto payload_bytes = static_cast<std::uint32_t>(here.size());
      const std::uint32_t head = wire::write_headers(frame, {}, from_peer, segment, payload_bytes);
      std::memcpy(frame.data() + head, here.data(), here.size());
      const std::span<std::byte> whole(frame.data(), head + here.size());
      wire::fill_checksum(whole);
      const ByteView part(whole);
      // It came before what waits: the RST at its end, say, is taken for one only behind it. None of it may be dropped
      // for want of room: it was reported by SACK.
      hold_frame(index, &Waiting::late, {&part, 1}, static_cast<std::uint32_t>(whole.size()), 0);
    }
  }
}

}  // namespace twinstack::engine
