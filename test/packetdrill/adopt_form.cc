// The wire between Linux, the engine and packetdrill. Moves: adopt_moves.cc; the program's calls: adopt_calls.cc.
#include "adopt_form.h"

#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/monotonic.h"
#include "handoff/inject.h"
#include "kernel/linux_kernel_conn.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::packetdrill {

namespace {

constexpr std::uint32_t kSession = 1;
constexpr std::size_t kRoomBytes = 8U << 20;
constexpr std::size_t kLateRingBytes = 256U << 10;
// While real time counts: how long to sleep before calls that wait are tried again, as Linux wakes nobody here.
constexpr Duration kRealSlice = std::chrono::milliseconds(2);

// All of it is locked in memory by packetdrill.
constexpr ipc::ArenaConfig kArena = {.slot_count = 64,
                                     .rings_per_lane = 1,
                                     .lane_count = 1,
                                     .sq_entries = 1024,
                                     .cq_entries = 1024,
                                     .tx_chunk_count = 256,
                                     .rx_chunk_count = 256,
                                     .chunk_bytes = 16384};

Result<wire::TcpPacket> parse(const ByteView& packet) {
  wire::TcpPacket parsed;
  const auto verdict = wire::parse_ip_packet({&packet, 1}, static_cast<std::uint32_t>(packet.size()),
                                             wire::ChecksumMode::kAcceptPartial, parsed);
  if (verdict == wire::ParseVerdict::kOk) return parsed;
  return error(ErrorCode::kInvalid, std::string(wire::name(verdict)));
}

std::vector<std::byte> ethernet_frame(ByteView packet) {
  std::vector<std::byte> frame(wire::kEthernetBytes + packet.size());
  const bool v4 = (std::to_integer<unsigned>(packet.front()) >> 4) == 4;
  frame[12] = std::byte{static_cast<unsigned char>(v4 ? 0x08 : 0x86)};
  frame[13] = std::byte{static_cast<unsigned char>(v4 ? 0x00 : 0xdd)};
  std::ranges::copy(packet, frame.begin() + wire::kEthernetBytes);
  return frame;
}

}  // namespace

Result<std::unique_ptr<Form>> AdoptForm::make(const Flags& flags, const VirtualClock& clock, Observer& observer) {
  ASSIGN_OR_RETURN(Tun tun, Tun::open(flags));
  ASSIGN_OR_RETURN(auto filter, kernel::LateFilter::load(kLateRingBytes));
  ASSIGN_OR_RETURN(ipc::Arena arena, ipc::Arena::create(kArena, kSession));
  auto hook = kernel::CongestionHook::load();
  return std::unique_ptr<Form>(new AdoptForm(flags, clock, observer, std::move(tun), std::move(arena),
                                             std::move(filter), hook ? std::move(*hook) : nullptr));
}

AdoptForm::AdoptForm(const Flags& flags, const VirtualClock& clock, Observer& observer, Tun tun, ipc::Arena arena,
                     std::unique_ptr<kernel::LateFilter> filter, std::unique_ptr<kernel::CongestionHook> hook)
    : clock_(clock),
      observer_(observer),
      flags_(flags),
      tun_(std::move(tun)),
      filter_(std::move(filter)),
      hook_(std::move(hook)),
      arena_(std::move(arena)),
      program_(arena_),
      receive_room_(kRoomBytes),
      send_room_(kRoomBytes) {
  nic::MemoryWire wire = nic::MemoryWire::make({.mtu_bytes = 65535, .checksum = wire::ChecksumMode::kAcceptPartial});
  wire_end_ = std::move(wire.b);
  box_ = std::make_unique<engine::test::LaneBox>(std::move(wire.a), clock_.now());
  box_->lane.open_session(kSession, arena_);
  engine::test::set_hop(*box_, 0, flags_.mtu);
  tools_.receive_room = receive_room_;
  tools_.send_room = send_room_;
  tools_.deliver_late = [this] { deliver_late(); };
  tools_.now = [this] { return clock_.now(); };
}

AdoptForm::~AdoptForm() = default;

// ---- Who gets a packet

Result<> AdoptForm::steer(const FlowKey& flow, std::uint32_t /*generation*/) {
  steered_.push_back(flow);
  return {};
}

Result<> AdoptForm::unsteer(const FlowKey& flow) {
  std::erase(steered_, flow);
  return {};
}

bool AdoptForm::is_steered(const FlowKey& flow) const { return std::ranges::find(steered_, flow) != steered_.end(); }

Result<> AdoptForm::inject(std::span<const nic::RxFrame> frames) {
  for (const nic::RxFrame& frame : frames) {
    std::vector<std::byte> bytes(frame.length_bytes);
    Payload(frame.parts, 0, frame.length_bytes).copy_to(bytes);
    to_linux(ByteView(bytes).subspan(wire::kEthernetBytes));
  }
  return {};
}

void AdoptForm::packet_in(ByteView ip_packet) {
  const auto packet = parse(ip_packet);
  if (packet && is_steered(packet->flow)) {
    to_engine(ip_packet);
    return work();
  }
  if (packet) note_received(*packet);
  to_linux(ip_packet);
  look_at_connecting();
}

void AdoptForm::to_linux(ByteView packet) {
  linux_is_busy_ = true;
  (void)tun_.write(packet);  // refused: as a bad packet is dropped
  from_linux();
}

