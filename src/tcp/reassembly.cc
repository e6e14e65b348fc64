#include "tcp/reassembly.h"

#include <algorithm>

#include "tcp/min_tcp.h"
#include "wire/tcp_options.h"

namespace twinstack::tcp {

namespace {

using Blocks = std::vector<OutOfOrderBlock>;

void append(std::vector<std::byte>& bytes, const Payload& payload) {
  const std::size_t old_size = bytes.size();
  bytes.resize(old_size + payload.size());
  payload.copy_to(std::span(bytes).subspan(old_size));
}

// What a block takes on the heap, near enough.
constexpr std::uint64_t kBlockOverhead = sizeof(OutOfOrderBlock) + 32;

std::uint64_t weight(const OutOfOrderBlock& block) noexcept { return block.bytes.capacity() + kBlockOverhead; }

void charge(ColdState& cold, std::uint64_t more, std::uint64_t less) noexcept {
  OutOfOrderShare& share = cold.share;
  if (share.memory != nullptr) share.memory->set_bytes(share, share.bytes + more - less);
}

// Puts `piece`, which no block holds, before blocks[index]. Continues the block before when it ends there.
bool insert_piece(ColdState& cold, std::size_t index, Seq seq, const Payload& piece) {
  Blocks& blocks = cold.out_of_order;
  if (index > 0 && blocks[index - 1].end() == seq && blocks[index - 1].bytes.size() + piece.size() <= kMaxBlockBytes) {
    OutOfOrderBlock& block = blocks[index - 1];
    const std::uint64_t before = weight(block);
    append(block.bytes, piece);
    charge(cold, weight(block), before);
    return true;
  }
  if (blocks.size() >= kMaxOutOfOrderBlocks) return false;
  OutOfOrderBlock block{seq, {}};
  append(block.bytes, piece);
  charge(cold, weight(block), 0);
  blocks.insert(blocks.begin() + static_cast<std::ptrdiff_t>(index), std::move(block));
  return true;
}

// Index of the first block that ends behind `seq`. As a rule what comes lies behind all.
std::size_t first_behind(const Blocks& blocks, Seq seq) {
  if (blocks.empty() || blocks.back().end() <= seq) return blocks.size();
  const auto found = std::ranges::partition_point(blocks, [&](const auto& block) { return block.end() <= seq; });
  return static_cast<std::size_t>(found - blocks.begin());
}

// Inserts the parts of `payload` that lie between blocks. Returns the bytes kept.
std::uint32_t insert_missing(ColdState& cold, Seq seq, const Payload& payload) {
  Blocks& blocks = cold.out_of_order;
  const Seq end = seq + payload.size();
  Seq at = seq;
  std::uint32_t kept = 0;
  for (std::size_t i = first_behind(blocks, seq); at < end; ++i) {
    const bool last = i >= blocks.size();
    if (!last && blocks[i].end() <= at) continue;
    const Seq gap_end = last ? end : min(end, blocks[i].seq);
    if (at < gap_end) {
      const std::uint32_t length = bytes_between(at, gap_end);
      const std::size_t blocks_before = blocks.size();
      if (insert_piece(cold, i, at, payload.narrow(bytes_between(seq, at), length))) kept += length;
      i += blocks.size() - blocks_before;
    }
    if (last) break;
    at = blocks[i].end();
  }
  return kept;
}

// The contiguous range of held bytes around `seq`, which is held.
wire::SackBlock range_around(const Blocks& blocks, Seq seq) {
  std::size_t first = first_behind(blocks, seq);
  std::size_t last = first;
  while (first > 0 && blocks[first - 1].end() == blocks[first].seq) --first;
  while (last + 1 < blocks.size() && blocks[last + 1].seq == blocks[last].end()) ++last;
  return {blocks[first].seq, blocks[last].end()};
}

// In one block, or in several that continue each other.
bool is_held(const Blocks& blocks, Seq seq, Seq end) {
  Seq covered = seq;
  for (std::size_t at = first_behind(blocks, seq); at < blocks.size() && blocks[at].seq <= covered; ++at) {
    covered = blocks[at].end();
    if (covered >= end) return true;
  }
  return false;
}

// RFC 2018 4: the block that holds what came last is reported first.
void report_first(ColdState& cold, wire::SackBlock range) {
  std::array<wire::SackBlock, wire::kMaxSackBlocks> next{};
  next[0] = range;
  std::uint32_t count = 1;
  for (std::uint32_t i = 0; i < cold.recent_count && count < next.size(); ++i) {
    const wire::SackBlock& old = cold.recent[i];
    const bool merged = old.left <= range.right && range.left <= old.right;
    if (!merged) next[count++] = old;
  }
  cold.recent = next;
  cold.recent_count = count;
}

// Ranges at or under rcv_nxt are reported by the cumulative ACK, or not at all while the host could not take them.
void forget_delivered(ColdState& cold, Seq rcv_nxt) {
  auto* const end = cold.recent.begin() + cold.recent_count;
  auto* const kept = std::remove_if(cold.recent.begin(), end, [&](const auto& range) { return range.left <= rcv_nxt; });
  cold.recent_count = static_cast<std::uint32_t>(kept - cold.recent.begin());
}

// Delivers the part of a block from rcv_nxt on. False when the host took less.
bool deliver_block(ControlBlock& cb, const OutOfOrderBlock& first, Host& host) {
  if (first.end() <= cb.rcv_nxt) return true;
  const ByteView bytes(first.bytes);
  const std::uint32_t skip = bytes_between(first.seq, cb.rcv_nxt);
  const Payload payload(std::span(&bytes, 1), skip, static_cast<std::uint32_t>(bytes.size()) - skip);
  const std::uint32_t taken = host.deliver(payload);
  ASSERT(taken <= payload.size());
  cb.rcv_nxt += taken;
  host.counters().bytes_received += taken;
  return taken == payload.size();
}

// One range is reported, and what continues it (Linux tcp_dsack_extend()).
void extend_duplicate(ControlBlock& cb, Seq left, Seq right) {
  ColdState& cold = *cb.cold;
  if (!cold.dsack_due) {
    note_duplicate(cb, left, right);
  } else if (left <= cold.dsack.right && cold.dsack.left <= right) {
    cold.dsack = {min(cold.dsack.left, left), max(cold.dsack.right, right)};
  }
}

// Of what comes out of order, the parts that are held already (as Linux tcp_data_queue_ofo()). REQUIRES: a ColdState.
void note_held_parts(ControlBlock& cb, Seq seq, Seq end) {
  const Blocks& blocks = cb.cold->out_of_order;
  for (std::size_t at = first_behind(blocks, seq); at < blocks.size() && blocks[at].seq < end; ++at)
    extend_duplicate(cb, max(blocks[at].seq, seq), min(blocks[at].end(), end));
}

}  // namespace

bool keep_out_of_order(ControlBlock& cb, Seq seq, const Payload& payload, Host& host) {
  ColdState& cold = cold_state(cb);
  const Seq end = seq + payload.size();
  IpAddress peer;
  OutOfOrderMemory* const memory = host.out_of_order_memory(peer);
  if (is_held(cold.out_of_order, seq, end)) {
    note_duplicate(cb, seq, end);
  } else {
    if (memory != nullptr && !memory->make_room(cold, peer, seq, payload.size() + kBlockOverhead)) return false;
    note_held_parts(cb, seq, end);
    if (insert_missing(cold, seq, payload) == 0) return false;
  }
  report_first(cold, range_around(cold.out_of_order, seq));
  return true;
}

void drop_farthest(ColdState& cold) noexcept {
  const Seq edge = cold.out_of_order.back().seq;
  const std::uint64_t less = weight(cold.out_of_order.back());
  cold.out_of_order.pop_back();
  charge(cold, 0, less);
  auto* const end = cold.recent.begin() + cold.recent_count;
  auto* const kept = std::remove_if(cold.recent.begin(), end, [&](const auto& range) { return range.left >= edge; });
  for (auto* range = cold.recent.begin(); range != kept; ++range) range->right = min(range->right, edge);
  cold.recent_count = static_cast<std::uint32_t>(kept - cold.recent.begin());
}

void deliver_in_order(ControlBlock& cb, Host& host) {
  if (!cb.cold || cb.cold->out_of_order.empty()) return;
  Blocks& blocks = cb.cold->out_of_order;
  std::size_t done = 0;
  while (done < blocks.size() && blocks[done].seq <= cb.rcv_nxt && deliver_block(cb, blocks[done], host)) ++done;
  std::uint64_t less = 0;
  for (std::size_t i = 0; i < done; ++i) less += weight(blocks[i]);
  blocks.erase(blocks.begin(), blocks.begin() + static_cast<std::ptrdiff_t>(done));
  if (done > 0) charge(*cb.cold, 0, less);
  if (done > 0 || !blocks.empty()) forget_delivered(*cb.cold, cb.rcv_nxt);
}

// As Linux tcp_ofo_queue(): the first range is reported, and what continues it.
void note_overlap(ControlBlock& cb, Seq from) {
  if ((cb.options & kOptSack) == 0 || !cb.cold) return;
  ColdState& cold = *cb.cold;
  for (const OutOfOrderBlock& block : cold.out_of_order) {
    const Seq right = min(block.end(), cb.rcv_nxt);
    if (block.seq >= from && block.seq < right) extend_duplicate(cb, block.seq, right);
  }
}

void note_duplicate(ControlBlock& cb, Seq left, Seq right) {
  if ((cb.options & kOptSack) == 0) return;
  ColdState& cold = cold_state(cb);
  cold.dsack = {left, right};
  cold.dsack_due = true;
}

bool fill_sack_blocks(const ControlBlock& cb, wire::TcpOptions& options) {
  if (!cb.cold || (cb.options & kOptSack) == 0) return false;
  const ColdState& cold = *cb.cold;
  const std::uint32_t room = wire::sack_blocks_that_fit(options);
  std::uint32_t count = 0;
  if (cold.dsack_due && count < room) options.sack[count++] = cold.dsack;  // RFC 2883 4: the first block
  for (std::uint32_t i = 0; i < cold.recent_count && count < room; ++i) {
    options.sack[count] = cold.recent[i];
    if (cold.fin_known && cold.recent[i].right == cold.fin_seq) options.sack[count].right += 1;  // the FIN is held too
    ++count;
  }
  options.sack_count = static_cast<std::uint8_t>(count);
  return count > 0;
}

void sack_blocks_sent(ControlBlock& cb) noexcept {
  if (cb.cold) cb.cold->dsack_due = false;
}

}  // namespace twinstack::tcp
