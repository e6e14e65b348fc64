// The version of the build, from CMake's project().
#pragma once

namespace twinstack::cli {

inline constexpr const char* kVersion = TWINSTACK_VERSION;

}  // namespace twinstack::cli
