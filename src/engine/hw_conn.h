// HwConn: what the engine keeps of one connection (HW_CONN_T of the founding document), in parts by use:
//   HwConn       hot, at most 320 bytes: the TCP control block and what every packet touches;
//   HwConnRecord 128 bytes, touched when a packet is found, built or counted: flow, references, counters;
//   HwConnKept   40 bytes, touched when the connection moves, and by who measures: what the core does not own and the
//                kernel wants back;
//   Waiting      lists of what waits for the end of a move. A connection that does not move owns none;
//   Piece        nodes of the lists of data that the connection has in flight. An idle connection owns none.
// All are plain data in tables of the lane's region (memory that outlives the engine); the driver may read them while
// the connection is held (device.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "tcp/connection.h"
#include "tcp/control_block.h"
#include "tcp/receive_tuning.h"
#include "wire/flow.h"

namespace twinstack::engine {

// HW_CONNID: lane, slot of the lane's table, and generation, so that a stale id never reaches a new connection.
// 0 is no connection: generations start at 1.
class HwConnId {
 public:
  constexpr HwConnId() noexcept = default;
  constexpr explicit HwConnId(std::uint64_t raw) noexcept : raw_(raw) {}
  constexpr HwConnId(std::uint32_t lane, std::uint32_t index, std::uint32_t generation) noexcept
      : raw_(std::uint64_t{lane} << 56 | std::uint64_t{index} << 32 | generation) {}

  [[nodiscard]] constexpr std::uint64_t raw() const noexcept { return raw_; }
  [[nodiscard]] constexpr std::uint32_t lane() const noexcept { return static_cast<std::uint32_t>(raw_ >> 56); }
  [[nodiscard]] constexpr std::uint32_t index() const noexcept {
    return static_cast<std::uint32_t>(raw_ >> 32) & 0xffffffU;
  }
  [[nodiscard]] constexpr std::uint32_t generation() const noexcept { return static_cast<std::uint32_t>(raw_); }
  [[nodiscard]] constexpr explicit operator bool() const noexcept { return raw_ != 0; }
  friend constexpr bool operator==(HwConnId, HwConnId) noexcept = default;

 private:
  std::uint64_t raw_ = 0;
};

inline constexpr std::uint32_t kMaxConnectionsPerLane = 1U << 24;
inline constexpr std::uint32_t kNone = 0xffffffffU;  // no index

enum class ConnState : std::uint8_t {
  kFree,
  kHeld,    // reserved, being installed or extracted: packets wait in the held list, nothing is sent
  kActive,  // the engine serves it
};

// Flags of HwConn.
enum HwConnFlag : std::uint8_t {
  kInTransmitList = 1 << 0,  // queued for poll_transmit
  kInPostList = 1 << 1,      // received bytes wait to be posted at the end of this batch
  kLeaving = 1 << 2,         // the driver was told (Event) that it must go back
  kDraining = 1 << 3,        // the driver waits for snd_una == snd_nxt
  kInstalled = 1 << 4,       // carries a TCP state (install done)
  kExtracted = 1 << 5,       // its state was handed out: the program has no say any more
  kShortOfChunks = 1 << 6,   // offered less than its buffer has room for: in the session's list
  kLookDue = 1 << 7,         // in the lane's LookList
};

// A piece of a chunk. Lists: the send queue (first byte = snd_una), the held frames, unread bytes of an install.
struct Piece {
  std::uint32_t next = kNone;
  std::uint32_t chunk = 0;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;  // bytes; top bits: PieceFlag

  static constexpr std::uint32_t kLengthMask = 0x0fffffffU;
  static constexpr std::uint32_t kEngineChunk = 0x80000000U;  // returns to the engine's pool, not to the application
  static constexpr std::uint32_t kFrameStart = 0x40000000U;   // held list: first piece of a frame
  static constexpr std::uint32_t kCharged = 0x10000000U;      // ... of one that is charged more than its bytes
  static constexpr std::uint32_t kMarked = 0x20000000U;       // send queue: in the lane's SendMarks

  [[nodiscard]] std::uint32_t bytes() const noexcept { return length & kLengthMask; }
};
static_assert(sizeof(Piece) == 16);

struct PieceList {
  std::uint32_t head = kNone;
  std::uint32_t tail = kNone;

  [[nodiscard]] bool empty() const noexcept { return head == kNone; }
};

inline constexpr std::uint16_t kNoTimerSlot = 0xffff;
inline constexpr std::uint16_t kNoWaiting = 0xffff;

struct alignas(64) HwConn {
  tcp::ControlBlock tcb;

