// What is looked at before the service starts, so that a refusal comes with words that say what to do. Main thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "kernel/capabilities.h"

namespace twinstack::cli {

// `release` as uname() gives it: "6.1.0-18-amd64". kUnsupported below 5.18 (bpf_skb_load_bytes of live frames, XDP with
// several buffers); text that is no version passes.
Result<> check_kernel_release(std::string_view release);

// kSystem, with the names of what is missing.
Result<> check_capabilities(const kernel::Privileges& held, bool other_netns);

// Between looking at a socket and listening on it a second service must not do the same. Held by the one that starts
// (flock(2) on the directory); waits for another for 5 s at most. Empty when there is nothing to hold.
[[nodiscard]] UniqueFd take_turn_to_start(const std::string& socket_path);

// Makes sure that both sockets can be bound: leaves of a dead service are removed. kNoResource: a service runs there
// (with its pid, where known) or something that is no socket stands in the way.
Result<> clear_stale_sockets(const std::string& socket_path);

}  // namespace twinstack::cli
