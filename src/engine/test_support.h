// Test support of the engine, also for the hand-off's tests, the fuzz targets and the benchmark: a lane with its memory
// (LaneBox), a program that speaks the rings as the socket layer does (Program), a peer of bare segments (RawPeer), and
// two ends joined by a memory link in virtual time (World). One thread. Not part of the library.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "engine/lane.h"
#include "handoff/engine_port.h"
#include "ipc/arena.h"
#include "nic/memory_link.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::engine::test {

inline constexpr Time kStart = Time(std::chrono::hours(1));
inline constexpr std::uint32_t kSession = 3;

// The stream with `key` from byte `position` on; never repeats within a chunk's length.
void fill_stream(std::uint32_t key, std::uint64_t position, std::span<std::byte> out) noexcept;
[[nodiscard]] std::vector<std::byte> stream_bytes(std::uint32_t key, std::uint64_t position, std::size_t count);

[[nodiscard]] ipc::ArenaConfig small_arena();

// The flow of connection `number`, seen from end a. End b sees reversed().
[[nodiscard]] FlowKey flow_number(std::uint32_t number, bool v6 = false);
// An idle connection: timestamps, SACK, window scale 7 on both sides, cwnd of ten segments.
[[nodiscard]] tcp::MinTcp idle_state(const FlowKey& flow, std::uint32_t our_seq, std::uint32_t peer_seq);

// One connection as the socket layer keeps it.
struct ProgramConn {
  std::uint32_t slot = 0;
  std::uint32_t tag = 1;
  std::uint32_t ring = 0;
  std::uint64_t hw = 0;
  std::uint32_t send_key = 1;
  std::uint32_t receive_key = 2;
  std::uint64_t written = 0;   // stream position of the next byte that the program writes
  std::uint64_t received = 0;  // ... that it reads
  std::uint64_t sent_events = 0;
  std::uint64_t owner_events = 0;

  struct Sent {
    std::uint32_t chunk;
    std::uint32_t bytes;
  };
  std::deque<Sent> in_flight;      // tx chunks, oldest first
  std::uint64_t reclaimed = 0;     // of tx_acked_bytes
  std::uint32_t tx_chunk = kNone;  // being filled
  std::uint32_t tx_fill = 0;
  std::deque<ipc::CompleteEntry> unread;
  std::uint64_t unread_bytes = 0;
};

// The program of one session.
class Program {
 public:
  explicit Program(const ipc::ArenaConfig& config = small_arena(), std::uint32_t session = kSession);

  // A connection of the program; its owner is the engine.
  ProgramConn& open(std::uint32_t slot, std::uint32_t ring = 0);

  // Writes as much of `bytes` as the send buffer and the chunks take; returns how much. Pieces of at most `piece`
  // bytes.
  std::uint32_t write(ProgramConn& conn, std::uint32_t bytes, std::uint32_t piece = UINT32_MAX);
  // Reads up to `bytes`, checks them against the stream, gives the chunks back.
  std::uint64_t read(ProgramConn& conn, std::uint64_t bytes = UINT64_MAX);
  // Takes the completions of all rings in.
  void pump();

  void submit(std::uint32_t ring, const ipc::SubmitEntry& entry);
  [[nodiscard]] std::uint32_t room(std::uint32_t ring) { return submit_[ring].room(); }
  // An entry kSend of one byte of chunk 0 that is in order.
  [[nodiscard]] static ipc::SubmitEntry send_entry(std::uint64_t hw, std::uint32_t chunk, std::uint32_t offset,
                                                   std::uint32_t length);
  [[nodiscard]] static ipc::SubmitEntry return_entry(std::uint64_t hw, std::uint32_t chunk, std::uint32_t length);

  [[nodiscard]] const ipc::Arena& arena() const noexcept { return arena_; }
  [[nodiscard]] std::uint32_t session() const noexcept { return session_; }
  [[nodiscard]] std::size_t free_tx_chunks() const noexcept { return free_chunks_.size(); }
  [[nodiscard]] ipc::CompleteConsumer& completions(std::uint32_t ring) { return complete_[ring]; }
  [[nodiscard]] ipc::SubmitProducer& submissions(std::uint32_t ring) { return submit_[ring]; }

  std::uint64_t wrong_pieces = 0;              // whose bytes were not the stream's
  std::uint64_t bad_completions = 0;           // of no connection, or out of bounds
  std::map<std::uint32_t, ProgramConn> conns;  // by slot

 private:
  void reclaim(ProgramConn& conn);
  void take(const ipc::CompleteEntry& entry);

  std::uint32_t session_;
  ipc::Arena arena_;
  std::vector<ipc::SubmitProducer> submit_;
  std::vector<ipc::CompleteConsumer> complete_;
  std::vector<std::uint32_t> free_chunks_;
  std::vector<std::byte> expected_;
};

