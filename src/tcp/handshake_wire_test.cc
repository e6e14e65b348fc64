// Two handshakes joined by a wire that loses, duplicates and delays from a seed: client and server, and simultaneous
// open. They must end in two connections that agree with each other, on which streams then flow both ways.
#include <array>
#include <map>
#include <memory>

#include "tcp/handshake_test_support.h"
#include "tcp/rtt.h"

namespace twinstack::tcp::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Packet {
  int to = 0;
  wire::Segment segment;
  std::vector<std::byte> payload;
};

// One host: not open, listening, in a handshake, established.
class Side {
 public:
  Side(const HandshakeConfig& config, const FlowKey& flow, const InitialNumbers& numbers)
      : opening{.config = config, .handshake = {}}, flow_(flow), numbers_(numbers) {}

  void listen() { listening_ = true; }
  void connect(Time now) { open_active(opening.handshake, opening.config, flow_, numbers_, now); }

  // Appends what is to be sent.
  void receive(const Packet& packet, Time now, std::vector<Packet>& out) {
    if (end) {
      last_arrival = end->receive(packet.segment, packet.payload, now);
    } else if (opening.handshake.in_progress()) {
      receive_in_handshake(packet, now, out);
    } else if (listening_) {
      receive_in_listen(packet, now, out);
    }
  }

  void fire(Time now) {
    if (end) {
      timed_out |= on_timer(end->cb, *end, now) == TimerVerdict::kToSoftware;
    } else if (opening.handshake.in_progress()) {
      timed_out |= on_timer(opening.handshake, opening.config, now) == HandshakeTimer::kGaveUp;
    }
  }

  void poll(Time now, std::vector<Packet>& out) {
    if (end) {
      for (const SegmentPlan& plan : end->poll(now)) {
        out.push_back({.segment = plan.segment, .payload = {}});
        if (plan.payload_bytes > 0) out.back().payload = end->payload_of(plan);
      }
      return;
    }
    for (const wire::Segment& segment : opening.poll(now)) out.push_back({.segment = segment, .payload = {}});
  }

  [[nodiscard]] Time deadline(Time now) const {
    return end ? next_deadline(end->cb, now) : next_deadline(opening.handshake);
  }

  Opening opening;
  MinTcp made;                    // what the handshake made
  std::unique_ptr<TestEnd> end;   // once established
  std::uint32_t write_bytes = 0;  // written as soon as it is
  std::uint8_t send_key = 1;
  int resets = 0;
  bool over = false;
  bool timed_out = false;
  Arrival last_arrival = Arrival::kAccepted;

 private:
  void answer(HandshakeVerdict verdict, const Packet& packet, std::vector<Packet>& out) {
    over |= is_over(verdict);
    if (!wants_reset(verdict)) return;
    const auto reset = reset_for(packet.segment, static_cast<std::uint32_t>(packet.payload.size()));
    if (!reset) return;
    ++resets;
    out.push_back({.segment = *reset, .payload = {}});
  }

  void receive_in_listen(const Packet& packet, Time now, std::vector<Packet>& out) {
    const HandshakeVerdict verdict = answer_listen(packet.segment);
    answer(verdict, packet, out);
    if (verdict != HandshakeVerdict::kSynAccepted) return;
    open_passive(opening.handshake, opening.config, flow_, numbers_, packet.segment, now);
  }

  void receive_in_handshake(const Packet& packet, Time now, std::vector<Packet>& out) {
    const auto bytes = static_cast<std::uint32_t>(packet.payload.size());
    const HandshakeVerdict verdict = opening.receive(packet.segment, now, bytes);
    answer(verdict, packet, out);
    if (!is_completed(verdict)) return;
    made = opening.state(now);
    end = std::make_unique<TestEnd>(made, now, opening.config.receive_space_bytes);
    EXPECT_TRUE(establish(end->cb, opening.handshake, opening.config, now).has_value());
    end->send_key = send_key;
    end->receive_key = static_cast<std::uint8_t>(3 - send_key);
    end->keep_text = false;
    end->write(write_bytes, now);
    if (verdict == HandshakeVerdict::kCompletedByAck) last_arrival = end->receive(packet.segment, packet.payload, now);
  }

  FlowKey flow_;
  InitialNumbers numbers_;
  bool listening_ = false;
};

class Wire {
 public:
  Wire(std::uint64_t seed, Side& a, Side& b, Time start) : rng(seed), now(start), sides_{&a, &b} {}

