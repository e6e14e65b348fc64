// Segments out: for each connection that may have something to say, ask the TCP core and build the frames in place.
#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "engine/conn_host.h"
#include "engine/lane.h"
#include "wire/build.h"

namespace twinstack::engine {
namespace {

// How far the program may run ahead of the acknowledgements: twice the congestion window, between this and
// tcp_wmem (as Linux's send buffer auto-tuning).
constexpr std::uint32_t kMinSendBuffer = 128U << 10;
// Between two tries on a device that takes nothing.
constexpr Duration kBlockedRetry = std::chrono::milliseconds(1);
// Segments of one connection in a row before the next has its turn.
constexpr std::uint64_t kSegmentsPerTurn = 32;
// Segments of one poll, more or less a turn: whoever has a command for the lane waits for its end.
constexpr std::uint64_t kSegmentsPerPoll = 128;
// A segment may be made of as many pieces as it has bytes: so many count for another segment.
constexpr std::uint64_t kPiecesPerSegment = 32;

std::uint16_t send_buffer_units(std::uint32_t bytes) noexcept {
  return static_cast<std::uint16_t>((bytes + HwConnRecord::kSendBufferUnit - 1) / HwConnRecord::kSendBufferUnit);
}

}  // namespace

bool Lane::allocate_frame() {
  tx_frame_ = link_.allocate_tx();
  if (!tx_frame_.empty()) return true;
  link_.flush();
  tx_frame_ = link_.allocate_tx();
  return !tx_frame_.empty();
}

void Lane::join_transmit_list(std::uint32_t index) {
  HwConn& conn = conns_[index];
  if (conn.state != ConnState::kActive) return;
  conn.flags |= kInTransmitList;
  conn.transmit_next = kNone;
  if (transmit_tail_ == kNone)
    transmit_head_ = index;
  else
    conns_[transmit_tail_].transmit_next = index;
  transmit_tail_ = index;
}

void Lane::transmit(Time now) {
  // One turn for each connection that is in the list now; what has more to send goes to its end.
  const std::uint32_t last = transmit_tail_;
  const std::uint64_t most = transmit_work_ + kSegmentsPerPoll;
  while (transmit_head_ != kNone && transmit_work_ < most) {
    if (!link_takes_more()) {
      if (blocked_rounds_ < kBlockedRounds) ++blocked_rounds_;
      retry_at_ = now + kBlockedRetry;
      return;
    }
    blocked_rounds_ = 0;
    const std::uint32_t index = transmit_head_;
    transmit_head_ = conns_[index].transmit_next;
    if (transmit_head_ == kNone) transmit_tail_ = kNone;
    conns_[index].flags &= static_cast<std::uint8_t>(~kInTransmitList);
    if (conns_[index].state == ConnState::kActive) {
      if (!transmit_connection(index, now)) want_transmit(index);
      check_drained(index);
    }
    if (index == last) break;
  }
}

// False when the connection has (or may have) more to send than it could now.
bool Lane::transmit_connection(std::uint32_t index, Time now) {
  HwConn& conn = conns_[index];
  ConnHost host(*this, index);
  const std::uint64_t most = transmit_work_ + kSegmentsPerTurn;
  for (;;) {
    if (transmit_work_ >= most) return false;
    if (!link_takes_more()) return false;
    if (!tcp::poll_transmit(conn.tcb, host, now, plan_)) break;
    send_segment(conn, records_[index], plan_, std::exchange(tx_frame_, {}));
  }
  schedule(index, now);
  return true;
}

void Lane::send_segment(HwConn& conn, HwConnRecord& record, const tcp::SegmentPlan& plan, std::span<std::byte> room) {
  ++counters_.segments_out;
  ++transmit_work_;
  const NextHop& hop = hops_[record.hop];
  const wire::PathHeader path{.source_mac = hop.source,
                              .destination_mac = hop.destination,
                              .ttl = record.ttl,
                              .traffic_class = record.traffic_class,
                              .flow_label = record.flow_label};
  const wire::HeaderShape shape = wire::shape_of(record.flow, plan.segment);
  const std::uint32_t head = shape.bytes();
  wire::InternetSum sum;
  if (plan.payload_bytes > 0)
    gather(conn, plan.segment.seq, plan.payload_bytes, room.subspan(head, plan.payload_bytes), sum);
  wire::write_headers(room, path, record.flow, plan.segment, shape, plan.payload_bytes, sum);
  link_.commit_tx(head + plan.payload_bytes);
}

// Copies [seq, seq + bytes) of the send queue. The cursor makes new data in order constant time; what goes again does
// not move it.
void Lane::gather(HwConn& conn, Seq seq, std::uint32_t bytes, std::span<std::byte> out, wire::InternetSum& sum) {
  const auto& arena = owner_of(conn).arena();
  SendPlace at{.piece = conn.cursor_piece, .start = Seq(conn.cursor_seq)};
  if (at.piece == kNone) at = first_place(conn);
  const bool again = seq < at.start;
  if (again) at = find_again(conn, seq);
  for (;;) {
    ASSERT(at.piece != kNone);
    const Piece& piece = pieces_.at(at.piece);
    const std::uint32_t skip = bytes_between(at.start, seq);
    if (skip < piece.bytes()) {
      const std::uint32_t here = std::min(piece.bytes() - skip, bytes);
      wire::copy_and_sum(out, arena.chunk(piece.chunk).subspan(piece.offset + skip, here), sum);
      bytes -= here;
      if (bytes == 0) break;
      out = out.subspan(here);
      seq += here;
    }
    if (++counters_.pieces_walked % kPiecesPerSegment == 0) ++transmit_work_;
    at = {.piece = piece.next, .start = at.start + piece.bytes()};
  }
  if (again) return;
  conn.cursor_piece = at.piece;
  conn.cursor_seq = at.start.raw();
}

// The piece that holds `seq`, which was sent before. After SendMarks::kEvery steps at most, but for what no walk has
// been over yet.
SendPlace Lane::find_again(const HwConn& conn, Seq seq) {
  const auto index = static_cast<std::uint32_t>(&conn - conns_.data());
  SendPlace at = marks_.last_before(index, seq);
  if (at.piece == kNone) at = first_place(conn);
  std::uint32_t passed = 0;
  for (Piece* piece = &pieces_.at(at.piece); bytes_between(at.start, seq) >= piece->bytes();) {
    at = {.piece = piece->next, .start = at.start + piece->bytes()};
    ASSERT(at.piece != kNone);
    piece = &pieces_.at(at.piece);
    if (++passed % SendMarks::kEvery != 0) continue;
    // Behind all others: else the next mark would have ended the walk.
    piece->length |= Piece::kMarked;
    marks_.add(index, at);
  }
  counters_.pieces_walked += passed;
  transmit_work_ += passed / kPiecesPerSegment;
  return at;
}

// It is out of its send queue.
void Lane::give_back(std::uint32_t index, LaneSession& owner, const Piece& piece) {
  if ((piece.length & (Piece::kEngineChunk | Piece::kMarked)) == 0) {  // as most
    --owner.pieces_in_flight;
    return;
  }
  if ((piece.length & Piece::kMarked) != 0) marks_.pop_front(index);
  if ((piece.length & Piece::kEngineChunk) != 0)
    owner.pool().drop(piece.chunk);
  else
    --owner.pieces_in_flight;
}

// `bytes` more are acknowledged: the pieces go back to whom they belong.
void Lane::release_acknowledged(std::uint32_t index, std::uint32_t bytes) {
  HwConn& conn = conns_[index];
  HwConnRecord& record = records_[index];
  LaneSession& owner = owner_of(conn);
  const std::uint32_t engine_part = std::min(bytes, conn.engine_queued_bytes);
  conn.engine_queued_bytes -= engine_part;
  std::uint32_t skip = conn.send_head_skip + bytes;
  while (!conn.send_queue.empty()) {
    const Piece piece = pieces_.at(conn.send_queue.head);
    if (skip < piece.bytes()) break;
    skip -= piece.bytes();
    if (conn.cursor_piece == conn.send_queue.head) conn.cursor_piece = kNone;
    pieces_.pop_front(conn.send_queue);
    give_back(index, owner, piece);
  }
  ASSERT(skip == 0 || !conn.send_queue.empty());  // no more is acknowledged than was queued
  conn.send_head_skip = skip;
  auto& slot = owner.slot(record.slot);
  const std::uint64_t acked = slot.tx_acked_bytes.load(std::memory_order_relaxed) + (bytes - engine_part);
  const std::uint32_t queued = queued_bytes(conn);
  // Else no completion may follow: the application sets want_tx_space and then looks at this counter again.
  if (queued == 0)
    slot.tx_acked_bytes.store(acked, std::memory_order_release);
  else
    slot.tx_acked_bytes.store(acked, std::memory_order_seq_cst);
  const std::uint32_t limit = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(std::uint64_t{conn.tcb.cwnd} * conn.tcb.mss * 2, kMinSendBuffer,
                                std::max(kMinSendBuffer, host_settings_.tcp_wmem_max_bytes)));
  if (limit > record.snd_buf_bytes()) {
    record.snd_buf_units = send_buffer_units(limit);
    slot.tx_limit_bytes.store(record.snd_buf_bytes(), std::memory_order_relaxed);
  }
  // When nothing is queued the program is told in any case: its wish, a line of memory of its own, is not looked at.
  const bool space_wanted =
      queued > 0 && queued <= record.snd_buf_bytes() / 2 && slot.want_tx_space.load(std::memory_order_seq_cst) != 0;
  if (queued == 0 || space_wanted) {
    if (space_wanted) slot.want_tx_space.store(0, std::memory_order_relaxed);
    complete(owner, record.ring,
             ipc::CompleteEntry{.op = ipc::CompleteOp::kSent,
                                .flags = 0,
                                .reserved0 = 0,
                                .slot = record.slot,
                                .tag = record.tag,
                                .chunk = 0,
                                .offset = 0,
                                .length = 0,
                                .hw_conn_id = id_of(index).raw()});
  }
}

void Lane::tell_drained(std::uint32_t index) {
  HwConn& conn = conns_[index];
  conn.flags &= static_cast<std::uint8_t>(~kDraining);
  const HwConnRecord& record = records_[index];
  push_event(Event{.type = EventType::kDrained,
                   .cause = Cause::kNothing,
                   .id = id_of(index),
                   .session = conn.session,
                   .slot = record.slot,
                   .tag = record.tag});
}

}  // namespace twinstack::engine