void AdoptForm::from_linux() {
  note_time();
  std::vector<std::byte> packet;
  while (tun_.read(packet)) {
    note_sent(packet);
    observer_.packet_out(packet);
  }
}

void AdoptForm::to_engine(ByteView packet) {
  const auto frame = ethernet_frame(packet);
  const auto room = wire_end_->allocate_tx();
  std::ranges::copy(frame, room.begin());
  wire_end_->commit_tx(static_cast<std::uint32_t>(frame.size()));
  wire_end_->flush();
}

// `swallow_ack`: a bare ACK that comes first is left out.
void AdoptForm::from_engine(bool swallow_ack) {
  wire_end_->advance(clock_.now());
  for (auto frames = wire_end_->receive(64); !frames.empty(); frames = wire_end_->receive(64)) {
    for (const nic::RxFrame& frame : frames) {
      const ByteView packet = frame.parts.front().subspan(wire::kEthernetBytes);
      const auto parsed = parse(packet);
      const bool bare = parsed && parsed->payload.empty() && parsed->segment.flags == wire::kAck;
      if (!std::exchange(swallow_ack, false) || !bare) observer_.packet_out(packet);
    }
    wire_end_->release();
  }
}

// Everything that is to be done at this instant.
void AdoptForm::work(bool swallow_ack) {
  bool busy = true;
  while (busy) {
    box_->link->advance(clock_.now());
    busy = box_->lane.poll(clock_.now());
    from_engine(std::exchange(swallow_ack, false));
    program_.pump([this](int fd, std::uint32_t events) { observer_.wake(fd, events); });
    take_events();
    for (auto frame = box_->lane.take_stray(); !frame.empty(); frame = box_->lane.take_stray()) {
      to_linux(ByteView(frame).subspan(wire::kEthernetBytes));
    }
  }
  from_linux();
  note_activity();
}

void AdoptForm::deliver_late() {
  (void)filter_->poll([this](const kernel::LatePacket& late) {
    for (auto& [fd, socket] : sockets_) {
      if (!socket.move || socket.move->kernel->cookie() != late.cookie) continue;
      std::vector<std::byte> packet(late.ip_header.begin(), late.ip_header.end());
      packet.insert(packet.end(), late.tcp.begin(), late.tcp.end());
      const ipc::Owner owner = socket.move->gate().owner();
      if (socket.move->hw && (owner == ipc::Owner::kToEngine || owner == ipc::Owner::kEngine)) {
        (void)handoff::inject_frame(*socket.move, ethernet_frame(packet));
      } else {
        to_linux(packet);
      }
    }
  });
}

// ---- What the handshake on the wire tells

AdoptForm::Seen& AdoptForm::seen(const FlowKey& flow) {
  const auto found = std::ranges::find(seen_, flow, &Seen::flow);
  if (found != seen_.end()) return *found;
  seen_.emplace_back().flow = flow;
  return seen_.back();
}

void AdoptForm::note_sent(ByteView packet) {
  const auto parsed = parse(packet);
  if (!parsed) return;
  Seen& flow = seen(engine::test::reversed(parsed->flow));
  if (parsed->segment.has(wire::kSyn)) {
    flow.repeated = std::exchange(flow.asked, true);
    flow.syn_sent = clock_.now();
  }
  if (!parsed->segment.options.has_timestamps) return;
  flow.times.last_ts_val = parsed->segment.options.ts_val;
  flow.times.last_sent = clock_.now();
}

void AdoptForm::note_received(const wire::TcpPacket& packet) {
  Seen& flow = seen(packet.flow);
  if (!flow.asked || flow.repeated || flow.times.round_trip || !packet.segment.has(wire::kAck)) return;
  flow.times.round_trip = clock_.now() - flow.syn_sent;
}

// ---- Time

Time AdoptForm::next_deadline() { return box_->lane.next_deadline(); }

void AdoptForm::on_time() {
  work();
  look_at_connecting();
}

Duration AdoptForm::pass(Duration span) {
  if (!linux_is_busy_) return span;
  const Time begun = monotonic_now();
  const Duration slice = std::min(span, kRealSlice);
  tun_.wait(slice);
  // A sleep that lasted longer than it should does not count: virtual time is exact.
  return std::clamp<Duration>(monotonic_now() - begun, Duration::zero(), slice);
}

void AdoptForm::note_time() {
  timespec ts{};
  ::clock_gettime(CLOCK_REALTIME, &ts);
  times_.push_back({Time(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec)), clock_.now()});
}

// What Linux has stamped at `real` happened before the next time that was noted: that is, at its virtual time.
Time AdoptForm::to_virtual(Time real) const {
  const auto next = std::ranges::lower_bound(times_, real, {}, &TimePair::real);
  return next == times_.end() ? clock_.now() : next->virtual_time;
}

std::string AdoptForm::summary() const {
  std::string line =
      "adopt offloads=" + std::to_string(counts_.offloads) + " uploads=" + std::to_string(counts_.uploads);
  for (const std::string& why : counts_.refusals) line += " stayed=\"" + why + "\"";
  for (const std::string& why : counts_.causes) line += " back=\"" + why + "\"";
  return line;
}

}  // namespace twinstack::packetdrill
