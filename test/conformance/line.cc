#include "line.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace twinstack::conformance {
namespace {

constexpr std::string_view kBlanks = " \t\r";

struct Unit {
  std::string_view suffix;
  std::int64_t nanoseconds;
};
// "s" last: the others end in it too.
constexpr Unit kUnits[] = {{"us", 1'000}, {"ms", 1'000'000}, {"s", 1'000'000'000}};

bool read_decimal(std::string_view text, std::int64_t unit, std::int64_t& out) noexcept {
  const std::size_t point = text.find('.');
  std::int64_t whole = 0;
  if (!read_number(text.substr(0, point), whole) || whole < 0) return false;
  out = whole * unit;
  if (point == std::string_view::npos) return true;
  const std::string_view digits = text.substr(point + 1);
  if (digits.empty() || digits.size() > 9) return false;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return false;
    unit /= 10;
    out += (digit - '0') * unit;
  }
  return true;
}

// A number that may carry a unit of time: then microseconds.
bool read_quantity(std::string_view text, std::int64_t& out) noexcept {
  if (read_number(text, out)) return true;
  Duration duration{};
  if (!read_duration(text, duration)) return false;
  out = duration.count() / 1000;
  return true;
}

// "1..5", "90..110ms": a unit at the end holds for both.
bool read_range(std::string_view low, std::string_view high, Match& out) noexcept {
  if (!read_quantity(high, out.high)) return false;
  if (read_number(high, out.high)) return read_number(low, out.low);
  const std::size_t suffix = high.find_first_not_of("0123456789.");
  const std::string with_unit = std::string(low) + std::string(high.substr(suffix));
  return read_quantity(low.find_first_of("us") == std::string_view::npos ? with_unit : low, out.low);
}

bool read_bound(std::string_view text, Match& out) noexcept {
  const bool above = text.front() == '>';
  const bool inclusive = text.size() > 1 && text[1] == '=';
  std::int64_t bound = 0;
  if (!read_quantity(text.substr(inclusive ? 2 : 1), bound)) return false;
  out = {};
  if (above) out.low = bound + (inclusive ? 0 : 1);
  if (!above) out.high = bound - (inclusive ? 0 : 1);
  return true;
}

}  // namespace

bool read_number(std::string_view text, std::int64_t& out) noexcept {
  const char* const end = text.data() + text.size();
  std::int64_t number = 0;
  const auto [stopped, code] = std::from_chars(text.data(), end, number);
  if (text.empty() || code != std::errc() || stopped != end) return false;
  out = number;
  return true;
}

bool read_duration(std::string_view text, Duration& out) noexcept {
  for (const Unit& unit : kUnits) {
    if (!text.ends_with(unit.suffix)) continue;
    std::int64_t nanoseconds = 0;
    if (!read_decimal(text.substr(0, text.size() - unit.suffix.size()), unit.nanoseconds, nanoseconds)) return false;
    out = Duration(nanoseconds);
    return true;
  }
  return false;
}

bool read_match(std::string_view text, Match& out) noexcept {
  out = {};
  if (text.empty()) return false;
  if (text == "*") return true;
  if (text.front() == '>' || text.front() == '<') return read_bound(text, out);
  if (const std::size_t dots = text.find(".."); dots != std::string_view::npos) {
    return read_range(text.substr(0, dots), text.substr(dots + 2), out) && out.low <= out.high;
  }
  std::int64_t value = 0;
  if (!read_quantity(text, value)) return false;
  out = Match::exactly(value);
  return true;
}

Line::Line(std::string_view file, std::size_t number, std::string_view text) : file_(file), number_(number) {
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
    if (text.empty() || text.front() == '#') return;
    const std::size_t length = std::min(text.find_first_of(kBlanks), text.size());
    words_.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
}

bool Line::accept(std::string_view word) noexcept {
  if (at_end() || words_[next_] != word) return false;
  ++next_;
  return true;
}

std::string Line::take_rest() {
  std::string rest;
  while (!at_end()) {
    if (!rest.empty()) rest += ' ';
    rest += take();
  }
  return rest;
}

Result<std::int64_t> Line::take_number(std::string_view what) {
  std::int64_t value = 0;
  const std::string_view word = take();
  if (!read_number(word, value)) return fail(fmt::format("{} is to be a number, not '{}'", what, word));
  return value;
}

Result<Match> Line::take_match(std::string_view what) {
  Match match;
  const std::string_view word = take();
  if (!read_match(word, match)) {
    return fail(fmt::format("{} is to be a number, a range like 1..5, a bound like >=3 or *, not '{}'", what, word));
  }
  return match;
}

Result<Duration> Line::take_duration(std::string_view what) {
  Duration duration{};
  const std::string_view word = take();
  if (!read_duration(word, duration)) {
    return fail(fmt::format("{} is to be a time like 20ms, 1.5s or 300us, not '{}'", what, word));
  }
  return duration;
}

Result<> Line::expect_end() const {
  if (at_end()) return {};
  return fail(fmt::format("'{}' is too much here", peek()));
}

std::unexpected<Error> Line::fail(const std::string& why) const {
  return error(ErrorCode::kInvalid, fmt::format("{}:{}: {}", file_, number_, why));
}

}  // namespace twinstack::conformance
