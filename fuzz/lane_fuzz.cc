// A lane with a hostile program and a hostile peer: submission entries and shared words of any value, packets of any
// shape for its connection, moves in between. Beside it lives an innocent session whose bytes must flow all the same.
#include <memory>
#include <vector>

#include "arena.h"
#include "base/assert.h"
#include "engine/test_support.h"
#include "input.h"

namespace twinstack {
namespace {

using namespace engine;
using namespace engine::test;

constexpr std::uint32_t kEvil = 9;

class FuzzedLane {
 public:
  explicit FuzzedLane(fuzz::Input& input) : input_(input) {
    set_hop(box_);
    box_.lane.open_session(kSession, good_.arena());
    box_.lane.open_session(kEvil, evil_.arena());
    ASSERT(install(box_, good_, victim_,
                   {.min = idle_state(flow_number(1), 1, 1), .send_queue = {}, .unread = {}, .frames = {}}) ==
           Status::kOk);
    reinstall({.min = idle_state(flow_number(2), 1, 1), .send_queue = {}, .unread = {}, .frames = {}});
  }

  void run() {
    for (int i = 0; i < 300 && !input_.empty(); ++i) step();
    victim_is_well();
    take_apart();
  }

 private:
  void reinstall(const Moved& moved) {
    if (install(box_, evil_, mine_, moved) == Status::kOk) return;
    mine_.hw = 0;
  }

  void step() {
    switch (input_.below(9)) {
      case 0:
      case 1:
      case 2:
        submit();
        break;
      case 3:
        scribble();
        break;
      case 4:
        packet();
        break;
      case 5:
        now_ += std::chrono::microseconds(input_.take<std::uint16_t>());
        break;
      case 6:
        command();
        break;
      case 7:
        evil_.completions(input_.below(2)).release();
        break;
      default:
        poll();
        break;
    }
  }

  void poll() {
    box_.lane.poll(now_);
    (void)box_.events();
    while (!box_.lane.take_stray().empty()) {
    }
    peer_.receive(now_);
  }

  void submit() {
    const std::uint32_t ring = input_.below(2);
    if (evil_.room(ring) == 0) return;
    auto entry = Program::send_entry(mine_.hw, input_.below(200), input_.below(5000), input_.below(5000));
    entry.op = static_cast<ipc::SubmitOp>(input_.below(8) == 0 ? input_.take<std::uint8_t>() : 1U + input_.below(4));
    entry.flags = static_cast<std::uint8_t>(input_.below(8) == 0 ? input_.take<std::uint8_t>() : input_.below(4));
    if (input_.below(8) == 0) entry.hw_conn_id = input_.take<std::uint64_t>();
    if (input_.below(8) == 0) entry.chunk = input_.take<std::uint32_t>();
    if (input_.below(8) == 0) entry.offset = input_.take<std::uint32_t>();
    if (input_.below(8) == 0) entry.length = input_.take<std::uint32_t>();
    evil_.submit(ring, entry);
  }

  // Any word of what the program may write: indices and slot.
  void scribble() {
    auto& ring = evil_.arena().ring(input_.below(2));
    ipc::RingIndex* const words[] = {&ring.sq_tail, &ring.sq_head,        &ring.cq_tail,
                                     &ring.cq_head, &ring.sq_need_wakeup, &ring.cq_need_wakeup};
    ipc::RingIndex& word = *words[input_.below(6)];
    const std::uint32_t value =
        input_.below(2) == 0 ? input_.take<std::uint32_t>() : word.value.load() + input_.below(8);
    word.value.store(value);
    auto& slot = evil_.arena().slot(mine_.slot);
    slot.tx_acked_bytes.store(input_.take<std::uint8_t>());
    slot.want_tx_space.store(input_.below(2));
  }

  void packet() {
    std::vector<std::byte> payload(input_.below(1200));
    const std::uint8_t flags =
        input_.below(6) == 0 ? input_.take<std::uint8_t>() : static_cast<std::uint8_t>(wire::kAck);
    auto frame = peer_.frame(payload, flags, [&](wire::Segment& segment) {
      if (mine_.hw != 0) {
        const auto& tcb = box_.conn(HwConnId(mine_.hw)).tcb;
        segment.seq = tcb.rcv_nxt + static_cast<std::uint32_t>(input_.take<std::int8_t>()) * 50U;
        segment.ack = input_.below(2) == 0 ? tcb.snd_nxt : tcb.snd_una + input_.below(3000);
      }
      segment.window = input_.take<std::uint16_t>();
    });
    if (input_.below(8) == 0) frame[input_.below(static_cast<std::uint32_t>(frame.size()))] ^= std::byte{0x40};
    peer_.send_frame(frame);
  }

