// The filter language of `twinstack ls|offload|upload`, after that of ss(8): text -> ConnectionFilter. Pure: no system
// call, no state; any thread. The text may come from a hostile client of the control socket: nesting and length are
// bounded, a filter that was accepted cannot fail later.
//
//   all                                every connection
//   sk:HEX                             SO_COOKIE, as `ss -e` and `twinstack ls` print it (hexadecimal)
//   hw:HEX                             HwConnId, as `twinstack ls` prints it (hexadecimal)
//   pid N      program GLOB            who holds it; the glob is fnmatch(3)'s
//   stack kernel|engine|to-kernel|to-engine          state ESTAB|close-wait|...
//   src|dst [=|!=] ADDR[/PREFIX][:PORT]              10.0.0.0/8:80  [fd00::]/16  [fd00::1]:80  fd00::1  :80  *
//   sport|dport [=|==|eq|!=|ne|neq|<|lt|<=|le|leq|>|gt|>=|ge|geq] [:]PORT
//   not (!), and (& && or nothing between two), or (| ||), parentheses; not binds before and, and before or
//
// "src" and "sport" are this host's side. A word in double quotes is taken as it stands.
#pragma once

#include <string_view>

#include "base/result.h"
#include "driver/control_target.h"
#include "wire/flow.h"

namespace twinstack::driver {

inline constexpr std::size_t kMaxFilterBytes = 16384;
inline constexpr int kMaxFilterDepth = 64;  // of parentheses and `not`

// kInvalid: the message has the column (from 1) and the word that is wrong. An empty text is an error: say `all`.
[[nodiscard]] Result<ConnectionFilter> parse_filter(std::string_view text);

// "10.0.0.1", "fd00::1"; IPv4-mapped IPv6 text is taken as IPv4.
[[nodiscard]] Result<IpAddress> parse_address(std::string_view text);

}  // namespace twinstack::driver
