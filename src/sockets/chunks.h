// TxChunks: the application's chunks of one session (data on its way out), and RxNodes: what the layer remembers of
// each of the engine's chunks while the program has not read it. Both are arrays indexed by chunk, made with the
// session: nothing is allocated on the data path.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "sockets/mutex.h"

namespace twinstack::sockets {

inline constexpr std::uint32_t kNoChunk = 0xffffffffU;

// The free list of the chunks that carry sent data, and the link fields of those in use. Any thread.
class TxChunks {
 public:
  struct Node {
    std::uint32_t next = kNoChunk;  // free list, or the next chunk of the same connection
    std::uint32_t bytes = 0;        // of the stream in this chunk, not yet acknowledged when it was last looked at
  };

  // Whether the memory was there.
  [[nodiscard]] bool init(std::uint32_t count) noexcept;

  // kNoChunk when all are in use.
  [[nodiscard]] std::uint32_t take() noexcept TS_EXCLUDES(mutex_);
  void give(std::uint32_t chunk) noexcept TS_EXCLUDES(mutex_);
  [[nodiscard]] bool is_empty() const noexcept { return available_.load(std::memory_order_seq_cst) == 0; }
  [[nodiscard]] std::uint32_t available() const noexcept { return available_.load(std::memory_order_relaxed); }

  // Node of a chunk that the caller's connection holds (under that connection's tx_mutex).
  [[nodiscard]] Node& node(std::uint32_t chunk) noexcept { return nodes_[chunk]; }

 private:
  Mutex mutex_;
  std::uint32_t free_head_ TS_GUARDED_BY(mutex_) = kNoChunk;
  std::atomic<std::uint32_t> available_ = 0;
  std::unique_ptr<Node[]> nodes_;
};

// A run of received bytes in one engine chunk, in the receive queue of a connection.
struct RxNode {
  std::uint64_t hw_conn_id = 0;   // of the life in which it was received, for the return
  std::uint32_t next = kNoChunk;  // in the queue
  std::uint32_t offset = 0;       // of the first unread byte
  std::uint32_t length = 0;       // unread bytes
  std::uint32_t unreturned = 0;   // read, not yet given back to the engine
  std::uint32_t ring = 0;         // where it came from and goes back to
  // In a queue. Released when the node is given up, acquired when it is taken: the chunk goes through the engine
  // between.
  std::atomic<bool> queued = false;
  // Under the ring's sq_mutex: a return that found the submission ring full.
  std::uint32_t late_next = kNoChunk;
  std::uint32_t late_bytes = 0;
};

}  // namespace twinstack::sockets