  std::uint32_t generation = 1;
  ConnState state = ConnState::kFree;
  std::uint8_t flags = 0;
  std::uint16_t session = 0;
  PieceList send_queue;                // from snd_una on
  std::uint32_t send_head_skip = 0;    // bytes of the first piece that are acknowledged already
  std::uint32_t cursor_piece = kNone;  // the piece that new data was last sent from; none: the first one
  std::uint32_t cursor_seq = 0;        // sequence number of the first byte of cursor_piece
  std::uint32_t rx_chunk = kNone;      // chunk being filled with received bytes
  std::uint32_t rx_fill = 0;           // bytes of it in use
  std::uint32_t rx_posted = 0;         // of rx_fill: posted to the application
  std::uint32_t timer_next = kNone;    // timer wheel links; of a free slot: the next free one
  std::uint32_t timer_prev = kNone;
  std::uint32_t timer_tick = 0;
  std::uint16_t timer_slot = kNoTimerSlot;
  std::uint16_t waiting = kNoWaiting;     // index of its Waiting
  std::uint32_t unread_bytes = 0;         // posted, not yet returned by the program
  std::uint32_t rcv_buf_bytes = 0;        // limit of unread_bytes
  std::uint32_t engine_queued_bytes = 0;  // at the front of send_queue: came with the connection, not from the rings
  std::uint32_t transmit_next = kNone;    // link of the lane's transmit list
};
static_assert(sizeof(HwConn) <= 320, "hot state of a connection");
static_assert(sizeof(HwConn) - sizeof(tcp::ControlBlock) <= 72 + 63, "the engine's part, rounded up to a line");

// References to the software side and to the path, and what is counted.
struct alignas(64) HwConnRecord {
  FlowKey flow{};
  std::uint32_t slot = 0;  // reference to the Sonode: slot of the session's arena ...
  std::uint32_t tag = 0;   // ... and its generation
  std::uint16_t hop = 0;   // index into the lane's next hops
  std::uint8_t ring = 0;   // of the session's arena
  std::uint8_t ttl = 64;
  std::uint64_t kernel_cookie = 0;  // reference to the kernel's state
  std::uint32_t flow_label = 0;
  std::uint16_t snd_buf_units = 0;  // limit of the send queue, in kSendBufferUnit
  std::uint8_t traffic_class = 0;
  std::uint8_t reserved = 0;
  tcp::Counters counters{};

  static constexpr std::uint32_t kSendBufferUnit = 4096;
  [[nodiscard]] std::uint32_t snd_buf_bytes() const noexcept { return snd_buf_units * kSendBufferUnit; }
};
static_assert(sizeof(HwConnRecord) == 128, "a line of references, a line of counters");

// Of the MinTcp as installed: what the core does not keep and the kernel wants back. And what is seldom looked at.
struct HwConnKept {
  std::uint32_t scope_id = 0;
  std::uint32_t snd_buf_bytes = 0;       // SO_SNDBUF
  std::uint32_t rcv_buf_bytes = 0;       // SO_RCVBUF
  std::uint32_t window_clamp_bytes = 0;  // with ControlBlock's kWindowClamped
  std::uint16_t mss_clamp = 0;
  std::uint16_t flags = 0;  // MinTcpFlag that are not ControlBlock's
  tcp::ReceiveTuning receive{};
  tcp::DeliveryRate delivery_rate{};
};
static_assert(sizeof(HwConnKept) == 40);

// Asks for all of an entry, or its first bytes, to be written.
template <typename T, std::size_t kBytes = sizeof(T)>
inline void prefetch_line_by_line(const T& entry) noexcept {
  constexpr std::size_t kCacheLine = 64;
  const void* const begin = &entry;
  for (std::size_t at = 0; at < kBytes; at += kCacheLine) __builtin_prefetch(static_cast<const char*>(begin) + at, 1);
}

// What waits for a move to end.
struct Waiting {
  PieceList unread{};            // came with the connection, posted when it is activated
  PieceList held{};              // frames that wait
  PieceList late{};              // ... from the filter on the kernel socket: older than `held`
  std::uint32_t held_bytes = 0;  // that both lists of frames are charged
  std::uint16_t next_free = 0;   // in WaitingTable
  std::uint8_t for_kernel = 0;   // what `held` has for the kernel while the engine goes on: a bit for each such Arrival

  [[nodiscard]] bool empty() const noexcept { return unread.empty() && held.empty() && late.empty(); }
};
static_assert(sizeof(Waiting) == 32);

}  // namespace twinstack::engine
