#include "nic/af_xdp/steering.h"

#include <bpf/bpf.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "bpf/shared.h"

namespace twinstack::nic {
namespace {

static_assert(sizeof(ts_flow) == sizeof(FlowKey));

ts_flow to_key(const FlowKey& flow) noexcept {
  ts_flow key{};
  std::memcpy(key.local, flow.local.bytes.data(), sizeof key.local);
  std::memcpy(key.remote, flow.remote.bytes.data(), sizeof key.remote);
  key.local_port = flow.local_port;
  key.remote_port = flow.remote_port;
  return key;
}

ts_steer fresh_state(std::uint32_t generation) noexcept {
  return {.packets = 0, .rx_queue = 0, .generation = generation};
}

std::unexpected<Error> map_error(int result, const char* what) {
  const int number = -result;  // libbpf 1.x returns -errno
  if (number == E2BIG) return std::unexpected(Error{ErrorCode::kNoResource, number, "the steering map is full"});
  if (number == ENOMEM) return std::unexpected(Error{ErrorCode::kNoResource, number, what});
  return system_error(what, number);
}

}  // namespace

Result<Steering> Steering::adopt(UniqueFd map) {
  bpf_map_info info{};
  __u32 length = sizeof info;
  if (const int result = bpf_obj_get_info_by_fd(map.get(), &info, &length); result != 0) {
    return map_error(result, "reading the kind of a steering map");
  }
  if (info.type != BPF_MAP_TYPE_HASH || info.key_size != sizeof(ts_flow) || info.value_size != sizeof(ts_steer)) {
    return error(ErrorCode::kInvalid, "not a steering map");
  }
  return Steering(std::move(map), info.max_entries);
}

Result<> Steering::add(const FlowKey& flow, std::uint32_t generation) {
  const ts_flow key = to_key(flow);
  const ts_steer value = fresh_state(generation);
  const int result = bpf_map_update_elem(map_.get(), &key, &value, BPF_ANY);
  if (result != 0) return map_error(result, "adding to the steering map");
  return {};
}

Result<> Steering::watch(const FlowKey& flow) {
  const ts_flow key = to_key(flow);
  ts_steer value{};
  if (bpf_map_lookup_elem(map_.get(), &key, &value) != 0) value = {};
  value.generation = 0;
  const int result = bpf_map_update_elem(map_.get(), &key, &value, BPF_ANY);
  if (result != 0) return map_error(result, "adding to the steering map");
  return {};
}

Result<bool> Steering::remove(const FlowKey& flow) {
  const ts_flow key = to_key(flow);
  const int result = bpf_map_delete_elem(map_.get(), &key);
  if (result == -ENOENT) return false;
  if (result != 0) return map_error(result, "removing from the steering map");
  return true;
}

Result<> Steering::add_many(std::span<const SteeredFlow> flows) {
  if (flows.empty()) return {};
  std::vector<ts_flow> keys;
  std::vector<ts_steer> values;
  keys.reserve(flows.size());
  values.reserve(flows.size());
  for (const SteeredFlow& entry : flows) {
    keys.push_back(to_key(entry.flow));
    values.push_back(fresh_state(entry.generation));
  }
  auto count = static_cast<__u32>(keys.size());
  const int result = bpf_map_update_batch(map_.get(), keys.data(), values.data(), &count, nullptr);
  if (result == 0) return {};
  // `count` says how many were added, except when the kernel did not get that far (EFAULT): deleting is harmless.
  for (const ts_flow& key : keys) bpf_map_delete_elem(map_.get(), &key);
  return map_error(result, "adding to the steering map");
}

Result<> Steering::remove_many(std::span<const FlowKey> flows) {
  // The kernel's batch deletion stops at the first key that is not there, so one by one behind such a key.
  std::vector<ts_flow> keys;
  keys.reserve(flows.size());
  for (const FlowKey& flow : flows) keys.push_back(to_key(flow));
  std::size_t done = 0;
  while (done < keys.size()) {
    auto count = static_cast<__u32>(keys.size() - done);
    const int result = bpf_map_delete_batch(map_.get(), keys.data() + done, &count, nullptr);
    if (result == 0) break;
    if (result != -ENOENT) return map_error(result, "removing from the steering map");
    done += count + 1;
  }
  return {};
}

bool Steering::contains(const FlowKey& flow) const { return state(flow).has_value(); }

std::optional<SteeringState> Steering::state(const FlowKey& flow) const {
  const ts_flow key = to_key(flow);
  ts_steer value{};
  if (bpf_map_lookup_elem(map_.get(), &key, &value) != 0) return std::nullopt;
  return SteeringState{.packets = value.packets, .rx_queue = value.rx_queue, .generation = value.generation};
}

std::size_t Steering::size() const {
  std::size_t count = 0;
  ts_flow key{};
  ts_flow next{};
  // An entry that is removed meanwhile makes the walk start anew; the bound keeps that finite.
  for (const void* from = nullptr; count < capacity_; ++count) {
    if (bpf_map_get_next_key(map_.get(), from, &next) != 0) break;
    key = next;
    from = &key;
  }
  return count;
}

}  // namespace twinstack::nic