// One lane with its memory, the driver's end of its control queue, and the clock that both use.
class LaneBox final : public Waker, public handoff::LaneDoorbell {
 public:
  LaneBox(std::unique_ptr<nic::Link> link, const Time& now, const LaneCapacity& capacity = {64, 4096},
          std::uint32_t index = 0);

  void wake(std::uint32_t session, std::uint32_t ring) override { woken.insert({session, ring}); }
  void ring() override { lane.process_commands(now_); }

  Reply call(const Command& command) { return port.call(command); }
  // All events since the last call.
  std::vector<Event> events();
  [[nodiscard]] const HwConn& conn(HwConnId id) const { return region.conns()[id.index()]; }
  [[nodiscard]] const HwConnRecord& record(HwConnId id) const { return region.records()[id.index()]; }
  [[nodiscard]] std::uint32_t free_pieces();

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept;
  };
  std::unique_ptr<std::byte[], Free> memory_;
  const Time& now_;

 public:
  LaneRegion region;
  std::unique_ptr<nic::Link> link;
  Lane lane;
  handoff::EnginePort port;
  std::set<std::pair<std::uint32_t, std::uint32_t>> woken;
};

// What travels between two installs of a connection.
struct Moved {
  tcp::MinTcp min;
  std::vector<std::byte> send_queue;
  std::vector<std::byte> unread;
  std::vector<std::vector<std::byte>> frames;  // held; oldest first
};

// The driver's part, for tests of the lane alone.
Reply reserve(LaneBox& box, const Program& program, const ProgramConn& conn, const FlowKey& flow, std::uint32_t chunks);
// Reserves, installs, injects the frames, activates. Sets conn.hw. Returns the first status that is not kOk.
Status install(LaneBox& box, Program& program, ProgramConn& conn, const Moved& moved, std::uint32_t hop = 0);
// Holds, extracts, takes the held frames over, releases.
Moved extract(LaneBox& box, Program& program, ProgramConn& conn);
// Frames of the connection's held lists, copied.
std::vector<std::vector<std::byte>> held_frames(LaneBox& box, const Program& program, const Reply& reply);
// Gives a frame to connection `id` as the late filter's.
Status inject(LaneBox& box, const Program& program, HwConnId id, std::span<const std::byte> frame);
void set_hop(LaneBox& box, std::uint32_t index = 0, std::uint32_t mtu = 1500);

// The other end of the wire, one connection, segment by segment.
class RawPeer {
 public:
  // `flow` as the peer sees it.
  RawPeer(nic::Link& link, const FlowKey& flow, std::uint32_t our_seq, std::uint32_t their_seq);

  struct Got {
    wire::Segment segment;
    std::vector<std::byte> payload;
    nic::MacAddress destination_mac;
  };
  // All that has arrived since the last call; follows the sequence numbers.
  std::vector<Got> receive(Time now);
  // A segment at our sequence number with an up-to-date ACK; `change` may spoil it.
  void send(std::span<const std::byte> payload, std::uint8_t flags = wire::kAck,
            const std::function<void(wire::Segment&)>& change = {});
  [[nodiscard]] std::vector<std::byte> frame(std::span<const std::byte> payload, std::uint8_t flags = wire::kAck,
                                             const std::function<void(wire::Segment&)>& change = {}) const;
  void send_frame(std::span<const std::byte> frame);

  Seq seq;                     // of our next byte
  Seq ack;                     // their next byte
  std::uint16_t window = 512;  // scaled by 7
  std::uint32_t ts_val = 1000;
  std::uint32_t ts_ecr = 0;

 private:
  nic::Link& link_;
  FlowKey flow_;
};

// Two lanes joined by a wire.
class World {
 public:
  explicit World(const nic::MemoryWireOptions& wire = {},
                 const std::function<std::unique_ptr<nic::Link>(std::unique_ptr<nic::Link>)>& wrap = {},
                 const LaneCapacity& capacity = {64, 4096});

  // Polls both ends until neither has work, calling `between` after each round; then goes to the next deadline. Ends
  // when `done` says so (true) or `limit` of virtual time has passed (false).
  bool run(Duration limit, const std::function<bool()>& done, const std::function<void()>& between = {});
  // Connection `number` on both ends, slots of the same number.
  void connect(Program& at_a, Program& at_b, std::uint32_t number, bool v6 = false);

  Time now = kStart;
  std::unique_ptr<LaneBox> a;
  std::unique_ptr<LaneBox> b;

 private:
  nic::MemoryWire wire_;
};

}  // namespace twinstack::engine::test
