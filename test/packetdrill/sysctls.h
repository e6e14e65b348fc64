// What the administrator of the script's namespace has set: /proc/sys/net, which scripts change at any time. Names as
// "ipv4/tcp_rmem".
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace twinstack::packetdrill {

// Its numbers; none when it cannot be read.
[[nodiscard]] std::vector<long long> read_sysctl(const std::string& name);
// The first of them.
[[nodiscard]] std::optional<long long> read_sysctl_number(const std::string& name);
// The text, without its end of line.
[[nodiscard]] std::string read_sysctl_text(const std::string& name);

}  // namespace twinstack::packetdrill
