// The arena of the programs that a fuzzer plays: so small that all of it is soon used up.
#pragma once

#include "ipc/arena.h"

namespace twinstack::fuzz {

inline constexpr ipc::ArenaConfig kArena{.slot_count = 8,
                                         .rings_per_lane = 2,
                                         .lane_count = 1,
                                         .sq_entries = 64,
                                         .cq_entries = 512,
                                         .tx_chunk_count = 16,
                                         .rx_chunk_count = 24,
                                         .chunk_bytes = 2048};

}  // namespace twinstack::fuzz
