// The rings of the applications. Nothing that stands in them is believed: an entry that breaks the rules ends the
// session that wrote it and touches no other.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "engine/conn_host.h"
#include "engine/lane.h"
#include "tcp/cold_state.h"
#include "tcp/window.h"

namespace twinstack::engine {
namespace {

constexpr std::uint32_t kSubmissionsPerPoll = 256;
constexpr std::uint32_t kMaxQueuedBytes = 64U << 20;
// The receive window is tuned no more often than for so many bytes that were read: who exchanges small messages needs
// no larger one. A power of two.
constexpr std::uint32_t kTuningStep = 8192;
// Connections of one session that are offered more than before.
constexpr std::uint32_t kOffersPerPoll = 16;
// Pieces of application chunks that one session may have in flight.
constexpr std::uint32_t kMaxPiecesPerSession = 65536;

}  // namespace

// How many pieces one session may have in flight: no more than are left, so that a greedy one never takes the share of
// the others (Choudhury and Hahne's dynamic threshold).
std::uint32_t Lane::piece_limit() noexcept { return std::min(kMaxPiecesPerSession, pieces_.available()); }

bool Lane::drain_submissions(Time now) {
  bool worked = false;
  rings_wait_ = false;
  for (auto& [number, session] : sessions_) {
    const std::uint32_t chunks_before = session.pool().available();
    for (auto& ring : session.rings())
      worked |= drain_ring(number, session, ring, now, kSubmissionsPerPoll, piece_limit());
    if (session.pool().available() > chunks_before) session.offers_due = session.short_of_chunks.size();
    if (session.offers_due == 0) continue;
    offer_more(session, now);
    worked = true;
  }
  return worked;
}

bool Lane::drain_ring(std::uint32_t session_index, LaneSession& session, LaneRing& ring, Time now, std::uint32_t limit,
                      std::uint32_t piece_limit) {
  using Pop = ipc::SubmitConsumer::Pop;
  const bool was_crowded = ring.submit.backlog() > ring.half_entries;
  std::uint32_t taken = 0;
  for (; taken < limit && !session.broken; ++taken) {
    const Pop pop = ring.waiting ? Pop::kEntry : ring.submit.pop(ring.next);
    if (pop == Pop::kEmpty) break;
    // Not the program's fault: the entry, and the ring behind it, wait.
    ring.waiting = pop == Pop::kEntry && ring.next.op == ipc::SubmitOp::kSend &&
                   (session.pieces_in_flight >= piece_limit || pieces_.available() == 0);
    rings_wait_ |= ring.waiting;
    if (ring.waiting) break;
    const Cause cause = pop == Pop::kCorrupt ? Cause::kBadRingIndex : submit(session_index, session, ring.next, now);
    if (cause != Cause::kNothing) break_session(session_index, session, cause);
  }
  if (taken > 0) ring.submit.release();
  if (taken > 0 && was_crowded) tell_room(session, ring);
  return taken > 0;
}

// The program asks for it when it finds the ring crowded, and then looks again; so whoever leaves it less crowded than
// that must look behind a fence, and nobody else.
void Lane::tell_room(LaneSession& session, LaneRing& ring) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (ring.submit.backlog() > ring.half_entries || ring.want_room->load(std::memory_order_relaxed) == 0) return;
  // First the wish, then the answer: a wish that comes in between is a new one.
  if (ring.want_room->exchange(0, std::memory_order_acq_rel) == 0) return;
  // (When the ring of completions is full the program looks for itself once it has emptied it.)
  complete(session, ring.index,
           ipc::CompleteEntry{.op = ipc::CompleteOp::kRingRoom,
                              .flags = 0,
                              .reserved0 = 0,
                              .slot = kNone,
                              .tag = 0,
                              .chunk = 0,
                              .offset = 0,
                              .length = 0,
                              .hw_conn_id = 0});
}

