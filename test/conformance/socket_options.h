// socket_options: socket options by the names that scripts use, and the fields of tcp_info by theirs. Pure.
#pragma once

#include <linux/tcp.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "endpoint.h"

namespace twinstack::conformance {

struct SocketOption {
  std::string_view name;
  int level;
  int number;
};

// nullptr for a name that scripts may not use.
[[nodiscard]] const SocketOption* find_option(std::string_view name) noexcept;

// The value as setsockopt() takes it. SO_LINGER: `value` seconds. `text` for options that are words.
[[nodiscard]] std::vector<std::byte> option_value(const SocketOption& option, std::int64_t value,
                                                  const std::string& text);

[[nodiscard]] Info info_of(const tcp_info& read);

}  // namespace twinstack::conformance
