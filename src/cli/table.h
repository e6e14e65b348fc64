// Tables for people: connections as `twinstack ls` shows them, laid out like ss. Pure; any thread. Text that comes from
// programs is cleaned of what a terminal would obey.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "driver/control_target.h"

namespace twinstack::cli {

// The head line and one line per connection, each column as wide as its widest cell; the last column is not padded.
[[nodiscard]] std::string connection_table(const std::vector<driver::ConnectionView>& connections);

[[nodiscard]] std::string stats_text(const driver::ServiceStats& stats);

// Lays rows out in columns; `right_aligned` has one entry per column. The first row is the head.
[[nodiscard]] std::string lay_out(const std::vector<std::vector<std::string>>& rows,
                                  const std::vector<bool>& right_aligned);

// 950 -> "950", 12345 -> "12.1K", in powers of 1024.
[[nodiscard]] std::string short_bytes(std::uint64_t bytes);
// Control characters become '?'.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace twinstack::cli