Cause Lane::submit(std::uint32_t session_index, LaneSession& session, const ipc::SubmitEntry& entry, Time now) {
  ++counters_.submissions;
  switch (entry.op) {
    case ipc::SubmitOp::kSend:
      return submit_send(session_index, session, entry);
    case ipc::SubmitOp::kReturn:
      return submit_return(session_index, session, entry, now);
    case ipc::SubmitOp::kKick:
      return Cause::kNothing;
    case ipc::SubmitOp::kSetHeader:
      return submit_header(session_index, entry);
  }
  return Cause::kBadRingOp;
}

Cause Lane::submit_header(std::uint32_t session_index, const ipc::SubmitEntry& entry) {
  const auto traffic_class = static_cast<std::uint8_t>(entry.length);
  const auto hop_limit = static_cast<std::uint8_t>(entry.length >> 8);
  if (hop_limit == 0 || entry.length != ipc::header_fields(traffic_class, hop_limit)) return Cause::kBadRingOp;
  const std::uint32_t index = resolve(HwConnId(entry.hw_conn_id));
  if (index == kNone || conns_[index].session != session_index) return Cause::kNothing;
  if ((conns_[index].flags & (kInstalled | kExtracted)) != kInstalled) return Cause::kNothing;
  records_[index].traffic_class = traffic_class;
  records_[index].ttl = hop_limit;
  return Cause::kNothing;
}

Cause Lane::submit_send(std::uint32_t session_index, LaneSession& session, const ipc::SubmitEntry& entry) {
  const auto& geometry = session.arena().geometry();
  const std::uint32_t index = resolve(HwConnId(entry.hw_conn_id));
  if (index == kNone || conns_[index].session != session_index) return Cause::kBadRingId;
  if ((conns_[index].flags & (kInstalled | kExtracted)) != kInstalled) return Cause::kBadRingId;
  if (entry.chunk >= geometry.tx_chunk_count || entry.length == 0 || entry.length > geometry.chunk_bytes ||
      entry.offset > geometry.chunk_bytes - entry.length)
    return Cause::kBadRingChunk;
  HwConn& conn = conns_[index];
  if (queued_bytes(conn) + entry.length > kMaxQueuedBytes) return Cause::kRingOverrun;
  Piece* last = conn.send_queue.empty() ? nullptr : &pieces_.at(conn.send_queue.tail);
  if (last != nullptr && last->chunk == entry.chunk && last->offset + last->bytes() == entry.offset) {
    last->length += entry.length;
  } else {
    const bool queued =
        pieces_.append(conn.send_queue, Piece{.chunk = entry.chunk, .offset = entry.offset, .length = entry.length});
    ASSERT(queued);  // drain_ring() has made sure
    ++session.pieces_in_flight;
  }
  __builtin_prefetch(session.arena().chunk(entry.chunk).data() + entry.offset);  // for gather(), soon
  tcp::on_queued(conn.tcb, entry.length, (entry.flags & ipc::kSubmitMore) != 0);
  if ((entry.flags & ipc::kSubmitRecordEnd) != 0) tcp::end_record(conn.tcb);
  want_transmit(index);
  return Cause::kNothing;
}

Cause Lane::submit_return(std::uint32_t session_index, LaneSession& session, const ipc::SubmitEntry& entry, Time now) {
  bool drained = false;
  if (!session.pool().give_back(entry.chunk, entry.length, &drained)) return Cause::kBadRingChunk;
  // The id may be stale: the bytes were posted before the connection went back to the kernel.
  const std::uint32_t index = resolve(HwConnId(entry.hw_conn_id));
  if (index == kNone || conns_[index].session != session_index) return Cause::kNothing;
  HwConn& conn = conns_[index];
  conn.unread_bytes -= std::min(conn.unread_bytes, entry.length);
  // An idle connection owns no chunk.
  if (drained && conn.rx_chunk == entry.chunk && conn.rx_fill == conn.rx_posted) close_rx_chunk(conn, session);
  if (conn.state != ConnState::kActive) return Cause::kNothing;
  const Seq copied_seq = conn.tcb.rcv_nxt - conn.unread_bytes;
  if (((copied_seq.raw() ^ (copied_seq - entry.length).raw()) & ~(kTuningStep - 1)) != 0) {
    tune_receive(index, copied_seq, now);
  }
  if (!tcp::read_matters(conn.tcb, receive_capacity(index))) return Cause::kNothing;
  ConnHost host(*this, index);
  tcp::on_read(conn.tcb, host, now);
  if (tcp::owes_ack(conn.tcb)) {
    want_transmit(index);
    want_post(index);  // other reads matter then
  }
  return Cause::kNothing;
}

