#include "tcp/congestion/congestion.h"

#include <algorithm>

#include "tcp/congestion/cubic.h"
#include "tcp/congestion/new_reno.h"

namespace twinstack::tcp {

namespace {
constexpr std::uint32_t kMaxCwndBytes = 1U << 29;  // keeps all sums of windows under 2^31
}  // namespace

const CongestionOps& congestion_ops(CongestionKind kind) noexcept {
  return kind == CongestionKind::kNewReno ? new_reno_ops() : cubic_ops();
}

CongestionKind congestion_kind(std::string_view name) noexcept {
  return name == new_reno_ops().name ? CongestionKind::kNewReno : CongestionKind::kCubic;
}

std::uint32_t slow_start(ControlBlock& cb, std::uint32_t acked_bytes) noexcept {
  if (!in_slow_start(cb)) return acked_bytes;
  const std::uint32_t growth = std::min(acked_bytes, cb.ssthresh - cb.cwnd);
  grow_cwnd(cb, growth);
  return acked_bytes - growth;
}

std::uint32_t at_least_two_segments(const ControlBlock& cb, std::uint32_t bytes) noexcept {
  return std::max(bytes, 2U * cb.mss);
}

void grow_cwnd(ControlBlock& cb, std::uint32_t bytes) noexcept {
  cb.cwnd = std::max(cb.cwnd, std::min(cb.cwnd + bytes, kMaxCwndBytes));
}

}  // namespace twinstack::tcp
