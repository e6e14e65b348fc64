#include "tcp/test_support.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tcp/invariants.h"
#include "tcp/plan.h"
#include "tcp/window.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::tcp::test {

MinTcp idle_state() {
  MinTcp state;
  state.size_bytes = sizeof(MinTcp);
  state.snd_una = state.snd_nxt = state.write_seq = kOurSeq;
  state.rcv_nxt = state.rcv_wup = state.copied_seq = kPeerSeq;
  state.snd_wl1 = kPeerSeq;
  state.snd_wnd = state.max_window = state.rcv_wnd = 65535;
  state.mss = state.mss_clamp = state.advmss = kMss;
  state.cwnd_segments = 10;
  state.ssthresh_segments = kInfiniteSsthresh;
  return state;
}

wire::Segment from_peer(std::uint32_t seq, std::uint32_t ack) {
  wire::Segment segment;
  segment.seq = Seq(seq);
  segment.ack = Seq(ack);
  segment.flags = wire::kAck;
  segment.window = 65535;
  return segment;
}

std::byte stream_byte(std::uint8_t key, std::uint64_t position) {
  return static_cast<std::byte>((position * 0x9e3779b97f4a7c15U >> 56) + key * std::uint64_t{31} + position);
}

TestEnd::TestEnd(const MinTcp& state, Time now, std::uint32_t receive_capacity)
    : Host(counters, delivery_rate), capacity(receive_capacity) {
  const auto installed = install(cb, state, now);
  EXPECT_TRUE(installed.has_value());
  written = bytes_between(Seq(state.snd_una), Seq(state.write_seq));
}

std::uint32_t TestEnd::deliver(const Payload& payload) {
  const auto room = static_cast<std::uint32_t>(capacity > unread ? capacity - unread : 0);
  const std::uint32_t taken = std::min({payload.size(), room, deliver_limit});
  payload.narrow(0, taken).for_each([this](ByteView piece) {
    for (const std::byte byte : piece) {
      if (byte != stream_byte(receive_key, received)) ++wrong_bytes;
      ++received;
      if (keep_text) text += static_cast<char>(byte);
    }
  });
  unread += taken;
  return taken;
}

std::uint32_t TestEnd::receive_space() { return static_cast<std::uint32_t>(capacity > unread ? capacity - unread : 0); }

void TestEnd::write(std::uint32_t bytes, Time /*now*/, bool more_follows) {
  written += bytes;
  on_queued(cb, bytes, more_follows);
}

std::uint32_t TestEnd::read(std::uint32_t bytes, Time now) {
  const auto taken = static_cast<std::uint32_t>(std::min<std::uint64_t>(unread, bytes));
  unread -= taken;
  if (taken > 0) on_read(cb, *this, now);
  return taken;
}

Arrival TestEnd::receive(const wire::Segment& segment, std::string_view payload, Time now) {
  return receive(segment, std::as_bytes(std::span(payload)), now);
}

Arrival TestEnd::receive(const wire::Segment& segment, std::span<const std::byte> payload, Time now) {
  const ByteView part(payload);
  return on_segment(cb, segment, Payload(std::span(&part, 1), 0, static_cast<std::uint32_t>(part.size())), *this, now);
}

std::vector<SegmentPlan> TestEnd::poll(Time now) {
  std::vector<SegmentPlan> plans;
  SegmentPlan plan;
  while (poll_transmit(cb, *this, now, plan)) {
    plans.push_back(plan);
    if (plans.size() > 100'000) {
      ADD_FAILURE() << "poll_transmit() has no end";
      break;
    }
  }
  return plans;
}

SegmentPlan TestEnd::poll_one(Time now) {
  const auto plans = poll(now);
  EXPECT_EQ(plans.size(), 1U);
  return plans.empty() ? SegmentPlan{} : plans.front();
}

Time TestEnd::fire(Time now, TimerVerdict* verdict) {
  const Time at = next_deadline(cb, now);
  EXPECT_NE(at, kNever);
  const TimerVerdict got = on_timer(cb, *this, at);
  if (verdict != nullptr) *verdict = got;
  return at;
}

