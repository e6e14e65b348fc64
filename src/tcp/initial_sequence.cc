#include "tcp/initial_sequence.h"

#include <array>
#include <bit>
#include <cstring>

namespace twinstack::tcp {

namespace {

constexpr std::int64_t kSequenceStepNs = 4'000;
constexpr std::size_t kAddressBytes = 2 * sizeof(IpAddress);
constexpr std::size_t kWord = sizeof(std::uint64_t);

class SipState {
 public:
  explicit SipState(const SequenceSecret& secret) noexcept
      : v0_(secret.k0 ^ 0x736f6d6570736575U),
        v1_(secret.k1 ^ 0x646f72616e646f6dU),
        v2_(secret.k0 ^ 0x6c7967656e657261U),
        v3_(secret.k1 ^ 0x7465646279746573U) {}

  void compress(std::uint64_t word) noexcept {
    v3_ ^= word;
    rounds(2);
    v0_ ^= word;
  }

  std::uint64_t finish() noexcept {
    v2_ ^= 0xff;
    rounds(4);
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

 private:
  void rounds(int count) noexcept {
    for (; count > 0; --count) {
      v0_ += v1_;
      v2_ += v3_;
      v1_ = std::rotl(v1_, 13) ^ v0_;
      v3_ = std::rotl(v3_, 16) ^ v2_;
      v0_ = std::rotl(v0_, 32);
      v2_ += v1_;
      v0_ += v3_;
      v1_ = std::rotl(v1_, 17) ^ v2_;
      v3_ = std::rotl(v3_, 21) ^ v0_;
      v2_ = std::rotl(v2_, 32);
    }
  }

  std::uint64_t v0_;
  std::uint64_t v1_;
  std::uint64_t v2_;
  std::uint64_t v3_;
};

// Little-endian, up to eight bytes.
std::uint64_t load_word(std::span<const std::byte> bytes) noexcept {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) word |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << (8 * i);
  return word;
}

}  // namespace

std::uint64_t siphash(const SequenceSecret& secret, std::span<const std::byte> message) noexcept {
  SipState state(secret);
  const std::uint64_t length = std::uint64_t{message.size()} << 56;
  while (message.size() >= kWord) {
    state.compress(load_word(message.first(kWord)));
    message = message.subspan(kWord);
  }
  state.compress(length | load_word(message));
  return state.finish();
}

Seq initial_sequence_number(const SequenceSecret& secret, const FlowKey& flow, Time now) noexcept {
  std::array<std::byte, sizeof(FlowKey)> message{};
  std::memcpy(message.data(), &flow, sizeof flow);
  const auto clock = static_cast<std::uint32_t>(now.time_since_epoch().count() / kSequenceStepNs);
  return Seq(clock + static_cast<std::uint32_t>(siphash(secret, message)));
}

std::uint32_t initial_timestamp_offset(const SequenceSecret& secret, const FlowKey& flow) noexcept {
  std::array<std::byte, kAddressBytes> message{};
  std::memcpy(message.data(), &flow.local, sizeof flow.local);
  std::memcpy(message.data() + sizeof flow.local, &flow.remote, sizeof flow.remote);
  return static_cast<std::uint32_t>(siphash(secret, message));
}

InitialNumbers initial_numbers(const SequenceSecret& secret, const FlowKey& flow, Time now) noexcept {
  return {initial_sequence_number(secret, flow, now), initial_timestamp_offset(secret, flow)};
}

}  // namespace twinstack::tcp
