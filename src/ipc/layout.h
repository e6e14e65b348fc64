// The shared memory between one application, the driver and the engine: one memfd per session (the arena), made and
// sealed by the service, mapped by all. Plain data with fixed sizes; a change moves kLayoutVersion.
//
//   ArenaHeader | ConnSlot[slot_count] | ring_count x (RingHeader, SQ entries, CQ entries) | chunk_count x chunk_bytes
//
// Trust: the application can write every byte of the arena. The service keeps its own copy of the geometry and checks
// every index, offset and length that it reads here; nothing in the arena may make it touch memory outside, wait or
// abort.
//
// Chunks [0, tx_chunk_count) are the application's, for data that it sends; the rest are the engine's, for data that it
// received. The rings carry pieces of chunks; the byte counters of ConnSlot only ever grow over the life of a
// connection.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "tcp/info_counters.h"

namespace twinstack::ipc {

inline constexpr std::uint64_t kArenaMagic = 0x4b43415453'4e5754U;  // "TWNSTACK"
inline constexpr std::uint32_t kLayoutVersion = 9;
inline constexpr std::uint32_t kMaxRings = 64;
inline constexpr std::uint32_t kMaxLanes = 64;

struct ArenaGeometry {
  std::uint64_t total_bytes = 0;
  std::uint64_t slots_offset = 0;
  std::uint64_t rings_offset = 0;
  std::uint64_t ring_stride_bytes = 0;
  std::uint64_t chunks_offset = 0;  // page aligned
  std::uint32_t slot_count = 0;
  std::uint32_t ring_count = 0;  // ring i is served by lane (i % lane_count)
  std::uint32_t lane_count = 0;
  std::uint32_t sq_entries = 0;      // power of two
  std::uint32_t cq_entries = 0;      // power of two
  std::uint32_t tx_chunk_count = 0;  // chunks [0, tx_chunk_count) belong to the application
  std::uint32_t chunk_count = 0;     // the others to the engine
  std::uint32_t chunk_bytes = 0;

  friend bool operator==(const ArenaGeometry&, const ArenaGeometry&) = default;
};

enum class ServiceState : std::uint32_t { kRunning = 1, kStopped = 2 };

struct alignas(64) ArenaHeader {
  std::uint64_t magic = kArenaMagic;
  std::uint32_t version = kLayoutVersion;
  std::uint32_t header_bytes = sizeof(ArenaHeader);
  std::uint64_t session_id = 0;
  ArenaGeometry geometry;
  std::atomic<ServiceState> service_state = ServiceState::kRunning;
};

// Who sends for a connection. One owner at any instant (architecture, section 3).
enum class Owner : std::uint8_t {
  kFree = 0,      // the slot holds no connection; the application may use it again
  kKernel = 1,    // data calls go to the kernel socket
  kToEngine = 2,  // a move is under way: data calls wait
  kEngine = 3,    // data calls go through the rings
  kToKernel = 4,  // a move is under way: data calls wait
};

using SharedCounters = tcp::BasicInfoCounters<std::atomic<std::uint64_t>, std::atomic<std::uint32_t>>;

inline void store_counters(SharedCounters& to, const tcp::InfoCounters& from) noexcept {
  tcp::for_each_counter(to, from, [](auto& a, const auto& b) { a.store(b, std::memory_order_relaxed); });
}
[[nodiscard]] inline tcp::InfoCounters load_counters(const SharedCounters& from) noexcept {
  tcp::InfoCounters out{};
  tcp::for_each_counter(out, from, [](auto& a, const auto& b) { a = b.load(std::memory_order_relaxed); });
  return out;
}

// Which reads the engine wants to hear of at once, since the peer waits for what it says then.
enum class WantRead : std::uint32_t {
  kNone = 0,
  kLast = 1,   // the one that empties the queue: an ACK goes with it
  kEvery = 2,  // the window is small: one that makes room may open it
};

// One connection of the session, as all three parties see it. The owner record (see owner_gate.h) is line 0.
struct alignas(64) ConnSlot {
  // Line 0. Owner in bits 0..7, generation of the owner record above (it moves on with every change): a futex word.
  std::atomic<std::uint32_t> owner;
  std::atomic<std::uint32_t> calls_inside;   // data calls between enter() and leave()
  std::atomic<std::uint64_t> hw_conn_id;     // by the driver; 0 while the engine does not own it
  std::atomic<std::uint64_t> kernel_cookie;  // by the driver; 0 until registered
  std::atomic<std::uint32_t> tag;            // by the application: generation of the slot, moves on at each use
  std::atomic<std::uint32_t> ring;           // by the driver when it offloads: ring of this connection
  std::atomic<std::uint32_t> ring_hint;      // by the application: which of the lane's rings it prefers
  std::atomic<std::uint32_t> mover_waits;    // nonzero while the driver waits on calls_inside (futex)
  std::atomic<std::uint32_t> sleepers;       // threads waiting on `owner` (futex)
  std::atomic<std::uint32_t> lesson_due;     // by the driver, nonzero: for some tens of microseconds the kernel's
                                             // counters lack a byte (handoff/lesson.h): wait_for_lesson()
  std::uint32_t reserved0[4];

