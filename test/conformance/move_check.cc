#include "move_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
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
constexpr std::int64_t kNegotiated = 1 | 2 | 4 | 8 | 64;  // timestamps, SACK, window scaling, ECN, microseconds
constexpr std::int64_t kOpen = 0;                         // TCP_CA_Open
// As a connection begins (Linux tcp_reordering, TCP_MSS_DEFAULT).
constexpr std::int64_t kFirstReordering = 3;
constexpr std::int64_t kFirstRcvMss = 536;

using Rule = std::function<bool(std::int64_t was, std::int64_t is)>;

class Comparison {
 public:
  Comparison(const Info& before, const Info& after) : before_(before), after_(after) {}

  void look(std::string_view field, const Rule& is_kept) {
    const auto was = before_.find(field);
    const auto is = after_.find(field);
    if (was == before_.end() || is == after_.end()) {
      say(fmt::format("{} is not told {} the move", field, was == before_.end() ? "before" : "after"));
    } else if (!is_kept(was->second, is->second)) {
      say(fmt::format("{} was {} and is {}", field, was->second, is->second));
    }
  }

  std::string changed;

 private:
  void say(const std::string& what) { changed += (changed.empty() ? "" : "; ") + what; }

  const Info& before_;
  const Info& after_;
};

bool is_same(std::int64_t was, std::int64_t is) { return was == is; }

// Of a connection that is over nothing else is known.
bool only_state(const Info& info) { return info.size() == 1 && info.contains("state"); }

// What the stack that takes over knows as it was, or begins with anew.
void look_at_what_may_begin_anew(Comparison& comparison, const Info& before, Stack to) {
  const bool back = to == Stack::kKernel;
  // Recovery ends with a move, and none begins.
  comparison.look("ca_state", [](auto was, auto is) { return was == is || is == kOpen; });
  comparison.look("reordering", [back](auto was, auto is) { return was == is || (back && is == kFirstReordering); });
  const auto mss = before.find("snd_mss");
  const std::int64_t first = mss == before.end() ? kFirstRcvMss : std::min(kFirstRcvMss, mss->second);
  comparison.look("rcv_mss", [first](auto was, auto is) { return was == is || is == first; });
}

}  // namespace

std::string changed_by_move(const Info& before, const Info& after, Stack to) {
  Comparison comparison(before, after);
  if (only_state(before) && only_state(after)) {
    comparison.look("state", is_same);
    return comparison.changed;
  }
  for (const std::string_view field : kKeptFields) comparison.look(field, is_same);
  // The packet that teaches the round trip is an ACK, and lets a window that is full grow (handoff/lesson.h).
  const auto options = before.find("options");
  const bool taught = options != before.end() && (options->second & kTimestamps) != 0;
  comparison.look("snd_cwnd", [taught](auto was, auto is) { return was == is || (taught && was + 1 == is); });
  for (const std::string_view field : kGrowingFields) comparison.look(field, std::less_equal<>{});
  comparison.look("options", [](auto was, auto is) { return ((was ^ is) & kNegotiated) == 0; });
  look_at_what_may_begin_anew(comparison, before, to);
  return comparison.changed;
}

}  // namespace twinstack::conformance
