// info_check: what a script wants of TCP_INFO. Pure.
#pragma once

#include <string>

#include "endpoint.h"
#include "script.h"

namespace twinstack::conformance {

// Empty when `info` is as `wanted` says, else the first difference in words.
[[nodiscard]] std::string difference(const Check& wanted, const Info& info);

}  // namespace twinstack::conformance
