#include "engine/test_support.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/assert.h"
#include "base/huge_pages.h"

namespace twinstack::engine::test {
namespace {

std::span<std::byte> as_span(std::byte* memory, std::size_t bytes) { return {memory, bytes}; }

ipc::Arena make_arena(const ipc::ArenaConfig& config, std::uint32_t session) {
  auto arena = ipc::Arena::create(config, session);
  ASSERT(arena.has_value());
  return std::move(*arena);
}

std::uint32_t chunks_for(std::size_t bytes, std::uint32_t chunk_bytes) {
  return static_cast<std::uint32_t>((bytes + chunk_bytes - 1) / chunk_bytes);
}

// Lays bytes out in chunks of a command from number `at` on.
std::uint32_t lay_out(const Program& program, const Command& command, std::uint32_t at, ByteView bytes) {
  while (!bytes.empty()) {
    const auto room = program.arena().chunk(command.chunks[at++]);
    const std::size_t here = std::min(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), here);
    bytes = bytes.subspan(here);
  }
  return at;
}

}  // namespace

void fill_stream(std::uint32_t key, std::uint64_t position, std::span<std::byte> out) noexcept {
  while (!out.empty()) {
    std::uint64_t word = (position >> 3) * 0x9e3779b97f4a7c15U + key * 0xbf58476d1ce4e5b9U;
    word ^= word >> 29;
    const std::size_t skip = position & 7;
    const std::size_t here = std::min(8 - skip, out.size());
    std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&word) + skip, here);
    out = out.subspan(here);
    position += here;
  }
}

std::vector<std::byte> stream_bytes(std::uint32_t key, std::uint64_t position, std::size_t count) {
  std::vector<std::byte> bytes(count);
  fill_stream(key, position, bytes);
  return bytes;
}

ipc::ArenaConfig small_arena() {
  return {.slot_count = 64,
          .rings_per_lane = 2,
          .lane_count = 1,
          .sq_entries = 512,
          .cq_entries = 1024,
          .tx_chunk_count = 128,
          .rx_chunk_count = 256,
          .chunk_bytes = 4096};
}

FlowKey flow_number(std::uint32_t number, bool v6) {
  FlowKey flow{.local = IpAddress::from_v4({10, 0, 0, 1}),
               .remote = IpAddress::from_v4({10, 1, static_cast<std::uint8_t>(number >> 16), 2}),
               .local_port = 80,
               .remote_port = static_cast<std::uint16_t>(number)};
  if (v6) {
    flow.local.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    flow.remote.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
  }
  return flow;
}

tcp::MinTcp idle_state(const FlowKey& flow, std::uint32_t our_seq, std::uint32_t peer_seq) {
  tcp::MinTcp min;
  min.size_bytes = sizeof(min);
  min.flow = flow;
  min.snd_una = min.snd_nxt = min.write_seq = our_seq;
  min.snd_wl1 = peer_seq;
  min.snd_wnd = min.max_window = 65536;
  min.rcv_nxt = min.copied_seq = min.rcv_wup = peer_seq;
  min.rcv_wnd = 65536;
  min.mss = 1460;
  min.mss_clamp = 1460;
  min.advmss = 1460;
  min.options = tcp::kOptTimestamps | tcp::kOptSack | tcp::kOptWindowScale;
  min.snd_wscale = min.rcv_wscale = 7;
  min.flags = tcp::kFlagNoDelay;
  min.ts_val = our_seq * 3;
  // More than a move or a delayed ACK takes: neither draws a repetition from RACK or a loss probe.
  min.srtt_us = min.min_rtt_us = 30'000;
  min.rttvar_us = 1000;
  min.rto_us = 230'000;
  min.cwnd_segments = 10;
  min.ssthresh_segments = 0x7fffffff;
  std::memcpy(min.congestion.data(), "cubic", 5);
  min.snd_buf_bytes = 256U << 10;
  min.rcv_buf_bytes = 256U << 10;
  return min;
}

Program::Program(const ipc::ArenaConfig& config, std::uint32_t session)
    : session_(session), arena_(make_arena(config, session)) {
  const auto& g = arena_.geometry();
  for (std::uint32_t i = 0; i < g.ring_count; ++i) {
    auto& header = arena_.ring(i);
    submit_.emplace_back(header.sq_tail, header.sq_head, header.sq_need_wakeup, arena_.sq(i), g.sq_entries);
    complete_.emplace_back(header.cq_tail, header.cq_head, header.cq_need_wakeup, arena_.cq(i), g.cq_entries);
  }
  for (std::uint32_t i = g.tx_chunk_count; i > 0; --i) free_chunks_.push_back(i - 1);
}

