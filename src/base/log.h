// Logging of the service and the command, to standard error. The libraries that live in applications and the pure
// core never log.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

namespace twinstack {

// level: "trace", "debug", "info", "warn", "error", "off". Unknown words mean "info".
void set_up_logging(std::string_view level);

}  // namespace twinstack
