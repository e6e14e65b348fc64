#include "cli/doctor.h"

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/unique_fd.h"
#include "nic/af_xdp/netns.h"

namespace twinstack::cli {
namespace {

constexpr std::string_view kOwnProgram = "ts_steer_xdp";

bool is_ethernet(int socket, const char* name) {
  ifreq request{};
  std::string_view(name).copy(request.ifr_name, IFNAMSIZ - 1);
  if (::ioctl(socket, SIOCGIFHWADDR, &request) != 0 || request.ifr_hwaddr.sa_family != ARPHRD_ETHER) return false;
  return ::ioctl(socket, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_LOOPBACK) == 0;
}

// Empty when it cannot be told (no privilege).
std::string program_name(std::uint32_t id) {
  const UniqueFd program(bpf_prog_get_fd_by_id(id));
  bpf_prog_info info{};
  __u32 length = sizeof info;
  if (!program || bpf_obj_get_info_by_fd(program.get(), &info, &length) != 0) return {};
  return {info.name, ::strnlen(info.name, sizeof info.name)};
}

void judge(const nic::InterfaceFacts& facts, InterfaceReport& report) {
  if (const Result<> fit = nic::check_can_serve(facts); !fit.has_value()) {
    report.detail = fit.error().message();
    report.mend = "name an Ethernet interface: `twinstack doctor` alone lists them";
    return;
  }
  report.ok = true;
  if (facts.xdp_program_id == 0) {
    report.detail += ", no XDP program";
    return;
  }
  const std::string name = program_name(facts.xdp_program_id);
  if (name == kOwnProgram) {
    report.detail += ", a Twinstack service is attached";
    return;
  }
  report.ok = false;
  report.detail +=
      fmt::format(", XDP program {} {} is attached", facts.xdp_program_id, name.empty() ? "(not ours to see)" : name);
  report.mend = fmt::format("stop what attached it, or: ip link set dev {} xdp off", facts.name);
}

Result<> examine(const driver::InterfaceOption& interface, InterfaceReport& report) {
  ASSIGN_OR_RETURN(const auto inside, nic::ScopedNetns::enter(interface.netns));
  ASSIGN_OR_RETURN(const nic::InterfaceFacts facts, nic::interface_facts(interface.name));
  const Result<XdpFeatures> features = xdp_features(facts.index);
  const ExpectedMode mode = expected_mode(facts, features.has_value() ? std::optional(*features) : std::nullopt);
  report.driver = facts.driver;
  report.queues = facts.queues;
  report.mode = mode.mode;
  report.mode_reason = mode.reason;
  report.detail = fmt::format("driver {}, {} queue{}, XDP {} ({})", facts.driver.empty() ? "unknown" : facts.driver,
                              facts.queues, facts.queues == 1 ? "" : "s", mode.mode, mode.reason);
  judge(facts, report);
  return {};
}

std::string line(bool ok, bool required, const std::string& name, const std::string& detail, const std::string& mend) {
  const char* verdict = ok ? "ok" : required ? "MISSING" : "worse";
  std::string text = fmt::format("{:<8} {:<18} {}\n", verdict, name, detail);
  if (!ok && !mend.empty()) text += fmt::format("{:<27} mend: {}\n", "", mend);
  return text;
}

}  // namespace

bool Diagnosis::ok() const noexcept {
  const auto fine = [](const auto& one) { return one.ok || !one.required; };
  return std::ranges::all_of(system, fine) && std::ranges::all_of(interfaces, fine);
}

ExpectedMode expected_mode(const nic::InterfaceFacts& facts, const std::optional<XdpFeatures>& features) {
  if (facts.is_virtual) return {"generic", "a virtual device: generic leaves the peer's segmentation offload alone"};
  if (!features.has_value())
    return {"native or generic", "this kernel does not tell before attaching; generic where the driver has no XDP"};
  if (features->zerocopy) return {"zerocopy", "the driver offers zero-copy AF_XDP"};
  if (features->native) return {"native", "the driver runs XDP, without zero-copy"};
  return {"generic", "the driver does not run XDP"};
}

InterfaceReport examine_interface(const driver::InterfaceOption& interface, bool required) {
  InterfaceReport report;
  report.name = interface.netns.empty() ? interface.name : interface.name + '@' + interface.netns;
  report.required = required;
  const Result<> examined = examine(interface, report);
  if (examined.has_value()) return report;
  report.detail = examined.error().message();
  report.mend =
      examined.error().code == ErrorCode::kNotFound ? "see `ip link` and `ip netns` for the names" : "run as root";
  return report;
}

Result<std::vector<std::string>> ethernet_interfaces() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return system_error("socket");
  struct if_nameindex* all = ::if_nameindex();
  if (all == nullptr) return system_error("if_nameindex");
  std::vector<std::string> names;
  for (const struct if_nameindex* one = all; one->if_index != 0; ++one) {
    if (is_ethernet(socket.get(), one->if_name)) names.emplace_back(one->if_name);
  }
  ::if_freenameindex(all);
  return names;
}

std::string_view verdict(const Diagnosis& diagnosis) {
  return diagnosis.ok() ? "This machine has what Twinstack requires." : "Something that Twinstack requires is missing.";
}

std::string diagnosis_text(const Diagnosis& diagnosis) {
  std::string text;
  for (const kernel::Probe& probe : diagnosis.system)
    text += line(probe.ok, probe.required, probe.name, probe.detail, probe.mend);
  for (const InterfaceReport& one : diagnosis.interfaces)
    text += line(one.ok, one.required, one.name, one.detail, one.mend);
  return text.append(verdict(diagnosis)) += '\n';
}

driver::Json to_json(const Diagnosis& diagnosis) {
  driver::Json system = driver::Json::array();
  for (const kernel::Probe& probe : diagnosis.system) {
    system.push_back({{"name", probe.name},
                      {"ok", probe.ok},
                      {"required", probe.required},
                      {"detail", probe.detail},
                      {"mend", probe.mend}});
  }
  driver::Json interfaces = driver::Json::array();
  for (const InterfaceReport& one : diagnosis.interfaces) {
    interfaces.push_back({{"name", one.name},
                          {"ok", one.ok},
                          {"required", one.required},
                          {"driver", one.driver},
                          {"queues", one.queues},
                          {"mode", one.mode},
                          {"mode_reason", one.mode_reason},
                          {"detail", one.detail},
                          {"mend", one.mend}});
  }
  return {{"ok", diagnosis.ok()}, {"system", std::move(system)}, {"interfaces", std::move(interfaces)}};
}

}  // namespace twinstack::cli
