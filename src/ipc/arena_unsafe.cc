// The casts of shared memory stand here and nowhere else. Every access is within the mapping by our own geometry.
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <new>

#include "base/assert.h"
#include "base/huge_pages.h"
#include "ipc/arena.h"

namespace twinstack::ipc {
namespace {

constexpr std::uint64_t kPageBytes = 4096;

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) noexcept { return (value + unit - 1) / unit * unit; }

std::uint64_t ring_stride(std::uint32_t sq_entries, std::uint32_t cq_entries) noexcept {
  return round_up(sizeof(RingHeader) + std::uint64_t{sq_entries} * sizeof(SubmitEntry) +
                      std::uint64_t{cq_entries} * sizeof(CompleteEntry),
                  kPageBytes);
}

ArenaGeometry lay_out(ArenaGeometry g) noexcept {
  g.slots_offset = round_up(sizeof(ArenaHeader), 64);
  g.rings_offset = round_up(g.slots_offset + std::uint64_t{g.slot_count} * sizeof(ConnSlot), kPageBytes);
  g.ring_stride_bytes = ring_stride(g.sq_entries, g.cq_entries);
  g.chunks_offset = g.rings_offset + g.ring_stride_bytes * g.ring_count;
  g.total_bytes = g.chunks_offset + std::uint64_t{g.chunk_count} * g.chunk_bytes;
  return g;
}

}  // namespace

ArenaGeometry make_geometry(const ArenaConfig& config) noexcept {
  ArenaGeometry g;
  g.slot_count = config.slot_count;
  g.lane_count = config.lane_count;
  g.ring_count = config.lane_count * config.rings_per_lane;
  g.sq_entries = config.sq_entries;
  g.cq_entries = config.cq_entries;
  g.tx_chunk_count = config.tx_chunk_count;
  g.chunk_count = config.tx_chunk_count + config.rx_chunk_count;
  g.chunk_bytes = config.chunk_bytes;
  return lay_out(g);
}

bool is_valid_geometry(const ArenaGeometry& g, std::uint64_t file_bytes) noexcept {
  const bool counts_fit = g.slot_count > 0 && g.slot_count <= (1U << 20) && g.ring_count > 0 &&
                          g.ring_count <= kMaxRings && g.lane_count > 0 && g.lane_count <= kMaxLanes &&
                          std::has_single_bit(g.sq_entries) && g.sq_entries <= (1U << 20) &&
                          std::has_single_bit(g.cq_entries) && g.cq_entries <= (1U << 20) &&
                          g.tx_chunk_count <= g.chunk_count && g.chunk_count <= (1U << 24) && g.chunk_bytes >= 2048 &&
                          g.chunk_bytes <= (1U << 20) && g.chunk_bytes % 64 == 0;
  return counts_fit && lay_out(g) == g && g.total_bytes <= file_bytes;
}

Result<Arena> Arena::create(const ArenaConfig& config, std::uint64_t session_id) {
  const ArenaGeometry g = make_geometry(config);
  if (!is_valid_geometry(g, g.total_bytes)) return error(ErrorCode::kInvalid, "arena configuration out of range");
  UniqueFd fd(static_cast<int>(::syscall(SYS_memfd_create, "twinstack", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!fd) return system_error("memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(g.total_bytes)) != 0) return system_error("ftruncate(arena)");
  // Without the seals an application could shrink the file and have the service killed by SIGBUS.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return system_error("F_ADD_SEALS(arena)");
  ASSIGN_OR_RETURN(std::byte* const base, map_shared(fd.get(), g.total_bytes));
  use_huge_pages({base, g.chunks_offset});
  auto* header = new (base) ArenaHeader;
  header->session_id = session_id;
  header->geometry = g;
  return Arena(std::move(fd), base, g);
}

Result<Arena> Arena::map(UniqueFd fd, const ArenaGeometry& geometry) {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return system_error("fstat(arena)");
  if (!is_valid_geometry(geometry, static_cast<std::uint64_t>(status.st_size)))
    return error(ErrorCode::kProtocol, "the service sent an arena of another layout");
  ASSIGN_OR_RETURN(std::byte* const base, map_shared(fd.get(), geometry.total_bytes));
  Arena arena(std::move(fd), base, geometry);
  if (arena.header().magic != kArenaMagic || arena.header().version != kLayoutVersion)
    return error(ErrorCode::kProtocol, "the service speaks another version of the shared memory");
  return arena;
}

Arena::Arena(UniqueFd fd, std::byte* base, const ArenaGeometry& geometry) noexcept
    : fd_(std::move(fd)), base_(base), geometry_(geometry) {}

Arena::Arena(Arena&& other) noexcept
    : fd_(std::move(other.fd_)), base_(std::exchange(other.base_, nullptr)), geometry_(other.geometry_) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  if (this != &other) {
    unmap();
    fd_ = std::move(other.fd_);
    base_ = std::exchange(other.base_, nullptr);
    geometry_ = other.geometry_;
  }
  return *this;
}

Arena::~Arena() { unmap(); }

void Arena::unmap() noexcept {
  if (base_ != nullptr) ::munmap(base_, geometry_.total_bytes);
  base_ = nullptr;
}

ArenaHeader& Arena::header() const noexcept { return *reinterpret_cast<ArenaHeader*>(base_); }

ConnSlot& Arena::slot(std::uint32_t index) const noexcept {
  ASSERT(index < geometry_.slot_count);
  return reinterpret_cast<ConnSlot*>(base_ + geometry_.slots_offset)[index];
}

RingHeader& Arena::ring(std::uint32_t index) const noexcept {
  ASSERT(index < geometry_.ring_count);
  return *reinterpret_cast<RingHeader*>(base_ + geometry_.rings_offset + geometry_.ring_stride_bytes * index);
}

SubmitEntry* Arena::sq(std::uint32_t ring_index) const noexcept {
  return reinterpret_cast<SubmitEntry*>(reinterpret_cast<std::byte*>(&ring(ring_index)) + sizeof(RingHeader));
}

CompleteEntry* Arena::cq(std::uint32_t ring_index) const noexcept {
  return reinterpret_cast<CompleteEntry*>(sq(ring_index) + geometry_.sq_entries);
}

std::span<std::byte> Arena::chunk(std::uint32_t index) const noexcept {
  ASSERT(index < geometry_.chunk_count);
  return {base_ + geometry_.chunks_offset + std::uint64_t{index} * geometry_.chunk_bytes, geometry_.chunk_bytes};
}

}  // namespace twinstack::ipc
