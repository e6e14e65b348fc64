#include "wire/flow.h"

#include <charconv>

namespace twinstack {

namespace {

void append_number(std::string& out, unsigned value, int base) {
  std::array<char, 8> digits{};
  const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), value, base);
  out.append(digits.data(), result.ptr);
}

unsigned group(const IpAddress& address, std::size_t index) {
  return static_cast<unsigned>(address.bytes[2 * index] << 8 | address.bytes[2 * index + 1]);
}

struct ZeroRun {
  std::size_t start = 8;
  std::size_t length = 0;
};

// RFC 5952 4.2: the longest run of two or more zero groups, the first of equals.
ZeroRun longest_zero_run(const IpAddress& address) {
  ZeroRun best;
  ZeroRun run;
  for (std::size_t i = 0; i < 8; ++i) {
    if (group(address, i) != 0) {
      run = ZeroRun{};
      continue;
    }
    if (run.length == 0) run.start = i;
    ++run.length;
    if (run.length > best.length) best = run;
  }
  return best.length >= 2 ? best : ZeroRun{};
}

std::string v4_text(const std::array<std::uint8_t, 4>& address) {
  std::string out;
  for (std::size_t i = 0; i < 4; ++i) {
    if (i > 0) out += '.';
    append_number(out, address[i], 10);
  }
  return out;
}

std::string v6_text(const IpAddress& address) {
  const ZeroRun run = longest_zero_run(address);
  std::string out;
  for (std::size_t i = 0; i < 8; ++i) {
    if (i == run.start) {
      out += "::";
      i += run.length - 1;
      continue;
    }
    if (i > 0 && out.back() != ':') out += ':';
    append_number(out, group(address, i), 16);
  }
  return out;
}

std::string endpoint_text(const IpAddress& address, std::uint16_t port) {
  std::string out = address.is_v4() ? address.to_string() : '[' + address.to_string() + ']';
  out += ':';
  append_number(out, port, 10);
  return out;
}

std::uint64_t load64(const std::uint8_t* bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// Full 64x64 multiplication folded to 64 bits: every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

}  // namespace

IpAddress IpAddress::from_v4(std::array<std::uint8_t, 4> address) noexcept {
  IpAddress out;
  std::memcpy(out.bytes.data(), kMappedPrefix.data(), kMappedPrefix.size());
  std::memcpy(out.bytes.data() + kMappedPrefix.size(), address.data(), address.size());
  return out;
}

std::string IpAddress::to_string() const { return is_v4() ? v4_text(v4()) : v6_text(*this); }

std::uint64_t FlowKey::hash(std::uint64_t secret) const noexcept {
  const std::uint64_t ports = std::uint64_t{local_port} << 16 | remote_port;
  std::uint64_t value = secret ^ 0x9e3779b97f4a7c15U;
  value = mix(value ^ load64(local.bytes.data()), 0xa0761d6478bd642fU ^ load64(local.bytes.data() + 8) ^ secret);
  value = mix(value ^ load64(remote.bytes.data()), 0xe7037ed1a0b428dbU ^ load64(remote.bytes.data() + 8) ^ secret);
  return mix(value ^ ports, 0x8ebc6af09c88c6e3U ^ secret);
}

std::string FlowKey::to_string() const {
  return endpoint_text(local, local_port) + ' ' + endpoint_text(remote, remote_port);
}

}  // namespace twinstack
