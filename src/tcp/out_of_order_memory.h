// OutOfOrderMemory: a bound over all that the connections of one owner hold out of order. It is their peers that decide
// how much that is, at no cost of their own. When no room is left, the peer address with the most loses the farthest
// bytes of its connection with the most (Linux tcp_prune_ofo_queue(); RFC 2018 8): they were reported by SACK at most,
// never acknowledged, and the sender repeats them.
//
// Outlives the connections. One thread at a time (theirs).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>

#include "wire/flow.h"
#include "wire/seq.h"

namespace twinstack::tcp {

struct ColdState;

// Members with a link of this type, in a list for each size, by powers of two: what is largest, but for a factor of
// two, is found at once.
template <typename T>
struct SizeLink {
  T* next = nullptr;
  T* prev = nullptr;
  std::uint8_t list = 0;
  bool linked = false;
};

template <typename T>
class SizeLists {
 public:
  // Puts `member` into the list of its size.
  void put(T& member, std::uint64_t bytes) noexcept {
    const auto list = static_cast<std::uint8_t>(std::bit_width(bytes));
    if (member.link.linked && member.link.list == list) return;
    remove(member);
    member.link = {.next = heads_[list], .prev = nullptr, .list = list, .linked = true};
    if (heads_[list] != nullptr) heads_[list]->link.prev = &member;
    heads_[list] = &member;
    occupied_ |= std::uint64_t{1} << list;
  }
  void remove(T& member) noexcept {
    SizeLink<T>& link = member.link;
    if (!link.linked) return;
    if (link.next != nullptr) link.next->link.prev = link.prev;
    (link.prev != nullptr ? link.prev->link.next : heads_[link.list]) = link.next;
    if (heads_[link.list] == nullptr) occupied_ &= ~(std::uint64_t{1} << link.list);
    link = {};
  }
  // nullptr: there is no member.
  [[nodiscard]] T* largest() const noexcept {
    return occupied_ == 0 ? nullptr : heads_[static_cast<std::size_t>(std::bit_width(occupied_) - 1)];
  }

 private:
  std::array<T*, 48> heads_{};
  std::uint64_t occupied_ = 0;  // a bit for each list
};

struct OutOfOrderPeer;
class OutOfOrderMemory;

// Of one connection; in its ColdState.
struct OutOfOrderShare {
  OutOfOrderShare() = default;
  OutOfOrderShare(const OutOfOrderShare&) = delete;
  OutOfOrderShare& operator=(const OutOfOrderShare&) = delete;
  ~OutOfOrderShare();

  OutOfOrderMemory* memory = nullptr;  // nullptr: it holds nothing, or nobody counts
  OutOfOrderPeer* peer = nullptr;
  ColdState* cold = nullptr;
  std::uint64_t bytes = 0;
  SizeLink<OutOfOrderShare> link;
};

// All connections of one address that hold something.
struct OutOfOrderPeer {
  IpAddress address;
  std::uint64_t bytes = 0;
  SizeLists<OutOfOrderShare> shares;
  SizeLink<OutOfOrderPeer> link;
};

class OutOfOrderMemory {
 public:
  static constexpr std::uint64_t kDefaultLimit = 64U << 20;

  explicit OutOfOrderMemory(std::uint64_t limit_bytes = kDefaultLimit) noexcept : limit_(limit_bytes) {}
  OutOfOrderMemory(const OutOfOrderMemory&) = delete;
  OutOfOrderMemory& operator=(const OutOfOrderMemory&) = delete;

  // Counts for what comes from now on.
  void set_limit(std::uint64_t bytes) noexcept { limit_ = bytes; }
  [[nodiscard]] std::uint64_t limit() const noexcept { return limit_; }
  [[nodiscard]] std::uint64_t used() const noexcept { return used_; }
  // Little is left, and this peer holds no less than the others on average: it should be offered no more.
  [[nodiscard]] bool is_scarce_for(const OutOfOrderShare& share) const noexcept {
    return used_ > limit_ - limit_ / 8 && share.peer != nullptr && share.peer->bytes * peers_.size() >= used_;
  }
  // Blocks that were given up, and segments that found no room, so far.
  [[nodiscard]] std::uint64_t pruned() const noexcept { return pruned_; }

  // Room for a segment at `seq` that takes `bytes`, if need be at the cost of others. False: there is none, since it
  // lies behind all that the connection holds, and nobody holds more.
  [[nodiscard]] bool make_room(ColdState& cold, const IpAddress& peer, Seq seq, std::uint64_t bytes);
  // What the connection holds is `bytes` now. REQUIRES: make_room() for it.
  void set_bytes(OutOfOrderShare& share, std::uint64_t bytes) noexcept;

 private:
  void join(ColdState& cold, const IpAddress& peer);
  void leave(OutOfOrderShare& share) noexcept;
  [[nodiscard]] ColdState& who_has_most(ColdState& asks, std::uint64_t more) const noexcept;

  std::uint64_t limit_;
  std::uint64_t used_ = 0;
  std::uint64_t pruned_ = 0;
  struct ByWords {
    bool operator()(const IpAddress& a, const IpAddress& b) const noexcept { return a.bytes < b.bytes; }
  };
  std::map<IpAddress, OutOfOrderPeer, ByWords> peers_;
  SizeLists<OutOfOrderPeer> by_size_;
};

}  // namespace twinstack::tcp
