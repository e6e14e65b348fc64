#include "cli/service_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <utility>

// Header-only and without exceptions: the parse result carries the error.
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace twinstack::cli {
namespace {

constexpr unsigned kMaxCpu = 65535;
constexpr std::size_t kMaxCpuEntries = 1024;

// Reads the keys of the table into the arguments, each where nothing was given.
class ConfigReader {
 public:
  ConfigReader(const toml::table& table, const std::string& file) : table_(table), file_(file) {}

  void text(std::string_view key, std::optional<std::string>& out);
  void number(std::string_view key, std::optional<std::uint32_t>& out);
  void texts(std::string_view key, std::vector<std::string>& out);
  void cpus(std::string_view key, std::optional<std::string>& out);
  // The first thing that was wrong, unknown keys included. To be called last.
  Result<> finish();

 private:
  const toml::node* find(std::string_view key);
  void wrong(const toml::node& node, std::string_view key, std::string_view expected);

  const toml::table& table_;
  const std::string& file_;
  std::vector<std::string_view> known_;
  std::string first_error_;
};

const toml::node* ConfigReader::find(std::string_view key) {
  known_.push_back(key);
  return table_.get(key);
}

void ConfigReader::wrong(const toml::node& node, std::string_view key, std::string_view expected) {
  if (first_error_.empty())
    first_error_ = fmt::format("{}:{}: '{}' must be {}", file_, node.source().begin.line, key, expected);
}

void ConfigReader::text(std::string_view key, std::optional<std::string>& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto value = node->value_exact<std::string>();
  if (!value.has_value()) return wrong(*node, key, "text in quotes");
  if (!out.has_value()) out = *value;
}

void ConfigReader::number(std::string_view key, std::optional<std::uint32_t>& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto value = node->value_exact<std::int64_t>();
  if (!value.has_value() || !std::in_range<std::uint32_t>(*value))
    return wrong(*node, key, "a number from 0 to 4294967295");
  if (!out.has_value()) out = static_cast<std::uint32_t>(*value);
}

void ConfigReader::texts(std::string_view key, std::vector<std::string>& out) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  std::vector<std::string> values;
  if (const auto one = node->value_exact<std::string>()) {
    values.push_back(*one);
  } else if (const toml::array* list = node->as_array(); list != nullptr) {
    for (const toml::node& entry : *list) {
      const auto value = entry.value_exact<std::string>();
      if (!value.has_value()) return wrong(entry, key, "text in quotes or a list of such");
      values.push_back(*value);
    }
  } else {
    return wrong(*node, key, "text in quotes or a list of such");
  }
  if (out.empty()) out = std::move(values);
}

void ConfigReader::cpus(std::string_view key, std::optional<std::string>& out) {
  if (table_.get(key) != nullptr && table_.get(key)->is_string()) return text(key, out);
  const toml::node* node = find(key);
  if (node == nullptr) return;
  std::vector<std::int64_t> numbers;
  if (const auto one = node->value_exact<std::int64_t>()) {
    numbers.push_back(*one);
  } else if (const toml::array* list = node->as_array(); list != nullptr) {
    for (const toml::node& entry : *list) {
      const auto value = entry.value_exact<std::int64_t>();
      if (!value.has_value()) return wrong(entry, key, "text, a number or a list of numbers");
      numbers.push_back(*value);
    }
  } else {
    return wrong(*node, key, "text, a number or a list of numbers");
  }
  if (!out.has_value()) out = fmt::format("{}", fmt::join(numbers, ","));
}

Result<> ConfigReader::finish() {
  for (const auto& [key, node] : table_) {
    if (std::ranges::find(known_, key.str()) != known_.end()) continue;
    return error(ErrorCode::kInvalid, fmt::format("{}:{}: unknown key '{}' (known: {})", file_, key.source().begin.line,
                                                  key.str(), fmt::join(known_, ", ")));
  }
  if (!first_error_.empty()) return error(ErrorCode::kInvalid, first_error_);
  return {};
}

std::optional<unsigned> cpu_number(std::string_view text) {
  unsigned value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size() || value > kMaxCpu) return std::nullopt;
  return value;
}