void Lane::tune_receive(std::uint32_t index, Seq copied_seq, Time now) {
  const HwConn& conn = conns_[index];
  HwConnKept& kept = kept_[index];
  if ((kept.flags & tcp::kFlagFixedReceiveBuffer) != 0 || !host_settings_.tcp_moderate_rcvbuf) return;
  tcp::measure_receive_rtt(kept.receive, conn.tcb, copied_seq, conn.rcv_buf_bytes, now);
  const std::uint32_t rtt_us = tcp::shorter_rtt_us(conn.tcb, tcp::receive_rtt_us(kept.receive));
  widen_receive(index, tcp::tune_receive_window(kept.receive, conn.tcb, copied_seq, rtt_us, now));
}

void Lane::on_out_of_order(std::uint32_t index) {
  const HwConnKept& kept = kept_[index];
  const tcp::OutOfOrderMemory& memory = region_.out_of_order();
  counters_.out_of_order_pruned = memory.pruned();
  const auto& cold = conns_[index].tcb.cold;
  if (cold && memory.is_scarce_for(cold->share)) return;
  if ((kept.flags & tcp::kFlagFixedReceiveBuffer) != 0 || !host_settings_.tcp_moderate_rcvbuf) return;
  widen_receive(index, tcp::window_with_out_of_order(kept.receive, conns_[index].tcb));
}

void Lane::widen_receive(std::uint32_t index, std::uint32_t wanted) {
  HwConn& conn = conns_[index];
  HwConnKept& kept = kept_[index];
  // Who loses the first segment of a window should be able to keep the rest of it.
  const auto most = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(host_settings_.tcp_rmem_max_bytes / 2, region_.out_of_order().limit() / 4));
  const std::uint32_t window = std::min(wanted, most);
  if (window <= conn.rcv_buf_bytes) return;
  conn.rcv_buf_bytes = window;
  tcp::set_window_clamped(conn.tcb, false);
  kept.window_clamp_bytes = 0;
  kept.rcv_buf_bytes = std::max(kept.rcv_buf_bytes, window * 2);  // the kernel must be able to take it back
}

void Lane::break_session(std::uint32_t session_index, LaneSession& session, Cause cause) {
  if (session.broken) return;
  session.broken = true;
  push_event(Event{.type = EventType::kBadSession, .cause = cause, .session = session_index});
}

// What is free of the buffer; but of the chunks, which all connections of the program share, no connection shall hold
// more than are left (Choudhury and Hahne again) when what it is offered has come. A program that does not read one of
// them can so receive on the others.
std::uint32_t Lane::receive_space(std::uint32_t index) {
  HwConn& conn = conns_[index];
  LaneSession& owner = owner_of(conn);
  const std::uint32_t open_bytes = conn.rx_chunk == kNone ? 0 : owner.chunk_bytes() - conn.rx_fill;
  const std::uint64_t left = std::uint64_t{owner.pool().available()} * owner.chunk_bytes() + open_bytes;
  const std::uint32_t unread = conn.unread_bytes;
  std::uint32_t own = conn.rcv_buf_bytes - std::min(conn.rcv_buf_bytes, unread);
  // While memory for data out of order is scarce, who holds much is offered nothing more (as Linux tcp_prune_queue()).
  if (conn.tcb.cold && region_.out_of_order().is_scarce_for(conn.tcb.cold->share)) {
    own = std::min(own, tcp::offered_window(conn.tcb));
  }
  own = std::min(own, receive_capacity(index));
  const std::uint64_t share = (left - std::min<std::uint64_t>(left, unread)) / 2;
  if (share >= own) return own;
  if ((conn.flags & kShortOfChunks) == 0) want_more(index);
  return static_cast<std::uint32_t>(share);
}

