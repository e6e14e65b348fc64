#include "own_config.h"

#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <limits>

#include "base/unique_fd.h"
#include "sysctls.h"

namespace twinstack::packetdrill {

namespace {

// The number as far as the field holds it.
template <typename Field>
void read(const char* name, Field& field) {
  const auto number = read_sysctl_number(name);
  if (!number) return;
  if constexpr (std::is_same_v<Field, bool>) {
    field = *number != 0;
  } else {
    using Limits = std::numeric_limits<Field>;
    field = static_cast<Field>(std::clamp<long long>(*number, Limits::min(), Limits::max()));
  }
}

void read_sizes(const char* name, stack::BufferSizes& sizes) {
  const auto numbers = read_sysctl(name);
  if (numbers.size() != 3) return;
  sizes = {.min_bytes = static_cast<std::uint32_t>(numbers[0]),
           .default_bytes = static_cast<std::uint32_t>(numbers[1]),
           .max_bytes = static_cast<std::uint32_t>(numbers[2])};
}

// tcp_fastopen_key: one key or two, each as four numbers of 32 bits.
void read_fast_open_keys(stack::Config& config) {
  const std::string text = read_sysctl_text("ipv4/tcp_fastopen_key");
  config.tcp_fastopen_keys.clear();
  for (std::size_t at = 0; at < text.size(); at = std::min(text.find(',', at), text.size() - 1) + 1) {
    std::array<std::uint32_t, 4> words{};
    const char* const key = text.c_str() + at;
    if (std::sscanf(key, "%x-%x-%x-%x", &words[0], &words[1], &words[2], &words[3]) != 4) return;
    config.tcp_fastopen_keys.push_back(
        {words[0] | std::uint64_t{words[1]} << 32, words[2] | std::uint64_t{words[3]} << 32});
  }
}

void read_mtu(stack::Config& config) {
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "tun0");
  if (any && ::ioctl(any.get(), SIOCGIFMTU, &request) == 0) config.mtu = static_cast<std::uint32_t>(request.ifr_mtu);
}

}  // namespace

stack::Config first_config(const Flags& flags) {
  stack::Config config;
  config.addresses = {flags.local};
  config.mtu = flags.mtu;
  return config;
}

void read_host_settings(stack::Config& config) {
  read("ipv4/tcp_ecn", config.tcp_ecn);
  read("ipv4/tcp_timestamps", config.tcp_timestamps);
  read("ipv4/tcp_sack", config.tcp_sack);
  read("ipv4/tcp_window_scaling", config.tcp_window_scaling);
  read("ipv4/tcp_syn_retries", config.tcp_syn_retries);
  read("ipv4/tcp_syn_linear_timeouts", config.tcp_syn_linear_timeouts);
  read("ipv4/tcp_synack_retries", config.tcp_synack_retries);
  read("ipv4/tcp_max_syn_backlog", config.tcp_max_syn_backlog);
  read("core/somaxconn", config.somaxconn);
  read("ipv4/tcp_abort_on_overflow", config.tcp_abort_on_overflow);
  read_sizes("ipv4/tcp_rmem", config.tcp_rmem);
  read_sizes("ipv4/tcp_wmem", config.tcp_wmem);
  read("core/rmem_max", config.rmem_max);
  read("core/wmem_max", config.wmem_max);
  read("ipv4/tcp_mtu_probing", config.tcp_mtu_probing);
  read("ipv4/tcp_moderate_rcvbuf", config.tcp_moderate_rcvbuf);
  read("ipv4/tcp_adv_win_scale", config.tcp_adv_win_scale);
  read("ipv4/tcp_notsent_lowat", config.tcp_notsent_lowat);
  if (const std::string name = read_sysctl_text("ipv4/tcp_congestion_control"); !name.empty()) {
    config.tcp_congestion_control = name;
  }
  read("ipv4/tcp_retries2", config.tcp_retries2);
  read("ipv4/tcp_orphan_retries", config.tcp_orphan_retries);
  read("ipv4/tcp_slow_start_after_idle", config.tcp_slow_start_after_idle);
  read("ipv4/tcp_min_tso_segs", config.tcp_min_tso_segs);
  read("ipv4/tcp_fin_timeout", config.tcp_fin_timeout_s);
  read("ipv4/tcp_invalid_ratelimit", config.tcp_invalid_ratelimit_ms);
  read("ipv4/tcp_fastopen", config.tcp_fastopen);
  read_fast_open_keys(config);
  read_mtu(config);
}

}  // namespace twinstack::packetdrill