ProgramConn& Program::open(std::uint32_t slot, std::uint32_t ring) {
  ProgramConn& conn = conns[slot];
  conn.slot = slot;
  conn.ring = ring;
  conn.send_key = 100 + slot;
  conn.receive_key = 1100 + slot;
  return conn;
}

void Program::submit(std::uint32_t ring, const ipc::SubmitEntry& entry) {
  ASSERT(submit_[ring].room() > 0);
  submit_[ring].push(entry);
  submit_[ring].publish();
}

ipc::SubmitEntry Program::send_entry(std::uint64_t hw, std::uint32_t chunk, std::uint32_t offset,
                                     std::uint32_t length) {
  return {.op = ipc::SubmitOp::kSend,
          .flags = 0,
          .reserved0 = 0,
          .slot = 0,
          .hw_conn_id = hw,
          .chunk = chunk,
          .offset = offset,
          .length = length,
          .reserved1 = 0};
}

ipc::SubmitEntry Program::return_entry(std::uint64_t hw, std::uint32_t chunk, std::uint32_t length) {
  auto entry = send_entry(hw, chunk, 0, length);
  entry.op = ipc::SubmitOp::kReturn;
  return entry;
}

std::uint32_t Program::write(ProgramConn& conn, std::uint32_t bytes, std::uint32_t piece) {
  reclaim(conn);
  auto& slot = arena_.slot(conn.slot);
  std::uint32_t done = 0;
  while (done < bytes && submit_[conn.ring].room() > 0) {
    const std::uint64_t out = slot.tx_submitted_bytes.load() - slot.tx_acked_bytes.load();
    const std::uint32_t limit = slot.tx_limit_bytes.load();
    if (out >= limit) break;
    if (conn.tx_chunk == kNone || conn.tx_fill == arena_.geometry().chunk_bytes) {
      if (free_chunks_.empty()) break;
      conn.tx_chunk = free_chunks_.back();
      free_chunks_.pop_back();
      conn.tx_fill = 0;
    }
    const std::uint32_t room = arena_.geometry().chunk_bytes - conn.tx_fill;
    const std::uint32_t here = std::min({room, bytes - done, limit - static_cast<std::uint32_t>(out), piece});
    const auto data = arena_.chunk(conn.tx_chunk).subspan(conn.tx_fill, here);
    fill_stream(conn.send_key, conn.written, data);
    submit(conn.ring, send_entry(conn.hw, conn.tx_chunk, conn.tx_fill, here));
    conn.in_flight.push_back({conn.tx_chunk, here});
    conn.tx_fill += here;
    conn.written += here;
    done += here;
    slot.tx_submitted_bytes.store(slot.tx_submitted_bytes.load() + here);
  }
  if (done < bytes) slot.want_tx_space.store(1);
  return done;
}

void Program::reclaim(ProgramConn& conn) {
  std::uint64_t gone = arena_.slot(conn.slot).tx_acked_bytes.load() - conn.reclaimed;
  conn.reclaimed += gone;
  while (gone > 0) {
    ASSERT(!conn.in_flight.empty());
    auto& first = conn.in_flight.front();
    const auto here = static_cast<std::uint32_t>(std::min<std::uint64_t>(gone, first.bytes));
    first.bytes -= here;
    gone -= here;
    if (first.bytes > 0) break;
    const std::uint32_t chunk = first.chunk;
    conn.in_flight.pop_front();
    const bool more = !conn.in_flight.empty() && conn.in_flight.front().chunk == chunk;
    if (more) continue;
    free_chunks_.push_back(chunk);
    if (chunk == conn.tx_chunk) conn.tx_chunk = kNone;
  }
}

void Program::take(const ipc::CompleteEntry& entry) {
  const auto found = conns.find(entry.slot);
  if (found == conns.end() || found->second.tag != entry.tag) {
    ++bad_completions;
    return;
  }
  ProgramConn& conn = found->second;
  if (entry.op == ipc::CompleteOp::kSent) ++conn.sent_events;
  if (entry.op == ipc::CompleteOp::kOwnerChanged) ++conn.owner_events;
  if (entry.op != ipc::CompleteOp::kReceived) return;
  const auto& g = arena_.geometry();
  if (entry.chunk < g.tx_chunk_count || entry.chunk >= g.chunk_count || entry.offset + entry.length > g.chunk_bytes) {
    ++bad_completions;
    return;
  }
  conn.unread.push_back(entry);
  conn.unread_bytes += entry.length;
}