std::uint32_t Lane::receive_capacity(std::uint32_t index) const noexcept {
  const HwConn& conn = conns_[index];
  if (!conn.tcb.has(tcp::kWindowClamped)) return conn.rcv_buf_bytes;
  return std::min(conn.rcv_buf_bytes, kept_[index].window_clamp_bytes);
}

void Lane::want_more(std::uint32_t index) {
  HwConn& conn = conns_[index];
  LaneSession& owner = owner_of(conn);
  auto& list = owner.short_of_chunks;
  // Released connections are taken out when they may be half of the list.
  if (list.size() >= 2 * std::size_t{owner.connections} + kOffersPerPoll) {
    std::erase_if(list, [&](const auto& entry) { return conns_[entry.index].generation != entry.generation; });
    owner.offers_due = std::min(owner.offers_due, list.size());
  }
  conn.flags |= kShortOfChunks;
  list.push_back({.index = index, .generation = conn.generation});
}

// Chunks have come back: who was offered too little may be offered more. (A peer's probe would ask, but seldom.) There
// may be many, and a chunk come back with each poll.
void Lane::offer_more(LaneSession& session, Time now) {
  for (std::uint32_t left = kOffersPerPoll; left > 0 && session.offers_due > 0; --left) {
    const auto [index, generation] = session.short_of_chunks.front();
    session.short_of_chunks.pop_front();
    --session.offers_due;
    HwConn& conn = conns_[index];
    if (conn.generation != generation) continue;
    conn.flags &= static_cast<std::uint8_t>(~kShortOfChunks);
    if (conn.state != ConnState::kActive) continue;
    ConnHost host(*this, index);
    tcp::on_read(conn.tcb, host, now);
    if (tcp::owes_ack(conn.tcb)) want_transmit(index);
  }
}

bool Lane::open_rx_chunk(HwConn& conn, LaneSession& session) {
  const std::uint32_t chunk = session.pool().take();
  if (chunk == kNone) return false;
  conn.rx_chunk = chunk;
  conn.rx_fill = 0;
  conn.rx_posted = 0;
  return true;
}

void Lane::close_rx_chunk(HwConn& conn, LaneSession& session) {
  session.pool().drop(conn.rx_chunk);
  conn.rx_chunk = kNone;
  conn.rx_fill = 0;
  conn.rx_posted = 0;
}

std::uint32_t Lane::deliver(std::uint32_t index, const Payload& payload) {
  HwConn& conn = conns_[index];
  LaneSession& owner = owner_of(conn);
  LaneRing* ring = owner.ring(records_[index].ring);
  // Room for what may be posted of this payload: a piece per chunk. (Divisions are slow, and most payloads small.)
  const std::uint32_t chunks = (payload.size() < owner.chunk_bytes() ? 0 : payload.size() / owner.chunk_bytes()) + 2;
  if (owner.broken || ring->complete.room() < chunks + std::max(completions_kept(*ring), owner.completion_reserve())) {
    ++counters_.completion_full;
    return 0;
  }
  const std::uint32_t most = tcp::most_unread(conn.tcb, conn.rcv_buf_bytes);
  const std::uint32_t wanted = std::min(payload.size(), most - std::min(most, conn.unread_bytes));
  std::uint32_t taken = 0;
  while (taken < wanted) {
    if (conn.rx_chunk == kNone && !open_rx_chunk(conn, owner)) break;
    const auto room = owner.arena().chunk(conn.rx_chunk).subspan(conn.rx_fill);
    const auto here = static_cast<std::uint32_t>(std::min<std::size_t>(room.size(), wanted - taken));
    payload.narrow(taken, here).copy_to(room);
    conn.rx_fill += here;
    taken += here;
    if (conn.rx_fill == owner.chunk_bytes()) {
      post_received(index);
      close_rx_chunk(conn, owner);
    }
  }
  conn.unread_bytes += taken;
  if (taken > 0) want_post(index);
  return taken;
}

