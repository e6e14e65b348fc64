#include "wire/tcp_options.h"

#include <algorithm>
#include <cstring>

#include "wire/bytes.h"

namespace twinstack::wire {

namespace {

enum Kind : std::uint8_t {
  kEnd = 0,
  kNop = 1,
  kMss = 2,
  kWindowScale = 3,
  kSackPermitted = 4,
  kSack = 5,
  kTimestamps = 8,
  kFastOpen = 34,
  kExperimental = 254,
};

constexpr std::uint16_t kFastOpenMagic = 0xf989;  // RFC 6994's number of the experimental option
constexpr std::uint8_t kMagicBytes = 2;
constexpr std::size_t kLeastCookieBytes = 4;

constexpr std::uint8_t kMssLength = 4;
constexpr std::uint8_t kWindowScaleLength = 3;
constexpr std::uint8_t kSackPermittedLength = 2;
constexpr std::uint8_t kTimestampsLength = 10;
constexpr std::uint32_t kSackBlockBytes = 8;
static_assert(kTimestampsAligned == (std::uint32_t{kNop} << 24 | std::uint32_t{kNop} << 16 |
                                     std::uint32_t{kTimestamps} << 8 | kTimestampsLength));

void parse_sack(ByteView body, TcpOptions& out) noexcept {
  if (body.empty() || body.size() % kSackBlockBytes != 0) return;  // RFC 2018 3
  const std::size_t count = std::min(body.size() / kSackBlockBytes, kMaxSackBlocks);
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* at = body.data() + i * kSackBlockBytes;
    out.sack[i] = {Seq(load_be<std::uint32_t>(at)), Seq(load_be<std::uint32_t>(at + 4))};
  }
  out.sack_count = static_cast<std::uint8_t>(count);
}

// A length that no cookie has makes it none (as Linux).
void parse_cookie(ByteView cookie, bool experimental, TcpOptions& out) noexcept {
  const std::size_t bytes = cookie.size();
  const bool valid = bytes == 0 || (bytes >= kLeastCookieBytes && bytes <= kMostCookieBytes && bytes % 2 == 0);
  if (!valid) return;
  out.fast_open = {
      .cookie = {}, .cookie_bytes = static_cast<std::uint8_t>(bytes), .present = true, .experimental = experimental};
  if (bytes > 0) std::memcpy(out.fast_open.cookie.data(), cookie.data(), bytes);
}

// `body`: the option without kind and length.
void parse_one(std::uint8_t kind, ByteView body, TcpOptions& out) noexcept {
  const std::size_t length = body.size() + 2;
  if (kind == kTimestamps && length == kTimestampsLength) {
    out.has_timestamps = true;
    out.ts_val = load_be<std::uint32_t>(body.data());
    out.ts_ecr = load_be<std::uint32_t>(body.data() + 4);
  } else if (kind == kSack) {
    parse_sack(body, out);
  } else if (kind == kMss && length == kMssLength) {
    out.has_mss = true;
    out.mss = load_be<std::uint16_t>(body.data());
  } else if (kind == kWindowScale && length == kWindowScaleLength) {
    out.has_window_scale = true;
    out.window_scale = std::min(static_cast<std::uint8_t>(body[0]), kMaxWindowScale);  // RFC 7323 2.3
  } else if (kind == kSackPermitted && length == kSackPermittedLength) {
    out.sack_permitted = true;
  } else if (kind == kFastOpen) {
    parse_cookie(body, false, out);
  } else if (kind == kExperimental && body.size() >= kMagicBytes &&
             load_be<std::uint16_t>(body.data()) == kFastOpenMagic) {
    parse_cookie(body.subspan(kMagicBytes), true, out);
  }
}

class Writer {
 public:
  explicit Writer(std::byte* at) noexcept : start_(at), at_(at) {}

  void byte(std::uint8_t value) noexcept { *at_++ = std::byte{value}; }
  void u16(std::uint16_t value) noexcept {
    store_be(at_, value);
    at_ += 2;
  }
  void u32(std::uint32_t value) noexcept {
    store_be(at_, value);
    at_ += 4;
  }
  void head(std::uint8_t kind, std::uint8_t length) noexcept {
    byte(kind);
    byte(length);
  }
  void bytes(std::span<const std::byte> from) noexcept {
    std::memcpy(at_, from.data(), from.size());
    at_ += from.size();
  }
  void nops(int count) noexcept {
    for (; count > 0; --count) byte(kNop);
  }
  [[nodiscard]] std::uint32_t written() const noexcept { return static_cast<std::uint32_t>(at_ - start_); }