  // Line 1: written by the engine (by the driver while neither side owns).
  alignas(64) std::atomic<std::uint64_t> rx_posted_bytes;  // handed to the application through the completion ring
  std::atomic<std::uint64_t> tx_acked_bytes;  // of tx_submitted_bytes: acknowledged by the peer, or given to the kernel
  std::atomic<std::uint32_t> tx_limit_bytes;  // how far tx_submitted may run ahead of tx_acked: the send buffer
  std::atomic<WantRead> want_read;            // by the engine, for the next reads
  std::uint64_t reserved2[5];

  // Line 2: written by the application.
  alignas(64) std::atomic<std::uint64_t> rx_read_bytes;  // of rx_posted_bytes: read by the program
  std::atomic<std::uint64_t> tx_submitted_bytes;         // put into the submission ring
  std::atomic<std::uint32_t> want_tx_space;   // nonzero: wake me (kSent) when half of the send buffer is free again
  std::atomic<std::uint32_t> option_changes;  // moves on after each option set, before the call leaves the gate
  std::uint64_t reserved4[5];

  // Lines 3 and 4: written by the driver while neither side owns. TCP_INFO as it had counted when the owner of now
  // began (SharedCounters): what that one counts comes on top.
  alignas(64) SharedCounters base;
};
static_assert(sizeof(ConnSlot) == 320);

// Submission ring: application -> engine.
enum class SubmitOp : std::uint8_t {
  kSend =
      1,  // `length` bytes at `offset` of application chunk `chunk`; the chunk stays the engine's until acknowledged
  kReturn = 2,  // `length` bytes of engine chunk `chunk` were read by the program; hw_conn_id may be stale or 0
  kKick = 3,    // nothing but a wake-up
  // `length`: header_fields() of every packet from now on; hw_conn_id may be stale.
  kSetHeader = 4,
};

// Traffic class and hop limit, of SubmitOp::kSetHeader.
[[nodiscard]] constexpr std::uint32_t header_fields(std::uint8_t traffic_class, std::uint8_t hop_limit) noexcept {
  return traffic_class | std::uint32_t{hop_limit} << 8;
}

struct SubmitEntry {
  SubmitOp op;
  std::uint8_t flags;  // SubmitFlag
  std::uint16_t reserved0;
  std::uint32_t slot;
  std::uint64_t hw_conn_id;
  std::uint32_t chunk;
  std::uint32_t offset;
  std::uint32_t length;
  std::uint32_t reserved1;
};
static_assert(sizeof(SubmitEntry) == 32);

enum SubmitFlag : std::uint8_t {
  kSubmitMore = 1 << 0,       // MSG_MORE: more follows at once; a part segment may wait
  kSubmitRecordEnd = 1 << 1,  // MSG_EOR: nothing that follows shares a segment with it
};

// Completion ring: engine -> application.
enum class CompleteOp : std::uint8_t {
  kReceived = 1,      // `length` bytes at `offset` of engine chunk `chunk`: the next bytes of the stream
  kSent = 2,          // tx_acked_bytes moved: everything is acknowledged, or space was wanted and is there
  kOwnerChanged = 3,  // the owner record changed; look at the slot
  kRingRoom = 4,      // of no slot: half of the submission ring is free again, as was asked for (sq_want_room)
};

struct CompleteEntry {
  CompleteOp op;
  std::uint8_t flags;
  std::uint16_t reserved0;
  std::uint32_t slot;
  std::uint32_t tag;  // ConnSlot::tag when the connection was installed
  std::uint32_t chunk;
  std::uint32_t offset;
  std::uint32_t length;
  std::uint64_t hw_conn_id;
};
static_assert(sizeof(CompleteEntry) == 32);

// Indices run freely and are masked on use. Each ring has one producer and one consumer at a time.
struct alignas(64) RingIndex {
  std::atomic<std::uint32_t> value;
};

struct RingHeader {
  RingIndex sq_tail;         // application
  RingIndex sq_head;         // engine
  RingIndex cq_tail;         // engine
  RingIndex cq_head;         // application
  RingIndex sq_need_wakeup;  // by the engine: nonzero = write the lane's doorbell eventfd after submitting
  RingIndex cq_need_wakeup;  // by the application: nonzero = signal the ring's WakeEvent after completing
  RingIndex sq_want_room;    // by the application: nonzero = kRingRoom when half of the submission ring is free again
};
static_assert(sizeof(RingHeader) == 448);

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(std::is_standard_layout_v<ArenaHeader> && std::is_standard_layout_v<ConnSlot>);

}  // namespace twinstack::ipc
