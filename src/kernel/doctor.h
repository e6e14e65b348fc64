// The probes behind `twinstack doctor`: does this machine have what a move needs, and if not, how to mend it. Each
// probe tries the real thing on a socket, program or namespace of its own and leaves nothing behind.
//
// Threads: any. Blocks for some milliseconds (BPF loads, an own network namespace in an own thread).
#pragma once

#include <string>
#include <vector>

namespace twinstack::kernel {

struct Probe {
  std::string name;  // "tcp-repair"
  bool ok = false;
  bool required = true;  // without it nothing moves; else something is worse but works
  std::string detail;    // what was found
  std::string mend;      // how to mend it; empty when ok
};

// `other_netns`: the service shall serve an interface of another namespace than its own.
[[nodiscard]] std::vector<Probe> examine_system(bool other_netns = false);

}  // namespace twinstack::kernel
