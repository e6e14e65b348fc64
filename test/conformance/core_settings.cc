#include "core_settings.h"

#include <algorithm>
#include <iterator>
#include <sstream>
#include <string_view>

#include "line.h"
#include "tcp/congestion/congestion.h"

namespace twinstack::conformance {
namespace {

using stack::Config;

struct NumberSetting {
  std::string_view name;
  void (*set)(Config&, std::int64_t);
};

// A member of Config of whatever arithmetic type.
template <auto Member>
void number(Config& config, std::int64_t value) {
  using T = std::remove_reference_t<decltype(config.*Member)>;
  config.*Member = static_cast<T>(value);
}

constexpr NumberSetting kNumbers[] = {
    {"mtu", number<&Config::mtu>},
    {"tcp_ecn", number<&Config::tcp_ecn>},
    {"tcp_timestamps", number<&Config::tcp_timestamps>},
    {"tcp_sack", number<&Config::tcp_sack>},
    {"tcp_window_scaling", number<&Config::tcp_window_scaling>},
    {"tcp_syn_retries", number<&Config::tcp_syn_retries>},
    {"tcp_syn_linear_timeouts", number<&Config::tcp_syn_linear_timeouts>},
    {"tcp_synack_retries", number<&Config::tcp_synack_retries>},
    {"tcp_max_syn_backlog", number<&Config::tcp_max_syn_backlog>},
    {"tcp_abort_on_overflow", number<&Config::tcp_abort_on_overflow>},
    {"tcp_min_snd_mss", number<&Config::tcp_min_snd_mss>},
    {"tcp_mtu_probing", number<&Config::tcp_mtu_probing>},
    {"tcp_moderate_rcvbuf", number<&Config::tcp_moderate_rcvbuf>},
    {"tcp_notsent_lowat", number<&Config::tcp_notsent_lowat>},
    {"tcp_retries2", number<&Config::tcp_retries2>},
    {"tcp_orphan_retries", number<&Config::tcp_orphan_retries>},
    {"tcp_slow_start_after_idle", number<&Config::tcp_slow_start_after_idle>},
    {"tcp_fin_timeout", number<&Config::tcp_fin_timeout_s>},
    {"tcp_rfc1337", number<&Config::tcp_rfc1337>},
    {"tcp_tw_reuse", number<&Config::tcp_tw_reuse>},
    {"tcp_invalid_ratelimit", number<&Config::tcp_invalid_ratelimit_ms>},
};

// What Linux has to be told is what the stack does anyway: no ACK is held back for being one of many (compressed SACK).
bool is_our_way(std::string_view name, std::string_view value) noexcept {
  return name == "tcp_comp_sack_nr" && value == "0";
}

Result<> invalid(const std::string& name, const std::string& value) {
  return error(ErrorCode::kInvalid, "'" + value + "' is no value for " + name);
}

Result<> apply_buffers(const std::string& name, const std::string& value, stack::BufferSizes& out) {
  std::istringstream words(value);
  if (words >> out.min_bytes >> out.default_bytes >> out.max_bytes) return {};
  return invalid(name, value);
}

// The core puts CUBIC in the place of what it does not know.
Result<> apply_congestion(const std::string& value, Config& config) {
  const auto kind = tcp::congestion_kind(value);
  if (tcp::congestion_ops(kind).name != value) return error(ErrorCode::kUnsupported, "the core has no " + value);
  config.tcp_congestion_control = value;
  return {};
}

}  // namespace

Result<> apply_setting(const std::string& name, const std::string& value, stack::Config& config) {
  if (name == "tcp_congestion_control") return apply_congestion(value, config);
  if (name == "tcp_rmem") return apply_buffers(name, value, config.tcp_rmem);
  if (name == "tcp_wmem") return apply_buffers(name, value, config.tcp_wmem);
  if (is_our_way(name, value)) return {};
  const auto* const known = std::ranges::find(kNumbers, name, &NumberSetting::name);
  if (known == std::end(kNumbers)) return error(ErrorCode::kUnsupported, "the stack has no setting " + name);
  std::int64_t number = 0;
  if (!read_number(value, number)) return invalid(name, value);
  known->set(config, number);
  return {};
}

}  // namespace twinstack::conformance
