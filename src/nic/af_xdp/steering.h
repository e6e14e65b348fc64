// Steering: which connections of one interface go to AF_XDP. The user side of the hash map that the XDP program
// (src/bpf/steer.bpf.c) reads. A flow that is not in it goes to the kernel, untouched.
//
// Works on a map descriptor only, so it may live in another process than the attachment. All calls are single system
// calls on the map (about 0.3 us each) and may come from any thread; changes hold from the next packet on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "wire/flow.h"

namespace twinstack::nic {

struct SteeredFlow {
  FlowKey flow;
  std::uint32_t generation = 0;  // the caller's; comes back in state()
};

struct SteeringState {
  std::uint64_t packets = 0;     // seen since add() or watch()
  std::uint32_t rx_queue = 0;    // that saw the last one; meaningful when packets > 0
  std::uint32_t generation = 0;  // 0: only watched
};

class Steering {
 public:
  // Takes the descriptor of a map made by the XDP attachment (or received from another process).
  // kInvalid when it is another kind of map.
  static Result<Steering> adopt(UniqueFd map);

  // From now on packets whose destination is flow.local go to AF_XDP. A flow that is already there starts anew
  // (counters zero, the new generation). kNoResource when the map is full; nothing is changed then.
  // REQUIRES: generation is not 0.
  Result<> add(const FlowKey& flow, std::uint32_t generation);
  // Its packets go to the kernel; state() tells by which queue they come. Ends add(), with what state() knew.
  Result<> watch(const FlowKey& flow);
  // True when it was there.
  Result<bool> remove(const FlowKey& flow);

  // Many in one system call. All or nothing: when one cannot be added those added by this call are taken out again.
  // REQUIRES: no flow twice, none present before.
  Result<> add_many(std::span<const SteeredFlow> flows);
  // Those that are not there are passed over.
  Result<> remove_many(std::span<const FlowKey> flows);

  [[nodiscard]] bool contains(const FlowKey& flow) const;
  [[nodiscard]] std::optional<SteeringState> state(const FlowKey& flow) const;
  // Counts by walking the map: for reports, not for the fast path.
  [[nodiscard]] std::size_t size() const;
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] int map_fd() const noexcept { return map_.get(); }

 private:
  Steering(UniqueFd map, std::size_t capacity) noexcept : map_(std::move(map)), capacity_(capacity) {}

  UniqueFd map_;
  std::size_t capacity_ = 0;
};

}  // namespace twinstack::nic