 private:
  std::byte* start_;
  std::byte* at_;
};

std::uint8_t fast_open_length(const FastOpen& option) noexcept {
  return static_cast<std::uint8_t>(2 + (option.experimental ? kMagicBytes : 0) + option.cookie_bytes);
}

// Everything but SACK blocks.
std::uint32_t plain_bytes(const TcpOptions& options) noexcept {
  std::uint32_t bytes = 0;
  if (options.has_mss) bytes += kMssLength;
  if (options.has_timestamps) bytes += kTimestampBytes;  // SACK-permitted takes the place of its two NOPs
  if (options.sack_permitted && !options.has_timestamps) bytes += 4;
  if (options.has_window_scale) bytes += 4;
  if (options.fast_open.present) bytes += (fast_open_length(options.fast_open) + 3U) & ~3U;
  return bytes;
}

// Linux's order: SACK-permitted stands where the NOPs before the timestamps would, or behind NOPs of its own.
void write_timestamps(Writer& out, const TcpOptions& options) noexcept {
  if (!options.sack_permitted && !options.has_timestamps) return;
  if (!options.sack_permitted || !options.has_timestamps) out.nops(2);
  if (options.sack_permitted) out.head(kSackPermitted, kSackPermittedLength);
  if (!options.has_timestamps) return;
  out.head(kTimestamps, kTimestampsLength);
  out.u32(options.ts_val);
  out.u32(options.ts_ecr);
}

void write_sack(Writer& out, const TcpOptions& options, std::uint32_t count) noexcept {
  if (count == 0) return;
  out.nops(2);
  out.head(kSack, static_cast<std::uint8_t>(2 + count * kSackBlockBytes));
  for (std::uint32_t i = 0; i < count; ++i) {
    out.u32(options.sack[i].left.raw());
    out.u32(options.sack[i].right.raw());
  }
}

void write_fast_open(Writer& out, const FastOpen& option) noexcept {
  if (!option.present) return;
  const std::uint8_t length = fast_open_length(option);
  out.head(option.experimental ? kExperimental : kFastOpen, length);
  if (option.experimental) out.u16(kFastOpenMagic);
  out.bytes(std::span(option.cookie).first(option.cookie_bytes));
  out.nops((4 - length % 4) % 4);
}

std::uint32_t sack_blocks_written(const TcpOptions& options) noexcept {
  return options.sack_count == 0 ? 0 : std::min<std::uint32_t>(options.sack_count, sack_blocks_that_fit(options));
}

}  // namespace

bool parse_options(ByteView bytes, TcpOptions& out) noexcept {
  // RFC 7323 appendix A: what nearly every segment carries, and nothing else.
  if (bytes.size() == kTimestampBytes && load_be<std::uint32_t>(bytes.data()) == kTimestampsAligned) {
    parse_one(kTimestamps, bytes.subspan(4), out);
    return true;
  }
  std::size_t at = 0;
  while (at < bytes.size()) {
    const auto kind = static_cast<std::uint8_t>(bytes[at]);
    if (kind == kEnd) return true;
    if (kind == kNop) {
      ++at;
      continue;
    }
    if (at + 2 > bytes.size()) return false;
    const auto length = static_cast<std::size_t>(bytes[at + 1]);
    if (length < 2 || at + length > bytes.size()) return false;
    parse_one(kind, bytes.subspan(at + 2, length - 2), out);
    at += length;
  }
  return true;
}

std::uint32_t sack_blocks_that_fit(const TcpOptions& options) noexcept {
  const std::uint32_t left = kMaxOptionBytes - plain_bytes(options);
  return left < 4 ? 0 : std::min<std::uint32_t>((left - 4) / kSackBlockBytes, kMaxSackBlocks);
}

std::uint32_t options_bytes(const TcpOptions& options) noexcept {
  const std::uint32_t blocks = sack_blocks_written(options);
  return plain_bytes(options) + (blocks > 0 ? 4 + blocks * kSackBlockBytes : 0);
}

std::uint32_t write_options(std::span<std::byte> out, const TcpOptions& options) noexcept {
  Writer writer(out.data());
  if (options.has_mss) {
    writer.head(kMss, kMssLength);
    writer.u16(options.mss);
  }
  write_timestamps(writer, options);
  if (options.has_window_scale) {
    writer.nops(1);
    writer.head(kWindowScale, kWindowScaleLength);
    writer.byte(options.window_scale);
  }
  write_sack(writer, options, sack_blocks_written(options));
  write_fast_open(writer, options.fast_open);
  return writer.written();
}

}  // namespace twinstack::wire