std::vector<std::byte> TestEnd::payload_of(const SegmentPlan& plan) const {
  const std::uint64_t position = written - bytes_between(plan.segment.seq, data_end(cb));
  std::vector<std::byte> bytes(plan.payload_bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = stream_byte(send_key, position + i);
  return bytes;
}

void TestEnd::move(Time now) {
  MinTcp state;
  extract(cb, now, state);
  const auto installed = install(cb, state, now);
  EXPECT_TRUE(installed.has_value()) << installed.error().message();
}

TestNetwork::TestNetwork(std::uint64_t seed, TestEnd& a, TestEnd& b, Time start)
    : rng(seed),
      now(start),
      ends_{&a, &b},
      highest_edge_{window_right_edge(a.cb), window_right_edge(b.cb)},
      highest_una_{a.cb.snd_una, b.cb.snd_una} {}

// INVARIANTS that hold for every segment that leaves.
void TestNetwork::check(const TestEnd& end, const SegmentPlan& plan) {
  const int which = &end == ends_[0] ? 0 : 1;
  const ControlBlock& cb = end.cb;
  ASSERT_TRUE(cb.snd_una <= cb.snd_nxt && cb.snd_nxt <= cb.write_seq);
  ASSERT_TRUE(cb.snd_una >= highest_una_[which]) << "bytes that were freed are wanted again";
  highest_una_[which] = cb.snd_una;
  ASSERT_LE(plan.payload_bytes, std::max(cb.mss, kMss));  // a probe of the path may be larger than a segment
  ASSERT_EQ(broken_invariant(cb), nullptr) << broken_invariant(cb);
  const Seq edge = plan.segment.ack + (std::uint32_t{plan.segment.window} << cb.rcv_wscale);
  ASSERT_GE(edge - highest_edge_[which], -(1 << cb.rcv_wscale)) << "the window shrank";
  highest_edge_[which] = max(highest_edge_[which], edge);
  if (plan.payload_bytes == 0) return;
  ASSERT_TRUE(plan.segment.seq >= cb.snd_una && plan.segment.seq + plan.payload_bytes <= cb.snd_nxt);
  const Seq allowed = highest_edge_[1 - which];
  ASSERT_TRUE(plan.segment.seq + plan.payload_bytes <= allowed + (1U << cb.snd_wscale)) << "beyond the peer's window";
}

// The segment survives the way through its bytes.
void TestNetwork::check_wire(const wire::Segment& segment, const std::vector<std::byte>& payload) const {
  const FlowKey flow{IpAddress::from_v4({10, 0, 0, 1}), IpAddress::from_v4({10, 0, 0, 2}), 80, 51000};
  const auto payload_bytes = static_cast<std::uint32_t>(payload.size());
  std::vector<std::byte> frame(wire::header_bytes(flow, segment) + payload.size());
  const std::uint32_t head = wire::write_headers(frame, wire::PathHeader{}, flow, segment, payload_bytes);
  ASSERT_LE(frame.size(), 1514U);
  std::copy(payload.begin(), payload.end(), frame.begin() + head);
  wire::fill_checksum(frame);
  const ByteView part(frame);
  wire::TcpPacket packet;
  const auto verdict = wire::parse_frame(std::span(&part, 1), static_cast<std::uint32_t>(frame.size()),
                                         wire::ChecksumMode::kVerify, packet);
  ASSERT_EQ(verdict, wire::ParseVerdict::kOk);
  ASSERT_EQ(packet.segment, segment);
  ASSERT_EQ(packet.payload.size(), payload.size());
}

void TestNetwork::send(int to, const wire::Segment& segment, const std::vector<std::byte>& payload) {
  ++packets;
  if (packets % 16 == 0) check_wire(segment, payload);
  if (payload.size() > faults.largest_payload || rng.chance_ppm(faults.loss_ppm)) return;
  const int copies = rng.chance_ppm(faults.duplicate_ppm) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    Duration delay = faults.delay;
    if (rng.chance_ppm(faults.reorder_ppm)) {
      delay += Duration(rng.below(static_cast<std::uint32_t>(faults.reorder_delay.count())));
    }
    in_flight_.emplace(now + delay, Packet{to, segment, payload});
  }
}

void TestNetwork::flush() {
  for (int i = 0; i < 2; ++i) {
    TestEnd& end = *ends_[i];
    for (const SegmentPlan& plan : end.poll(now)) {
      check(end, plan);
      send(1 - i, plan.segment, plan.payload_bytes > 0 ? end.payload_of(plan) : std::vector<std::byte>{});
    }
  }
}

void TestNetwork::arrive(Packet& packet) {
  const Arrival verdict = ends_[packet.to]->receive(packet.segment, packet.payload, now);
  if (to_software(verdict)) last_to_software = verdict;
}

// What follows in sequence at the same time becomes one super-packet, as GRO makes it.
void TestNetwork::coalesce(Packet& packet) {
  const wire::Segment& head = packet.segment;
  while (!in_flight_.empty() && in_flight_.begin()->first <= now && packet.payload.size() < 60'000) {
    const Packet& next = in_flight_.begin()->second;
    const Seq end = head.seq + static_cast<std::uint32_t>(packet.payload.size());
    const bool follows =
        next.to == packet.to && !packet.payload.empty() && !next.payload.empty() && next.segment.seq == end;
    const bool alike = next.segment.ack == head.ack && next.segment.window == head.window &&
                       next.segment.options == head.options && next.segment.ecn == head.ecn &&
                       (next.segment.flags | wire::kPsh) == (head.flags | wire::kPsh);
    if (!follows || !alike) return;
    packet.payload.insert(packet.payload.end(), next.payload.begin(), next.payload.end());
    in_flight_.erase(in_flight_.begin());
  }
}

bool TestNetwork::step(Time limit) {
  flush();
  Time next = in_flight_.empty() ? kNever : in_flight_.begin()->first;
  for (TestEnd* end : ends_) next = std::min(next, next_deadline(end->cb, now));
  if (next > limit) {
    now = limit;
    return false;
  }
  now = std::max(now, next);
  while (!in_flight_.empty() && in_flight_.begin()->first <= now) {
    auto node = in_flight_.extract(in_flight_.begin());
    if (faults.coalesce) coalesce(node.mapped());
    arrive(node.mapped());
    if (rng.chance_ppm(faults.batch_end_ppm)) flush();
  }
  for (TestEnd* end : ends_) failed_timer |= on_timer(end->cb, *end, now) == TimerVerdict::kToSoftware;
  flush();
  return true;
}

void TestNetwork::run_until(Time limit) {
  while (step(limit)) {
  }
}

}  // namespace twinstack::tcp::test
