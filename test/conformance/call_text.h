// call_text: a call of the program as scripts write it, to Call.
#pragma once

#include "base/result.h"
#include "line.h"
#include "script.h"

namespace twinstack::conformance {

// Reads the rest of the line: VERB SOCKET [arguments] [-> RESULT]. `made`: the name in front of it ("c = accept l").
Result<Call> read_call(Line& line, const std::string& made);

}  // namespace twinstack::conformance
