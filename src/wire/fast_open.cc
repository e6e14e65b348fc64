#include "wire/fast_open.h"

#include <algorithm>

#include "wire/bytes.h"

namespace twinstack::wire {

namespace {

constexpr std::uint8_t kEnd = 0;
constexpr std::uint8_t kNop = 1;
constexpr std::uint8_t kFastOpen = 34;
constexpr std::uint8_t kExperiment = 254;
constexpr std::uint16_t kMagic = 0xf989;  // IANA's number of the experiment
constexpr std::size_t kSmallestCookie = 4;

// As Linux tcp_parse_fastopen_option().
void take_cookie(ByteView cookie, bool experimental, FastOpenOption& out) noexcept {
  const bool fits = cookie.empty() || (cookie.size() >= kSmallestCookie && cookie.size() <= kLargestCookie);
  if (!fits || cookie.size() % 2 != 0) return;
  out.present = true;
  out.experimental = experimental;
  out.cookie_bytes = static_cast<std::uint8_t>(cookie.size());
  std::ranges::copy(cookie, out.cookie.begin());
}

std::uint32_t head_bytes(const FastOpenOption& option) noexcept { return option.experimental ? 4 : 2; }

}  // namespace

FastOpenOption parse_fast_open(ByteView options) noexcept {
  FastOpenOption out;
  while (!options.empty()) {
    const auto kind = std::to_integer<std::uint8_t>(options[0]);
    if (kind == kEnd) break;
    if (kind == kNop) {
      options = options.subspan(1);
      continue;
    }
    if (options.size() < 2) break;
    const auto length = std::to_integer<std::size_t>(options[1]);
    if (length < 2 || length > options.size()) break;
    const ByteView body = options.first(length).subspan(2);
    if (kind == kFastOpen) take_cookie(body, false, out);
    const bool experiment = kind == kExperiment && body.size() >= 2 && load_be<std::uint16_t>(body.data()) == kMagic;
    if (experiment) take_cookie(body.subspan(2), true, out);
    options = options.subspan(length);
  }
  return out;
}

std::uint32_t fast_open_bytes(const FastOpenOption& option) noexcept {
  return option.present ? (head_bytes(option) + option.cookie_bytes + 3U) & ~3U : 0;
}

void write_fast_open(std::span<std::byte> out, const FastOpenOption& option) noexcept {
  if (!option.present) return;
  const std::uint32_t head = head_bytes(option);
  std::fill_n(out.begin(), fast_open_bytes(option), std::byte{kNop});
  out[0] = std::byte{option.experimental ? kExperiment : kFastOpen};
  out[1] = std::byte{static_cast<std::uint8_t>(head + option.cookie_bytes)};
  if (option.experimental) store_be(out.data() + 2, kMagic);
  std::ranges::copy(option.value(), out.begin() + head);
}

}  // namespace twinstack::wire
