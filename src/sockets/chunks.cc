#include "sockets/chunks.h"

#include <new>

namespace twinstack::sockets {

bool TxChunks::init(std::uint32_t count) noexcept {
  nodes_.reset(new (std::nothrow) Node[count]);
  if (nodes_ == nullptr) return false;
  const MutexLock lock(mutex_);
  for (std::uint32_t i = 0; i < count; ++i) nodes_[i].next = i + 1 < count ? i + 1 : kNoChunk;
  free_head_ = count > 0 ? 0 : kNoChunk;
  available_.store(count, std::memory_order_relaxed);
  return true;
}

std::uint32_t TxChunks::take() noexcept {
  const MutexLock lock(mutex_);
  const std::uint32_t chunk = free_head_;
  if (chunk == kNoChunk) return kNoChunk;
  free_head_ = nodes_[chunk].next;
  nodes_[chunk] = Node{};
  available_.store(available_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  return chunk;
}

void TxChunks::give(std::uint32_t chunk) noexcept {
  const MutexLock lock(mutex_);
  nodes_[chunk].next = free_head_;
  free_head_ = chunk;
  // seq_cst: a connection marks itself starved and then looks at this counter again.
  available_.store(available_.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
}

}  // namespace twinstack::sockets
