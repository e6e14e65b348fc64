#include "handoff/test_host.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "handoff/offload.h"
#include "handoff/park.h"

namespace twinstack::handoff::test {

using engine::CommandOp;
using engine::HwConnId;
using ipc::Owner;
using kernel::Phase;

namespace {

constexpr std::uint32_t kOurSeq = 0xfffff000U;
constexpr std::uint32_t kPeerSeq = 0x7ffff000U;
constexpr std::uint32_t kSlot = 5;
constexpr std::uint32_t kPeerSession = 8;

Result<> refuse(const char* what) { return error(ErrorCode::kSystem, what); }

bool take_failure(int& count) { return count > 0 && count-- > 0; }

void commit(nic::Link& link, const Bytes& frame) {
  const auto room = link.allocate_tx();
  ASSERT(room.size() >= frame.size());
  std::copy(frame.begin(), frame.end(), room.begin());
  link.commit_tx(static_cast<std::uint32_t>(frame.size()));
  link.flush();
}

std::vector<Bytes> receive_all(nic::Link& link, Time now) {
  std::vector<Bytes> all;
  link.advance(now);
  for (auto frames = link.receive(64); !frames.empty(); frames = link.receive(64)) {
    for (const auto& frame : frames) {
      Bytes bytes(frame.length_bytes);
      Payload(frame.parts, 0, frame.length_bytes).copy_to(bytes);
      all.push_back(std::move(bytes));
    }
    link.release();
  }
  return all;
}

FlowKey flow_of(const Bytes& frame) {
  wire::TcpPacket packet;
  const ByteView part(frame);
  const auto verdict =
      wire::parse_frame({&part, 1}, static_cast<std::uint32_t>(frame.size()), wire::ChecksumMode::kVerify, packet);
  ASSERT(verdict == wire::ParseVerdict::kOk);
  return packet.flow;
}

}  // namespace

// ---- FakeKernel

class FakeKernel::Host final : public tcp::Host {
 public:
  explicit Host(FakeKernel& kernel) : tcp::Host(kernel.counters, kernel.delivery_rate), kernel_(kernel) {}
  std::uint32_t deliver(const Payload& payload) override {
    payload.for_each(
        [this](ByteView piece) { kernel_.unread_.insert(kernel_.unread_.end(), piece.begin(), piece.end()); });
    return payload.size();
  }
  std::uint32_t receive_space() override {
    constexpr std::size_t kBuffer = 128U << 10;
    return static_cast<std::uint32_t>(kBuffer - std::min(kBuffer, kernel_.unread_.size()));
  }

