// From what was given for `twinstack service` (command line, then configuration file, then defaults) to ServiceOptions.
// Reads no file and no environment. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/command_line.h"
#include "driver/service.h"

namespace twinstack::cli {

struct ServiceSettings {
  driver::ServiceOptions options;
  std::string log_level = "info";
};

// Puts the keys of a TOML text into those arguments that were not given. Keys are the long options' names: interface
// (text or list of texts), socket, policy, xdp-mode, max-connections, spin-us, cpu (text, number or list of numbers),
// log-level. kInvalid: "FILE:LINE: what is wrong"; an unknown key is wrong too.
Result<> merge_config(ServiceArguments& arguments, std::string_view toml, const std::string& file);

// Checks every word. kInvalid says which one is wrong. `default_socket` is taken when no socket was given.
Result<ServiceSettings> resolve(const ServiceArguments& arguments, const std::string& default_socket);

// "manual", "auto", "all".
Result<driver::Policy> parse_policy(std::string_view word);
// "2,4-6" -> 2 4 5 6, in the order given. At most 1024 entries, numbers below 65536.
Result<std::vector<unsigned>> parse_cpu_list(std::string_view text);

}  // namespace twinstack::cli
