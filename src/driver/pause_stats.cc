#include "driver/pause_stats.h"

#include <algorithm>

namespace twinstack::driver {

void PauseStats::add(Duration pause) {
  const std::int64_t ns = pause.count();
  ++count_;
  max_ns_ = std::max(max_ns_, ns);
  if (kept_ns_.size() < kKept) {
    kept_ns_.push_back(ns);
    return;
  }
  kept_ns_[next_] = ns;
  next_ = (next_ + 1) % kKept;
}

PauseSummary PauseStats::summary() const {
  PauseSummary out{.count = count_, .p50_us = 0, .p99_us = 0, .max_us = static_cast<double>(max_ns_) / 1e3};
  if (kept_ns_.empty()) return out;
  std::vector<std::int64_t> sorted = kept_ns_;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double quantile) {
    const auto index = static_cast<std::size_t>(quantile * static_cast<double>(sorted.size() - 1));
    return static_cast<double>(sorted[index]) / 1e3;
  };
  out.p50_us = at(0.5);
  out.p99_us = at(0.99);
  return out;
}

}  // namespace twinstack::driver
