#include "driver/host_settings.h"

#include <algorithm>
#include <fstream>
#include <vector>

namespace twinstack::driver {
namespace {

std::vector<std::int64_t> read_numbers(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::int64_t> numbers;
  for (std::int64_t number = 0; file >> number;) numbers.push_back(number);
  return numbers;
}

}  // namespace

engine::HostSettings read_host_settings(const std::string& directory) {
  engine::HostSettings settings;
  const auto flag = [&](const char* name, bool& value) {
    if (const auto read = read_numbers(directory + name); !read.empty()) value = read[0] != 0;
  };
  const auto largest = [&](const char* name, std::uint32_t& bytes) {
    const auto read = read_numbers(directory + name);  // least, default, largest
    if (read.size() == 3) bytes = static_cast<std::uint32_t>(std::clamp<std::int64_t>(read[2], 1, 1U << 30));
  };
  flag("tcp_slow_start_after_idle", settings.tcp_slow_start_after_idle);
  flag("tcp_moderate_rcvbuf", settings.tcp_moderate_rcvbuf);
  largest("tcp_rmem", settings.tcp_rmem_max_bytes);
  largest("tcp_wmem", settings.tcp_wmem_max_bytes);
  if (const auto read = read_numbers(directory + "tcp_min_tso_segs"); !read.empty()) {
    settings.tcp_min_tso_segs = static_cast<std::uint8_t>(std::clamp<std::int64_t>(read[0], 1, UINT8_MAX));
  }
  if (const auto read = read_numbers(directory + "tcp_mtu_probing"); !read.empty()) {
    settings.tcp_mtu_probing = static_cast<std::uint8_t>(std::clamp<std::int64_t>(read[0], 0, 2));
  }
  if (const auto read = read_numbers(directory + "tcp_invalid_ratelimit"); !read.empty()) {
    settings.tcp_invalid_ratelimit_ms = static_cast<std::uint32_t>(std::clamp<std::int64_t>(read[0], 0, 60'000));
  }
  return settings;
}

}  // namespace twinstack::driver