 private:
  FakeKernel& kernel_;
};

FakeKernel::FakeKernel(const tcp::MinTcp& min, std::function<void(Bytes)> send, const Time& now)
    : min_(min), send_(std::move(send)), now_(now) {
  ASSERT(tcp::install(tcb_, min, now).has_value());
}

Result<> FakeKernel::check_eligible(const kernel::Limits&) {
  ASSERT(phase_ == Phase::kRunning);
  checked_ = false;
  if (take_failure(fail.check)) return error(ErrorCode::kNotEligible, "urgent data is pending");
  checked_ = true;
  checked_queues_ = {.unread_bytes = static_cast<std::uint32_t>(unread_.size()),
                     .send_bytes = static_cast<std::uint32_t>(sent_.size())};
  return {};
}

Result<> FakeKernel::attach_late_filter() {
  if (take_failure(fail.attach)) return refuse("attach");
  filter_on_ = true;
  return {};
}

Result<> FakeKernel::detach_late_filter() {
  filter_on_ = false;
  return {};
}

Result<kernel::Snapshot> FakeKernel::freeze(const kernel::QueueRoom& room) {
  ASSERT(phase_ == Phase::kRunning && checked_ && filter_on_);
  if (take_failure(fail.freeze)) return error(ErrorCode::kNotEligible, "a FIN came up");
  if (unread_.size() >= room.receive.size() || stale_bytes + sent_.size() >= room.send.size())
    return error(ErrorCode::kNoResource, "a queue exceeds the room");
  phase_ = Phase::kFrozen;
  checked_ = false;
  std::copy(unread_.begin(), unread_.end(), room.receive.begin());
  // S8: the peek may begin before snd_una.
  std::fill_n(room.send.begin(), stale_bytes, std::byte{0xee});
  std::copy(sent_.begin(), sent_.end(), room.send.begin() + stale_bytes);
  kernel::Snapshot snapshot;
  snapshot.stamped_at = now_;
  snapshot.min = min_;
  tcp::extract(tcb_, now_, snapshot.min);
  snapshot.min.copied_seq -= static_cast<std::uint32_t>(unread_.size());
  snapshot.min.options = static_cast<std::uint16_t>(snapshot.min.options | drop_option);
  const std::size_t unacked = snapshot.min.snd_nxt - snapshot.min.snd_una;
  snapshot.unread = room.receive.first(unread_.size());
  snapshot.unacked = room.send.subspan(stale_bytes, unacked);
  snapshot.unsent = room.send.subspan(stale_bytes + unacked, sent_.size() - unacked);
  tcp::InfoCounters stay{};
  stay.bytes_acked = bytes_between(restored_una_, tcb_.snd_una);
  if (is_restored_) repeated_ack_.leave_out(stay, snapshot.min, snapshot.unacked);
  frozen_una_ = Seq(snapshot.min.snd_una);
  if (std::exchange(opens_after_snapshot, false)) {
    snapshot.min.snd_wnd = 0;
    transmit();
  }
  return snapshot;
}

Result<> FakeKernel::thaw() {
  ASSERT(phase_ == Phase::kFrozen);
  if (take_failure(fail.thaw)) return error(ErrorCode::kSystem, "thaw");
  phase_ = Phase::kRunning;
  filter_on_ = false;
  transmit();
  return {};
}

Result<kernel::LateBytes> FakeKernel::park(std::span<std::byte> room) {
  ASSERT(phase_ == Phase::kFrozen);
  if (take_failure(fail.park)) {
    phase_ = fail.park_leaves;
    return error(ErrorCode::kSystem, "park");
  }
  phase_ = Phase::kParked;
  std::copy(taken_after_snapshot.begin(), taken_after_snapshot.end(), room.begin());
  kernel::LateBytes late_bytes{.first_seq = tcb_.rcv_nxt.raw(),
                               .bytes = room.first(taken_after_snapshot.size()),
                               .fin = fin_after_snapshot,
                               .snd_una = max(tcb_.snd_una, frozen_una_).raw(),
                               .snd_nxt = tcb_.snd_nxt.raw()};
  taken_after_snapshot.clear();
  unread_.clear();
  sent_.clear();
  return late_bytes;
}

Result<kernel::RestoreReport> FakeKernel::restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) {
  ASSERT(phase_ == Phase::kParked || phase_ == Phase::kGap);
  ASSERT(filter_on_);
  if (take_failure(fail.restore)) {
    phase_ = Phase::kGap;
    return error(ErrorCode::kSystem, "restore");
  }
  ASSERT(queues.unacked.size() == min.snd_nxt - min.snd_una);
  min_ = min;
  tcp::MinTcp held = min;
  held.write_seq = held.snd_nxt;
  held.ts_recent = 0;  // as with Linux: PAWS begins with the next packet
  held.srtt_us = held.rttvar_us = held.min_rtt_us = 0;
  held.rto_us = 3'000'000;
  ASSERT(tcp::install(tcb_, held, now_).has_value());
  if (queues.acked_bytes > 0) tcp::measure_by_echo(tcb_, queues.acked_bytes);
  sent_.assign(queues.unacked.begin(), queues.unacked.end());
  unread_.assign(queues.unread.begin(), queues.unread.end());
  repeated_ack_.expect(queues.acked_bytes, min.snd_una);
  is_restored_ = true;
  restored_una_ = tcb_.snd_una;
  phase_ = Phase::kRestored;
  return kernel::RestoreReport{.congestion_restored = true};
}

