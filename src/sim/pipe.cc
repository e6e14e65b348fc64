#include "sim/pipe.h"

#include <algorithm>

#include "sim/router.h"
#include "wire/build.h"

namespace twinstack::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

Duration time_on_wire(std::size_t bytes, std::uint64_t bits_per_second) {
  if (bits_per_second == 0) return Duration(0);
  return Duration(static_cast<std::int64_t>(bytes * 8 * 1'000'000'000 / bits_per_second));
}

void turn_a_bit(Frame& frame, Rng& rng) {
  if (frame.size() <= wire::kEthernetBytes) return;
  const std::size_t at =
      wire::kEthernetBytes + rng.below(static_cast<std::uint32_t>(frame.size() - wire::kEthernetBytes));
  frame[at] ^= static_cast<std::byte>(1U << rng.below(8));
}

}  // namespace

void Pipe::begin(const Event& event, Time now) {
  faults_.push_back({.kind = event.kind, .amount = event.amount, .until = now + event.span, .rng = Rng(event.seed)});
}

bool Pipe::suffers(EventKind kind, Time now) const noexcept {
  return std::ranges::any_of(faults_, [&](const Fault& fault) { return fault.kind == kind && fault.until > now; });
}

void Pipe::drop_old_faults(Time now) {
  std::erase_if(faults_, [now](const Fault& fault) { return fault.until <= now; });
}

std::uint64_t Pipe::rate() const noexcept {
  std::uint64_t rate = shape_.bits_per_second;
  for (const Fault& fault : faults_)
    if (fault.kind == EventKind::kSlow) rate = std::uint64_t{fault.amount} * 1000;
  return rate;
}

std::uint32_t Pipe::queue_limit() const noexcept {
  std::uint32_t limit = shape_.queue_frames;
  for (const Fault& fault : faults_)
    if (fault.kind == EventKind::kShortQueue) limit = std::min(limit, fault.amount);
  return limit;
}

void Pipe::apply(Fault& fault, Frame& frame, Fate& fate) {
  bool hit = false;
  switch (fault.kind) {
    case EventKind::kLoss:
      hit = fault.rng.chance_ppm(fault.amount);
      fate.lost = fate.lost || hit;
      break;
    case EventKind::kBurst:
      // Gilbert-Elliott with a mean burst of five packets, four of five of which are lost.
      fault.in_burst = fault.in_burst ? fault.rng.below(5) != 0 : fault.rng.chance_ppm(fault.amount);
      hit = fault.in_burst && fault.rng.below(5) != 0;
      fate.lost = fate.lost || hit;
      break;
    case EventKind::kDuplicate:
      hit = fault.rng.chance_ppm(fault.amount);
      if (hit) fate.copy_later = microseconds(fault.rng.below(500));
      break;
    case EventKind::kReorder:
      hit = fault.rng.chance_ppm(fault.amount);
      if (hit) fate.later += microseconds(10 + fault.rng.below(3000));
      break;
    case EventKind::kCorrupt:
      // One bit: two may leave the sum as it was.
      hit = fault.rng.chance_ppm(fault.amount) && !std::exchange(fate.corrupted, true);
      if (hit) turn_a_bit(frame, fault.rng);
      break;
    case EventKind::kJitter:
      hit = true;
      fate.held += microseconds(fault.rng.below(fault.amount + 1));
      break;
    case EventKind::kBlackHole:
      hit = frame.size() > wire::kEthernetBytes + fault.amount;
      fate.lost = fate.lost || hit;
      break;
    case EventKind::kLinkDown:
      hit = true;
      fate.lost = true;
      break;
    case EventKind::kTooBig:
      hit = refuse(fault, frame, fate);
      break;
    default:  // those that change rate and queue
      return;
  }
  if (hit) ++counters_.hit[static_cast<std::size_t>(fault.kind)];
}

// Of several routers the one with the smallest MTU.
bool Pipe::refuse(Fault& fault, const Frame& frame, Fate& fate) {
  if (!is_too_big(frame, fault.amount)) return false;
  constexpr std::uint32_t kLatestMs = 400;
  const Refusal refusal{
      .mtu_bytes = fault.amount,
      .tells = fault.rng.below(8) != 0,
      .is_silent = fault.rng.below(4) == 0,
      .later = fault.rng.below(4) == 0 ? Duration(milliseconds(fault.rng.below(kLatestMs))) : Duration(0)};
  if (!fate.refusal || refusal.mtu_bytes < fate.refusal->mtu_bytes) fate.refusal = refusal;
  return true;
}

Pipe::Fate Pipe::decide(Frame& frame) {
  Fate fate;
  for (Fault& fault : faults_) apply(fault, frame, fate);
  if (shape_.jitter > Duration::zero())
    fate.held += Duration(rng_.below(static_cast<std::uint32_t>(shape_.jitter.count()) + 1));
  return fate;
}

std::size_t Pipe::waiting(Time now) {
  while (!departures_.empty() && departures_.front() <= now) departures_.pop_front();
  return departures_.size();
}

void Pipe::put(Frame frame, Time arrives) {
  auto at = way_.end();
  while (at != way_.begin() && std::prev(at)->arrives > arrives) --at;
  way_.insert(at, {.arrives = arrives, .bytes = std::move(frame)});
}

void Pipe::send(Frame frame, Time now) {
  ++counters_.frames;
  if (!faults_.empty()) drop_old_faults(now);
  Fate fate = decide(frame);
  if (fate.refusal) {
    // What is damaged, no router answers.
    if (!fate.lost && !fate.corrupted && !fate.refusal->is_silent) on_too_big(frame, *fate.refusal);
    fate.lost = true;
  }
  const std::size_t queued = waiting(now);
  if (fate.lost || queued >= queue_limit()) {
    if (!fate.lost) ++counters_.queue_drops;
    pool_.give(std::move(frame));
    return;
  }
  if (shape_.mark_frames != 0 && queued >= shape_.mark_frames &&
      wire::is_ecn_capable(ByteView(frame).subspan(wire::kEthernetBytes))) {
    wire::mark_congestion(std::span(frame).subspan(wire::kEthernetBytes));
    ++counters_.marked;
  }
  free_at_ = std::max(free_at_, now) + time_on_wire(frame.size(), rate());
  departures_.push_back(free_at_);
  Time arrives = free_at_ + shape_.delay + fate.held;
  if (fate.later == Duration::zero())
    arrives = last_arrival_ = std::max(arrives, last_arrival_);
  else
    arrives += fate.later;
  if (fate.copy_later) put(pool_.copy(frame), arrives + *fate.copy_later);
  put(std::move(frame), arrives);
}

bool Pipe::receive(Time now, Frame& frame) {
  if (way_.empty() || way_.front().arrives > now) return false;
  frame = std::move(way_.front().bytes);
  way_.pop_front();
  counters_.bytes += frame.size();
  return true;
}

}  // namespace twinstack::sim
