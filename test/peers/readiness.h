// Readiness: epoll (level or edge triggered) and poll(2) behind one face, so that stream_peer's loop can be run on
// each. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "stream_options.h"

namespace twinstack::peers {

class Readiness {
 public:
  virtual ~Readiness() = default;
  // `key` is the caller's name for the descriptor. With edge triggering the wishes are ignored: both, once.
  [[nodiscard]] virtual Result<> add(int fd, std::uint64_t key, bool want_in, bool want_out) = 0;
  [[nodiscard]] virtual Result<> change(int fd, std::uint64_t key, bool want_in, bool want_out) = 0;
  // To be called before the descriptor is closed.
  virtual void remove(int fd) = 0;
  // Fills `keys` with the ready ones (errors and hang-ups count as ready); empty after the time-out or a signal.
  [[nodiscard]] virtual Result<> wait(int timeout_ms, std::vector<std::uint64_t>& keys) = 0;
};

// REQUIRES: kind is not kThreads.
[[nodiscard]] Result<std::unique_ptr<Readiness>> make_readiness(LoopKind kind);

}  // namespace twinstack::peers
