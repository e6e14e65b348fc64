// What `twinstack doctor` says of interfaces, and how it says everything. Reads only; attaches nothing. Main thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/xdp_features.h"
#include "driver/service.h"
#include "driver/view_json.h"
#include "kernel/doctor.h"
#include "nic/af_xdp/attachment.h"

namespace twinstack::cli {

struct InterfaceReport {
  std::string name;  // "eth0", "eth0@blue"
  bool ok = false;
  bool required = false;  // it was asked for by name
  std::string driver;
  std::uint32_t queues = 0;
  std::string mode;  // that --xdp-mode auto would take
  std::string mode_reason;
  std::string detail;
  std::string mend;  // empty when ok
};

struct Diagnosis {
  std::vector<kernel::Probe> system;
  std::vector<InterfaceReport> interfaces;

  [[nodiscard]] bool ok() const noexcept;  // nothing that is required is missing
};

struct ExpectedMode {
  std::string mode;
  std::string reason;
};
// What `auto` takes for an interface, told from what is known without attaching. `features`: nothing when the kernel
// cannot be asked.
[[nodiscard]] ExpectedMode expected_mode(const nic::InterfaceFacts& facts, const std::optional<XdpFeatures>& features);

// Looks at one interface of its namespace.
[[nodiscard]] InterfaceReport examine_interface(const driver::InterfaceOption& interface, bool required);
// The Ethernet-like interfaces of the current namespace, without loopback.
[[nodiscard]] Result<std::vector<std::string>> ethernet_interfaces();

// The sum of it, in a sentence.
[[nodiscard]] std::string_view verdict(const Diagnosis& diagnosis);
[[nodiscard]] std::string diagnosis_text(const Diagnosis& diagnosis);
[[nodiscard]] driver::Json to_json(const Diagnosis& diagnosis);

}  // namespace twinstack::cli
