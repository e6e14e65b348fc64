// What the administrator of this network namespace has set for TCP (/proc/sys/net/ipv4), as far as the engine follows
// it. Read when an interface is attached; for all connections that move from then on.
#pragma once

#include <string>

#include "engine/lane.h"

namespace twinstack::driver {

// What cannot be read keeps its default. `directory` ends with a slash.
[[nodiscard]] engine::HostSettings read_host_settings(const std::string& directory = "/proc/sys/net/ipv4/");

}  // namespace twinstack::driver
