// Arena: the mapping of a session's memfd (layout.h), on either side. ArenaView gives typed, bounds-checked access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "ipc/layout.h"

namespace twinstack::ipc {

struct ArenaConfig {
  std::uint32_t slot_count = 4096;
  std::uint32_t rings_per_lane = 2;
  std::uint32_t lane_count = 1;
  std::uint32_t sq_entries = 8192;
  std::uint32_t cq_entries = 16384;
  std::uint32_t tx_chunk_count = 4096;
  std::uint32_t rx_chunk_count = 8192;
  std::uint32_t chunk_bytes = 16384;
};

// Offsets and sizes for `config`. REQUIRES: entries are powers of two, counts nonzero and within the maxima.
[[nodiscard]] ArenaGeometry make_geometry(const ArenaConfig& config) noexcept;
// Whether a geometry that came from another process is self-consistent and fits into `file_bytes`.
[[nodiscard]] bool is_valid_geometry(const ArenaGeometry& geometry, std::uint64_t file_bytes) noexcept;

class Arena {
 public:
  // Service side: makes the memfd, seals its size, maps it and initialises every field.
  [[nodiscard]] static Result<Arena> create(const ArenaConfig& config, std::uint64_t session_id);
  // Application side: maps what the service sent and checks that it is what it says.
  [[nodiscard]] static Result<Arena> map(UniqueFd fd, const ArenaGeometry& geometry);

  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] const ArenaGeometry& geometry() const noexcept {
    return geometry_;
  }  // our own copy, not the shared one

  [[nodiscard]] ArenaHeader& header() const noexcept;
  // REQUIRES: index < slot_count / ring_count / chunk_count; offset + length <= chunk_bytes.
  [[nodiscard]] ConnSlot& slot(std::uint32_t index) const noexcept;
  [[nodiscard]] RingHeader& ring(std::uint32_t index) const noexcept;
  [[nodiscard]] SubmitEntry* sq(std::uint32_t ring_index) const noexcept;
  [[nodiscard]] CompleteEntry* cq(std::uint32_t ring_index) const noexcept;
  [[nodiscard]] std::span<std::byte> chunk(std::uint32_t index) const noexcept;

 private:
  Arena(UniqueFd fd, std::byte* base, const ArenaGeometry& geometry) noexcept;
  void unmap() noexcept;

  UniqueFd fd_;
  std::byte* base_ = nullptr;
  ArenaGeometry geometry_;
};

}  // namespace twinstack::ipc
