#include "base/huge_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>

namespace twinstack {
namespace {

constexpr int kCollapse = 25;  // MADV_COLLAPSE, which glibc 2.36 does not name

}  // namespace

Result<std::byte*> map_shared(int fd, std::size_t bytes) {
  const std::size_t page = static_cast<std::size_t>(::getpagesize());
  const std::size_t whole = (bytes + page - 1) / page * page;
  const std::size_t spare = whole < kHugePageBytes ? 0 : kHugePageBytes;
  void* const place = ::mmap(nullptr, whole + spare, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) return system_error("mmap of " + std::to_string(bytes) + " bytes");
  void* at = place;
  std::size_t room = whole + spare;
  if (spare > 0) at = std::align(kHugePageBytes, whole, at, room);
  auto* const memory = static_cast<std::byte*>(at);
  if (::mmap(memory, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    auto failed = system_error("mmap of " + std::to_string(bytes) + " bytes");
    ::munmap(place, whole + spare);
    return failed;
  }
  const std::size_t before = whole + spare - room;
  if (before > 0) ::munmap(place, before);
  if (room > whole) ::munmap(memory + whole, room - whole);
  return memory;
}

bool use_huge_pages(std::span<std::byte> memory) noexcept {
  void* at = memory.data();
  std::size_t bytes = memory.size();
  if (std::align(kHugePageBytes, kHugePageBytes, at, bytes) == nullptr) return false;
  bytes -= bytes % kHugePageBytes;
  return ::madvise(at, bytes, MADV_POPULATE_WRITE) == 0 && ::madvise(at, bytes, kCollapse) == 0;
}

}  // namespace twinstack
