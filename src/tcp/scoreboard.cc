#include "tcp/scoreboard.h"

#include <algorithm>

namespace twinstack::tcp {

namespace {

std::uint32_t length(const wire::SackBlock& range) noexcept { return bytes_between(range.left, range.right); }

// Index of the first range that ends at or after `seq`.
std::uint32_t first_touching(const Scoreboard& board, Seq seq) noexcept {
  std::uint32_t i = 0;
  while (i < board.count && board.ranges[i].right < seq) ++i;
  return i;
}

// Replaces ranges [first, last) by `range`. False when the table is full.
bool replace(Scoreboard& board, std::uint32_t first, std::uint32_t last, wire::SackBlock range) noexcept {
  if (first == last && board.count >= kMaxSackedRanges) return false;
  auto* const begin = board.ranges.begin();
  if (first == last) {
    std::move_backward(begin + first, begin + board.count, begin + board.count + 1);
    ++board.count;
  } else {
    std::move(begin + last, begin + board.count, begin + first + 1);
    board.count -= last - first - 1;
  }
  board.ranges[first] = range;
  return true;
}

}  // namespace

std::uint32_t add_sacked(Scoreboard& board, wire::SackBlock range, Seq snd_una, Seq snd_nxt) noexcept {
  // Blocks at or under the cumulative ACK are duplicates' reports (RFC 2883); those beyond snd_nxt are nonsense.
  if (range.left >= range.right || range.left < snd_una || range.right > snd_nxt) return 0;
  const std::uint32_t first = first_touching(board, range.left);
  std::uint32_t last = first;
  std::uint32_t known = 0;
  for (; last < board.count && board.ranges[last].left <= range.right; ++last) {
    known += length(board.ranges[last]);
    range = {min(range.left, board.ranges[last].left), max(range.right, board.ranges[last].right)};
  }
  if (!replace(board, first, last, range)) return 0;
  const std::uint32_t added = length(range) - known;
  board.sacked_bytes += added;
  return added;
}

void trim_scoreboard(Scoreboard& board, Seq snd_una) noexcept {
  std::uint32_t gone = 0;
  while (gone < board.count && board.ranges[gone].right <= snd_una) board.sacked_bytes -= length(board.ranges[gone++]);
  if (gone > 0) {
    std::move(board.ranges.begin() + gone, board.ranges.begin() + board.count, board.ranges.begin());
    board.count -= gone;
  }
  if (board.count == 0 || board.ranges[0].left >= snd_una) return;
  board.sacked_bytes -= bytes_between(board.ranges[0].left, snd_una);
  board.ranges[0].left = snd_una;
}

void clear_scoreboard(Scoreboard& board) noexcept {
  board.count = 0;
  board.sacked_bytes = 0;
}

Seq lost_edge(const Scoreboard& board, std::uint32_t threshold, std::uint32_t mss, Seq floor) noexcept {
  std::uint32_t bytes_above = 0;
  for (std::uint32_t above = 1; above <= board.count; ++above) {
    const wire::SackBlock& range = board.ranges[board.count - above];
    bytes_above += length(range);
    if (above >= threshold || bytes_above > (threshold - 1) * mss) return max(range.left, floor);
  }
  return floor;
}

std::uint32_t sacked_within(const Scoreboard& board, Seq from, Seq to) noexcept {
  std::uint32_t bytes = 0;
  for (std::uint32_t i = 0; i < board.count; ++i) {
    const Seq left = max(board.ranges[i].left, from);
    const Seq right = min(board.ranges[i].right, to);
    if (left < right) bytes += bytes_between(left, right);
  }
  return bytes;
}

wire::SackBlock first_hole(const Scoreboard& board, Seq from, Seq to) noexcept {
  Seq left = from;
  for (std::uint32_t i = 0; i < board.count; ++i) {
    const wire::SackBlock& range = board.ranges[i];
    if (range.right <= left) continue;
    if (range.left > left) return left < to ? wire::SackBlock{left, min(range.left, to)} : wire::SackBlock{to, to};
    left = range.right;
  }
  return left < to ? wire::SackBlock{left, to} : wire::SackBlock{to, to};
}

}  // namespace twinstack::tcp
