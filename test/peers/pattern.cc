// See pattern.h. Little-endian machines only, as the rest of the project's test programs.
#include "pattern.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace twinstack::peers {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15U;
constexpr std::size_t kWord = sizeof(std::uint64_t);

std::uint64_t load_word(const std::byte* from) noexcept {
  std::uint64_t value = 0;
  std::memcpy(&value, from, kWord);
  return value;
}

}  // namespace

std::uint64_t Pattern::word(std::uint64_t index) const noexcept { return mix64(seed_ + (index + 1) * kGolden); }

std::byte Pattern::byte_at(std::uint64_t offset) const noexcept {
  return static_cast<std::byte>((word(offset / kWord) >> (8 * (offset % kWord))) & 0xff);
}

void Pattern::fill(std::uint64_t offset, std::span<std::byte> out) const noexcept {
  std::size_t at = 0;
  for (; at < out.size() && (offset + at) % kWord != 0; ++at) out[at] = byte_at(offset + at);
  for (; at + kWord <= out.size(); at += kWord) {
    const std::uint64_t value = word((offset + at) / kWord);
    std::memcpy(out.data() + at, &value, kWord);
  }
  for (; at < out.size(); ++at) out[at] = byte_at(offset + at);
}

std::optional<std::uint64_t> Pattern::first_mismatch(std::uint64_t offset,
                                                     std::span<const std::byte> bytes) const noexcept {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const bool whole_word = (offset + at) % kWord == 0 && at + kWord <= bytes.size();
    if (whole_word && load_word(bytes.data() + at) == word((offset + at) / kWord)) {
      at += kWord;
      continue;
    }
    if (bytes[at] != byte_at(offset + at)) return offset + at;
    ++at;
  }
  return std::nullopt;
}

void StreamDigest::add_word(std::uint64_t word) noexcept { sum_ += mix64(word ^ mix64(length_bytes_ / kWord + 1)); }

void StreamDigest::update(std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const std::size_t held = length_bytes_ % kWord;
    if (held == 0 && bytes.size() >= kWord) {
      add_word(load_word(bytes.data()));
      length_bytes_ += kWord;
      bytes = bytes.subspan(kWord);
      continue;
    }
    const std::size_t take = std::min(kWord - held, bytes.size());
    std::memcpy(partial_.data() + held, bytes.data(), take);
    if (held + take == kWord) add_word(load_word(partial_.data()));
    length_bytes_ += take;
    bytes = bytes.subspan(take);
  }
}

std::uint64_t StreamDigest::value() const noexcept {
  std::array<std::byte, kWord> rest{};
  std::memcpy(rest.data(), partial_.data(), length_bytes_ % kWord);
  return mix64(sum_ ^ mix64(load_word(rest.data()) ^ mix64(length_bytes_)));
}

}  // namespace twinstack::peers
