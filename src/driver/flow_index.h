// FlowIndex: connections by the interface that they leave through and their flow. Two namespaces may know the same
// addresses and ports.
#pragma once

#include <cstddef>
#include <functional>
#include <unordered_map>
#include <utility>

#include "driver/interface.h"
#include "wire/flow.h"

namespace twinstack::driver {

struct ManagedConnection;

class FlowIndex {
 public:
  void put(const Interface* interface, const FlowKey& flow, ManagedConnection& conn) {
    map_[{interface, flow}] = &conn;
  }
  void erase(const Interface* interface, const FlowKey& flow) { map_.erase({interface, flow}); }
  [[nodiscard]] ManagedConnection* find(const Interface* interface, const FlowKey& flow) const {
    const auto found = map_.find({interface, flow});
    return found == map_.end() ? nullptr : found->second;
  }

 private:
  using Key = std::pair<const Interface*, FlowKey>;
  struct Hash {
    [[nodiscard]] std::size_t operator()(const Key& key) const noexcept {
      return key.second.hash(std::hash<const void*>{}(key.first));
    }
  };
  std::unordered_map<Key, ManagedConnection*, Hash> map_;
};

}  // namespace twinstack::driver
