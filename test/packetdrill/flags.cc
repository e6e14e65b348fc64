#include "flags.h"

#include <arpa/inet.h>

#include <charconv>
#include <string_view>

namespace twinstack::packetdrill {

namespace {

template <typename Number>
bool parse_number(std::string_view text, Number& out) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), out);
  return code == std::errc{} && end == text.data() + text.size();
}

bool parse_address(const std::string& text, IpAddress& out) {
  std::array<std::uint8_t, 4> v4{};
  if (::inet_pton(AF_INET, text.c_str(), v4.data()) == 1) {
    out = IpAddress::from_v4(v4);
    return true;
  }
  return ::inet_pton(AF_INET6, text.c_str(), out.bytes.data()) == 1;
}

bool parse_form(std::string_view text, bool& adopt) {
  adopt = text == "adopt";
  return adopt || text == "own";
}

bool take(const std::string& name, const std::string& value, Flags& flags) {
  if (name == "form") return parse_form(value, flags.adopt);
  if (name == "local") return parse_address(value, flags.local);
  if (name == "remote") return parse_address(value, flags.remote);
  if (name == "mtu") return parse_number(value, flags.mtu);
  if (name == "mss") return parse_number(value, flags.mss);
  if (name == "gw") flags.gateway = value;
  if (name == "log") flags.log_path = value;
  return name == "gw" || name == "log";
}

}  // namespace

Result<Flags> parse_flags(const char* text) {
  Flags flags;
  std::string_view left = text != nullptr ? text : "";
  while (!left.empty()) {
    const std::string word(left.substr(0, left.find(',')));
    left.remove_prefix(std::min(word.size() + 1, left.size()));
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || !take(word.substr(0, equals), word.substr(equals + 1), flags)) {
      return error(ErrorCode::kInvalid, "--so_flags: " + word);
    }
  }
  if (flags.local.is_v4() != flags.remote.is_v4()) {
    return error(ErrorCode::kInvalid, "--so_flags: local and remote are of different families");
  }
  return flags;
}

}  // namespace twinstack::packetdrill
