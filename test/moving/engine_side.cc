#include "moving/engine_side.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "handoff/inject.h"
#include "handoff/offload.h"
#include "handoff/park.h"
#include "handoff/upload.h"
#include "moving/gated_link.h"
#include "sockets/tcp_info.h"
#include "tcp/flight.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::moving {

namespace {

constexpr std::uint32_t kSession = 1;
constexpr std::uint32_t kRoomMargin = 64U << 10;  // QueueRoom

// All of it is locked in memory by packetdrill.
constexpr ipc::ArenaConfig kArena = {.slot_count = 64,
                                     .rings_per_lane = 1,
                                     .lane_count = 1,
                                     .sq_entries = 1024,
                                     .cq_entries = 1024,
                                     .tx_chunk_count = 256,
                                     .rx_chunk_count = 256,
                                     .chunk_bytes = 16384};

bool is_bare_ack(ByteView packet) {
  wire::TcpPacket parsed;
  const auto verdict = wire::parse_ip_packet({&packet, 1}, static_cast<std::uint32_t>(packet.size()),
                                             wire::ChecksumMode::kAcceptPartial, parsed);
  return verdict == wire::ParseVerdict::kOk && parsed.payload.empty() && parsed.segment.flags == wire::kAck;
}

// Linux tcp_cwnd_test(): half of the window at a time.
std::uint32_t one_burst(const tcp::ControlBlock& cb) {
  const std::uint32_t in_flight = tcp::packets_in_flight(cb);
  const std::uint32_t room = cb.cwnd > in_flight ? cb.cwnd - in_flight : 0;
  return std::min(room, std::max(cb.cwnd / 2, 1U)) * cb.mss;
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

Result<std::unique_ptr<EngineSide>> EngineSide::make(const Options& options, const Time& now, Hooks hooks) {
  ASSIGN_OR_RETURN(ipc::Arena arena, ipc::Arena::create(kArena, kSession));
  return std::unique_ptr<EngineSide>(new EngineSide(options, now, std::move(hooks), std::move(arena)));
}

EngineSide::EngineSide(const Options& options, const Time& now, Hooks hooks, ipc::Arena arena)
    : now_(now),
      hooks_(std::move(hooks)),
      arena_(std::move(arena)),
      program_(arena_),
      receive_room_(std::make_unique_for_overwrite<std::byte[]>(options.room_bytes)),
      send_room_(std::make_unique_for_overwrite<std::byte[]>(options.room_bytes)) {
  nic::MemoryWire wire = nic::MemoryWire::make({.mtu_bytes = 65535, .checksum = options.checksum});
  wire_end_ = std::move(wire.b);
  std::unique_ptr<nic::Link> device = std::move(wire.a);
  if (hooks_.takes_more) device = std::make_unique<GatedLink>(std::move(device), hooks_.takes_more);
  box_ = std::make_unique<engine::test::LaneBox>(std::move(device), now_);
  box_->lane.open_session(kSession, arena_);
  engine::test::set_hop(*box_, 0, options.mtu);
  const auto limit = static_cast<std::uint32_t>(options.room_bytes) - kRoomMargin;
  tools_.limits.receive_queue_bytes = std::min(tools_.limits.receive_queue_bytes, limit);
  tools_.limits.send_queue_bytes = std::min(tools_.limits.send_queue_bytes, limit);
  tools_.receive_room = {receive_room_.get(), options.room_bytes};
  tools_.send_room = {send_room_.get(), options.room_bytes};
  tools_.deliver_late = hooks_.deliver_late;
  tools_.now = [this] { return now_; };
  // The engine's last words leave before the other stack speaks (Lane::take_last_words()).
  tools_.before_upload_step = [this](handoff::UploadStep step) -> Result<> {
    if (step == handoff::UploadStep::kRestore) from_engine(false);
    return {};
  };
}

EngineSide::~EngineSide() = default;

// ---- Connections and moves

EngineConn& EngineSide::open(int fd, std::unique_ptr<kernel::KernelConn> kernel) {
  EngineConn& conn = conns_.emplace_back();
  conn.ring = &program_.open(fd);
  conn.move.kernel = std::move(kernel);
  conn.move.arena = &arena_;
  conn.move.session = kSession;
  conn.move.slot = conn.ring->slot;
  conn.move.tag = conn.ring->tag;
  conn.move.port = &box_->port;
  conn.move.path = this;
  return conn;
}

void EngineSide::close(EngineConn& conn) {
  program_.close(*conn.ring);
  conns_.remove_if([&](const EngineConn& other) { return &other == &conn; });
}

Result<> EngineSide::offload(EngineConn& conn) {
  TRY(handoff::check(conn.move, tools_));
  TRY(handoff::offload(conn.move, tools_));
  return {};
}

Result<> EngineSide::park(EngineConn& conn) {
  TRY(handoff::park(conn.move, tools_));
  conn.room.begin(tcb(conn));
  conn.no_room = false;
  return {};
}

Result<> EngineSide::upload(EngineConn& conn) {
  TRY(handoff::upload(conn.move, tools_));
  return {};
}

// ---- Who gets a packet

Result<> EngineSide::steer(const FlowKey& flow, std::uint32_t /*generation*/) {
  steered_.push_back(flow);
  return {};
}

Result<> EngineSide::unsteer(const FlowKey& flow) {
  std::erase(steered_, flow);
  return {};
}

bool EngineSide::steers(const FlowKey& flow) const { return std::ranges::find(steered_, flow) != steered_.end(); }

Result<> EngineSide::inject(std::span<const nic::RxFrame> frames) {
  for (const nic::RxFrame& frame : frames) {
    std::vector<std::byte> bytes(frame.length_bytes);
    Payload(frame.parts, 0, frame.length_bytes).copy_to(bytes);
    hooks_.to_kernel(ByteView(bytes).subspan(wire::kEthernetBytes));
  }
  return {};
}

void EngineSide::packet_in(ByteView packet) {
  const auto frame = ethernet_frame(packet);
  const auto room = wire_end_->allocate_tx();
  std::ranges::copy(frame, room.begin());
  wire_end_->commit_tx(static_cast<std::uint32_t>(frame.size()));
  wire_end_->flush();
}

void EngineSide::give_late(std::uint64_t cookie, ByteView packet) {
  for (EngineConn& conn : conns_) {
    if (conn.move.kernel->cookie() != cookie) continue;
    const ipc::Owner owner = conn.move.gate().owner();
    if (conn.in_engine() && (owner == ipc::Owner::kToEngine || owner == ipc::Owner::kEngine)) {
      (void)handoff::inject_frame(conn.move, ethernet_frame(packet));
    } else {
      hooks_.to_kernel(packet);
    }
    return;
  }
}

void EngineSide::packet_too_big(const FlowKey& flow, Seq quoted_seq, std::uint32_t mtu) {
  for (const EngineConn& conn : conns_) {
    if (!conn.in_engine() || conn.move.kernel->flow() != flow) continue;
    (void)box_->call({.op = engine::CommandOp::kPacketTooBig,
                      .id = conn.move.hw,
                      .quoted_seq = quoted_seq.raw(),
                      .path_mtu_bytes = mtu});
  }
}

void EngineSide::from_engine(bool swallow_ack) {
  wire_end_->advance(now_);
  for (auto frames = wire_end_->receive(64); !frames.empty(); frames = wire_end_->receive(64)) {
    for (const nic::RxFrame& frame : frames) {
      const ByteView packet = frame.parts.front().subspan(wire::kEthernetBytes);
      if (!std::exchange(swallow_ack, false) || !is_bare_ack(packet)) hooks_.to_wire(packet);
    }
    wire_end_->release();
  }
}

void EngineSide::take_events() {
  for (const engine::Event& event : box_->events()) {
    if (event.type != engine::EventType::kToSoftware) continue;
    const auto found = std::ranges::find_if(conns_, [&](const EngineConn& conn) { return conn.move.hw == event.id; });
    if (found != conns_.end() && found->in_engine()) hooks_.to_software(*found, engine::to_string(event.cause));
  }
}

void EngineSide::work(bool swallow_ack) {
  bool busy = true;
  while (busy) {
    box_->link->advance(now_);
    busy = box_->lane.poll(now_);
    from_engine(std::exchange(swallow_ack, false));
    program_.pump([this](int fd, std::uint32_t events) { hooks_.wake(fd, events); });
    take_events();
    for (auto frame = box_->lane.take_stray(); !frame.empty(); frame = box_->lane.take_stray()) {
      hooks_.to_kernel(ByteView(frame).subspan(wire::kEthernetBytes));
    }
  }
  note_activity();
}

// ---- The program's calls

void EngineSide::note_activity() {
  for (EngineConn& conn : conns_) {
    if (!conn.in_engine()) continue;
    conn.chronograph.turn_to(stack::Chronograph::activity_of(tcb(conn), conn.no_room), now_);
    if (conn.no_room && conn.room.is_writable(tcb(conn), hooks_.send_limits(conn))) {
      conn.no_room = false;
      hooks_.wake(conn.fd(), POLLOUT | POLLWRNORM);
    }
  }
}

// Chunk by chunk, as Linux fills its queue: each that is full may go before the next is filled. When the engine then
// has sent all of it, Linux has sent one burst, unless very much was queued, and fills up the rest of the chunk.
std::size_t EngineSide::send(EngineConn& conn, ByteView bytes, int flags) {
  const SendLimits limits = hooks_.send_limits(conn);
  std::size_t taken = 0;
  Seq sent = tcb(conn).snd_nxt;
  while (taken < bytes.size() && conn.in_engine()) {
    const std::uint32_t piece = conn.room.take(tcb(conn), sent, limits, bytes.size() - taken);
    if (piece == 0) break;
    const ByteView next = bytes.subspan(taken, piece);
    const bool last = taken + piece == bytes.size();
    const bool ends_record = last && (flags & MSG_EOR) != 0;
    const std::size_t here = program_.write(*conn.ring, next, (flags & MSG_MORE) != 0 || !last, ends_record);
    conn.room.added(next.first(here), ends_record && here == piece);
    taken += here;
    if (here < piece) break;
    if (last) break;
    const Seq burst_end = sent + one_burst(tcb(conn));
    work();
    if (!conn.in_engine()) break;
    const tcp::ControlBlock& cb = tcb(conn);
    const bool whole_chunk_went = cb.snd_nxt == cb.write_seq && cb.push_seq != cb.write_seq;
    sent = whole_chunk_went ? min(cb.snd_nxt, burst_end) : cb.snd_nxt;
  }
  conn.no_room = taken < bytes.size();
  work();
  return taken;
}

std::size_t EngineSide::receive(EngineConn& conn, std::span<std::byte> room, bool peek) {
  return program_.read(*conn.ring, room, peek);
}

std::uint32_t EngineSide::poll(EngineConn& conn) {
  std::uint32_t bits = 0;
  if (conn.ring->unread_bytes > 0) bits |= POLLIN | POLLRDNORM;
  if (!conn.in_engine()) return bits;
  if (conn.room.is_writable(tcb(conn), hooks_.send_limits(conn))) {
    bits |= POLLOUT | POLLWRNORM;
  } else {
    conn.no_room = true;
  }
  return bits;
}

void EngineSide::put_info(const EngineConn& conn, tcp::TcpInfo& info) {
  const tcp::InfoCounters base = ipc::load_counters(conn.move.shared().base);
  if (conn.in_engine()) {
    sockets::put_engine_state(query(conn), base, info);
  } else {
    sockets::add_base(base, &info, sizeof info);
  }
}

}  // namespace twinstack::moving
