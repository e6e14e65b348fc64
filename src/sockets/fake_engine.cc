// The engine's and the mover's part of FakeService: owners, rings, the relay.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <map>

#include "ipc/owner_gate.h"
#include "ipc/ring.h"
#include "sockets/fake_service.h"
#include "sockets/fake_service_parts.h"

namespace twinstack::sockets {
namespace {

constexpr Duration kMoveLimit = std::chrono::milliseconds(20);
constexpr std::uint8_t kEstablished = 1;  // TCP_ESTABLISHED
constexpr std::uint32_t kCompletionReserve = 64;
constexpr std::uint32_t kReceivesPerTurn = 8;

}  // namespace

// A move takes its time, so that calls run into it.
void FakeService::linger_in_move() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(rng_.below(options_.max_move_us + 1));
  while (std::chrono::steady_clock::now() < end) {
  }
}

namespace {

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  static_cast<void>(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
  return info;
}

// The engine carries ESTABLISHED only.
bool is_established(int fd) { return info_of(fd).tcpi_state == kEstablished; }

}  // namespace

bool FakeService::offload(Connection& c) {
  if (c.engine || c.stay || c.closing || c.wants_upload) return false;
  ipc::ConnSlot& slot = c.session->arena->slot(c.slot);
  ipc::OwnerGate gate(slot);
  if (!gate.begin_move(ipc::Owner::kKernel, ipc::Owner::kToEngine, kMoveLimit)) return false;
  linger_in_move();
  // With the program kept out, or it might shut the connection down after the look.
  if (!is_established(c.fd.get())) {
    gate.set_owner(ipc::Owner::kKernel);
    notify(c);
    return false;
  }
  c.engine = true;
  c.hw_id = next_hw_id_++;
  // The ring stays while the program has unread bytes in it.
  if (slot.rx_posted_bytes.load() == slot.rx_read_bytes.load())
    c.ring = slot.ring_hint.load() % static_cast<std::uint32_t>(c.session->rings.size());
  slot.ring.store(c.ring);
  slot.tx_limit_bytes.store(options_.send_buffer_bytes);
  slot.hw_conn_id.store(c.hw_id);
  // The socket is not disconnected here, and goes on counting.
  ipc::store_counters(slot.base, tcp::take_counters(info_of(c.fd.get())));
  // As the real move: what the kernel had received is in the rings before any call sees the new owner.
  receive(c);
  gate.set_owner(ipc::Owner::kEngine);
  ++counters_.to_engine;
  notify(c);
  watch(c);
  return true;
}

bool FakeService::upload(Connection& c) {
  if (!c.engine) return true;
  ipc::ConnSlot& slot = c.session->arena->slot(c.slot);
  ipc::OwnerGate gate(slot);
  if (!gate.begin_move(ipc::Owner::kEngine, ipc::Owner::kToKernel, kMoveLimit)) return false;
  drain_submissions(*c.session);
  transmit(c);
  if (!c.tx.empty()) {
    // The kernel's buffer is full: undone, and tried again later.
    gate.set_owner(ipc::Owner::kEngine);
    notify(c);
    watch(c);
    return false;
  }
  linger_in_move();
  c.engine = false;
  watch(c);
  if (c.rx_chunk != ~0U) c.session->let_go(c.rx_chunk);
  c.rx_chunk = ~0U;
  c.unread_bytes = 0;
  slot.hw_conn_id.store(0);
  ipc::store_counters(slot.base, {});
  gate.set_owner(ipc::Owner::kKernel);
  ++counters_.to_kernel;
  notify(c);
  return true;
}

void FakeService::flip_some() {
  for (const auto& session : sessions_) {
    for (const auto& [number, c] : session->connections) {
      if (rng_.below(2) == 0) continue;
      if (c->engine)
        static_cast<void>(upload(*c));
      else
        static_cast<void>(offload(*c));
    }
  }
}

void FakeService::flip_all(bool to_engine) {
  for (const auto& session : sessions_) {
    for (const auto& [number, c] : session->connections) {
      if (to_engine)
        static_cast<void>(offload(*c));
      else if (!upload(*c))
        c->wants_upload = true;
    }
  }
}

// Uploads that the program asked for, and the ends of connections.
void FakeService::serve_wishes() {
  for (const auto& session : sessions_) {
    for (auto at = session->connections.begin(); at != session->connections.end();) {
      Connection& c = *at->second;
      if ((c.wants_upload || c.closing) && upload(c)) c.wants_upload = false;
      if (c.closing && !c.engine) {
        close_connection(c);
        at = session->connections.erase(at);
      } else {
        ++at;
      }
    }
  }
}

