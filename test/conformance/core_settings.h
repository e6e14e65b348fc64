// core_settings: the settings that scripts make, on the portable stack's configuration.
#pragma once

#include <string>

#include "base/result.h"
#include "stack/config.h"

namespace twinstack::conformance {

// kUnsupported for a setting that the stack does not have, kInvalid for a value that is none.
Result<> apply_setting(const std::string& name, const std::string& value, stack::Config& config);

}  // namespace twinstack::conformance