Result<kernel::ReleaseReport> FakeKernel::release(std::span<const std::byte> unsent, bool /*probe*/) {
  ASSERT(phase_ == Phase::kRestored);
  if (take_failure(fail.release)) return error(ErrorCode::kSystem, "release");
  filter_on_ = false;
  phase_ = Phase::kRunning;
  const std::size_t taken = std::min(unsent.size(), fail.release_takes);
  sent_.insert(sent_.end(), unsent.begin(), unsent.begin() + static_cast<std::ptrdiff_t>(taken));
  tcp::on_queued(tcb_, static_cast<std::uint32_t>(taken), false);
  transmit();
  return kernel::ReleaseReport{.unsent_taken_bytes = taken, .socket_error = fail.release_socket_error};
}

void FakeKernel::write(std::span<const std::byte> bytes) {
  ASSERT(phase_ == Phase::kRunning);
  sent_.insert(sent_.end(), bytes.begin(), bytes.end());
  tcp::on_queued(tcb_, static_cast<std::uint32_t>(bytes.size()), false);
  transmit();
}

Bytes FakeKernel::read(std::size_t most) {
  const auto count = static_cast<std::ptrdiff_t>(std::min(most, unread_.size()));
  Bytes bytes(unread_.begin(), unread_.begin() + count);
  unread_.erase(unread_.begin(), unread_.begin() + count);
  Host host(*this);
  tcp::on_read(tcb_, host, now_);
  transmit();
  return bytes;
}

void FakeKernel::receive(const Bytes& frame) {
  if (filter_on_) {
    late.push_back(frame);
    return;
  }
  if (phase_ != Phase::kRunning) {
    ++lost_frames;
    return;
  }
  ++frames;
  wire::TcpPacket packet;
  const ByteView part(frame);
  ASSERT(wire::parse_frame({&part, 1}, static_cast<std::uint32_t>(frame.size()), wire::ChecksumMode::kVerify, packet) ==
         wire::ParseVerdict::kOk);
  ASSERT(packet.flow == min_.flow);
  if (is_restored_ && packet.segment.ack < restored_una_) {  // R20
    ++lost_frames;
    return;
  }
  Host host(*this);
  const Seq una = tcb_.snd_una;
  if (tcp::to_software(tcp::on_segment(tcb_, packet.segment, packet.payload, host, now_))) ++finished;
  const auto acked = static_cast<std::ptrdiff_t>(bytes_between(una, tcb_.snd_una));
  sent_.erase(sent_.begin(), sent_.begin() + acked);
  transmit();
}

void FakeKernel::on_time() {
  if (phase_ != Phase::kRunning) return;
  Host host(*this);
  (void)tcp::on_timer(tcb_, host, now_);
  transmit();
}

void FakeKernel::transmit() {
  if (opens_after_snapshot || (phase_ != Phase::kRunning && phase_ != Phase::kFrozen)) return;
  Host host(*this);
  tcp::SegmentPlan plan;
  while (tcp::poll_transmit(tcb_, host, now_, plan)) send(plan);
}

void FakeKernel::send(const tcp::SegmentPlan& plan) {
  Bytes frame(wire::header_bytes(min_.flow, plan.segment) + plan.payload_bytes);
  const std::uint32_t head = wire::write_headers(frame, {}, min_.flow, plan.segment, plan.payload_bytes);
  if (plan.payload_bytes > 0) {
    const auto from = sent_.begin() + (plan.segment.seq - tcb_.snd_una);
    std::copy(from, from + plan.payload_bytes, frame.begin() + head);
  }
  wire::fill_checksum(frame);
  send_(std::move(frame));
}

// ---- FakePath

Result<> FakePath::steer(const FlowKey& flow, std::uint32_t /*generation*/) {
  if (take_failure(fail_steer)) return error(ErrorCode::kNoResource, "the steering map is full");
  flows_.push_back(flow);
  return {};
}

Result<> FakePath::unsteer(const FlowKey& flow) {
  std::erase(flows_, flow);
  return {};
}

bool FakePath::steers(const FlowKey& flow) const { return std::ranges::find(flows_, flow) != flows_.end(); }

