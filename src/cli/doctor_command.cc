// twinstack doctor: examines the machine and the interfaces.
#include <algorithm>

#include "cli/commands.h"
#include "cli/doctor.h"
#include "cli/output.h"

namespace twinstack::cli {
namespace {

Result<std::vector<InterfaceReport>> examine_interfaces(const std::vector<std::string>& asked_for) {
  std::vector<InterfaceReport> reports;
  for (const std::string& word : asked_for) {
    ASSIGN_OR_RETURN(const driver::InterfaceOption interface, driver::parse_interface(word));
    reports.push_back(examine_interface(interface, true));
  }
  if (!asked_for.empty()) return reports;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ethernet_interfaces());
  for (const std::string& name : names) reports.push_back(examine_interface({.name = name, .netns = {}}, false));
  return reports;
}

}  // namespace

int run_doctor(const Invocation& invocation) {
  auto interfaces = examine_interfaces(invocation.interfaces);
  if (!interfaces.has_value()) {
    const bool misspelt = interfaces.error().code == ErrorCode::kInvalid;
    return failure(invocation, interfaces.error().message(), misspelt ? kUsage : kFailure);
  }
  const bool other_netns =
      std::ranges::any_of(invocation.interfaces, [](const std::string& word) { return word.contains('@'); });
  const Diagnosis diagnosis{.system = kernel::examine_system(other_netns), .interfaces = std::move(*interfaces)};
  if (!invocation.json) {
    print_text(diagnosis_text(diagnosis));
    return diagnosis.ok() ? kSuccess : kFailure;
  }
  if (!diagnosis.ok()) return failure(invocation, verdict(diagnosis), kFailure, to_json(diagnosis));
  return success(invocation, to_json(diagnosis));
}

}  // namespace twinstack::cli
