// Tables: flows, listeners, handles.
#include <algorithm>

#include "stack/stack.h"

namespace twinstack::stack {

namespace {

constexpr unsigned kIndexBits = 22;
constexpr std::uint32_t kIndexMask = (1U << kIndexBits) - 1;
constexpr std::uint32_t kGenerationMask = (1U << (31 - kIndexBits)) - 1;

}  // namespace

bool is_group(const IpAddress& ip) noexcept {
  if (!ip.is_v4()) return ip.bytes[0] == 0xff;
  return ip.bytes[12] >= 224;  // multicast, reserved, broadcast
}

Endpoint* SoftStack::find(const FlowKey& flow) const {
  const auto at = flows_.find(flow);
  return at == flows_.end() ? nullptr : *at;
}

// How well a listening socket fits, 0 = not at all: the very address before all of them, the family's own wildcard
// before that of IPv6, which takes both (Linux's score).
static int listener_score(const Socket& socket, const IpAddress& local) noexcept {
  if (!socket.listener) return 0;
  if (socket.flow.local == local) return 3;
  if (!is_any(socket.flow.local)) return 0;
  if (socket.family == family_of(local)) return 2;
  return socket.family == Family::kV6 && !socket.options.v6_only ? 1 : 0;
}

Socket* SoftStack::find_listener(const FlowKey& flow) const {
  const auto bucket = ports_.find(flow.local_port);
  if (bucket == ports_.end()) return nullptr;
  Socket* best = nullptr;
  int best_score = 0;
  for (Endpoint* at = bucket->second.bound; at != nullptr; at = at->bucket_after) {
    auto& socket = static_cast<Socket&>(*at);
    const int score = listener_score(socket, flow.local);
    if (score <= best_score) continue;
    best = &socket;
    best_score = score;
  }
  return best;
}

void SoftStack::enter(Endpoint& endpoint) {
  const bool fresh = flows_.insert(&endpoint).second;
  ASSERT(fresh);
  endpoint.in_table = true;
}

void SoftStack::leave(Endpoint& endpoint) {
  if (!endpoint.in_table) return;
  flows_.erase(&endpoint);
  endpoint.in_table = false;
}

void SoftStack::join_port(Endpoint& endpoint, std::uint16_t port) {
  ASSERT(endpoint.bucket == nullptr && endpoint.flow.local_port == port);
  PortBucket& bucket = ports_[port];
  Endpoint*& first = endpoint.bound_by_program ? bucket.bound : bucket.others;
  endpoint.bucket = &bucket;
  endpoint.bucket_before = nullptr;
  endpoint.bucket_after = first;
  if (first != nullptr) first->bucket_before = &endpoint;
  first = &endpoint;
}

void SoftStack::leave_port(Endpoint& endpoint) {
  PortBucket* const bucket = endpoint.bucket;
  if (bucket == nullptr) return;
  Endpoint*& first = endpoint.bound_by_program ? bucket->bound : bucket->others;
  (endpoint.bucket_before != nullptr ? endpoint.bucket_before->bucket_after : first) = endpoint.bucket_after;
  if (endpoint.bucket_after != nullptr) endpoint.bucket_after->bucket_before = endpoint.bucket_before;
  endpoint.bucket = nullptr;
  endpoint.bound_by_program = false;
  if (bucket->empty()) ports_.erase(endpoint.flow.local_port);
}

Socket* SoftStack::socket_of(SocketId id) const {
  if (id < 0) return nullptr;
  const auto raw = static_cast<std::uint32_t>(id);
  const std::uint32_t index = raw & kIndexMask;
  if (index >= slots_.size() || !slots_[index].socket) return nullptr;
  Socket& socket = *slots_[index].socket;
  return socket.id == id && !socket.orphan && socket.accepted ? &socket : nullptr;
}

Socket* SoftStack::make_socket(Family family) {
  if (live_sockets_ >= std::min(config_.max_sockets, kIndexMask)) return nullptr;
  if (free_slots_.empty()) {
    free_slots_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const std::uint32_t index = free_slots_.back();
  free_slots_.pop_back();
  Slot& slot = slots_[index];
  slot.generation = (slot.generation + 1) & kGenerationMask;
  slot.socket = std::make_unique<Socket>(family);
  slot.socket->id = static_cast<SocketId>(slot.generation << kIndexBits | index);
  slot.socket->cookie = next_cookie_++;
  ++live_sockets_;
  return slot.socket.get();
}

void SoftStack::destroy(Socket& socket) {
  if (socket.orphan) --orphans_;
  forget_unconfirmed(socket);
  timers_.cancel(socket);
  leave(socket);
  leave_port(socket);
  const std::uint32_t index = static_cast<std::uint32_t>(socket.id) & kIndexMask;
  slots_[index].socket.reset();
  free_slots_.push_back(index);
  --live_sockets_;
}

bool SoftStack::is_local(const IpAddress& ip) const {
  return std::ranges::find(config_.addresses, ip) != config_.addresses.end();
}

bool SoftStack::source_for(const IpAddress& peer, IpAddress& out) const {
  const auto same_family = [&](const IpAddress& ip) { return ip.is_v4() == peer.is_v4(); };
  const auto at = std::ranges::find_if(config_.addresses, same_family);
  if (at == config_.addresses.end()) return false;
  out = *at;
  return true;
}

}  // namespace twinstack::stack