void FakeService::close_connection(Connection& c) {
  c.fd.reset();
  ipc::OwnerGate(c.session->arena->slot(c.slot)).set_owner(ipc::Owner::kFree);
}

void FakeService::notify(Connection& c) {
  post_surely(*c.session, c.ring,
              {.op = ipc::CompleteOp::kOwnerChanged,
               .flags = 0,
               .reserved0 = 0,
               .slot = c.slot,
               .tag = c.tag,
               .chunk = 0,
               .offset = 0,
               .length = 0,
               .hw_conn_id = c.hw_id});
}

// The program may be slow to read: what must not be lost waits here.
void FakeService::post_surely(Session& session, std::uint32_t ring, const ipc::CompleteEntry& entry) {
  if (!session.late.empty() || !post(session, ring, entry)) session.late.emplace_back(ring, entry);
}

void FakeService::post_late(Session& session) {
  while (!session.late.empty() && post(session, session.late.front().first, session.late.front().second))
    session.late.pop_front();
}

bool FakeService::post(Session& session, std::uint32_t index, const ipc::CompleteEntry& entry) {
  Ring& ring = session.rings[index];
  if (ring.complete.room() == 0) return false;
  ring.complete.push(entry);
  ring.complete.publish();
  if (ring.complete.take_wakeup()) {
    ++counters_.wakeups;
    ring.event.signal();
  }
  return true;
}

void FakeService::drain_submissions(Session& session) {
  using Pop = ipc::SubmitConsumer::Pop;
  if (stalled_) return;
  for (std::uint32_t index = 0; index < session.rings.size(); ++index) {
    Ring& ring = session.rings[index];
    ipc::SubmitEntry entry;
    do {
      Pop pop = Pop::kEmpty;
      while ((pop = ring.submit.pop(entry)) == Pop::kEntry) submit(session, entry);
      if (pop == Pop::kCorrupt) {
        violated("impossible index of a submission ring");
        break;
      }
      ring.submit.release();
    } while (!ring.submit.prepare_sleep());
    tell_room(session, index);
  }
}

void FakeService::tell_room(Session& session, std::uint32_t index) {
  if (session.arena->ring(index).sq_want_room.value.exchange(0) == 0) return;
  post_surely(session, index,
              {.op = ipc::CompleteOp::kRingRoom,
               .flags = 0,
               .reserved0 = 0,
               .slot = ~0U,
               .tag = 0,
               .chunk = 0,
               .offset = 0,
               .length = 0,
               .hw_conn_id = 0});
}

void FakeService::submit(Session& session, const ipc::SubmitEntry& entry) {
  const ipc::ArenaGeometry& g = session.arena->geometry();
  const auto at = session.connections.find(entry.slot);
  Connection* c = at == session.connections.end() ? nullptr : at->second.get();
  if (entry.op == ipc::SubmitOp::kSend) {
    const bool fits = entry.chunk < g.tx_chunk_count && entry.length > 0 && entry.length <= g.chunk_bytes &&
                      entry.offset <= g.chunk_bytes - entry.length;
    if (!fits || c == nullptr || !c->engine || c->hw_id != entry.hw_conn_id) {
      violated(fits ? "kSend for a connection that the engine does not own" : "kSend out of bounds");
      return;
    }
    c->tx.push_back({.chunk = entry.chunk, .offset = entry.offset, .length = entry.length});
    transmit(*c);
    return;
  }
  if (entry.op == ipc::SubmitOp::kSetHeader) {
    if (entry.length >> 8 == 0 || entry.length > 0xffff) violated("kSetHeader without a hop limit");
    return;
  }
  if (entry.op != ipc::SubmitOp::kReturn) return;
  if (entry.chunk < g.tx_chunk_count || entry.chunk >= g.chunk_count || entry.length == 0 ||
      session.chunk(entry.chunk).posted_bytes < entry.length) {
    violated("kReturn of what was not posted");
    return;
  }
  auto& chunk = session.chunk(entry.chunk);
  chunk.posted_bytes -= entry.length;
  if (chunk.posted_bytes == 0 && !chunk.held) session.free_chunks.push_back(entry.chunk);
  for (const auto& [number, other] : session.connections) {
    if (!other->engine) continue;
    if (other->hw_id == entry.hw_conn_id)
      other->unread_bytes -= std::min<std::uint64_t>(other->unread_bytes, entry.length);
    watch(*other);  // it may have waited for a chunk
  }
}