// What came unread with the connection; its last chunk is filled further.
void Lane::post_unread(std::uint32_t index) {
  HwConn& conn = conns_[index];
  Waiting* waiting = waiting_of(index);
  if (waiting == nullptr) return;
  LaneSession& owner = owner_of(conn);
  while (!waiting->unread.empty()) {
    const Piece piece = pieces_.at(waiting->unread.head);
    pieces_.pop_front(waiting->unread);
    --owner.ring(records_[index].ring)->unread_pieces;
    conn.rx_chunk = piece.chunk;
    conn.rx_fill = piece.bytes();
    conn.rx_posted = 0;
    post_received(index);
    if (!waiting->unread.empty() || piece.bytes() == owner.chunk_bytes()) close_rx_chunk(conn, owner);
  }
}

void Lane::post_received(std::uint32_t index) {
  HwConn& conn = conns_[index];
  const HwConnRecord& record = records_[index];
  const std::uint32_t bytes = conn.rx_fill - conn.rx_posted;
  if (bytes == 0) return;
  LaneSession& owner = owner_of(conn);
  LaneRing& ring = *owner.ring(record.ring);
  // deliver() and queue_loaded() have made sure of the room: only a program that wrote a wrong index took it back.
  if (ring.complete.room() == 0) break_session(conn.session, owner, Cause::kBadRingIndex);
  if (!owner.broken) {
    push_completion(ring, ipc::CompleteEntry{.op = ipc::CompleteOp::kReceived,
                                             .flags = 0,
                                             .reserved0 = 0,
                                             .slot = record.slot,
                                             .tag = record.tag,
                                             .chunk = conn.rx_chunk,
                                             .offset = conn.rx_posted,
                                             .length = bytes,
                                             .hw_conn_id = id_of(index).raw()});
    auto& posted = owner.slot(record.slot).rx_posted_bytes;
    posted.store(posted.load(std::memory_order_relaxed) + bytes, std::memory_order_release);
    owner.pool().post(conn.rx_chunk, bytes);
  }
  conn.rx_posted = conn.rx_fill;
}

void Lane::post_all() {
  for (const std::uint32_t index : post_list_) {
    conns_[index].flags &= static_cast<std::uint8_t>(~kInPostList);
    post_received(index);
    const HwConn& conn = conns_[index];
    const auto wanted = tcp::read_may_open_window(conn.tcb, receive_capacity(index)) ? ipc::WantRead::kEvery
                        : tcp::read_acknowledges(conn.tcb)                           ? ipc::WantRead::kLast
                                                                                     : ipc::WantRead::kNone;
    owner_of(conn).slot(records_[index].slot).want_read.store(wanted, std::memory_order_relaxed);
  }
  post_list_.clear();
}

// At the end of the poll: what has come is posted, and the program told which reads matter.
void Lane::want_post(std::uint32_t index) {
  HwConn& conn = conns_[index];
  if ((conn.flags & kInPostList) != 0) return;
  conn.flags |= kInPostList;
  post_list_.push_back(index);
}

bool Lane::complete(LaneSession& session, std::uint32_t ring_index, const ipc::CompleteEntry& entry) {
  LaneRing* ring = session.ring(ring_index);
  if (ring == nullptr || ring->complete.room() <= completions_kept(*ring)) return false;
  push_completion(*ring, entry);
  return true;
}

void Lane::publish_completions() {
  for (LaneRing* ring : dirty_rings_) {
    ring->dirty = false;
    ring->complete.publish();
    if (ring->complete.take_wakeup()) waker_.wake(ring->session, ring->index);
  }
  dirty_rings_.clear();
}

}  // namespace twinstack::engine