void Program::pump() {
  for (auto& ring : complete_) {
    ipc::CompleteEntry entry;
    while (ring.pop(entry) == ipc::CompleteConsumer::Pop::kEntry) take(entry);
    ring.release();
  }
  for (auto& [slot, conn] : conns) reclaim(conn);
}

std::uint64_t Program::read(ProgramConn& conn, std::uint64_t bytes) {
  std::uint64_t done = 0;
  while (done < bytes && !conn.unread.empty() && submit_[conn.ring].room() > 0) {
    ipc::CompleteEntry& entry = conn.unread.front();
    const auto here = static_cast<std::uint32_t>(std::min<std::uint64_t>(entry.length, bytes - done));
    const auto data = arena_.chunk(entry.chunk).subspan(entry.offset, here);
    expected_.resize(here);
    fill_stream(conn.receive_key, conn.received, expected_);
    if (std::memcmp(expected_.data(), data.data(), here) != 0) ++wrong_pieces;
    submit(conn.ring, return_entry(entry.hw_conn_id, entry.chunk, here));
    conn.received += here;
    conn.unread_bytes -= here;
    done += here;
    entry.offset += here;
    entry.length -= here;
    if (entry.length == 0) conn.unread.pop_front();
  }
  return done;
}

void LaneBox::Free::operator()(std::byte* memory) const noexcept { std::free(memory); }

LaneBox::LaneBox(std::unique_ptr<nic::Link> own_link, const Time& now, const LaneCapacity& capacity,
                 std::uint32_t index)
    : memory_([&] {
        const std::size_t needed = LaneRegion::bytes_needed(capacity);
        const std::size_t alignment = needed < kHugePageBytes ? 64 : kHugePageBytes;
        const std::size_t bytes = (needed + alignment - 1) / alignment * alignment;
        auto* memory = static_cast<std::byte*>(std::aligned_alloc(alignment, bytes));
        ASSERT(memory != nullptr);
        use_huge_pages({memory, bytes});
        std::memset(memory, 0, bytes);
        return memory;
      }()),
      now_(now),
      region(as_span(memory_.get(), LaneRegion::bytes_needed(capacity)), capacity),
      link(std::move(own_link)),
      lane(index, region, *link, *this, 0x5eed, now),
      port(index, region, *this) {}

std::vector<Event> LaneBox::events() {
  std::vector<Event> all;
  Event event;
  while (port.take_event(event)) all.push_back(event);
  return all;
}

std::uint32_t LaneBox::free_pieces() { return lane.free_pieces(); }

Reply reserve(LaneBox& box, const Program& program, const ProgramConn& conn, const FlowKey& flow,
              std::uint32_t chunks) {
  return box.call({.op = CommandOp::kReserve,
                   .session = program.session(),
                   .slot = conn.slot,
                   .tag = conn.tag,
                   .ring = conn.ring,
                   .kernel_cookie = 1000 + conn.slot,
                   .flow = flow,
                   .chunk_count = chunks});
}

Status inject(LaneBox& box, const Program& program, HwConnId id, std::span<const std::byte> frame) {
  const std::uint32_t chunk_bytes = program.arena().geometry().chunk_bytes;
  const Reply got = box.call({.op = CommandOp::kGetChunks,
                              .session = program.session(),
                              .chunk_count = chunks_for(frame.size(), chunk_bytes)});
  if (got.status != Status::kOk) return got.status;
  Command command{.op = CommandOp::kInject, .session = program.session(), .id = id};
  command.frame_bytes = static_cast<std::uint32_t>(frame.size());
  command.chunk_count = got.chunk_count;
  command.chunks = got.chunks;
  lay_out(program, command, 0, frame);
  return box.call(command).status;
}

