#include "tcp/congestion/congestion.h"

#include <algorithm>
#include <array>

#include "tcp/congestion/bbr.h"
#include "tcp/congestion/cubic.h"
#include "tcp/congestion/dctcp.h"
#include "tcp/congestion/new_reno.h"

namespace twinstack::tcp {

namespace {
constexpr std::uint32_t kMaxCwnd = 1U << 20;  // keeps all sums of windows under 2^31
}  // namespace

const CongestionOps& congestion_ops(CongestionKind kind) noexcept {
  static constexpr std::array kByKind = {&kCubicOps, &kNewRenoOps, &kDctcpOps, &kBbrOps};
  static_assert(static_cast<std::size_t>(CongestionKind::kBbr) + 1 == kByKind.size());
  return *kByKind[static_cast<std::size_t>(kind)];
}

CongestionKind congestion_kind(std::string_view name) noexcept {
  for (const auto kind : {CongestionKind::kNewReno, CongestionKind::kDctcp, CongestionKind::kBbr}) {
    if (congestion_ops(kind).name == name) return kind;
  }
  return CongestionKind::kCubic;
}

void raise_event(ControlBlock& cb, CongestionEvent event, Time now) {
  const CongestionOps& ops = congestion_ops(cb);
  if (ops.on_event != nullptr) ops.on_event(cb, event, now);
}

std::uint32_t slow_start(ControlBlock& cb, std::uint32_t acked) noexcept {
  if (!in_slow_start(cb)) return acked;
  const std::uint32_t cwnd = std::min(cb.cwnd + acked, cb.ssthresh);
  acked -= cwnd - cb.cwnd;
  set_cwnd(cb, cwnd);
  return acked;
}

void grow_additively(ControlBlock& cb, std::uint32_t window, std::uint32_t acked) noexcept {
  window = std::max(window, 1U);
  if (cb.cwnd_count >= window) {  // the window has shrunk meanwhile: one, not all at once
    cb.cwnd_count = 0;
    set_cwnd(cb, cb.cwnd + 1);
  }
  cb.cwnd_count += acked;
  if (cb.cwnd_count < window) return;
  const std::uint32_t more = cb.cwnd_count / window;
  cb.cwnd_count -= more * window;
  set_cwnd(cb, cb.cwnd + more);
}

std::uint32_t prior_cwnd(ControlBlock& cb) { return std::max(cb.cwnd, cb.flight ? cb.flight->prior_cwnd : 0); }

void set_cwnd(ControlBlock& cb, std::uint32_t segments) noexcept { cb.cwnd = std::clamp(segments, 1U, kMaxCwnd); }

}  // namespace twinstack::tcp
