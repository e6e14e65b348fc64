// The hardware boundary: what the driver sees of an engine lane is what it would see of a card. A control queue with
// commands and their replies, an event queue, and the slot table (hw_conn.h) that the driver may read for a connection
// that is held. Plain data in rings of shared memory; nothing else crosses.
//
// Commands are carried out in order, each answered by one Reply. None blocks.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "engine/hw_conn.h"
#include "ipc/messages.h"
#include "nic/link.h"
#include "tcp/min_tcp.h"

namespace twinstack::engine {

inline constexpr std::uint32_t kMaxCommandChunks = 96;

enum class CommandOp : std::uint32_t {
  kReserve = 1,    // slot for `flow`, owned by session/slot/tag, with `chunk_count` chunks; kNoChunk when
                   // `expected_chunks` in all would be more than half of those left. Reply: id, chunks. State: held
  kGetChunks = 2,  // `chunk_count` more chunks of `session`. Reply: chunks
  kPutChunks = 3,  // gives `chunks` back
  kInstall = 4,    // `min`, and the queues or (after kLoad) their end: `unread_bytes`, then (in a chunk of its own)
                   // `send_bytes`, laid out in `chunks`. Nothing is seen of it by program or peer before kActivate
  kInject = 5,     // a frame of `frame_bytes`, laid out in `chunks`: as if received. The chunks pass to the engine
  kActivate =
      6,         // unread bytes are posted, held frames are processed, an ACK is sent, the engine serves the connection
  kDrain = 7,    // `flag` 1: send nothing new, Event kDrained when all is acknowledged; 0: go on
  kHold = 8,     // stop: packets wait in the held list
  kExtract = 9,  // of a held connection. Reply: min; head of the send queue and of the held list
  kSweep = 10,  // receive once more: late frames for held connections join their held lists. Reply: both lists of `id`.
                // Those pieces stay as they are; what comes later is appended behind them
  kDropHeld = 11,  // the first `late_pieces` and `held_pieces` of the lists of `id` were taken over (Reply of kSweep)
  kRelease = 12,   // frees the slot and all that it owns; its id is never used again. Frames still held become strays
  kQuery = 13,     // Reply: state
  kSetHop = 14,    // next hop `hop_index` is now `hop`
  kNotify = 15,    // completion entry kOwnerChanged for session/slot/tag through `ring`
  kSetHopOf = 16,  // connection `id` uses `hop_index` from now on
  kSilent = 17,    // the stack that `id` came from sends no more; it has sent up to `min.snd_nxt`. Reply: state
  kLoad = 18,      // of a reserved connection, before kInstall: more of its queues than one command has chunks for
  kPacketTooBig = 19,  // a router says that the segment `quoted_seq` of `id` exceeds `path_mtu_bytes`
};

struct NextHop {
  nic::MacAddress source{};
  nic::MacAddress destination{};
  std::uint16_t reserved = 0;
  std::uint32_t mtu_bytes = 1500;
};

struct Command {
  CommandOp op = CommandOp::kQuery;
  std::uint32_t session = 0;
  HwConnId id{};
  std::uint32_t slot = 0;
  std::uint32_t tag = 0;
  std::uint32_t ring = 0;
  std::uint32_t hop_index = 0;
  std::uint64_t kernel_cookie = 0;
  FlowKey flow{};
  std::uint32_t flag = 0;
  std::uint32_t unread_bytes = 0;
  std::uint32_t send_bytes = 0;
  std::uint32_t frame_bytes = 0;
  std::uint32_t late_pieces = 0;
  std::uint32_t held_pieces = 0;
  std::uint32_t expected_chunks = 0;
  std::uint32_t quoted_seq = 0;
  std::uint32_t path_mtu_bytes = 0;
  NextHop hop{};
  tcp::MinTcp min{};
  std::uint32_t chunk_count = 0;
  std::array<std::uint32_t, kMaxCommandChunks> chunks{};
};

enum class Status : std::uint32_t {
  kOk = 0,
  kNoSlot,    // the slot table is full
  kNoChunk,   // the session's chunks are used up, or too few are left
  kNoPiece,   // the lane's list nodes are used up
  kRingFull,  // the application does not read its completion ring
  kStaleId,   // no such connection
  kBadState,  // not in a state for this command
  kBadArgument,
  kUnsupported,  // MinTcp carries something that the engine does not do
};

[[nodiscard]] const char* to_string(Status status) noexcept;

struct Reply {
  Status status = Status::kOk;
  std::uint32_t drained = 0;  // kDrain: nothing is unacknowledged already, no event follows
  std::uint32_t gave_up = 0;  // kExtract: its user timeout, keepalive or retries are over, and the peer is silent still
  HwConnId id{};
  std::uint32_t send_head = kNone;  // Piece index
  std::uint32_t send_head_skip = 0;
  std::uint32_t late_head = kNone;  // Piece index; frames of the late filter, older than those of the held list
  std::uint32_t late_pieces = 0;
  std::uint32_t held_head = kNone;  // Piece index
  std::uint32_t held_pieces = 0;
  std::uint32_t chunk_count = 0;
  std::array<std::uint32_t, kMaxCommandChunks> chunks{};
  ipc::HwConnState state{};
};

enum class EventType : std::uint32_t {
  kToSoftware = 1,  // the connection must go back; `cause` says why. Its packet, if any, waits in the held list
  kDrained = 2,     // everything sent is acknowledged
  kBadSession = 3,  // the application broke the ring protocol; `cause` is a RingError
};

enum class Cause : std::uint32_t {
  kNothing = 0,
  kPeerFin,
  kPeerReset,
  kPeerSyn,
  kUrgent,
  kTimeout,       // retransmissions or keepalive probes went unanswered
  kBadRingId,     // submission entry with an id that is not of this session
  kBadRingChunk,  // ... with a chunk, offset or length out of range
  kBadRingOp,
  kBadRingIndex,  // impossible ring index
  kRingOverrun,   // more bytes queued for a connection than any may have
};

[[nodiscard]] const char* to_string(Cause cause) noexcept;

struct Event {
  EventType type = EventType::kToSoftware;
  Cause cause = Cause::kNothing;
  HwConnId id{};
  std::uint32_t session = 0;
  std::uint32_t slot = 0;
  std::uint32_t tag = 0;
  std::uint32_t reserved = 0;
};

static_assert(std::is_trivially_copyable_v<Command> && std::is_trivially_copyable_v<Reply> &&
              std::is_trivially_copyable_v<Event>);

}  // namespace twinstack::engine
