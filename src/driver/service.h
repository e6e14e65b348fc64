// Service: the driver as a process: attaches to interfaces, hosts the lanes, accepts applications, moves connections.
// run() is the driver's thread: it alone talks to both stacks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "driver/user_quota.h"
#include "nic/af_xdp/attachment.h"

namespace twinstack::driver {

struct InterfaceOption {
  std::string name;
  std::string netns;  // a name under /run/netns or a path; empty: where the service runs
};
// "eth0", "eth0@blue".
[[nodiscard]] Result<InterfaceOption> parse_interface(const std::string& word);

enum class Policy : std::uint8_t {
  kManual,  // connections move by command only
  kAuto,    // those that live and carry traffic are offloaded
  kAll,     // every eligible connection is offloaded as soon as it is known
};

struct ServiceOptions {
  std::vector<InterfaceOption> interfaces;
  std::string socket_path;  // of applications; the control socket is socket_path + ".control"
  Policy policy = Policy::kAuto;
  nic::XdpMode xdp_mode = nic::XdpMode::kAuto;
  std::uint32_t max_connections = 16384;  // per lane
  std::uint32_t spin_us = 0;              // how long an idle lane polls before it sleeps
  std::vector<unsigned> cpus;             // that lanes are pinned to, in turn; empty: not pinned
  // How long a connection that its program has closed stays in the engine when the kernel does not take it; then it is
  // reset.
  Duration orphan_patience = std::chrono::seconds(60);
  UserBounds user_bounds;  // of one user other than root; lowered when descriptors are few
};

class Service {
 public:
  // Sets everything up: privileges, interfaces, sockets, lanes. Errors say what to mend; nothing is left behind.
  static Result<std::unique_ptr<Service>> create(const ServiceOptions& options);
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;
  ~Service();

  // Serves until SIGTERM or SIGINT, then returns every connection to the kernel and takes everything down.
  // Prints "ready" to standard output when applications may connect. REQUIRES: no other thread was started before
  // create() (signals are blocked for all threads).
  Result<> run();

 private:
  class Impl;
  explicit Service(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace twinstack::driver
