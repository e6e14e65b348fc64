// linux_options: socket options by the names that scripts use, on the kernel's sockets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "endpoint.h"

namespace twinstack::conformance {

// -ENOSYS for a name that is not known here.
[[nodiscard]] CallResult set_linux_option(int fd, std::string_view name, std::int64_t value, const std::string& text);
[[nodiscard]] CallResult get_linux_option(int fd, std::string_view name);

// TCP_INFO.
[[nodiscard]] Result<Info> linux_info(int fd);

}  // namespace twinstack::conformance
