#include "sim/cwnd_watch.h"

#include <fmt/format.h>

#include <algorithm>

#include "tcp/cold_state.h"
#include "tcp/congestion/bbr_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/flight.h"
#include "tcp/min_tcp.h"

namespace twinstack::sim {

using tcp::CongestionKind;
using tcp::RecoveryState;

namespace {

constexpr std::uint64_t kSmallestOfBbr = 4;

bool reduces(RecoveryState state) noexcept {
  return state == RecoveryState::kReduced || state == RecoveryState::kRecovery;
}

// BBR's model, not the flight, says how far: only what an ACK may add is known here.
bool by_model(CongestionKind kind) noexcept { return kind == CongestionKind::kBbr; }

bool bbr_may_restore(const tcp::ControlBlock& cb) noexcept {
  if (!cb.bbr) return false;
  return cb.bbr->mode == tcp::BbrMode::kProbeRtt || cb.bbr->prior_recovery >= RecoveryState::kRecovery ||
         cb.bbr->conserving || cb.recovery >= RecoveryState::kRecovery;
}

// What a loss leaves of a window at most (RFC 5681 3.1, RFC 9438 4.6, RFC 8257 3.3 and 3.5).
std::uint64_t left_by_reduction(CongestionKind kind, RecoveryState state, std::uint64_t cwnd) noexcept {
  std::uint64_t left = cwnd / 2;
  if (kind == CongestionKind::kCubic) left = cwnd * 7 / 10;
  if (kind == CongestionKind::kDctcp && state == RecoveryState::kReduced) left = cwnd;  // by the share of marks
  return std::max<std::uint64_t>(left, 2);
}

}  // namespace

CwndWatch::Seen CwndWatch::see(const tcp::ControlBlock& cb) noexcept {
  Seen seen{.cwnd = cb.cwnd,
            .ssthresh = cb.ssthresh,
            .delivered = cb.delivered,
            .in_flight = tcp::packets_in_flight(cb),
            .retries = cb.retries,
            .recovery = cb.recovery,
            .kind = cb.congestion_kind,
            .mss = cb.mss,
            .high_seq = cb.high_seq,
            .sack = (cb.options & tcp::kOptSack) != 0,
            .limited = cb.has(tcp::kCwndLimited),
            .saved_by_bbr = bbr_may_restore(cb) ? cb.bbr->prior_cwnd : 0,
            .restorable = false,
            .undo_marker = {}};
  if (!cb.flight) return seen;
  seen.out = cb.flight->sent.size();
  seen.out_bytes = bytes_between(cb.snd_una, cb.snd_nxt);
  seen.flight_out = cb.flight->max_packets_out;
  seen.prr_most = cb.flight->prr_delivered;
  seen.restorable = cb.flight->undo_possible;
  seen.undo_marker = cb.flight->undo_marker;
  return seen;
}

// What it was, or what an undo or the end of a phase of BBR's may make of it.
std::uint64_t CwndWatch::highest() const noexcept {
  if (by_model(was_.kind)) return std::max(was_.cwnd, was_.saved_by_bbr);
  return was_.restorable ? std::max(before_, std::uint64_t{was_.cwnd}) : was_.cwnd;
}

// Each segment delivered lets it grow by one; an undo gives back what was.
std::string CwndWatch::judge_growth(const Seen& now) const {
  const std::uint64_t news = delivered(now);
  std::uint64_t most = std::max(highest() + news, highest_in_recovery(now));
  if (by_model(now.kind)) most = std::max({most, now.in_flight + news, kSmallestOfBbr + news});
  if (now.cwnd <= most) return {};
  return fmt::format("grew from {} by {} delivered to {}: {} in flight, {} out, threshold {}, {} by PRR, {}sack",
                     was_.cwnd, news, now.cwnd, now.in_flight, now.out, now.ssthresh, now.prr_most,
                     now.sack ? "" : "no ");
}

// A reduction and a timeout follow what is in flight, which may be more than the window: part of a flight that came
// with a move, or that an older reduction has left.
std::uint64_t CwndWatch::highest_in_recovery(const Seen& now) const noexcept {
  const std::uint64_t news = delivered(now);
  const bool timeout = now.retries > was_.retries;
  const bool reduction = reduces(was_.recovery) || reduces(now.recovery);
  const bool beyond = was_.in_flight > was_.cwnd && now.high_seq != was_.high_seq;
  // Without SACK a duplicate ACK counts as an arrival, and does not any more when SND.UNA moves: the flight is as large
  // as before, and PRR has counted twice, with each ACK that moves it anew (as in Linux).
  const bool twice = reduction && !now.sack;
  std::uint64_t most = 0;
  if (timeout || reduction) most = now.in_flight + news + 1;
  if (beyond || twice) most = std::max(most, 2 * (now.out + news));
  // A loss in CWR gives DCTCP another threshold (RFC 8257 3.5), and PRR's count goes on: what it has not let out yet
  // may go by the new share.
  const bool lowered = was_.recovery == RecoveryState::kReduced && now.recovery == RecoveryState::kRecovery &&
                       now.kind == CongestionKind::kDctcp;
  if (twice || lowered) most = std::max(most, now.in_flight + now.prr_most);
  // Its end, whatever may begin with the same ACK.
  if (reduces(was_.recovery) && !by_model(now.kind))
    most = std::max({most, std::uint64_t{was_.ssthresh}, std::uint64_t{now.ssthresh}});
  return most;
}

// ... and only what it has held back. That counts for a window of data and what is sent while that is acknowledged, and
// a third of it may have waited for a longer burst: four times as much as was ever out. An undo brings it along.
std::string CwndWatch::judge_use(const Seen& now) const {
  const std::uint64_t news = delivered(now);
  const bool grew = now.cwnd > was_.cwnd;
  const bool reduction = reduces(was_.recovery) || reduces(now.recovery);
  if (by_model(now.kind) || !grew || undone(now) || reduction) return {};
  if (now.cwnd > std::max<std::uint64_t>(restored_, 2 * std::uint64_t{most_out_}) + 2 * std::uint64_t{most_out_} + news)
    return fmt::format("grew to {}, and never more than {} were out", now.cwnd, most_out_);
  const std::uint64_t out = std::max({was_.flight_out, now.flight_out, now.out + delivered(now)});
  const bool half_used = was_.cwnd < was_.ssthresh && now.cwnd < 2 * out + news;
  if (was_.limited || now.limited || half_used) return {};
  return fmt::format("grew from {} to {}, and {} of it were used", was_.cwnd, now.cwnd, out);
}

// A loss or a mark lowers it, at the end to ssthresh unless it is undone; a timeout to what is in flight and one more.
std::string CwndWatch::judge_reduction(const Seen& now) const {
  const std::uint64_t news = delivered(now);
  if (now.recovery == RecoveryState::kLoss && now.retries > was_.retries && now.cwnd > now.in_flight + 1U + news)
    return fmt::format("is {} after a timeout, {} in flight", now.cwnd, now.in_flight);
  if (by_model(now.kind)) return {};
  const bool stands = now.recovery == RecoveryState::kReduced || now.restorable;
  const bool begins = !reduces(was_.recovery) && reduces(now.recovery) && stands;
  if (begins && now.ssthresh > left_by_reduction(now.kind, now.recovery, highest() + news))
    return fmt::format("was {} and has a threshold of {} after a loss", was_.cwnd, now.ssthresh);
  const bool ends = reduces(was_.recovery) && now.recovery <= RecoveryState::kDisorder;
  const bool undone_before = was_.recovery == RecoveryState::kRecovery && !was_.restorable;  // which lasts all the same
  if (ends && !undone(now) && !undone_before && now.ssthresh <= was_.ssthresh && now.cwnd > was_.ssthresh + news)
    return fmt::format(
        "is {} after a reduction to {}: from {}, {} delivered, threshold {}, state {} to {}, {} out of {}", now.cwnd,
        was_.ssthresh, was_.cwnd, news, now.ssthresh, static_cast<int>(was_.recovery), static_cast<int>(now.recovery),
        now.out, was_.out);
  return {};
}

std::string CwndWatch::judge(const Seen& now) const {
  std::string wrong = judge_growth(now);
  if (wrong.empty()) wrong = judge_use(now);
  return wrong.empty() ? judge_reduction(now) : wrong;
}

// With a move it goes along; a segment more for the ACK that teaches (handoff/lesson.h), and what was delivered
// meanwhile: of what was out there may be more segments, if they have become smaller; and what BBR was told by SACK,
// it is told again in the other stack.
std::uint64_t CwndWatch::highest_unwatched(const Seen& now, std::uint64_t segments_sent) const noexcept {
  std::uint64_t most = highest();
  if (reduces(was_.recovery) && !by_model(was_.kind)) most = std::max<std::uint64_t>(most, was_.ssthresh);
  if (by_model(was_.kind)) most = std::max(most, kSmallestOfBbr);
  if (begins_anew_) most = std::max<std::uint64_t>(most, tcp::kInitialWindow);
  // BBR's is lowered for that ACK, which gives it back; one that begins anew is not.
  const std::uint64_t taught = by_model(was_.kind) && !begins_anew_ ? 0 : 1;
  const std::uint32_t smallest = std::max<std::uint32_t>(std::min(was_.mss, now.mss), 1);
  const std::uint32_t out = std::max(was_.out, (was_.out_bytes + smallest - 1) / smallest);
  const std::uint32_t told_again = by_model(was_.kind) ? out : 0;
  return most + taught + out + told_again + (segments_sent - segments_sent_);
}

std::string CwndWatch::judge_move(const Seen& now, std::uint64_t segments_sent) const {
  const std::uint64_t most = highest_unwatched(now, segments_sent);
  if (now.cwnd <= most) return {};
  return fmt::format("was {}, {} out, before a move and is {}, at most {} by {}", was_.cwnd, was_.out, now.cwnd, most,
                     by_model(now.kind) ? "bbr" : "a window");
}

std::string CwndWatch::look(const tcp::ControlBlock& cb, Holder holder, std::uint64_t look,
                            std::uint64_t segments_sent) {
  const Seen now = see(cb);
  if (now.cwnd == 0) return "is nothing";
  if (holder_ == Holder::kNobody) {
    remember(now, holder, look, segments_sent, now.cwnd);
    return now.cwnd > tcp::kInitialWindow ? fmt::format("begins with {}", now.cwnd) : "";
  }
  const bool followed = holder == holder_ && look == look_ + 1 && now.kind == was_.kind;
  const std::uint32_t sent = now.out + (followed ? delivered(now) : 0);  // and acknowledged since the last look
  most_out_ = std::max({most_out_, sent, now.flight_out});
  const std::string wrong = followed ? judge(now) : judge_move(now, segments_sent);
  // Where a recovery has begun, another may have ended just before.
  const bool anew = now.high_seq != was_.high_seq;
  const std::uint64_t until = anew ? highest() : was_.cwnd;
  const std::uint64_t highest = followed ? until + delivered(now) : highest_unwatched(now, segments_sent);
  if (now.cwnd > highest || !followed || (undone(now) && now.cwnd > was_.cwnd)) restored_ = now.cwnd;
  if (!followed) begins_anew_ = false;
  remember(now, holder, look, segments_sent, highest);
  return wrong;
}

// `highest`: what it may have been in between.
void CwndWatch::remember(const Seen& now, Holder holder, std::uint64_t look, std::uint64_t segments_sent,
                         std::uint64_t highest) noexcept {
  before_ = now.restorable ? std::max({before_, highest, std::uint64_t{now.cwnd}}) : now.cwnd;
  was_ = now;
  holder_ = holder;
  look_ = look;
  segments_sent_ = segments_sent;
}

}  // namespace twinstack::sim