Result<> FakePath::inject(std::span<const nic::RxFrame> frames) {
  if (take_failure(fail_inject)) return refuse("inject");
  for (const auto& frame : frames) {
    Bytes bytes(frame.length_bytes);
    Payload(frame.parts, 0, frame.length_bytes).copy_to(bytes);
    ++injected;
    if (before_inject) before_inject();
    to_kernel_(bytes);
  }
  return {};
}

// ---- TwoHosts

ipc::ArenaConfig TwoHosts::default_arena() {
  ipc::ArenaConfig config = engine::test::small_arena();
  config.chunk_bytes = 16384;
  return config;
}

TwoHosts::TwoHosts(const ipc::ArenaConfig& arena)
    : outer(nic::MemoryWire::make({.delay = std::chrono::microseconds(100)})),
      inner(nic::MemoryWire::make()),
      program(arena),
      peer_program(default_arena(), kPeerSession),
      lane_end(std::move(inner.b)),
      lane(std::make_unique<engine::test::LaneBox>(std::move(inner.a), now)),
      peer(std::make_unique<engine::test::LaneBox>(std::move(outer.b), now)),
      flow(engine::test::flow_number(7)),
      path(std::make_unique<FakePath>([this](const Bytes& frame) { kernel->receive(frame); })),
      mine(program.open(kSlot)),
      theirs(peer_program.open(kSlot)),
      receive_room_(256U << 10),
      send_room_(4U << 20) {
  engine::test::set_hop(*lane);
  engine::test::set_hop(*peer);
  lane->lane.open_session(program.session(), program.arena());
  peer->lane.open_session(kPeerSession, peer_program.arena());
  auto own = std::make_unique<FakeKernel>(
      engine::test::idle_state(flow, kOurSeq, kPeerSeq), [this](const Bytes& frame) { to_wire(frame); }, now);
  kernel = own.get();
  conn.arena = &program.arena();
  conn.session = program.session();
  conn.slot = kSlot;
  conn.tag = mine.tag;
  conn.kernel = std::move(own);
  conn.port = &lane->port;
  conn.path = path.get();
  conn.shared().tag.store(mine.tag);
  conn.gate().set_owner(Owner::kKernel);
  tools.receive_room = receive_room_;
  tools.send_room = send_room_;
  tools.deliver_late = [this] { deliver_late(); };
  tools.now = [this] { return now; };
  theirs.send_key = mine.receive_key;
  theirs.receive_key = mine.send_key;
  const engine::test::Moved idle{
      .min = engine::test::idle_state(reversed(flow), kPeerSeq, kOurSeq), .send_queue = {}, .unread = {}, .frames = {}};
  ASSERT(engine::test::install(*peer, peer_program, theirs, idle) == engine::Status::kOk);
}

Result<MoveReport> TwoHosts::move_to_engine() {
  TRY(check(conn, tools));
  return offload(conn, tools);
}

void TwoHosts::to_wire(const Bytes& frame) { commit(*outer.a, frame); }

// Host a's XDP program.
void TwoHosts::demultiplex() {
  for (const Bytes& frame : receive_all(*outer.a, now)) {
    if (path->steers(flow_of(frame)))
      commit(*lane_end, frame);
    else
      kernel->receive(frame);
  }
}

void TwoHosts::forward_from_lane() {
  for (const Bytes& frame : receive_all(*lane_end, now)) to_wire(frame);
}

void TwoHosts::settle() {
  bool busy = true;
  for (int round = 0; busy && round < 100; ++round) {
    demultiplex();
    busy = lane->lane.poll(now);
    forward_from_lane();
    busy |= peer->lane.poll(now);
    program.pump();
    peer_program.pump();
  }
}

void TwoHosts::deliver_late() {
  for (const Bytes& frame : std::exchange(kernel->late, {})) {
    if (conn.hw && (owner() == Owner::kToEngine || owner() == Owner::kEngine)) {
      const auto status = engine::test::inject(*lane, program, conn.hw, frame);
      if (status == engine::Status::kOk) continue;
    }
    const ByteView part(frame);
    const nic::RxFrame whole{.parts = {&part, 1}, .length_bytes = static_cast<std::uint32_t>(frame.size())};
    ASSERT(path->inject({&whole, 1}).has_value());
  }
}

