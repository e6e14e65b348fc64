// SendBuffer: bytes that the program has written and the peer has not acknowledged, and how many more are taken. As on
// Linux they lie in chunks, which the program's writes fill one after the other: a new chunk begins only while the
// buffer has room, but is then filled whole, so a write may exceed SO_SNDBUF by a chunk. A chunk weighs its bytes and a
// head. Not thread-safe.
#pragma once

#include <cstdint>

#include "stack/byte_queue.h"
#include "tcp/flight.h"
#include "wire/seq.h"

namespace twinstack::stack {

class SendBuffer {
 public:
  // Before anything is written; `una`: sequence number of the first byte.
  void begin(Seq una) noexcept {
    una_ = una;
    tail_start_ = una;
  }

  [[nodiscard]] Seq una() const noexcept { return una_; }
  [[nodiscard]] Seq end() const noexcept { return una_ + bytes_.size(); }
  [[nodiscard]] std::uint32_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
  // What counts against SO_SNDBUF (Linux wmem_queued).
  [[nodiscard]] std::uint32_t weight() const noexcept;

  // Room in the chunk at the end: bytes that may be added whatever the buffer weighs. What is sent is in no chunk that
  // can still be filled. `chunk_bytes`: how long a chunk gets.
  [[nodiscard]] std::uint32_t room_in_chunk(Seq snd_nxt, std::uint32_t chunk_bytes) const noexcept;
  // Nothing before the last chunk is unsent.
  [[nodiscard]] bool in_last_chunk(Seq snd_nxt) const noexcept { return snd_nxt >= tail_start_; }
  void begin_chunk();
  // REQUIRES: a chunk has been begun.
  void append(ByteView bytes);
  // The chunk at the end takes nothing more.
  void close_chunk() noexcept { closed_ = true; }

  // Everything before `una` is acknowledged; beyond end() lies the FIN.
  void acknowledge(Seq una) noexcept;
  // REQUIRES: [seq, seq + out.size()) lies in the buffer.
  void copy(Seq seq, std::span<std::byte> out) const noexcept { bytes_.copy(bytes_between(una_, seq), out); }
  void clear() noexcept;

 private:
  ByteQueue bytes_;
  tcp::SeqMarks ends_;  // of the chunks before the last
  Seq una_;
  Seq tail_start_;  // of the last chunk
  bool closed_ = true;
};

}  // namespace twinstack::stack
