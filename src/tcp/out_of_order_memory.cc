#include "tcp/out_of_order_memory.h"

#include "tcp/cold_state.h"
#include "tcp/reassembly.h"

namespace twinstack::tcp {

OutOfOrderShare::~OutOfOrderShare() {
  if (memory != nullptr) memory->set_bytes(*this, 0);
}

void OutOfOrderMemory::join(ColdState& cold, const IpAddress& peer) {
  OutOfOrderShare& share = cold.share;
  if (share.memory != nullptr) return;
  const IpAddress network = peer.network();
  const auto [at, made] = peers_.try_emplace(network);
  if (made) at->second.address = network;
  share.memory = this;
  share.peer = &at->second;
  share.cold = &cold;
  share.peer->shares.put(share, share.bytes);
  by_size_.put(*share.peer, share.peer->bytes);
}

void OutOfOrderMemory::leave(OutOfOrderShare& share) noexcept {
  OutOfOrderPeer& peer = *share.peer;
  peer.shares.remove(share);
  share.memory = nullptr;
  share.peer = nullptr;
  if (peer.shares.largest() != nullptr) return;
  by_size_.remove(peer);
  peers_.erase(peer.address);
}

void OutOfOrderMemory::set_bytes(OutOfOrderShare& share, std::uint64_t bytes) noexcept {
  used_ = used_ + bytes - share.bytes;
  share.peer->bytes = share.peer->bytes + bytes - share.bytes;
  share.bytes = bytes;
  by_size_.put(*share.peer, share.peer->bytes);
  if (bytes == 0) return leave(share);
  share.peer->shares.put(share, bytes);
}

// With `more` for the connection that asks.
ColdState& OutOfOrderMemory::who_has_most(ColdState& asks, std::uint64_t more) const noexcept {
  const OutOfOrderShare& own = asks.share;
  const OutOfOrderPeer* peer = by_size_.largest();
  if (own.peer->bytes + more >= peer->bytes) peer = own.peer;
  const OutOfOrderShare* share = peer->shares.largest();
  if (peer == own.peer && own.bytes + more >= share->bytes) return asks;
  return *share->cold;
}

bool OutOfOrderMemory::make_room(ColdState& cold, const IpAddress& peer, Seq seq, std::uint64_t bytes) {
  join(cold, peer);
  while (used_ + bytes > limit_) {
    ColdState& most = who_has_most(cold, bytes);
    ++pruned_;
    // As Linux: nothing is given up for what lies still farther.
    if (&most == &cold && (cold.out_of_order.empty() || cold.out_of_order.back().seq < seq)) {
      if (cold.share.bytes == 0) leave(cold.share);
      return false;
    }
    drop_farthest(most);
    join(cold, peer);  // which may have lost all
  }
  return true;
}

}  // namespace twinstack::tcp
