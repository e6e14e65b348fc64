// twinstack doctor: examines the machine and the interfaces.
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
    complain(interfaces.error().message());
    return interfaces.error().code == ErrorCode::kInvalid ? kUsage : kFailure;
  }
  const Diagnosis diagnosis{.system = kernel::examine_system(), .interfaces = std::move(*interfaces)};
  if (invocation.json) {
    print_json(to_json(diagnosis));
  } else {
    print_text(diagnosis_text(diagnosis));
  }
  return diagnosis.ok() ? kSuccess : kFailure;
}

}  // namespace twinstack::cli
