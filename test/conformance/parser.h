// parser: the text of a conformance script (docs/conformance-scripts.md) to a Script. The first mistake ends it, with
// file, line and what is wrong.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "script.h"

namespace twinstack::conformance {

// `name`: what errors and reports call the script. kInvalid when the text is none.
Result<Script> parse_script(std::string_view name, std::string_view text);

}  // namespace twinstack::conformance