  void flush() {
    for (int i = 0; i < 2; ++i) {
      std::vector<Packet> out;
      sides_[i]->poll(now, out);
      send(1 - i, out);
    }
  }

  // Goes to the next event not after `limit`; false when there is none.
  bool step(Time limit) {
    flush();
    Time next = in_flight_.empty() ? kNever : in_flight_.begin()->first;
    for (const Side* side : sides_) next = std::min(next, side->deadline(now));
    if (next > limit) {
      now = limit;
      return false;
    }
    now = std::max(now, next);
    while (!in_flight_.empty() && in_flight_.begin()->first <= now) {
      arrive(in_flight_.extract(in_flight_.begin()).mapped());
    }
    for (Side* side : sides_) side->fire(now);
    if (rng.chance_ppm(spoof_ppm)) spoof();
    return true;
  }

  // What somebody off the path may send, who knows the addresses and guesses numbers near the right ones.
  void spoof() {
    const int to = static_cast<int>(rng.below(2));
    const Side& target = *sides_[to];
    constexpr std::array<unsigned, 4> kFlags = {wire::kRst, wire::kRst | wire::kAck, wire::kAck,
                                                wire::kAck | wire::kFin};
    Packet packet{.to = to, .segment = {}, .payload = std::vector<std::byte>(rng.below(2) * rng.below(100))};
    wire::Segment& segment = packet.segment;
    segment.flags = static_cast<std::uint8_t>(kFlags[rng.below(kFlags.size())]);
    segment.seq = (target.end ? target.end->cb.rcv_nxt : target.opening.handshake.irs + 1) + 1 + rng.below(5000);
    segment.ack = target.opening.handshake.iss + 0x40000000 + rng.below(1000);
    segment.options.has_timestamps = rng.below(2) == 0;
    segment.options.ts_val = static_cast<std::uint32_t>(rng.next());
    arrive(packet);
  }

  NetworkFaults faults;
  std::uint32_t spoof_ppm = 0;  // at each event
  Rng rng;
  Time now;

 private:
  void send(int to, const std::vector<Packet>& packets) {
    for (Packet packet : packets) {
      packet.to = to;
      if (rng.chance_ppm(faults.loss_ppm)) continue;
      const int copies = rng.chance_ppm(faults.duplicate_ppm) ? 2 : 1;
      for (int i = 0; i < copies; ++i) {
        Duration delay = faults.delay;
        if (rng.chance_ppm(faults.reorder_ppm)) {
          delay += milliseconds(rng.below(static_cast<std::uint32_t>(faults.reorder_delay / milliseconds(1))));
        }
        in_flight_.emplace(now + delay, packet);
      }
    }
  }

  // For a segment that comes while the handshake goes on, at most one leaves.
  void arrive(const Packet& packet) {
    Side& side = *sides_[packet.to];
    std::vector<Packet> out;
    side.poll(now, out);
    send(1 - packet.to, out);
    out.clear();
    side.receive(packet, now, out);
    if (!side.end) {
      side.poll(now, out);
      EXPECT_LE(out.size(), 1U);
    }
    send(1 - packet.to, out);
  }

  Side* sides_[2];
  std::multimap<Time, Packet> in_flight_;
};

HandshakeConfig config_of(Rng& rng) {
  HandshakeConfig config = linux_config();
  for (const unsigned bit : {kOptTimestamps, kOptSack, kOptWindowScale}) {
    if (rng.below(4) == 0) config.options = static_cast<std::uint16_t>(config.options & ~bit);
  }
  if (rng.below(2) == 0) config.options |= kOptTsMicroseconds;
  config.ecn = static_cast<EcnMode>(rng.below(3));
  config.announced_mss = config.path_mss = static_cast<std::uint16_t>(500 + rng.below(8000));
  config.receive_space_bytes = 10'000 + rng.below(500'000);
  config.receive_space_limit_bytes = rng.below(16 << 20);
  return config;
}

