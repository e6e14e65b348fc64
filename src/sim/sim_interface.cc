#include "sim/sim_interface.h"

#include <algorithm>

#include "wire/build.h"

namespace twinstack::sim {

std::uint32_t SimInterface::queue_of(const FlowKey& flow) const {
  return static_cast<std::uint32_t>((flow.hash(0) + queue_offset) % lanes_.size());
}

void SimInterface::demultiplex(Frame frame) {
  FrameHead head;
  if (is_dead || !read_head(frame, head)) {
    overhear(frame);
    to_kernel_(std::move(frame));
    return;
  }
  const std::uint32_t queue = queue_of(head.flow);
  if (const auto watched = watched_.find(head.flow); watched != watched_.end()) watched->second = queue;
  if (steered_.contains(head.flow))
    lanes_[queue]->nic().push(std::move(frame));
  else
    to_kernel_(std::move(frame));
}

// What the driver's raw socket gets of what is the kernel's.
void SimInterface::overhear(ByteView frame) {
  constexpr std::size_t kSocketMessages = 256;
  if (is_dead || frame.size() <= wire::kEthernetBytes || icmp_.size() >= kSocketMessages) return;
  const auto error = wire::parse_icmp_error(frame.subspan(wire::kEthernetBytes));
  if (error && error->kind == wire::IcmpKind::kTooBig) icmp_.push_back(*error);
}

void SimInterface::process_icmp(const std::function<void(const wire::IcmpError&)>& too_big) {
  for (const wire::IcmpError& error : std::exchange(icmp_, {})) too_big(error);
}

std::uint32_t SimInterface::hop_users() const noexcept {
  std::uint32_t users = 0;
  for (const Hop& hop : hops_) users += hop.users;
  return users;
}

void SimInterface::tell_lanes(std::uint32_t hop_index) {
  for (auto& lane : lanes_)
    (void)lane->port.call({.op = engine::CommandOp::kSetHop,
                           .hop_index = hop_index,
                           .hop = {.source = {2, 0, 0, 0, 0, 1},
                                   .destination = {2, 0, 0, 0, 1, static_cast<std::uint8_t>(hop_index)},
                                   .mtu_bytes = 1500}});
}

// The other hosts are numbered by the last byte of their address.
Result<std::optional<std::uint32_t>> SimInterface::hop_for(const kernel::RouteQuery& query) {
  const std::uint32_t index = query.remote.bytes[15];
  if (hops_.size() <= index) hops_.resize(index + 1);
  ++hops_[index].users;
  if (!std::exchange(hops_[index].is_known, true)) tell_lanes(index);
  return std::optional(index);
}

void SimInterface::release_hop(std::uint32_t hop_index) { --hops_[hop_index].users; }

std::vector<std::vector<std::byte>> SimInterface::take_strays(std::size_t lane) {
  std::vector<std::vector<std::byte>> strays;
  engine::Lane& of = lanes_[lane]->lane;
  for (auto frame = of.take_stray(); !frame.empty(); frame = of.take_stray()) strays.push_back(std::move(frame));
  return strays;
}

std::uint32_t SimInterface::lane_of(const FlowKey& flow) const {
  const auto found = watched_.find(flow);
  return found == watched_.end() ? 0 : found->second;
}

Result<> SimInterface::steer(const FlowKey& flow, std::uint32_t generation) {
  if (is_dead) return {};
  if (map_is_full) return error(ErrorCode::kNoResource, "the steering map is full");
  steered_[flow] = generation;
  return {};
}

Result<> SimInterface::unsteer(const FlowKey& flow) {
  if (!is_dead && !keeps_flows) steered_.erase(flow);
  return {};
}

void SimInterface::tell_failed_inject(const nic::RxFrame& frame) const {
  std::vector<std::byte> copy(frame.length_bytes);
  Payload(frame.parts, 0, frame.length_bytes).copy_to(copy);
  FrameHead head;
  if (read_head(copy, head)) on_failed_inject(head.flow);
}

Result<> SimInterface::inject(std::span<const nic::RxFrame> frames) {
  if (is_dead) return {};
  if (fail_inject > 0) {
    --fail_inject;
    tell_failed_inject(frames.front());
    return error(ErrorCode::kSystem, "the injector fails");
  }
  for (const nic::RxFrame& frame : frames) {
    Frame copy = pool_.take(frame.length_bytes);
    Payload(frame.parts, 0, frame.length_bytes).copy_to(copy);
    to_kernel_(std::move(copy));
  }
  return {};
}

}  // namespace twinstack::sim
