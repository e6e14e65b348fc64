#include "names.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <span>

namespace twinstack::conformance {
namespace {

struct Named {
  std::string_view name;
  int number;
};

constexpr Named kErrors[] = {
    {"EAGAIN", EAGAIN},
    {"EPIPE", EPIPE},
    {"ECONNRESET", ECONNRESET},
    {"ECONNREFUSED", ECONNREFUSED},
    {"ECONNABORTED", ECONNABORTED},
    {"ETIMEDOUT", ETIMEDOUT},
    {"EINPROGRESS", EINPROGRESS},
    {"EALREADY", EALREADY},
    {"EISCONN", EISCONN},
    {"ENOTCONN", ENOTCONN},
    {"EINVAL", EINVAL},
    {"EHOSTUNREACH", EHOSTUNREACH},
    {"ENETUNREACH", ENETUNREACH},
    {"EADDRINUSE", EADDRINUSE},
    {"EPROTO", EPROTO},
    {"ENOPROTOOPT", ENOPROTOOPT},
    {"EOPNOTSUPP", EOPNOTSUPP},
    {"EMSGSIZE", EMSGSIZE},
    {"EACCES", EACCES},
    {"EDESTADDRREQ", EDESTADDRREQ},
    {"ENOBUFS", ENOBUFS},
    {"ENOMEM", ENOMEM},
};

constexpr Named kStates[] = {{"established", 1}, {"syn-sent", 2},  {"syn-received", 3}, {"fin-wait-1", 4},
                             {"fin-wait-2", 5},  {"time-wait", 6}, {"closed", 7},       {"close-wait", 8},
                             {"last-ack", 9},    {"listen", 10},   {"closing", 11}};

constexpr Named kEvents[] = {{"in", POLLIN},   {"pri", POLLPRI}, {"out", POLLOUT},
                             {"err", POLLERR}, {"hup", POLLHUP}, {"rdhup", POLLRDHUP}};

std::optional<int> find_number(std::span<const Named> list, std::string_view name) noexcept {
  const auto found = std::ranges::find(list, name, &Named::name);
  if (found == list.end()) return std::nullopt;
  return found->number;
}

std::string find_name(std::span<const Named> list, std::int64_t number) {
  const auto found = std::ranges::find(list, number, &Named::number);
  return found == list.end() ? fmt::format("{}", number) : std::string(found->name);
}

}  // namespace

std::optional<int> errno_number(std::string_view name) noexcept { return find_number(kErrors, name); }

std::string result_text(std::int64_t result) {
  return result >= 0 ? fmt::format("{}", result) : find_name(kErrors, -result);
}

std::optional<int> state_number(std::string_view name) noexcept { return find_number(kStates, name); }

std::string state_text(std::int64_t state) { return find_name(kStates, state); }

std::optional<int> poll_events(std::string_view names) noexcept {
  if (names == "none") return 0;
  int events = 0;
  while (true) {
    const std::size_t plus = names.find('+');
    const auto event = find_number(kEvents, names.substr(0, plus));
    if (!event.has_value()) return std::nullopt;
    events |= *event;
    if (plus == std::string_view::npos) return events;
    names.remove_prefix(plus + 1);
  }
}

std::string poll_text(std::int64_t events) {
  std::string text;
  for (const Named& event : kEvents) {
    if ((events & event.number) != 0) text += (text.empty() ? "" : "+") + std::string(event.name);
  }
  return text.empty() ? "none" : text;
}

}  // namespace twinstack::conformance