InitialNumbers numbers_of(Rng& rng) {
  return {Seq(0U - rng.below(30'000)), 0U - rng.below(3'000) - 1'000'000};  // both wrap in most runs
}

NetworkFaults faults_of(Rng& rng) {
  NetworkFaults faults;
  faults.loss_ppm = rng.below(4) == 0 ? 0 : rng.below(400'000);
  faults.duplicate_ppm = rng.below(2) * rng.below(300'000);
  faults.reorder_ppm = rng.below(2) * rng.below(300'000);
  faults.delay = std::chrono::microseconds(100 + rng.below(120'000));
  faults.reorder_delay = milliseconds(1 + rng.below(4'000));  // longer than the first timeouts
  return faults;
}

std::uint16_t common(const HandshakeConfig& a, const HandshakeConfig& b) {
  return static_cast<std::uint16_t>(a.options & b.options & (kOptTimestamps | kOptSack | kOptWindowScale));
}

// What `ours` has to know of `theirs`, and of itself.
void check_side(const Side& ours, const Side& theirs, Duration round_trip, Time now) {
  const MinTcp& a = ours.made;
  const MinTcp& b = theirs.made;
  EXPECT_EQ(a.flow.local, b.flow.remote);
  EXPECT_EQ(a.flow.local_port, b.flow.remote_port);
  EXPECT_EQ(a.snd_una, a.snd_nxt);
  EXPECT_EQ(a.write_seq, a.snd_nxt);
  EXPECT_EQ(a.snd_nxt, b.rcv_nxt);
  EXPECT_EQ(a.copied_seq, a.rcv_nxt);
  EXPECT_EQ(a.rcv_wup, a.rcv_nxt);
  EXPECT_EQ(a.snd_wscale, b.rcv_wscale);
  EXPECT_EQ(a.options & common(ours.opening.config, ours.opening.config),
            common(ours.opening.config, theirs.opening.config));
  EXPECT_EQ(a.mss_clamp, theirs.opening.config.announced_mss);
  EXPECT_EQ(a.mss, std::min(a.mss_clamp, ours.opening.config.path_mss));
  EXPECT_EQ(a.advmss, ours.opening.config.announced_mss - ((a.options & kOptTimestamps) != 0 ? 12 : 0));

  const std::uint32_t unit = 1U << a.snd_wscale;
  if (ours.opening.handshake.has(kHsByAck)) {
    EXPECT_LE(a.snd_wnd, theirs.opening.config.receive_space_bytes + unit);
  } else {
    EXPECT_EQ(a.snd_wnd, b.rcv_wnd);
  }
  EXPECT_GE(a.max_window, a.snd_wnd);
  EXPECT_LE(a.rcv_wnd, std::min(65535U, ours.opening.config.receive_space_bytes));
  EXPECT_TRUE(Seq(a.snd_wl1) >= theirs.opening.handshake.iss);

  if ((a.options & kOptTimestamps) != 0) {
    const Handshake& peer = theirs.opening.handshake;
    const std::int64_t peer_unit_ns = (b.options & kOptTsMicroseconds) != 0 ? 1'000 : 1'000'000;
    const std::uint32_t peer_clock =
        peer.ts_offset + static_cast<std::uint32_t>(now.time_since_epoch().count() / peer_unit_ns);
    EXPECT_LE(a.ts_recent - peer.first_ts_val, peer_clock - peer.first_ts_val) << "a stamp that the peer sent";
  } else {
    EXPECT_EQ(a.ts_recent, 0U);
  }

  const std::uint32_t least_us =
      static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(round_trip).count());
  if (a.srtt_us != 0) {
    EXPECT_GE(a.srtt_us + 1000, least_us) << "Karn: a sample that is too short is one of another segment";
    EXPECT_EQ(a.rto_us, std::min(a.srtt_us + std::max(4 * a.rttvar_us, kMinVarianceUs), kMaxRtoUs));
  } else {
    EXPECT_EQ(a.rto_us, ours.opening.handshake.timeouts > 0 ? 3'000'000U : 1'000'000U);
  }
  EXPECT_EQ(a.min_rtt_us, a.srtt_us);
  if (ours.opening.handshake.retransmissions <= 1) {
    EXPECT_EQ(a.cwnd_segments, 10U);
  }
}

void check_ecn(const Side& a, const Side& b, bool simultaneous) {
  const bool retransmitted = a.opening.handshake.retransmissions + b.opening.handshake.retransmissions > 0;
  // A SYN that met another may have gone again without asking, and the SYN-ACK that told of it may have been lost: one
  // of the two is then wrong, on Linux as well.
  if (simultaneous && retransmitted) return;
  EXPECT_EQ(a.made.options & kOptEcn, b.made.options & kOptEcn);
  if (!retransmitted) {
    const bool wanted =
        a.opening.config.ecn == EcnMode::kRequest &&
        (simultaneous ? b.opening.config.ecn == EcnMode::kRequest : b.opening.config.ecn != EcnMode::kOff);
    EXPECT_EQ((a.made.options & kOptEcn) != 0, wanted);
  }
}

struct Run {
  explicit Run(std::uint64_t seed) : rng(seed) {}

  Rng rng;
  FlowKey flow = v4_flow();
  FlowKey back{flow.remote, flow.local, flow.remote_port, flow.local_port};
  Time start = at_ms(rng.below(1000));
  Side a{config_of(rng), flow, numbers_of(rng)};
  Side b{config_of(rng), back, numbers_of(rng)};
  Wire wire{rng.next(), a, b, start};

  [[nodiscard]] bool established() const { return a.end && b.end; }
  [[nodiscard]] bool done() const {
    return established() && a.end->received == b.end->written && b.end->received == a.end->written &&
           is_drained(a.end->cb) && is_drained(b.end->cb);
  }

  void go(bool simultaneous) {
    b.send_key = 2;
    a.write_bytes = rng.below(2) * rng.below(30'000);
    b.write_bytes = rng.below(2) * rng.below(30'000);
    wire.faults = faults_of(rng);
    wire.spoof_ppm = rng.below(3) == 0 ? 500'000 : 0;
    const bool spoofed = wire.spoof_ppm > 0;
    a.connect(start);
    if (simultaneous) {
      wire.step(start + Duration(rng.below(2) * rng.below(200'000'000)));
      b.connect(wire.now);
    } else {
      b.listen();
    }
    // Until then up to 40 % are lost; afterwards none, and all has to come to an end.
    run_until(start + seconds(20));
    wire.faults.loss_ppm = wire.faults.duplicate_ppm = wire.faults.reorder_ppm = wire.spoof_ppm = 0;
    run_until(start + seconds(2000));
    check(simultaneous, spoofed);
  }

  void run_until(Time limit) {
    while (!done() && wire.now < limit && wire.step(limit)) {
      if (a.end) a.end->read_all(wire.now);
      if (b.end) b.end->read_all(wire.now);
    }
  }

  void check(bool simultaneous, bool spoofed) const {
    ASSERT_TRUE(established()) << "no progress";
    EXPECT_TRUE(done()) << a.end->received << '/' << b.end->written << ' ' << b.end->received << '/' << a.end->written;
    EXPECT_EQ(a.end->wrong_bytes + b.end->wrong_bytes, 0U);
    for (const Side* side : {&a, &b}) {
      EXPECT_FALSE(side->over || side->timed_out);
      EXPECT_TRUE(spoofed || side->resets == 0);
      EXPECT_FALSE(to_software(side->last_arrival));
    }
    check_side(a, b, 2 * wire.faults.delay, wire.now);
    check_side(b, a, 2 * wire.faults.delay, wire.now);
    check_ecn(a, b, simultaneous);
  }
};

#ifdef NDEBUG
constexpr std::uint64_t kSeeds = 3000;
#else
constexpr std::uint64_t kSeeds = 150;  // debug and sanitized builds are twenty times slower
#endif

void run_seed(std::uint64_t seed, bool simultaneous, int& met) {
  SCOPED_TRACE("seed " + std::to_string(seed) +
               ": tcp_test --gtest_filter=HandshakeWire.* TWINSTACK_SEED=" + std::to_string(seed));
  Run run(seed);
  run.go(simultaneous);
  if (run.a.opening.handshake.has(kHsSimultaneous) && run.b.opening.handshake.has(kHsSimultaneous)) ++met;
}

int run_all(bool simultaneous) {
  int met = 0;
  const char* one = std::getenv("TWINSTACK_SEED");
  if (one != nullptr) {
    run_seed(std::strtoull(one, nullptr, 10), simultaneous, met);
    return met;
  }
  for (std::uint64_t seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed) {
    run_seed(seed, simultaneous, met);
  }
  return met;
}

TEST(HandshakeWire, ClientAndServerAgreeFromManySeeds) { EXPECT_EQ(run_all(false), 0); }

TEST(HandshakeWire, SimultaneousOpensAgreeFromManySeeds) {
  const int met = run_all(true);
  if (std::getenv("TWINSTACK_SEED") == nullptr) {
    EXPECT_GT(met, static_cast<int>(kSeeds / 4)) << "SYNs have to meet on both sides, or little is tried";
  }
}

}  // namespace
}  // namespace twinstack::tcp::test
