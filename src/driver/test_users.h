// Users for the tests of this folder. Not part of the library.
#pragma once

#include <sys/types.h>

namespace twinstack::driver {

inline constexpr uid_t kRoot = 0;
inline constexpr uid_t kAnna = 1000;
inline constexpr uid_t kBert = 1001;

}  // namespace twinstack::driver
