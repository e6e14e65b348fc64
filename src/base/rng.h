// Rng: seeded randomness, passed in wherever it is needed. xoshiro256** by Blackman and Vigna (public domain
// algorithm, https://prng.di.unimi.it), seeded by splitmix64. Not for secrets.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace twinstack {

class Rng {
 public:
  explicit Rng(std::uint64_t seed) noexcept {
    for (auto& word : state_) {
      seed += 0x9e3779b97f4a7c15U;
      std::uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
      word = z ^ (z >> 31);
    }
  }

  std::uint64_t next() noexcept {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const std::uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  // Uniform in [0, bound). REQUIRES: bound > 0. The bias of the multiply-shift is below 2^-32 for our bounds.
  std::uint32_t below(std::uint32_t bound) noexcept {
    return static_cast<std::uint32_t>(((next() >> 32) * bound) >> 32);
  }

  // True with probability `numerator` in a million.
  bool chance_ppm(std::uint32_t parts_per_million) noexcept { return below(1'000'000) < parts_per_million; }

 private:
  std::array<std::uint64_t, 4> state_{};
};

}  // namespace twinstack
