// What FakeService keeps of sessions and connections. Test only; for fake_service.cc and fake_engine.cc.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "base/unique_fd.h"
#include "ipc/arena.h"
#include "ipc/ring.h"
#include "ipc/wake_event.h"
#include "sockets/fake_service.h"

namespace twinstack::sockets {

struct FakeService::Ring {
  ipc::SubmitConsumer submit;
  ipc::CompleteProducer complete;
  ipc::WakeEvent event;
};

struct FakeService::Connection {
  struct Piece {
    std::uint32_t chunk;
    std::uint32_t offset;
    std::uint32_t length;
  };

  Session* session = nullptr;
  std::uint64_t key = 0;
  std::uint32_t slot = 0;
  std::uint32_t tag = 0;
  UniqueFd fd;
  bool engine = false;
  bool stay = false;
  bool wants_upload = false;
  bool closing = false;
  bool watched = false;
  std::uint32_t watched_events = 0;
  std::uint64_t hw_id = 0;
  std::uint32_t ring = 0;
  std::deque<Piece> tx;
  std::uint64_t unread_bytes = 0;  // posted in this life of the id, not returned
  std::uint32_t rx_chunk = ~0U;
  std::uint32_t rx_fill = 0;
};

struct FakeService::Session {
  std::uint64_t key = 0;
  std::uint64_t doorbell_key = 0;
  UniqueFd socket;
  std::unique_ptr<ipc::Arena> arena;
  UniqueFd doorbell;
  std::vector<Ring> rings;
  std::map<std::uint32_t, std::unique_ptr<Connection>> connections;  // by slot
  std::vector<std::uint32_t> free_chunks;
  struct Chunk {
    std::uint32_t posted_bytes = 0;
    bool held = false;
  };
  std::vector<Chunk> chunks;                                      // of the engine
  std::deque<std::pair<std::uint32_t, ipc::CompleteEntry>> late;  // ring, entry: found the ring full
  bool over = false;

  [[nodiscard]] Chunk& chunk(std::uint32_t index) { return chunks[index - arena->geometry().tx_chunk_count]; }
  void let_go(std::uint32_t index) {
    chunk(index).held = false;
    if (chunk(index).posted_bytes == 0) free_chunks.push_back(index);
  }
};

}  // namespace twinstack::sockets
