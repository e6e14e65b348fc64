// ColdState: what a connection needs only while received data is out of order, an ACK is owed for a part of what has
// arrived, or its path's MTU is in doubt. Owned by the ControlBlock, made by cold_state() on first need, freed by
// release_cold_state() when nothing in it matters any more. Same thread as the block.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tcp/control_block.h"
#include "tcp/out_of_order_memory.h"
#include "tcp/path_mtu.h"
#include "wire/segment.h"

namespace twinstack::tcp {

// Memory is bounded by the window, and for all connections by OutOfOrderMemory; this bounds the work that a hole costs.
inline constexpr std::size_t kMaxOutOfOrderBlocks = 2048;
// What continues a block makes it longer, up to this: no more is copied when it grows, or given up at once.
inline constexpr std::size_t kMaxBlockBytes = 64U << 10;

// Received bytes above rcv_nxt. Kept until the hole before them is filled.
struct OutOfOrderBlock {
  Seq seq;
  std::vector<std::byte> bytes;

  [[nodiscard]] Seq end() const noexcept { return seq + static_cast<std::uint32_t>(bytes.size()); }
};

// An ACK up to less than rcv_nxt (split_ack.h).
struct SplitAck {
  Seq ack;
  bool ecn_echo = false;
};

struct ColdState {
  PathMtu path_mtu;

  // INVARIANT: blocks sorted and disjoint; together they lie within the window that was offered.
  std::vector<OutOfOrderBlock> out_of_order;
  OutOfOrderShare share;                                       // what they take of the memory that there is for all
  std::array<wire::SackBlock, wire::kMaxSackBlocks> recent{};  // ranges to report, most recent first (RFC 2018 4)
  std::uint32_t recent_count = 0;
  wire::SackBlock dsack{};  // duplicate to report once (RFC 2883), when dsack_due
  bool dsack_due = false;
  std::uint8_t duplicate_acks_due = 0;  // without SACK the peer counts them: one for each segment out of order
  bool fin_known = false;               // the peer's FIN came before what precedes it
  Seq fin_seq;                          // its sequence number
  std::vector<SplitAck> split_acks;     // in order
};

// The block's ColdState, made when there is none.
ColdState& cold_state(ControlBlock& cb);

// Frees it when it holds nothing.
void release_cold_state(ControlBlock& cb);

}  // namespace twinstack::tcp
