#include "sysctls.h"

#include <fstream>
#include <sstream>

namespace twinstack::packetdrill {

std::string read_sysctl_text(const std::string& name) {
  std::ifstream file("/proc/sys/net/" + name);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<long long> read_sysctl(const std::string& name) {
  std::istringstream text(read_sysctl_text(name));
  std::vector<long long> numbers;
  for (long long number = 0; text >> number;) numbers.push_back(number);
  return numbers;
}

std::optional<long long> read_sysctl_number(const std::string& name) {
  const auto numbers = read_sysctl(name);
  if (numbers.empty()) return std::nullopt;
  return numbers.front();
}

}  // namespace twinstack::packetdrill
