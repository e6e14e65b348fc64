// initial_sequence: the numbers with which a connection begins, so that nobody off the path can guess them: the initial
// send sequence number (RFC 6528) and the offset of the timestamp clock (RFC 7323 7). Pure, any thread: the
// secret and the time are arguments. Whoever holds the secret draws it at random once, at start-up, and keeps it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "wire/flow.h"
#include "wire/seq.h"

namespace twinstack::tcp {

// Key of the hash; from a source of randomness that is fit for secrets.
struct SequenceSecret {
  std::uint64_t k0 = 0;
  std::uint64_t k1 = 0;
};

struct InitialNumbers {
  Seq iss;                      // initial send sequence number
  std::uint32_t ts_offset = 0;  // our TSval - the clock in its unit
};

// SipHash-2-4 (Aumasson, Bernstein 2012). FlowKey::hash() will not do: it mixes well enough for a table, but is no
// pseudo-random function, which RFC 6528 3 asks for.
[[nodiscard]] std::uint64_t siphash(const SequenceSecret& secret, std::span<const std::byte> message) noexcept;

// ISN = M + F(flow, secret), M a clock of 4 us (RFC 6528 3, RFC 9293 3.4.1): the numbers of one flow grow, those of two
// flows say nothing of each other.
[[nodiscard]] Seq initial_sequence_number(const SequenceSecret& secret, const FlowKey& flow, Time now) noexcept;

// The same for all connections between two hosts, so that their timestamps grow from one to the next: PAWS and the
// reuse of TIME_WAIT (RFC 6191) rely on that.
[[nodiscard]] std::uint32_t initial_timestamp_offset(const SequenceSecret& secret, const FlowKey& flow) noexcept;

[[nodiscard]] InitialNumbers initial_numbers(const SequenceSecret& secret, const FlowKey& flow, Time now) noexcept;

}  // namespace twinstack::tcp
