#include "engine/lane_session.h"

#include <algorithm>

namespace twinstack::engine {
namespace {

constexpr std::uint32_t kCompletionReserve = 1024;

// Each lane lends its own share of the engine's chunks.
ChunkPool make_pool(const ipc::ArenaGeometry& geometry, std::uint32_t lane) {
  const std::uint32_t share = (geometry.chunk_count - geometry.tx_chunk_count) / geometry.lane_count;
  return ChunkPool(geometry.tx_chunk_count + lane * share, share);
}

}  // namespace

LaneSession::LaneSession(std::uint32_t number, const ipc::Arena& arena, std::uint32_t lane)
    : arena_(&arena),
      slots_(&arena.slot(0)),
      chunk_bytes_(arena.geometry().chunk_bytes),
      completion_reserve_(std::min(kCompletionReserve, arena.geometry().cq_entries / 4)),
      pool_(make_pool(arena.geometry(), lane)) {
  const auto& geometry = arena.geometry();
  for (std::uint32_t i = lane; i < geometry.ring_count; i += geometry.lane_count) {
    auto& header = arena.ring(i);
    rings_.push_back(
        LaneRing{.session = number,
                 .index = i,
                 .submit = {header.sq_tail, header.sq_head, header.sq_need_wakeup, arena.sq(i), geometry.sq_entries},
                 .complete = {header.cq_tail, header.cq_head, header.cq_need_wakeup, arena.cq(i), geometry.cq_entries},
                 .want_room = &header.sq_want_room.value,
                 .half_entries = geometry.sq_entries / 2});
  }
  ring_of_.resize(geometry.ring_count, nullptr);
  for (LaneRing& ring : rings_) ring_of_[ring.index] = &ring;
}

}  // namespace twinstack::engine
