// Input: takes typed values off the bytes of a fuzzer, zeros when they have run out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace twinstack::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) noexcept : bytes_(data, size) {}

  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }

  template <typename T>
  T take() noexcept {
    T value{};
    const std::size_t here = std::min(sizeof(T), bytes_.size());
    if (here > 0) std::memcpy(&value, bytes_.data(), here);
    bytes_ = bytes_.subspan(here);
    return value;
  }
  // In [0, bound). REQUIRES: bound > 0.
  std::uint32_t below(std::uint32_t bound) noexcept {
    return bound <= 256 ? take<std::uint8_t>() % bound : take<std::uint32_t>() % bound;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace twinstack::fuzz
