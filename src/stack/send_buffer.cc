#include "stack/send_buffer.h"

#include <algorithm>

#include "base/assert.h"

namespace twinstack::stack {

namespace {
constexpr std::uint32_t kChunkHead = 896;  // Linux: SKB_TRUESIZE of a head for TCP, x86-64
}  // namespace

std::uint32_t SendBuffer::weight() const noexcept {
  if (bytes_.empty()) return 0;
  const auto chunks = static_cast<std::uint32_t>(ends_.size() + 1);
  return bytes_.size() + chunks * kChunkHead;
}

std::uint32_t SendBuffer::room_in_chunk(Seq snd_nxt, std::uint32_t chunk_bytes) const noexcept {
  const Seq start = max(max(tail_start_, snd_nxt), una_);
  if (closed_ || start >= end()) return 0;
  const std::uint32_t length = bytes_between(start, end());
  return chunk_bytes > length ? chunk_bytes - length : 0;
}

void SendBuffer::begin_chunk() {
  if (end() > tail_start_ && !bytes_.empty()) ends_.push_back(end());
  tail_start_ = end();
  closed_ = false;
}

void SendBuffer::append(ByteView bytes) {
  ASSERT(!closed_);
  bytes_.append(bytes);
}

void SendBuffer::acknowledge(Seq una) noexcept {
  if (una <= una_) return;
  const std::uint32_t count = std::min(bytes_between(una_, una), bytes_.size());
  bytes_.pop_front(count);
  una_ += count;
  while (!ends_.empty() && ends_.front() <= una_) ends_.pop_front();
  if (!bytes_.empty()) return;
  ends_ = {};
  closed_ = true;
}

void SendBuffer::clear() noexcept {
  una_ += bytes_.size();
  bytes_.clear();
  ends_ = {};
  closed_ = true;
}

}  // namespace twinstack::stack
