// ControlTarget: what the command line can ask of a running service. The service implements it; the control server
// (control_server.h) turns JSON requests into these calls, on the service's own thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "wire/flow.h"

namespace twinstack::driver {

// One connection that the service knows, as `twinstack ls` shows it.
struct ConnectionView {
  // Identities.
  std::uint64_t session = 0;
  std::uint32_t slot = 0;
  std::uint32_t tag = 0;
  std::uint64_t cookie = 0;      // SO_COOKIE, the kernel connection id
  std::uint64_t hw_conn_id = 0;  // 0: the engine does not serve it
  int pid = 0;
  std::uint32_t uid = 0;
  std::string program;
  int program_fd = -1;
  FlowKey flow;
  std::string interface;  // through which it leaves; empty when not known

  std::string stack;   // "kernel", "engine", "to-engine", "to-kernel"
  std::string state;   // of the TCP connection: "ESTAB", "CLOSE-WAIT", ...
  std::string reason;  // why it may not move now, or why it is about to return; empty when nothing stands against it
  std::string last_return;  // why it came back the last time; empty when it never did
  bool stays = false;       // never to be moved again

  std::uint32_t rtt_us = 0;
  std::uint32_t rttvar_us = 0;
  std::uint32_t rto_us = 0;
  std::uint32_t cwnd_segments = 0;
  std::uint32_t ssthresh_segments = 0;
  std::uint32_t mss = 0;
  std::uint32_t receive_queue_bytes = 0;
  std::uint32_t send_queue_bytes = 0;
  std::uint64_t retransmits = 0;

  std::uint64_t offloads = 0;  // moves kernel -> engine
  std::uint64_t uploads = 0;   // moves engine -> kernel
  std::uint64_t kernel_bytes_sent = 0;
  std::uint64_t kernel_bytes_received = 0;
  std::uint64_t engine_bytes_sent = 0;
  std::uint64_t engine_bytes_received = 0;
};

struct PauseSummary {
  std::uint64_t count = 0;
  double p50_us = 0;
  double p99_us = 0;
  double max_us = 0;
};

struct ServiceStats {
  std::uint64_t sessions = 0;
  std::uint64_t connections = 0;
  std::uint64_t engine_connections = 0;
  PauseSummary offload;
  PauseSummary upload;
  std::vector<std::pair<std::string, std::uint64_t>> counters;  // everything else, by name, in order of interest
  struct Interface {
    std::string name;
    std::string mode;
    std::string mode_reason;
    std::uint32_t queues = 0;
  };
  std::vector<Interface> interfaces;
};

using ConnectionFilter = std::function<bool(const ConnectionView&)>;

// What became of an order for many connections.
struct MoveOutcome {
  std::uint64_t matched = 0;
  std::uint64_t moved = 0;                                     // done, or under way (a drain, a grace period)
  std::uint64_t already = 0;                                   // were there before
  std::vector<std::pair<std::uint64_t, std::string>> refused;  // cookie, reason
};

class ControlTarget {
 public:
  virtual ~ControlTarget() = default;

  // Those that the filter passes, which looks at no `reason`: that takes longest to find out.
  [[nodiscard]] virtual std::vector<ConnectionView> connections(const ConnectionFilter& filter) = 0;
  virtual MoveOutcome offload(const ConnectionFilter& filter) = 0;
  virtual MoveOutcome upload(const ConnectionFilter& filter) = 0;
  // Moves all connections back and forth every `interval` for `duration`; a new order replaces the old one, duration 0
  // ends it.
  virtual void churn(std::chrono::milliseconds interval, std::chrono::milliseconds duration) = 0;
  [[nodiscard]] virtual ServiceStats stats() = 0;
};

}  // namespace twinstack::driver
