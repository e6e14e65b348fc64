#include "sockets/sonode_table.h"

#include <sys/mman.h>

#include <new>

namespace twinstack::sockets {

std::atomic<std::uint64_t>* SonodeTable::slot_of(int fd, bool create) noexcept {
  const auto index = static_cast<std::uint32_t>(fd);
  if (index >= kMaxFds) return nullptr;
  std::atomic<Page*>& place = pages_[index / kPageEntries];
  Page* page = place.load(std::memory_order_acquire);
  if (page == nullptr && create) {
    // mmap, not malloc: the program's allocator may be what called us.
    void* memory = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    Page* made = new (memory) Page{};
    if (place.compare_exchange_strong(page, made, std::memory_order_acq_rel))
      page = made;
    else
      ::munmap(memory, sizeof(Page));
  }
  return page != nullptr ? &(*page)[index % kPageEntries] : nullptr;
}

FdEntry SonodeTable::exchange(int fd, FdEntry entry) noexcept {
  std::atomic<std::uint64_t>* slot = slot_of(fd, entry.kind != FdKind::kUnknown);
  if (slot == nullptr) return {};
  return FdEntry::unpack(slot->exchange(entry.pack(), std::memory_order_acq_rel));
}

bool SonodeTable::replace(int fd, FdEntry expected, FdEntry entry) noexcept {
  std::atomic<std::uint64_t>* slot = slot_of(fd, entry.kind != FdKind::kUnknown);
  if (slot == nullptr) return false;
  std::uint64_t word = expected.pack();
  return slot->compare_exchange_strong(word, entry.pack(), std::memory_order_acq_rel);
}

}  // namespace twinstack::sockets
