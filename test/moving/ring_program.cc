#include "ring_program.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "ipc/owner_gate.h"

namespace twinstack::moving {

RingProgram::RingProgram(const ipc::Arena& arena)
    : arena_(arena),
      submissions_(arena.ring(0).sq_tail, arena.ring(0).sq_head, arena.ring(0).sq_need_wakeup, arena.sq(0),
                   arena.geometry().sq_entries),
      completions_(arena.ring(0).cq_tail, arena.ring(0).cq_head, arena.ring(0).cq_need_wakeup, arena.cq(0),
                   arena.geometry().cq_entries) {
  for (std::uint32_t i = arena.geometry().tx_chunk_count; i > 0; --i) free_chunks_.push_back(i - 1);
  for (std::uint32_t i = arena.geometry().slot_count; i > 0; --i) free_slots_.push_back(i - 1);
}

RingConn& RingProgram::open(int fd) {
  ASSERT(!free_slots_.empty());
  const std::uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  RingConn& conn = conns_[slot];
  conn.slot = slot;
  conn.tag = next_tag_++;
  conn.fd = fd;
  shared(conn).tag.store(conn.tag);
  conn.reclaimed = shared(conn).tx_acked_bytes.load();
  ipc::OwnerGate(shared(conn)).set_owner(ipc::Owner::kKernel);
  return conn;
}

// Bytes that nobody has read go back, so that the engine has its chunks.
void RingProgram::close(RingConn& conn) {
  for (const ipc::CompleteEntry& entry : conn.unread) {
    submit({.op = ipc::SubmitOp::kReturn,
            .flags = 0,
            .reserved0 = 0,
            .slot = entry.slot,
            .hw_conn_id = entry.hw_conn_id,
            .chunk = entry.chunk,
            .offset = 0,
            .length = entry.length,
            .reserved1 = 0});
  }
  reclaim(conn);
  ipc::OwnerGate(shared(conn)).set_owner(ipc::Owner::kFree);
  const std::uint32_t slot = conn.slot;
  conns_.erase(slot);
  free_slots_.insert(free_slots_.begin(), slot);
}

void RingProgram::set_header(const RingConn& conn, std::uint32_t fields) {
  submit({.op = ipc::SubmitOp::kSetHeader,
          .flags = 0,
          .reserved0 = 0,
          .slot = conn.slot,
          .hw_conn_id = shared(conn).hw_conn_id.load(),
          .chunk = 0,
          .offset = 0,
          .length = fields,
          .reserved1 = 0});
}

void RingProgram::submit(const ipc::SubmitEntry& entry) {
  ASSERT(submissions_.room() > 0);
  submissions_.push(entry);
  submissions_.publish();
}

bool RingProgram::open_chunk(RingConn& conn) {
  if (conn.tx_chunk != kNoChunk && conn.tx_fill < arena_.geometry().chunk_bytes) return true;
  if (free_chunks_.empty()) return false;
  conn.tx_chunk = free_chunks_.back();
  free_chunks_.pop_back();
  conn.tx_fill = 0;
  return true;
}

std::uint64_t RingProgram::unacknowledged(const RingConn& conn) const {
  return shared(conn).tx_submitted_bytes.load() - shared(conn).tx_acked_bytes.load();
}

std::size_t RingProgram::write(RingConn& conn, ByteView bytes, bool more_follows, bool ends_record) {
  reclaim(conn);
  ipc::ConnSlot& slot = shared(conn);
  ByteView left = bytes;
  while (!left.empty() && open_chunk(conn)) {
    const auto here =
        static_cast<std::uint32_t>(std::min<std::size_t>(arena_.geometry().chunk_bytes - conn.tx_fill, left.size()));
    std::memcpy(arena_.chunk(conn.tx_chunk).data() + conn.tx_fill, left.data(), here);
    const bool more = more_follows || here < left.size();
    const bool end = ends_record && here == left.size();
    conn.in_flight.push_back({conn.tx_chunk, here});
    slot.tx_submitted_bytes.store(slot.tx_submitted_bytes.load() + here);
    submit({.op = ipc::SubmitOp::kSend,
            .flags = static_cast<std::uint8_t>((more ? ipc::kSubmitMore : 0) | (end ? ipc::kSubmitRecordEnd : 0)),
            .reserved0 = 0,
            .slot = conn.slot,
            .hw_conn_id = slot.hw_conn_id.load(),
            .chunk = conn.tx_chunk,
            .offset = conn.tx_fill,
            .length = here,
            .reserved1 = 0});
    conn.tx_fill += here;
    left = left.subspan(here);
  }
  conn.wants_room = !left.empty();
  if (conn.wants_room) slot.want_tx_space.store(1);
  return bytes.size() - left.size();
}

void RingProgram::reclaim(RingConn& conn) {
  std::uint64_t gone = shared(conn).tx_acked_bytes.load() - conn.reclaimed;
  conn.reclaimed += gone;
  while (gone > 0) {
    ASSERT(!conn.in_flight.empty());
    RingConn::Sent& first = conn.in_flight.front();
    const auto here = static_cast<std::uint32_t>(std::min<std::uint64_t>(gone, first.bytes));
    first.bytes -= here;
    gone -= here;
    if (first.bytes > 0) break;
    const std::uint32_t chunk = first.chunk;
    conn.in_flight.pop_front();
    if (!conn.in_flight.empty() && conn.in_flight.front().chunk == chunk) continue;
    free_chunks_.push_back(chunk);
    if (chunk == conn.tx_chunk) conn.tx_chunk = kNoChunk;
  }
}

std::size_t RingProgram::read(RingConn& conn, std::span<std::byte> room, bool peek) {
  std::size_t done = 0;
  for (std::size_t i = 0; done < room.size() && i < conn.unread.size();) {
    ipc::CompleteEntry& entry = conn.unread[i];
    const auto here = static_cast<std::uint32_t>(std::min<std::size_t>(entry.length, room.size() - done));
    std::memcpy(room.data() + done, arena_.chunk(entry.chunk).data() + entry.offset, here);
    done += here;
    if (peek) {
      ++i;
      continue;
    }
    submit({.op = ipc::SubmitOp::kReturn,
            .flags = 0,
            .reserved0 = 0,
            .slot = entry.slot,
            .hw_conn_id = entry.hw_conn_id,
            .chunk = entry.chunk,
            .offset = 0,
            .length = here,
            .reserved1 = 0});
    entry.offset += here;
    entry.length -= here;
    if (entry.length == 0) conn.unread.pop_front();
  }
  if (!peek) {
    conn.unread_bytes -= done;
    ipc::ConnSlot& slot = shared(conn);
    slot.rx_read_bytes.store(slot.rx_read_bytes.load() + done);
  }
  return done;
}

void RingProgram::pump(const std::function<void(int fd, std::uint32_t events)>& wake) {
  ipc::CompleteEntry entry;
  while (completions_.pop(entry) == ipc::CompleteConsumer::Pop::kEntry) {
    const auto found = conns_.find(entry.slot);
    if (found == conns_.end() || found->second.tag != entry.tag) continue;
    RingConn& conn = found->second;
    if (entry.op == ipc::CompleteOp::kReceived) {
      conn.unread.push_back(entry);
      conn.unread_bytes += entry.length;
      wake(conn.fd, POLLIN | POLLRDNORM);
    } else if (entry.op == ipc::CompleteOp::kSent && conn.wants_room) {
      conn.wants_room = false;
      wake(conn.fd, POLLOUT | POLLWRNORM);
    }
  }
  completions_.release();
  for (auto& [slot, conn] : conns_) reclaim(conn);
}

}  // namespace twinstack::moving
