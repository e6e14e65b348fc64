// Plan: what a seed stands for: the shape of the world (hosts, links, memory) and the list of events.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/region.h"
#include "ipc/arena.h"
#include "sim/event.h"
#include "sim/options.h"
#include "sim/pipe.h"
#include "stack/config.h"

namespace twinstack::sim {

// Longest time that programs use a connection for.
inline constexpr Duration kLife = std::chrono::seconds(1);

struct Shape {
  std::uint32_t peers = 1;
  std::uint32_t lanes = 1;
  std::uint32_t programs = 1;
  std::vector<PipeShape> to_peer;  // by peer
  std::vector<PipeShape> from_peer;
  ipc::ArenaConfig arena;
  engine::LaneCapacity capacity;
  Duration grace{};
  std::vector<stack::Config> hosts;  // the moving one first, then the peers
};

// Of the moving host and of peer `number`; the last byte tells them apart.
[[nodiscard]] IpAddress address_of_mover(bool v6);
[[nodiscard]] IpAddress address_of_peer(std::uint32_t number, bool v6);
// Each connection has ports of its own, so that it is known by its flow.
[[nodiscard]] FlowKey flow_of(std::uint32_t number, std::uint32_t peer, bool v6, bool from_peer);

[[nodiscard]] Shape make_shape(const Options& options);
// In the order of time. Those that `only` leaves out are not in it.
[[nodiscard]] std::vector<Event> make_events(const Options& options, const Shape& shape);

}  // namespace twinstack::sim
