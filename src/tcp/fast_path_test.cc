// The short ways of on_segment() and poll_transmit() against the long ones: two ends are told the same, one of them
// always goes step by step; state, verdicts and segments must be equal after everything that happens. Their peer, and a
// network that loses, repeats, delays and spoils, come from a seed.
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "tcp/flight.h"
#include "tcp/invariants.h"
#include "tcp/receive.h"
#include "tcp/test_support.h"
#include "tcp/timestamps.h"
#include "tcp/transmit.h"

namespace twinstack::tcp::test {
namespace {

std::string describe(const wire::Segment& s) {
  std::ostringstream out;
  out << "seq " << s.seq.raw() << " ack " << s.ack.raw() << " window " << s.window << " flags " << int{s.flags}
      << " ecn " << static_cast<int>(s.ecn) << " ts " << s.options.has_timestamps << ' ' << s.options.ts_val << ' '
      << s.options.ts_ecr << " sack";
  for (std::uint32_t i = 0; i < s.options.sack_count; ++i)
    out << ' ' << s.options.sack[i].left.raw() << '-' << s.options.sack[i].right.raw();
  return out.str();
}

std::string describe(const Flight& f) {
  std::ostringstream out;
  out << f.sacked << ' ' << f.lost << ' ' << f.retransmitted << ' ' << f.next_retransmit << ' ' << f.rack_rtt_us << ' '
      << f.rack_last_delivered << ' ' << f.rack_advanced << ' ' << f.rack_first << ' ' << f.undo_possible << ' '
      << f.probe_out << ' ' << f.burst_size << ' ' << f.burst_left << ' ' << f.max_packets_out << ' '
      << f.cwnd_usage_seq.raw() << ' ' << f.first_sent.time_since_epoch().count() << ' '
      << f.delivered_at.time_since_epoch().count();
  for (auto p = f.sent.first(); p != f.sent.end(); ++p) {
    const SentSegment& s = f.sent.at(p);
    out << " [" << s.seq.raw() << ' ' << s.length << ' ' << s.sent.time_since_epoch().count() << ' '
        << s.first_sent.time_since_epoch().count() << ' ' << s.delivered_at.time_since_epoch().count() << ' '
        << s.delivered << ' ' << s.flags << ' ' << s.burst << ']';
  }
  return out.str();
}

// All fields; what holds the congestion control's own state is compared by its bytes.
std::string describe(const ControlBlock& cb) {
  std::ostringstream out;
  for (const Seq seq : {cb.snd_una, cb.snd_nxt, cb.write_seq, cb.snd_wl1, cb.snd_sml, cb.push_seq, cb.high_seq,
                        cb.rcv_nxt, cb.rcv_wup, cb.rtt_seq})
    out << seq.raw() << ' ';
  for (const std::uint32_t value : {cb.snd_wnd,
                                    cb.max_window,
                                    cb.rcv_wnd,
                                    cb.cwnd,
                                    cb.ssthresh,
                                    cb.cwnd_count,
                                    cb.cwnd_used,
                                    cb.cwnd_stamp,
                                    cb.srtt_us8,
                                    cb.mdev_us4,
                                    cb.mdev_max_us4,
                                    cb.rttvar_us4,
                                    cb.rto_us,
                                    cb.min_rtt_us,
                                    cb.min_rtt_stamp,
                                    cb.delivered,
                                    cb.delivered_ce,
                                    cb.lost,
                                    cb.app_limited,
                                    cb.reord_seen,
                                    cb.ts_offset,
                                    cb.ts_recent,
                                    cb.ts_recent_stamp_s,
                                    cb.ack_deadline,
                                    cb.last_receive,
                                    cb.last_receive_data,
                                    cb.last_send,
                                    static_cast<std::uint32_t>(cb.stall_since),
                                    cb.last_challenge,
                                    cb.state})
    out << value << ' ';
  for (const int value :
       {int{cb.reordering}, int{cb.reo_wnd_steps}, int{cb.reo_wnd_persist}, int{cb.mss}, int{cb.rcv_mss},
        int{cb.ack_timeout_ms}, int{cb.flags}, int{cb.retries}, int{cb.backoff}, int{cb.probes_out}, int{cb.quick_acks},
        static_cast<int>(cb.recovery), static_cast<int>(cb.sender_timer)})
    out << value << ' ';
  if (cb.sender_timer != SenderTimer::kNone) out << "deadline " << cb.sender_deadline;
  for (const auto byte : std::as_bytes(std::span(&cb.congestion, 1))) out << ' ' << static_cast<int>(byte);
  out << (cb.flight ? " flight " + describe(*cb.flight) : "") << (cb.cold ? " cold" : "");
  return out.str();
}

std::string describe(const Counters& c) {
  std::ostringstream out;
  out << c.bytes_acked << ' ' << c.bytes_received << ' ' << c.bytes_sent << ' ' << c.bytes_retransmitted << ' '
      << c.segs_in << ' ' << c.segs_out << ' ' << c.data_segs_in << ' ' << c.data_segs_out << ' '
      << c.segs_retransmitted << ' ' << c.out_of_order << ' ' << c.dsack_dups;
  return out.str();
}

MinTcp state_of(Rng& rng, std::uint32_t ours, std::uint32_t theirs) {
  MinTcp state = idle_state();
  state.snd_una = state.snd_nxt = state.write_seq = ours;
  state.rcv_nxt = state.rcv_wup = state.copied_seq = state.snd_wl1 = theirs;
  state.options = kOptTimestamps | kOptSack | kOptWindowScale;
  state.snd_wscale = state.rcv_wscale = static_cast<std::uint8_t>(rng.below(8));
  state.ts_val = 77;
  if (rng.below(8) == 0) state.options &= static_cast<std::uint16_t>(~kOptSack);
  if (rng.below(8) == 0) state.options &= static_cast<std::uint16_t>(~kOptTimestamps);
  if (rng.below(8) == 0) state.options |= kOptEcn;
  if (rng.below(4) == 0) state.options |= kOptTsMicroseconds;
  if (rng.below(2) == 0) state.flags |= kFlagNoDelay;
  if (rng.below(3) == 0) state.congestion = {'r', 'e', 'n', 'o'};
  if (rng.below(12) == 0) state.congestion = {'b', 'b', 'r'};
  if (rng.below(3) == 0) state.ssthresh_segments = 5 + rng.below(20);
  return state;
}

// The two ends that are told the same.
struct Twins {
  explicit Twins(const MinTcp& state) : quick(state, at_ms(0)), steps(state, at_ms(0)) {
    quick.keep_text = steps.keep_text = false;
  }
  template <typename Act>
  void both(Act&& act) {
    act(quick);
    act(steps);
  }