Status install(LaneBox& box, Program& program, ProgramConn& conn, const Moved& moved, std::uint32_t hop) {
  const std::uint32_t chunk_bytes = program.arena().geometry().chunk_bytes;
  const std::uint32_t needed =
      chunks_for(moved.unread.size(), chunk_bytes) + chunks_for(moved.send_queue.size(), chunk_bytes);
  const Reply reserved = reserve(box, program, conn, moved.min.flow, needed);
  if (reserved.status != Status::kOk) return reserved.status;
  Command command{.op = CommandOp::kInstall, .id = reserved.id, .hop_index = hop};
  command.min = moved.min;
  command.unread_bytes = static_cast<std::uint32_t>(moved.unread.size());
  command.send_bytes = static_cast<std::uint32_t>(moved.send_queue.size());
  command.chunk_count = reserved.chunk_count;
  command.chunks = reserved.chunks;
  const std::uint32_t at = lay_out(program, command, 0, moved.unread);
  lay_out(program, command, at, moved.send_queue);
  const Status installed = box.call(command).status;
  if (installed != Status::kOk) return installed;
  conn.hw = reserved.id.raw();
  for (const auto& frame : moved.frames)
    if (const Status status = inject(box, program, reserved.id, frame); status != Status::kOk) return status;
  return box.call({.op = CommandOp::kActivate, .id = reserved.id}).status;
}

std::vector<std::vector<std::byte>> held_frames(LaneBox& box, const Program& program, const Reply& reply) {
  std::vector<std::vector<std::byte>> frames;
  const auto take = [&](std::uint32_t head, std::uint32_t count) {
    const auto pieces = box.port.pieces();
    for (std::uint32_t at = head; count > 0; --count, at = pieces[at].next) {
      const Piece& piece = pieces[at];
      if ((piece.length & Piece::kFrameStart) != 0) frames.emplace_back();
      const auto bytes = program.arena().chunk(piece.chunk).subspan(piece.offset, piece.bytes());
      frames.back().insert(frames.back().end(), bytes.begin(), bytes.end());
    }
  };
  take(reply.late_head, reply.late_pieces);
  take(reply.held_head, reply.held_pieces);
  return frames;
}

Moved extract(LaneBox& box, Program& program, ProgramConn& conn) {
  const HwConnId id(conn.hw);
  ASSERT(box.call({.op = CommandOp::kHold, .id = id}).status == Status::kOk);
  const Reply reply = box.call({.op = CommandOp::kExtract, .id = id});
  ASSERT(reply.status == Status::kOk);
  Moved moved;
  moved.min = reply.state.min;
  moved.min.copied_seq = moved.min.rcv_nxt;
  std::uint32_t skip = reply.send_head_skip;
  const auto pieces = box.port.pieces();
  std::size_t queued_bytes = 0;
  for (std::uint32_t at = reply.send_head; at != kNone; at = pieces[at].next) queued_bytes += pieces[at].bytes();
  moved.send_queue.reserve(queued_bytes);
  for (std::uint32_t at = reply.send_head; at != kNone; at = pieces[at].next) {
    const auto bytes =
        program.arena().chunk(pieces[at].chunk).subspan(pieces[at].offset + skip, pieces[at].bytes() - skip);
    moved.send_queue.insert(moved.send_queue.end(), bytes.begin(), bytes.end());
    skip = 0;
  }
  const Reply swept = box.call({.op = CommandOp::kSweep, .id = id});
  moved.frames = held_frames(box, program, swept);
  ASSERT(
      box.call(
             {.op = CommandOp::kDropHeld, .id = id, .late_pieces = swept.late_pieces, .held_pieces = swept.held_pieces})
          .status == Status::kOk);
  ASSERT(box.call({.op = CommandOp::kRelease, .id = id}).status == Status::kOk);
  conn.hw = 0;
  return moved;
}

void set_hop(LaneBox& box, std::uint32_t index, std::uint32_t mtu) {
  box.call({.op = CommandOp::kSetHop,
            .hop_index = index,
            .hop = {.source = {2, 0, 0, 0, 0, 1},
                    .destination = {2, 0, 0, 0, 1, static_cast<std::uint8_t>(index)},
                    .mtu_bytes = mtu}});
}

RawPeer::RawPeer(nic::Link& link, const FlowKey& flow, std::uint32_t our_seq, std::uint32_t their_seq)
    : seq(our_seq), ack(their_seq), link_(link), flow_(flow) {}

std::vector<RawPeer::Got> RawPeer::receive(Time now) {
  link_.advance(now);
  std::vector<Got> all;
  for (auto frames = link_.receive(64); !frames.empty(); frames = link_.receive(64)) {
    for (const auto& frame : frames) {
      wire::TcpPacket packet;
      const auto verdict = wire::parse_frame(frame.parts, frame.length_bytes, wire::ChecksumMode::kVerify, packet);
      ASSERT(verdict == wire::ParseVerdict::kOk);
      if (packet.flow != flow_) continue;  // for another peer on this wire
      Got got{.segment = packet.segment, .payload = {}, .destination_mac = packet.destination_mac};
      got.payload.resize(packet.payload.size());
      packet.payload.copy_to(got.payload);
      const Seq end = packet.segment.seq + packet.payload.size();
      if (packet.segment.seq <= ack && end > ack) ack = end;
      if (packet.segment.options.has_timestamps) ts_ecr = packet.segment.options.ts_val;
      all.push_back(std::move(got));
    }
    link_.release();
  }
  return all;
}