  void command() {
    if (mine_.hw == 0) return;
    const HwConnId id(mine_.hw);
    switch (input_.below(7)) {
      case 0:
        (void)box_.call({.op = CommandOp::kDrain, .id = id, .flag = input_.below(2)});
        break;
      case 1:
        ASSERT(box_.call({.op = CommandOp::kHold, .id = id}).status == Status::kOk);
        (void)box_.call({.op = CommandOp::kExtract, .id = id});
        poll();
        ASSERT(box_.call({.op = CommandOp::kActivate, .id = id}).status == Status::kOk);
        break;
      case 2:
        (void)box_.call({.op = CommandOp::kQuery, .id = id});
        break;
      case 3:
        (void)box_.call({.op = CommandOp::kPacketTooBig,
                         .id = id,
                         .quoted_seq = box_.conn(id).tcb.snd_una.raw() + input_.below(4000),
                         .path_mtu_bytes = input_.below(3000)});
        break;
      case 4:
        set_hop(box_, 0, 576 + 8 * input_.below(1024));
        break;
      case 5:
        late_packet(id);
        break;
      default:
        move(id);
        break;
    }
  }

  // What the driver brings is a packet of the peer all the same.
  void late_packet(HwConnId id) {
    std::vector<std::byte> payload(input_.below(1200));
    const auto frame = peer_.frame(payload, wire::kAck, [&](wire::Segment& segment) {
      segment.seq = box_.conn(id).tcb.rcv_nxt + input_.below(3) * 600U;
      segment.ack = box_.conn(id).tcb.snd_una;
    });
    (void)engine::test::inject(box_, evil_, id, frame);
  }

  // Out and in again; the id that the program knows may be the old one for a while.
  void move(HwConnId id) {
    ASSERT(box_.call({.op = CommandOp::kHold, .id = id}).status == Status::kOk);
    const Reply reply = box_.call({.op = CommandOp::kExtract, .id = id});
    if (reply.status != Status::kOk) {
      ASSERT(box_.call({.op = CommandOp::kActivate, .id = id}).status == Status::kOk);
      return;
    }
    Moved moved{.min = reply.state.min, .send_queue = {}, .unread = {}, .frames = {}};
    moved.min.copied_seq = moved.min.rcv_nxt;
    moved.send_queue.resize(moved.min.write_seq - moved.min.snd_una);
    ASSERT(box_.call({.op = CommandOp::kRelease, .id = id}).status == Status::kOk);
    mine_.hw = 0;
    reinstall(moved);
  }

  void victim_is_well() {
    poll();
    good_.pump();
    const std::uint64_t before = box_.record(HwConnId(victim_.hw)).counters.bytes_sent;
    ASSERT(good_.write(victim_, 100) == 100);
    box_.lane.poll(now_);
    ASSERT(box_.record(HwConnId(victim_.hw)).counters.bytes_sent == before + 100);
  }

  // The driver can always take everything away.
  void take_apart() {
    if (mine_.hw != 0) {
      ASSERT(box_.call({.op = CommandOp::kHold, .id = HwConnId(mine_.hw)}).status == Status::kOk);
      ASSERT(box_.call({.op = CommandOp::kRelease, .id = HwConnId(mine_.hw)}).status == Status::kOk);
    }
    for (const HwConn& conn : box_.region.conns()) {
      if (conn.state == ConnState::kFree || conn.session != kEvil) continue;
      const auto index = static_cast<std::uint32_t>(&conn - box_.region.conns().data());
      ASSERT(box_.call({.op = CommandOp::kRelease, .id = HwConnId(0, index, conn.generation)}).status == Status::kOk);
    }
    box_.lane.close_session(kEvil);
    box_.lane.poll(now_);
    ASSERT(box_.lane.active_connections() == 1);
    ASSERT(box_.lane.free_pieces() + 1 == 512);  // the victim's
  }

  fuzz::Input& input_;
  Time now_ = kStart;
  nic::MemoryWire wire_ = nic::MemoryWire::make();
  std::unique_ptr<nic::MemoryLink> far_ = std::move(wire_.b);
  Program good_{fuzz::kArena, kSession};
  Program evil_{fuzz::kArena, kEvil};
  ProgramConn& victim_ = good_.open(1);
  ProgramConn& mine_ = evil_.open(2);
  LaneBox box_{std::move(wire_.a), now_, {8, 512}};
  RawPeer peer_{*far_, reversed(flow_number(2)), 1, 1};
};

}  // namespace
}  // namespace twinstack

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  twinstack::fuzz::Input input(data, size);
  twinstack::FuzzedLane(input).run();
  return 0;
}
