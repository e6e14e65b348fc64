// Network byte order and raw bytes. Unaligned by nature; the caller has checked the bounds.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace twinstack::wire {

template <std::unsigned_integral T>
[[nodiscard]] constexpr T swap_to_network(T value) noexcept {
  if constexpr (std::endian::native == std::endian::big || sizeof(T) == 1) return value;
  return std::byteswap(value);
}

// REQUIRES: sizeof(T) readable bytes at `from`.
template <std::unsigned_integral T>
[[nodiscard]] T load_be(const std::byte* from) noexcept {
  T value{};
  std::memcpy(&value, from, sizeof value);
  return swap_to_network(value);
}

// REQUIRES: sizeof(T) writable bytes at `to`.
template <std::unsigned_integral T>
void store_be(std::byte* to, T value) noexcept {
  value = swap_to_network(value);
  std::memcpy(to, &value, sizeof value);
}

}  // namespace twinstack::wire
