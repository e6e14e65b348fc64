// RingProgram: the socket layer's end of the rings (src/ipc/layout.h) for connections that the engine serves, in one
// thread: bytes into chunks and out of them. What src/sockets does for a program, without its locks and sleeps.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "ipc/arena.h"
#include "ipc/ring.h"
#include "wire/payload.h"

namespace twinstack::moving {

inline constexpr std::uint32_t kNoChunk = UINT32_MAX;

// One connection of the program.
struct RingConn {
  std::uint32_t slot = 0;
  std::uint32_t tag = 0;
  int fd = -1;

  struct Sent {
    std::uint32_t chunk;
    std::uint32_t bytes;
  };
  std::deque<Sent> in_flight;  // oldest first
  std::uint64_t reclaimed = 0;
  std::uint32_t tx_chunk = kNoChunk;
  std::uint32_t tx_fill = 0;
  std::deque<ipc::CompleteEntry> unread;
  std::uint64_t unread_bytes = 0;
  bool wants_room = false;  // a write found none
};

class RingProgram {
 public:
  // REQUIRES: `arena` outlives it; one ring.
  explicit RingProgram(const ipc::Arena& arena);

  // A connection that the kernel owns yet.
  RingConn& open(int fd);
  void close(RingConn& conn);

  // Bytes that the engine takes, fewer when there are no chunks. How much the socket takes is SendRoom's to say.
  std::size_t write(RingConn& conn, ByteView bytes, bool more_follows, bool ends_record = false);
  // `fields`: ipc::header_fields().
  void set_header(const RingConn& conn, std::uint32_t fields);
  // Bytes copied; with `peek` they stay.
  std::size_t read(RingConn& conn, std::span<std::byte> room, bool peek);
  // Submitted and not acknowledged.
  [[nodiscard]] std::uint64_t unacknowledged(const RingConn& conn) const;

  // Takes what the engine has posted; `wake` hears of each connection and its poll() events.
  void pump(const std::function<void(int fd, std::uint32_t events)>& wake);

 private:
  void reclaim(RingConn& conn);
  [[nodiscard]] bool open_chunk(RingConn& conn);
  void submit(const ipc::SubmitEntry& entry);
  [[nodiscard]] ipc::ConnSlot& shared(const RingConn& conn) const { return arena_.slot(conn.slot); }

  const ipc::Arena& arena_;
  ipc::SubmitProducer submissions_;
  ipc::CompleteConsumer completions_;
  std::vector<std::uint32_t> free_chunks_;
  std::vector<std::uint32_t> free_slots_;
  std::map<std::uint32_t, RingConn> conns_;  // by slot
  std::uint32_t next_tag_ = 1;
};

}  // namespace twinstack::moving
