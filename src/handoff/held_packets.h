// Packets that waited in the engine during a move, on their way into the kernel.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "handoff/connection.h"
#include "wire/seq.h"

namespace twinstack::handoff {

// Acknowledgement numbers that were good when a packet came and have been overtaken since: [oldest, newest). The kernel
// that has just been restored drops a packet with an older one than its own snd_una (R20 of docs/kernel-facts.md).
struct OvertakenAcks {
  Seq oldest;                // RFC 5961 5.2: snd_una - max_window
  Seq newest;                // snd_una
  std::uint16_t window = 0;  // the one that came with the newest, as in the header
};

// Injects what the engine holds for the connection, oldest first, and what arrives meanwhile, until nothing is left or
// `rounds` are done. With `overtaken`, packets that carry more than such a number are given the newest; those
// that do not may be dropped. Returns the frames injected. REQUIRES: the engine holds the connection.
[[nodiscard]] Result<std::uint32_t> inject_held(Connection& conn, int rounds,
                                                std::optional<OvertakenAcks> overtaken = std::nullopt);

// Whether PAWS would drop something that waits, with `ts_recent` known: it waited while newer packets went by.
// `extracted`: the reply to kExtract.
[[nodiscard]] bool holds_older_packets(const Connection& conn, const engine::Reply& extracted, std::uint32_t ts_recent);

}  // namespace twinstack::handoff