Result<> check_log_level(const std::string& level) {
  constexpr std::array<std::string_view, 6> kLevels = {"trace", "debug", "info", "warn", "error", "off"};
  if (std::ranges::find(kLevels, level) != kLevels.end()) return {};
  return error(ErrorCode::kInvalid, fmt::format("unknown log level '{}': {}", level, fmt::join(kLevels, ", ")));
}

Result<> check_numbers(const driver::ServiceOptions& options) {
  if (options.max_connections == 0 || options.max_connections > 1U << 20)
    return error(ErrorCode::kInvalid, "--max-connections must be from 1 to 1048576");
  if (options.spin_us > 1'000'000) return error(ErrorCode::kInvalid, "--spin-us must be from 0 to 1000000");
  return {};
}

}  // namespace

Result<> merge_config(ServiceArguments& arguments, std::string_view toml, const std::string& file) {
  const toml::parse_result parsed = toml::parse(toml, file);
  if (!parsed) {
    return error(ErrorCode::kInvalid,
                 fmt::format("{}:{}: {}", file, parsed.error().source().begin.line, parsed.error().description()));
  }
  ConfigReader reader(parsed.table(), file);
  reader.texts("interface", arguments.interfaces);
  reader.text("socket", arguments.socket);
  reader.text("policy", arguments.policy);
  reader.text("xdp-mode", arguments.xdp_mode);
  reader.number("max-connections", arguments.max_connections);
  reader.number("spin-us", arguments.spin_us);
  reader.cpus("cpu", arguments.cpu);
  reader.text("log-level", arguments.log_level);
  return reader.finish();
}

Result<driver::Policy> parse_policy(std::string_view word) {
  if (word == "manual") return driver::Policy::kManual;
  if (word == "auto") return driver::Policy::kAuto;
  if (word == "all") return driver::Policy::kAll;
  return error(ErrorCode::kInvalid, fmt::format("unknown policy '{}': manual, auto or all", word));
}

Result<std::vector<unsigned>> parse_cpu_list(std::string_view text) {
  std::vector<unsigned> cpus;
  for (std::string_view rest = text;;) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view part = rest.substr(0, comma);
    const std::size_t dash = part.find('-');
    const auto first = cpu_number(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : cpu_number(part.substr(dash + 1));
    if (!first.has_value() || !last.has_value() || *last < *first)
      return error(ErrorCode::kInvalid, fmt::format("CPU list '{}': expected numbers and ranges, as 2,4-6", text));
    if (*last - *first >= kMaxCpuEntries - cpus.size())
      return error(ErrorCode::kInvalid, fmt::format("CPU list '{}': more than {} CPUs", text, kMaxCpuEntries));
    for (unsigned cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
    if (comma == rest.size()) return cpus;
    rest.remove_prefix(comma + 1);
  }
}

Result<ServiceSettings> resolve(const ServiceArguments& arguments, const std::string& default_socket) {
  ServiceSettings settings;
  driver::ServiceOptions& options = settings.options;
  if (arguments.interfaces.empty())
    return error(ErrorCode::kInvalid, "which interface? --interface IF[@NETNS] (twinstack doctor lists them)");
  for (const std::string& word : arguments.interfaces) {
    ASSIGN_OR_RETURN(driver::InterfaceOption interface, driver::parse_interface(word));
    options.interfaces.push_back(std::move(interface));
  }
  options.socket_path = arguments.socket.value_or(default_socket);
  if (arguments.policy.has_value()) {
    ASSIGN_OR_RETURN(options.policy, parse_policy(*arguments.policy));
  }
  if (arguments.xdp_mode.has_value()) {
    ASSIGN_OR_RETURN(options.xdp_mode, nic::parse_xdp_mode(*arguments.xdp_mode));
  }
  options.max_connections = arguments.max_connections.value_or(options.max_connections);
  options.spin_us = arguments.spin_us.value_or(options.spin_us);
  TRY(check_numbers(options));
  if (arguments.cpu.has_value()) {
    ASSIGN_OR_RETURN(options.cpus, parse_cpu_list(*arguments.cpu));
  }
  settings.log_level = arguments.log_level.value_or(settings.log_level);
  TRY(check_log_level(settings.log_level));
  return settings;
}

}  // namespace twinstack::cli