// What the relay wants to hear of the kernel socket.
void FakeService::watch(Connection& c) {
  std::uint32_t events = 0;
  if (c.engine) {
    const bool may_read = !c.wants_upload && c.unread_bytes < options_.receive_buffer_bytes &&
                          (c.rx_chunk != ~0U || !c.session->free_chunks.empty()) &&
                          c.session->rings[c.ring].complete.room() > kCompletionReserve;
    events = (may_read ? EPOLLIN | EPOLLRDHUP : 0U) | (c.tx.empty() ? 0U : static_cast<std::uint32_t>(EPOLLOUT));
  }
  if (events == c.watched_events && c.watched == c.engine) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = c.key;
  const int operation = !c.engine ? EPOLL_CTL_DEL : c.watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  ::epoll_ctl(epoll_.get(), operation, c.fd.get(), &event);
  c.watched = c.engine;
  c.watched_events = events;
}

void FakeService::receive(Connection& c) {
  Session& session = *c.session;
  const std::uint32_t chunk_bytes = session.arena->geometry().chunk_bytes;
  for (std::uint32_t turn = 0; turn < kReceivesPerTurn && c.engine; ++turn) {
    if (c.unread_bytes >= options_.receive_buffer_bytes) break;
    if (session.rings[c.ring].complete.room() <= kCompletionReserve) break;
    if (c.rx_chunk == ~0U) {
      if (session.free_chunks.empty()) break;
      c.rx_chunk = session.free_chunks.back();
      session.free_chunks.pop_back();
      session.chunk(c.rx_chunk).held = true;
      c.rx_fill = 0;
    }
    const std::size_t room = std::min<std::size_t>(chunk_bytes - c.rx_fill, 1 + rng_.below(chunk_bytes));
    const ssize_t got = ::recv(c.fd.get(), session.arena->chunk(c.rx_chunk).data() + c.rx_fill, room, MSG_DONTWAIT);
    if (got <= 0) {
      if (got == 0 || errno != EAGAIN) c.wants_upload = c.stay = true;
      break;
    }
    const auto bytes = static_cast<std::uint32_t>(got);
    session.chunk(c.rx_chunk).posted_bytes += bytes;
    c.unread_bytes += bytes;
    counters_.engine_bytes_in += bytes;
    session.arena->slot(c.slot).rx_posted_bytes.fetch_add(bytes);
    static_cast<void>(post(session, c.ring,
                           {.op = ipc::CompleteOp::kReceived,
                            .flags = 0,
                            .reserved0 = 0,
                            .slot = c.slot,
                            .tag = c.tag,
                            .chunk = c.rx_chunk,
                            .offset = c.rx_fill,
                            .length = bytes,
                            .hw_conn_id = c.hw_id}));
    c.rx_fill += bytes;
    if (c.rx_fill == chunk_bytes) {
      session.let_go(c.rx_chunk);
      c.rx_chunk = ~0U;
    }
  }
  watch(c);
}

void FakeService::transmit(Connection& c) {
  std::uint64_t sent = 0;
  while (!c.tx.empty()) {
    Connection::Piece& piece = c.tx.front();
    const auto data = c.session->arena->chunk(piece.chunk).subspan(piece.offset, piece.length);
    const ssize_t n = ::send(c.fd.get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno != EAGAIN) {
        // The connection is over; the kernel tells the program.
        for (const auto& rest : c.tx) sent += rest.length;
        c.tx.clear();
        c.wants_upload = c.stay = true;
      }
      break;
    }
    sent += static_cast<std::uint64_t>(n);
    piece.offset += static_cast<std::uint32_t>(n);
    piece.length -= static_cast<std::uint32_t>(n);
    if (piece.length == 0) c.tx.pop_front();
  }
  if (sent > 0) settle_sent(c, sent);
  watch(c);
}

void FakeService::settle_sent(Connection& c, std::uint64_t bytes) {
  counters_.engine_bytes_out += bytes;
  ipc::ConnSlot& slot = c.session->arena->slot(c.slot);
  slot.tx_acked_bytes.fetch_add(bytes, std::memory_order_seq_cst);
  std::uint64_t queued = 0;
  for (const auto& piece : c.tx) queued += piece.length;
  const bool wanted =
      queued <= options_.send_buffer_bytes / 2 && slot.want_tx_space.load(std::memory_order_seq_cst) != 0;
  if (queued != 0 && !wanted) return;
  if (wanted) slot.want_tx_space.store(0);
  post_surely(*c.session, c.ring,
              {.op = ipc::CompleteOp::kSent,
               .flags = 0,
               .reserved0 = 0,
               .slot = c.slot,
               .tag = c.tag,
               .chunk = 0,
               .offset = 0,
               .length = 0,
               .hw_conn_id = c.hw_id});
}

}  // namespace twinstack::sockets