void TwoHosts::forward_strays() {
  for (auto frame = lane->lane.take_stray(); !frame.empty(); frame = lane->lane.take_stray()) kernel->receive(frame);
}

void TwoHosts::program_writes(std::uint32_t bytes) {
  if (owner() == Owner::kEngine) {
    mine.hw = conn.shared().hw_conn_id.load();
    program.write(mine, bytes, 5000);
    return;
  }
  if (owner() != Owner::kKernel) return;
  kernel->write(engine::test::stream_bytes(mine.send_key, mine.written, bytes));
  mine.written += bytes;
}

// Undelivered bytes in the shared chunks come before those of the kernel.
void TwoHosts::program_reads(std::uint64_t bytes) {
  program.pump();
  const std::uint64_t done = program.read(mine, bytes);
  if (done == bytes || owner() != Owner::kKernel || !mine.unread.empty()) return;
  const Bytes more = kernel->read(bytes - done);
  if (more != engine::test::stream_bytes(mine.receive_key, mine.received, more.size())) ++program.wrong_pieces;
  mine.received += more.size();
}

void TwoHosts::program_sets_option() {
  Owner inside{};
  ASSERT(conn.gate().enter(inside));
  conn.shared().option_changes.fetch_add(1);
  conn.gate().leave();
}

void TwoHosts::peer_writes(std::uint32_t bytes) { peer_program.write(theirs, bytes, 7000); }

void TwoHosts::peer_reads() {
  peer_program.pump();
  peer_program.read(theirs);
}

void TwoHosts::run(Duration span, bool reading) {
  const Time end = now + span;
  while (now < end) {
    now += std::chrono::microseconds(50);
    deliver_late();
    settle();
    kernel->on_time();
    forward_strays();
    if (!reading) continue;
    program_reads();
    peer_reads();
  }
}

void TwoHosts::expect_stream_is_whole() {
  for (int i = 0; i < 200 && (mine.received != theirs.written || theirs.received != mine.written); ++i)
    run(std::chrono::milliseconds(10));
  EXPECT_EQ(mine.received, theirs.written);
  EXPECT_EQ(theirs.received, mine.written);
  EXPECT_EQ(program.wrong_pieces, 0U);
  EXPECT_EQ(peer_program.wrong_pieces, 0U);
  EXPECT_EQ(peer->record(HwConnId(theirs.hw)).counters.segs_retransmitted, 0U);
  EXPECT_TRUE(peer->events().empty());
  EXPECT_EQ(kernel->finished, 0);
}

void TwoHosts::expect_no_packet_lost() {
  EXPECT_EQ(kernel->lost_frames, 0U);
  EXPECT_EQ(lane->lane.counters().held_dropped, 0U);
  EXPECT_TRUE(kernel->late.empty());
}

void TwoHosts::expect_in_kernel() {
  EXPECT_EQ(owner(), Owner::kKernel);
  EXPECT_EQ(kernel->phase(), Phase::kRunning);
  EXPECT_FALSE(kernel->filter_on());
  EXPECT_FALSE(conn.hw);
  EXPECT_EQ(conn.shared().hw_conn_id.load(), 0U);
  EXPECT_EQ(path->entries(), 0U);
  EXPECT_EQ(lane->lane.active_connections(), 0U);
  EXPECT_EQ(lane->lane.free_pieces(), 4096U);
  settle();
  program.pump();
  if (mine.unread.empty()) {
    EXPECT_EQ(lane->lane.free_chunks(program.session()),
              program.arena().geometry().chunk_count - program.arena().geometry().tx_chunk_count);
  }
}

void TwoHosts::expect_in_engine() {
  EXPECT_EQ(owner(), Owner::kEngine);
  EXPECT_TRUE(conn.hw);
  EXPECT_EQ(conn.shared().hw_conn_id.load(), conn.hw.raw());
  EXPECT_TRUE(path->steers(flow));
  EXPECT_TRUE(kernel->filter_on());
  EXPECT_EQ(lane->lane.active_connections(), 1U);
  EXPECT_EQ(lane->conn(conn.hw).state, engine::ConnState::kActive);
}

}  // namespace twinstack::handoff::test
