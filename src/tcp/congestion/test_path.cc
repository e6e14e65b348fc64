#include "tcp/congestion/test_path.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <utility>

namespace twinstack::tcp::test {

namespace {

constexpr std::uint32_t kWindowBytes = 1U << 29;
constexpr std::uint32_t kAhead = 4U << 20;  // an unlimited program's unsent bytes

MinTcp state_of(const FlowConfig& config, std::uint32_t ours, std::uint32_t theirs) {
  MinTcp state;
  state.size_bytes = sizeof(MinTcp);
  state.snd_una = state.snd_nxt = state.write_seq = ours;
  state.rcv_nxt = state.rcv_wup = state.copied_seq = state.snd_wl1 = theirs;
  state.snd_wnd = state.max_window = state.rcv_wnd = kWindowBytes;
  state.snd_wscale = state.rcv_wscale = 14;
  state.mss = state.mss_clamp = state.advmss = kPathMss + 12;
  state.options = kOptTimestamps | kOptTsMicroseconds | kOptSack | kOptWindowScale;
  if (config.ecn) state.options |= kOptEcn;
  state.cwnd_segments = config.cwnd;
  state.ssthresh_segments = config.ssthresh;
  const std::string_view name = congestion_ops(config.kind).name;
  std::copy(name.begin(), name.end(), state.congestion.begin());
  return state;
}

}  // namespace

PathEnd::PathEnd(const MinTcp& state, Time now) : Host(counters, delivery_rate) {
  EXPECT_TRUE(install(cb, state, now).has_value());
}

std::uint32_t PathEnd::deliver(const Payload& payload) {
  received += payload.size();
  return payload.size();
}

std::uint32_t PathEnd::receive_space() { return kWindowBytes; }

Flow::Flow(const FlowConfig& c, Time now)
    : config(c), sender(state_of(c, 1000, 5000), now), receiver(state_of(c, 5000, 1000), now) {}

TestPath::TestPath(const PathConfig& c)
    : config(c),
      now_(std::chrono::seconds(1000)),
      rng_(c.seed),
      tokens_(static_cast<double>(c.policer_bucket)),
      tokens_at_(now_),
      queue_from_(now_),
      queue_at_(now_) {}

Flow& TestPath::add(const FlowConfig& flow) {
  flows_.push_back(std::make_unique<Flow>(flow, now_));
  return *flows_.back();
}

void TestPath::write(Flow& flow, std::uint32_t bytes) {
  on_queued(flow.sender.cb, bytes, false);
  flush(flow, true);
}

void TestPath::push(Event event) {
  event.order = order_++;
  events_.push(std::move(event));
}

// Up to here the queue was as it was noted last.
void TestPath::note_queue() {
  queue_area_ += queue_now_ * std::chrono::duration<double>(now_ - queue_at_).count();
  queue_at_ = now_;
  queue_now_ = waiting();
  queue_most_ = std::max(queue_most_, queue_now_);
  queue_least_ = std::min(queue_least_, queue_now_);
}

std::uint32_t TestPath::waiting() {
  while (!departures_.empty() && departures_.front() <= now_) departures_.pop_front();
  return static_cast<std::uint32_t>(departures_.size());
}

TestPath::Queue TestPath::take_queue_figures() {
  note_queue();
  const double seconds = std::chrono::duration<double>(now_ - queue_from_).count();
  const Queue figures{queue_area_ / seconds, queue_most_, queue_least_};
  queue_from_ = now_;
  queue_area_ = 0;
  queue_most_ = 0;
  queue_least_ = UINT32_MAX;
  return figures;
}

bool TestPath::policed(std::uint32_t bytes) {
  if (config.policer_rate == 0) return false;
  const double seconds = std::chrono::duration<double>(now_ - tokens_at_).count();
  const double more = seconds * static_cast<double>(config.policer_rate);
  tokens_ = std::min(tokens_ + more, static_cast<double>(config.policer_bucket));
  tokens_at_ = now_;
  if (tokens_ < bytes) return true;
  tokens_ -= bytes;
  return false;
}

void TestPath::send_data(Flow& flow, const SegmentPlan& plan) {
  ++flow.sent;
  note_queue();
  if (rng_.chance_ppm(config.loss_ppm) || policed(plan.payload_bytes) || queue_now_ > config.buffer_packets) {
    ++flow.dropped;
    return;
  }
  Event event{
      .at = {}, .flow = &flow, .to_receiver = true, .payload_bytes = plan.payload_bytes, .segment = plan.segment};
  const bool mark = config.mark_from_packets > 0 && queue_now_ >= config.mark_from_packets;
  if (mark && event.segment.ecn != wire::Ecn::kNotEct) {
    event.segment.ecn = wire::Ecn::kCe;
    ++flow.marked;
  }
  const Duration takes(static_cast<std::int64_t>(std::uint64_t{plan.payload_bytes} * 1'000'000'000U / config.rate));
  last_departure_ = std::max(last_departure_, now_) + takes;
  departures_.push_back(last_departure_);
  note_queue();
  event.at = last_departure_ + config.delay + std::exchange(delay_next_, Duration::zero());
  push(std::move(event));
}

void TestPath::send_ack(Flow& flow, const SegmentPlan& plan) {
  Duration delay = config.delay;
  if (config.jitter > Duration::zero())
    delay += Duration(rng_.below(static_cast<std::uint32_t>(config.jitter.count())));
  last_ack_arrival_ = std::max({last_ack_arrival_, now_ + delay, acks_from_});
  push({.at = last_ack_arrival_, .flow = &flow, .segment = plan.segment});
}

void TestPath::flush(Flow& flow, bool sender) {
  PathEnd& end = sender ? flow.sender : flow.receiver;
  if (sender && flow.config.unlimited && bytes_between(end.cb.snd_nxt, end.cb.write_seq) < kAhead) {
    on_queued(end.cb, kAhead, false);
  }
  SegmentPlan plan;
  while (poll_transmit(end.cb, end, now_, plan)) {
    if (plan.payload_bytes > 0) {
      send_data(flow, plan);
    } else if (!sender) {
      send_ack(flow, plan);
    }
  }
}

void TestPath::flush_all() {
  for (const auto& flow : flows_) {
    flush(*flow, true);
    flush(*flow, false);
  }
}

void TestPath::arrive(const Event& event) {
  if (event.poll) {
    flush(*event.flow, false);
    return;
  }
  static const std::array<std::byte, 65536> kBytes{};
  const ByteView part = ByteView(kBytes).first(event.payload_bytes);
  PathEnd& end = event.to_receiver ? event.flow->receiver : event.flow->sender;
  const Payload payload(std::span(&part, 1), 0, event.payload_bytes);
  const Arrival verdict = on_segment(end.cb, event.segment, payload, end, now_);
  // Needless retransmissions; between very many holes the receiver keeps no more.
  const bool data_dropped = verdict == Arrival::kDroppedOutOfWindow || verdict == Arrival::kDroppedNoMemory;
  EXPECT_TRUE(verdict == Arrival::kAccepted || (event.to_receiver && data_dropped)) << name(verdict);
  if (event.to_receiver && config.ack_interval > Duration::zero()) {
    const auto turn = now_.time_since_epoch() / config.ack_interval + 1;
    push(
        {.at = Time(turn * config.ack_interval), .flow = event.flow, .to_receiver = true, .poll = true, .segment = {}});
  } else {
    flush(*event.flow, !event.to_receiver);
  }
}

bool TestPath::step(Time limit) {
  Time next = events_.empty() ? kNever : events_.top().at;
  for (const auto& flow : flows_) {
    next = std::min({next, next_deadline(flow->sender.cb, now_), next_deadline(flow->receiver.cb, now_)});
  }
  if (next > limit) return false;
  now_ = std::max(now_, next);
  if (!events_.empty() && events_.top().at <= now_) {
    const Event event = events_.top();
    events_.pop();
    arrive(event);
    return true;
  }
  for (const auto& flow : flows_) {
    for (PathEnd* end : {&flow->sender, &flow->receiver}) {
      if (on_timer(end->cb, *end, now_) != TimerVerdict::kNothing) flush(*flow, end == &flow->sender);
    }
  }
  return true;
}

void TestPath::run_for(Duration time) {
  const Time limit = now_ + time;
  flush_all();
  while (step(limit)) {
  }
  now_ = limit;
  note_queue();
}

}  // namespace twinstack::tcp::test
