// SonodeTable: descriptor -> what the layer knows of it, in constant time and without a lock. Two levels, the second
// made on demand, never freed. An unknown descriptor costs two loads. (The other direction, slot -> Sonode, is an array
// of the session.)
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace twinstack::sockets {

enum class FdKind : std::uint8_t {
  kUnknown = 0,        // not ours: every call passes through
  kSonode = 1,         // a TCP connection with a Sonode
  kEpoll = 2,          // an epoll set of the program
  kInternal = 3,       // a descriptor of the layer itself: the program can neither use nor close it
  kTcpListener = 4,    // accept() gives TCP sockets
  kOtherListener = 5,  // accept() gives something else
};

// Services that one process may live to see, and connections of one session.
inline constexpr std::uint32_t kMaxSessions = 256;
inline constexpr std::uint32_t kMaxSlots = 1U << 21;

// One word, so that it is read and changed at once.
struct FdEntry {
  FdKind kind = FdKind::kUnknown;
  std::uint8_t session = 0;  // kSonode: number of the session in this process
  std::uint32_t slot = 0;    // kSonode: slot; kEpoll: number of the set
  std::uint32_t tag = 0;     // kSonode: generation of the slot

  [[nodiscard]] std::uint64_t pack() const noexcept {
    return static_cast<std::uint64_t>(kind) | std::uint64_t{session} << 3 | std::uint64_t{slot} << 11 |
           std::uint64_t{tag} << 32;
  }
  [[nodiscard]] static FdEntry unpack(std::uint64_t word) noexcept {
    return {.kind = static_cast<FdKind>(word & 7),
            .session = static_cast<std::uint8_t>(word >> 3),
            .slot = static_cast<std::uint32_t>(word >> 11) & (kMaxSlots - 1),
            .tag = static_cast<std::uint32_t>(word >> 32)};
  }
  friend bool operator==(const FdEntry&, const FdEntry&) = default;
};

class SonodeTable {
 public:
  static constexpr std::uint32_t kPageEntries = 1024;
  static constexpr std::uint32_t kPages = 1024;
  static constexpr std::uint32_t kMaxFds = kPageEntries * kPages;  // as Linux's default fs.nr_open

  constexpr SonodeTable() noexcept = default;

  [[nodiscard]] FdEntry get(int fd) const noexcept {
    const auto index = static_cast<std::uint32_t>(fd);
    if (index >= kMaxFds) return {};
    const Page* page = pages_[index / kPageEntries].load(std::memory_order_acquire);
    if (page == nullptr) return {};
    return FdEntry::unpack((*page)[index % kPageEntries].load(std::memory_order_acquire));
  }
  // Sets the entry and returns the one before. Setting fails silently (kUnknown stays) when memory lacks.
  FdEntry exchange(int fd, FdEntry entry) noexcept;
  // Whether `expected` stood there and was replaced.
  bool replace(int fd, FdEntry expected, FdEntry entry) noexcept;

  // Calls fn(fd, entry) for every known descriptor in [first, last]; in order.
  template <typename Fn>
  void for_each(std::uint32_t first, std::uint32_t last, Fn&& fn) const {
    if (last >= kMaxFds) last = kMaxFds - 1;
    for (std::uint32_t fd = first; fd <= last; ++fd) {
      if (pages_[fd / kPageEntries].load(std::memory_order_acquire) == nullptr) {
        fd |= kPageEntries - 1;
        continue;
      }
      const FdEntry entry = get(static_cast<int>(fd));
      if (entry.kind != FdKind::kUnknown) fn(static_cast<int>(fd), entry);
    }
  }

 private:
  using Page = std::array<std::atomic<std::uint64_t>, kPageEntries>;

  std::atomic<std::uint64_t>* slot_of(int fd, bool create) noexcept;

  std::array<std::atomic<Page*>, kPages> pages_{};
};

}  // namespace twinstack::sockets
