#include "info_check.h"

#include <fmt/format.h>

#include "names.h"

namespace twinstack::conformance {

std::string difference(const Check& wanted, const Info& info) {
  for (const auto& [field, match] : wanted.fields) {
    const auto known = info.find(field);
    if (known == info.end()) return "no field of tcp_info is called " + field;
    if (match.accepts(known->second)) continue;
    if (field == "state") {
      return fmt::format("state is {}, not {}", state_text(known->second), state_text(match.low));
    }
    return fmt::format("{} is {}, not from {} to {}", field, known->second, match.low, match.high);
  }
  return {};
}

}  // namespace twinstack::conformance
