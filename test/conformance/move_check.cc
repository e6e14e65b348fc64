#include "move_check.h"

#include <fmt/format.h>

#include <string_view>

namespace twinstack::conformance {
namespace {

// What is to stay ...
constexpr std::string_view kKeptFields[] = {"state", "snd_wscale", "rcv_wscale", "snd_mss", "snd_ssthresh", "snd_wnd"};
// ... and what may only grow.
constexpr std::string_view kGrowingFields[] = {
    "bytes_acked", "bytes_received", "bytes_sent",   "bytes_retrans", "segs_out",   "segs_in",    "data_segs_in",
    "delivered",   "data_segs_out",  "delivered_ce", "total_retrans", "dsack_dups", "reord_seen", "rcv_ooopack"};
constexpr std::int64_t kTimestamps = 1;
constexpr std::int64_t kNegotiated = 7;  // of `options`: timestamps, SACK, window scaling

}  // namespace

std::string changed_by_move(const Info& before, const Info& after) {
  const auto look = [&](std::string_view field, const auto& is_kept) -> std::string {
    const auto was = before.find(field);
    const auto is = after.find(field);
    if (was == before.end() || is == after.end() || is_kept(was->second, is->second)) return {};
    return fmt::format("{} was {} and is {}", field, was->second, is->second);
  };
  std::string changed;
  for (const std::string_view field : kKeptFields) {
    changed += look(field, [](std::int64_t was, std::int64_t is) { return was == is; });
  }
  // The packet that teaches the round trip is an ACK, and lets a window that is full grow (handoff/lesson.h).
  const auto options = before.find("options");
  const bool taught = options != before.end() && (options->second & kTimestamps) != 0;
  changed +=
      look("snd_cwnd", [taught](std::int64_t was, std::int64_t is) { return was == is || (taught && was + 1 == is); });
  for (const std::string_view field : kGrowingFields) {
    changed += look(field, [](std::int64_t was, std::int64_t is) { return was <= is; });
  }
  changed += look("options", [](std::int64_t was, std::int64_t is) { return ((was ^ is) & kNegotiated) == 0; });
  return changed;
}

}  // namespace twinstack::conformance