std::vector<std::byte> RawPeer::frame(std::span<const std::byte> payload, std::uint8_t flags,
                                      const std::function<void(wire::Segment&)>& change) const {
  wire::Segment segment;
  segment.seq = seq;
  segment.ack = ack;
  segment.window = window;
  segment.flags = flags;
  segment.options.has_timestamps = true;
  segment.options.ts_val = ts_val;
  segment.options.ts_ecr = ts_ecr;
  if (change) change(segment);
  std::vector<std::byte> frame(wire::header_bytes(flow_, segment) + payload.size());
  const std::uint32_t head = wire::write_headers(frame, {}, flow_, segment, static_cast<std::uint32_t>(payload.size()));
  std::copy(payload.begin(), payload.end(), frame.begin() + head);
  wire::fill_checksum(frame);
  return frame;
}

void RawPeer::send_frame(std::span<const std::byte> frame) {
  const auto room = link_.allocate_tx();
  ASSERT(room.size() >= frame.size());
  std::copy(frame.begin(), frame.end(), room.begin());
  link_.commit_tx(static_cast<std::uint32_t>(frame.size()));
  link_.flush();
}

void RawPeer::send(std::span<const std::byte> payload, std::uint8_t flags,
                   const std::function<void(wire::Segment&)>& change) {
  send_frame(frame(payload, flags, change));
  seq += static_cast<std::uint32_t>(payload.size());
}

World::World(const nic::MemoryWireOptions& wire,
             const std::function<std::unique_ptr<nic::Link>(std::unique_ptr<nic::Link>)>& wrap,
             const LaneCapacity& capacity)
    : wire_(nic::MemoryWire::make(wire)) {
  std::unique_ptr<nic::Link> link_a = std::move(wire_.a);
  std::unique_ptr<nic::Link> link_b = std::move(wire_.b);
  if (wrap) {
    link_a = wrap(std::move(link_a));
    link_b = wrap(std::move(link_b));
  }
  a = std::make_unique<LaneBox>(std::move(link_a), now, capacity);
  b = std::make_unique<LaneBox>(std::move(link_b), now, capacity);
  for (std::uint32_t hop = 0; hop < 2; ++hop) {
    set_hop(*a, hop, wire.mtu_bytes);
    set_hop(*b, hop, wire.mtu_bytes);
  }
}

bool World::run(Duration limit, const std::function<bool()>& done, const std::function<void()>& between) {
  const Time end = now + limit;
  for (;;) {
    bool worked = true;
    for (int round = 0; worked && round < 64; ++round) {
      const bool at_a = a->lane.poll(now);
      const bool at_b = b->lane.poll(now);
      worked = at_a || at_b;
      if (between) between();
    }
    if (done()) return true;
    const Time next = std::min(a->lane.next_deadline(), b->lane.next_deadline());
    // The program's turn every 100 us.
    now = std::max(std::min(next, now + std::chrono::milliseconds(1)), now + std::chrono::microseconds(20));
    if (now > end) return false;
  }
}

void World::connect(Program& at_a, Program& at_b, std::uint32_t number, bool v6) {
  const FlowKey flow = flow_number(number, v6);
  const std::uint32_t seq_a = 0xffffff00U + number * 7;
  const std::uint32_t seq_b = 0x7fffff00U + number * 11;
  const std::uint32_t slot = number % at_a.arena().geometry().slot_count;
  ProgramConn& conn_a = at_a.open(slot, number % 2);
  ProgramConn& conn_b = at_b.open(slot, number % 2);
  conn_b.send_key = conn_a.receive_key;
  conn_b.receive_key = conn_a.send_key;
  ASSERT(install(*a, at_a, conn_a,
                 {.min = idle_state(flow, seq_a, seq_b), .send_queue = {}, .unread = {}, .frames = {}}) == Status::kOk);
  ASSERT(install(*b, at_b, conn_b,
                 {.min = idle_state(reversed(flow), seq_b, seq_a), .send_queue = {}, .unread = {}, .frames = {}}) ==
         Status::kOk);
}

}  // namespace twinstack::engine::test
