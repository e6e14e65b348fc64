// What the control socket says of connections, moves and the service, as JSON and back. The field names are the public
// ones of `twinstack ... -j` (docs/cli.md). Pure; any thread.
//
// Identifiers (sk, hw) are strings of hexadecimal digits, as the filters sk:HEX and hw:HEX take them: a 64-bit number
// does not survive every JSON reader.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "driver/control_target.h"

namespace twinstack::driver {

using Json = nlohmann::ordered_json;

[[nodiscard]] Json to_json(const ConnectionView& view);
[[nodiscard]] Json to_json(const MoveOutcome& outcome);
[[nodiscard]] Json to_json(const ServiceStats& stats);

// kProtocol when a field is missing or of another type; unknown fields are skipped.
[[nodiscard]] Result<ConnectionView> connection_from_json(const Json& json);
[[nodiscard]] Result<MoveOutcome> outcome_from_json(const Json& json);
[[nodiscard]] Result<ServiceStats> stats_from_json(const Json& json);

// One line without the newline; bytes that are no UTF-8 (a program's name may hold any) become U+FFFD.
[[nodiscard]] std::string to_line(const Json& json);
[[nodiscard]] std::string hex(std::uint64_t value);  // "1f"

}  // namespace twinstack::driver