  void receive(const wire::Segment& segment, std::span<const std::byte> bytes, Time now) {
    const ByteView part(bytes);
    const Payload payload(std::span(&part, 1), 0, static_cast<std::uint32_t>(bytes.size()));
    const Arrival a = on_segment(quick.cb, segment, payload, quick, now);
    const Arrival b = on_segment_in_steps(steps.cb, segment, payload, steps, now);
    ASSERT_EQ(name(a), name(b)) << describe(segment);
    compare(describe(segment));
  }
  std::vector<SegmentPlan> poll(Time now) {
    const auto plans = quick.poll(now);
    for (const SegmentPlan& plan : plans) {
      SegmentPlan other;
      EXPECT_TRUE(poll_transmit_in_steps(steps.cb, steps, now, other));
      EXPECT_EQ(describe(plan.segment), describe(other.segment));
      EXPECT_EQ(plan.payload_bytes, other.payload_bytes);
    }
    SegmentPlan none;
    EXPECT_FALSE(poll_transmit_in_steps(steps.cb, steps, now, none));
    compare("transmission");
    return plans;
  }
  void compare(const std::string& what) {
    ASSERT_EQ(describe(quick.cb), describe(steps.cb)) << what;
    ASSERT_EQ(describe(quick.counters), describe(steps.counters)) << what;
    ASSERT_EQ(quick.delivery_rate.segments_per_s, steps.delivery_rate.segments_per_s) << what;
    ASSERT_EQ(broken_invariant(quick.cb), nullptr) << broken_invariant(quick.cb);
  }

