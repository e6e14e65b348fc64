// Scoreboard: which of our unacknowledged bytes the peer has reported by SACK (RFC 6675 3). Ranges only; what they mean
// for sending is recovery's.
#pragma once

#include <cstdint>

#include "tcp/cold_state.h"

namespace twinstack::tcp {

// Adds one reported range, cut to [snd_una, snd_nxt). Returns the bytes that were not known before. When the table is
// full the range is forgotten (it then counts as not received: safe).
std::uint32_t add_sacked(Scoreboard& board, wire::SackBlock range, Seq snd_una, Seq snd_nxt) noexcept;

// Forgets what lies under `snd_una`.
void trim_scoreboard(Scoreboard& board, Seq snd_una) noexcept;

void clear_scoreboard(Scoreboard& board) noexcept;

// RFC 6675 4, IsLost(): the highest sequence number so that every byte under it that is not SACKed has more than
// (threshold - 1) * mss bytes, or `threshold` ranges, SACKed above it. `floor` when there is none.
[[nodiscard]] Seq lost_edge(const Scoreboard& board, std::uint32_t threshold, std::uint32_t mss, Seq floor) noexcept;

// SACKed bytes within [from, to).
[[nodiscard]] std::uint32_t sacked_within(const Scoreboard& board, Seq from, Seq to) noexcept;

// The first hole at or after `from` and before `to`: [left, right); empty (left == right) when there is none.
[[nodiscard]] wire::SackBlock first_hole(const Scoreboard& board, Seq from, Seq to) noexcept;

}  // namespace twinstack::tcp
