// call_text: a call of the program as scripts write it, to Call and back.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "line.h"
#include "script.h"

namespace twinstack::conformance {

// Reads the rest of the line: VERB SOCKET [arguments] [-> RESULT]. `made`: the name in front of it ("c = accept l").
Result<Call> read_call(Line& line, const std::string& made);

// "setsockopt c TCP_NODELAY"
[[nodiscard]] std::string to_text(const Call& call);
// What it gave: "EAGAIN", "100"; "in+out" of a poll.
[[nodiscard]] std::string result_text(const Call& call, std::int64_t result);

}  // namespace twinstack::conformance