  TestEnd quick;
  TestEnd steps;
};

struct Packet {
  bool to_twins = false;
  wire::Segment segment;
  std::vector<std::byte> payload;
};

class Exchange {
 public:
  explicit Exchange(std::uint64_t seed)
      : rng_(seed),
        state_rng_(seed + 1),
        seq_(0U - rng_.below(100'000)),
        twins_(state(seq_, 7)),
        peer_(peer_state(), at_ms(0)) {
    peer_.keep_text = false;
    peer_.send_key = 2;
    peer_.receive_key = 1;
    loss_ppm_ = rng_.below(2) == 0 ? 0 : rng_.below(40'000);
    spoil_ppm_ = rng_.below(2) == 0 ? 0 : rng_.below(rng_.below(2) == 0 ? 20'000 : 300'000);
    lock_step_ = rng_.below(2) == 0;
    slow_peer_ = rng_.below(3) == 0;
    rude_peer_ = rng_.below(3) == 0;
    if (slow_peer_) peer_.capacity = 600 + rng_.below(4000);
    if (rude_peer_) twins_.both([](TestEnd& end) { end.capacity = 3000; });
  }

  void go(int rounds) {
    for (int i = 0; i < rounds && !::testing::Test::HasFatalFailure(); ++i) round();
  }
  [[nodiscard]] std::uint64_t received() const { return twins_.quick.received; }

 private:
  MinTcp state(std::uint32_t ours, std::uint32_t theirs) {
    Rng same = state_rng_;
    return state_of(same, ours, theirs);
  }
  MinTcp peer_state() { return state(7, seq_); }

  void round() {
    now_ += rng_.below(50) == 0 ? std::chrono::milliseconds(rng_.below(2000))
                                : Duration(std::chrono::microseconds(rng_.below(3000)));
    while (!wire_.empty() && wire_.begin()->first <= now_) {
      const Packet packet = wire_.extract(wire_.begin()).mapped();
      arrive(packet);
    }
    act();
    fire();
    if (rng_.below(4) != 0) send(twins_.poll(now_), twins_.quick, false);
    if (rng_.below(4) != 0) send(peer_.poll(now_), peer_, true);
  }

  void arrive(const Packet& packet) {
    if (packet.to_twins) {
      twins_.receive(packet.segment, packet.payload, now_);
    } else {
      peer_.receive(packet.segment, packet.payload, now_);
    }
  }

  // Small messages back and forth, and now and then a long one.
  void act() {
    const bool idle = twins_.quick.cb.snd_una == twins_.quick.cb.write_seq;
    if (rng_.below(4) == 0 && (idle || !lock_step_)) {
      const std::uint32_t bytes = 1 + rng_.below(rng_.below(8) == 0 ? 20'000 : 200);
      const bool more = rng_.below(20) == 0;
      const bool record = rng_.below(30) == 0;
      twins_.both([&](TestEnd& end) {
        if (bytes_between(end.cb.snd_una, end.cb.write_seq) < 100'000) end.write(bytes, now_, more);
        if (record) end_record(end.cb);
      });
    }
    if (rng_.below(3) == 0 && bytes_between(peer_.cb.snd_una, peer_.cb.write_seq) < 100'000) {
      peer_.write(1 + rng_.below(rng_.below(8) == 0 ? 20'000 : 200), now_);
    }
    const std::uint32_t read = rng_.below(10) == 0 ? rng_.below(500) : 100'000;
    if (rng_.below(rude_peer_ ? 20 : 2) == 0) twins_.both([&](TestEnd& end) { end.read(read, now_); });
    if (!slow_peer_ || rng_.below(30) == 0) peer_.read_all(now_);
    if (rng_.below(400) == 0) set_options();
    if (rude_peer_ && rng_.below(10) == 0) peer_.cb.snd_wnd += 3000;  // it sends beyond the window
  }
  void set_options() {
    const auto flags =
        static_cast<std::uint16_t>(rng_.below(4) == 0 ? std::uint32_t{kFlagCork} : rng_.below(2) * kFlagNoDelay);
    const bool quick = rng_.below(2) == 0;
    const bool drain = rng_.below(3) == 0;
    twins_.both([&](TestEnd& end) {
      set_flags(end.cb, flags, now_);
      set_quick_ack(end.cb, quick);
      set_draining(end.cb, drain, now_);
    });
  }

  void fire() {
    if (next_deadline(twins_.quick.cb, now_) <= now_) {
      TimerVerdict a{};
      TimerVerdict b{};
      a = on_timer(twins_.quick.cb, twins_.quick, now_);
      b = on_timer(twins_.steps.cb, twins_.steps, now_);
      ASSERT_EQ(a, b);
      twins_.compare("timer");
    }
    if (next_deadline(peer_.cb, now_) <= now_) on_timer(peer_.cb, peer_, now_);
  }

  void send(const std::vector<SegmentPlan>& plans, const TestEnd& from, bool to_twins) {
    for (const SegmentPlan& plan : plans) {
      if (rng_.below(1'000'000) < loss_ppm_) continue;
      Packet packet{to_twins, plan.segment, from.payload_of(plan)};
      if (to_twins && rng_.below(1'000'000) < spoil_ppm_) spoil(packet.segment);
      Time at = now_ + std::chrono::microseconds(500);
      if (rng_.below(1'000'000) < loss_ppm_) at += std::chrono::milliseconds(rng_.below(5));
      wire_.emplace(at, packet);
      if (rng_.below(1'000'000) < loss_ppm_) wire_.emplace(at + std::chrono::milliseconds(1), packet);
    }
  }

  // Whatever it makes, the twins must think the same of it. (No FIN, RST or payload that differs: the run goes on.)
  void spoil(wire::Segment& segment) {
    switch (rng_.below(7)) {
      case 0:
        segment.ack += rng_.below(3000) - 1500;
        break;
      case 1:
        segment.window = static_cast<std::uint16_t>(rng_.below(rng_.below(2) == 0 ? 65536 : 100));
        break;
      case 2:
        segment.options.ts_val += rng_.below(40) - 20;
        break;
      case 3:
        segment.options.ts_ecr += rng_.below(40) - 20;
        break;
      case 4:
        segment.flags ^= static_cast<std::uint8_t>(rng_.below(2) == 0 ? wire::kEce : wire::kPsh);
        break;
      case 5:
        segment.options.has_timestamps = false;
        break;
      default: {  // of a part of what is out, or of nothing that was ever sent
        const Seq left = twins_.quick.cb.snd_una + 1 + rng_.below(rng_.below(2) == 0 ? 100 : 3000);
        segment.options.sack_count = 1;
        segment.options.sack[0] = {left, left + 1 + rng_.below(100)};
      }
    }
  }

  Rng rng_;
  Rng state_rng_;
  std::uint32_t seq_;
  Twins twins_;
  TestEnd peer_;
  Time now_ = at_ms(0);
  std::multimap<Time, Packet> wire_;
  std::uint32_t loss_ppm_ = 0;
  std::uint32_t spoil_ppm_ = 0;
  bool lock_step_ = false;  // the next answer waits for the ACK of the last one
  bool slow_peer_ = false;
  bool rude_peer_ = false;
};

TEST(FastPath, IsWhatTheStepsAre) {
  std::uint64_t received = 0;
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Exchange exchange(seed);
    exchange.go(600);
    received += exchange.received();
    if (HasFailure()) return;
  }
  EXPECT_GT(received, 500'000U);
}

// What the steps leave in the part for repairs must not be there when the next flight begins: take_plain_ack() would
// not clear it.
TEST(FastPath, AFlightThatTheStepsHaveSeenIsLoneNoMore) {
  MinTcp state = idle_state();
  state.options = kOptTimestamps | kOptSack;
  TestEnd end(state, at_ms(0));
  end.poll(at_ms(0));
  end.write(100, at_ms(1));
  end.poll_one(at_ms(1));
  ASSERT_TRUE(end.cb.flight && end.cb.flight->lone);
  wire::Segment segment = from_peer();
  segment.options.has_timestamps = true;
  segment.options.ts_val = 1;
  segment.options.sack_count = 1;
  segment.options.sack[0] = {Seq(kOurSeq + 10), Seq(kOurSeq + 20)};  // of a part of it
  EXPECT_EQ(end.receive(segment, "", at_ms(2)), Arrival::kAccepted);
  ASSERT_TRUE(end.cb.flight);
  EXPECT_EQ(end.cb.flight->seen_count, 1U);
  EXPECT_FALSE(end.cb.flight->lone);
  EXPECT_EQ(broken_invariant(end.cb), nullptr);
}

}  // namespace
}  // namespace twinstack::tcp::test
