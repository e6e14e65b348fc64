// names: words of scripts that stand for numbers of the system: errno, states of a connection, events of poll().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace twinstack::conformance {

// "EAGAIN" -> 11. None for a word that is no error that a script may name.
[[nodiscard]] std::optional<int> errno_number(std::string_view name) noexcept;
// -11 -> "EAGAIN"; what is no error is given as a number.
[[nodiscard]] std::string result_text(std::int64_t result);

// "established" -> 1, tcpi_state.
[[nodiscard]] std::optional<int> state_number(std::string_view name) noexcept;
[[nodiscard]] std::string state_text(std::int64_t state);

// "in+out" -> POLLIN | POLLOUT; "none" -> 0.
[[nodiscard]] std::optional<int> poll_events(std::string_view names) noexcept;
[[nodiscard]] std::string poll_text(std::int64_t events);

}  // namespace twinstack::conformance
