// Two cores talk through a network that loses, duplicates, reorders and delays, from a seed; the streams are compared
// byte by byte, invariants are checked at every segment, and once the faults stop everything must arrive.
#include <gtest/gtest.h>

#include "tcp/cold_state.h"
#include "tcp/flight.h"
#include "tcp/test_support.h"

namespace twinstack::tcp::test {
namespace {

struct Scenario {
  std::uint16_t options = 0;
  std::uint8_t wscale = 0;
  std::uint32_t capacity = kWindow;
  std::uint32_t start_seq = 0;
  std::uint32_t start_ts = 0;
  bool moves = false;
  bool slow_reader = false;
  bool no_delay = false;
  bool reno = false;
};

Scenario scenario_of(Rng& rng) {
  Scenario s;
  if (rng.below(4) != 0) s.options |= kOptTimestamps;
  if (rng.below(4) != 0) s.options |= kOptSack;
  if (rng.below(4) == 0) s.options |= kOptEcn;
  if (rng.below(2) == 0) s.options |= kOptTsMicroseconds;
  s.wscale = static_cast<std::uint8_t>(rng.below(3) * 4);
  s.capacity = rng.below(3) == 0 ? 8192 : 60000U << (rng.below(2) * s.wscale / 4);
  s.start_seq = 0U - rng.below(200'000);  // wraps in most runs
  s.start_ts = 0U - rng.below(2'000);
  s.moves = rng.below(2) == 0;
  s.slow_reader = rng.below(2) == 0;
  s.no_delay = rng.below(2) == 0;
  s.reno = rng.below(3) == 0;
  return s;
}

MinTcp state_of(const Scenario& s, std::uint32_t ours, std::uint32_t theirs) {
  MinTcp state = idle_state();
  state.snd_una = state.snd_nxt = state.write_seq = ours;
  state.rcv_nxt = state.rcv_wup = state.copied_seq = state.snd_wl1 = theirs;
  state.options = s.options;
  state.snd_wscale = state.rcv_wscale = s.wscale;
  state.snd_wnd = state.max_window = state.rcv_wnd = std::min(s.capacity, 65535U);
  state.ts_val = s.start_ts;
  if (s.no_delay) state.flags |= kFlagNoDelay;
  if (s.reno) state.congestion = {'r', 'e', 'n', 'o'};
  return state;
}

NetworkFaults faults_of(Rng& rng) {
  NetworkFaults faults;
  if (rng.below(4) != 0) faults.loss_ppm = rng.below(100'000);
  if (rng.below(2) == 0) faults.duplicate_ppm = rng.below(50'000);
  if (rng.below(2) == 0) faults.reorder_ppm = rng.below(200'000);
  faults.coalesce = rng.below(2) == 0;
  faults.delay = std::chrono::microseconds(20 + rng.below(20'000));
  return faults;
}

void act(Rng& rng, const Scenario& s, TestEnd& end, Time now) {
  const bool queue_short = bytes_between(end.cb.snd_una, end.cb.write_seq) < 200'000;
  if (queue_short && rng.below(3) == 0) end.write(1 + rng.below(rng.below(2) == 0 ? 100 : 20'000), now);
  if (!s.slow_reader || rng.below(20) == 0) end.read(1 + rng.below(100'000), now);
  if (s.moves && rng.below(20) == 0) end.move(now);
}

bool done(const TestEnd& from, const TestEnd& to) { return to.received == from.written && is_drained(from.cb); }

void run_seed(std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed) +
               ": tcp_test --gtest_filter=Simulation.* TWINSTACK_SEED=" + std::to_string(seed));
  Rng rng(seed);
  const Scenario s = scenario_of(rng);
  const Time start = at_ms(rng.below(1000));
  const std::uint32_t other_seq = s.start_seq + 77'777;
  TestEnd a(state_of(s, s.start_seq, other_seq), start, s.capacity);
  TestEnd b(state_of(s, other_seq, s.start_seq), start, s.capacity);
  b.send_key = 2;
  b.receive_key = 1;
  a.keep_text = b.keep_text = false;
  TestNetwork net(seed + 1, a, b, start);
  net.faults = faults_of(rng);

  for (int i = 0; i < 300; ++i) {
    act(rng, s, a, net.now);
    act(rng, s, b, net.now);
    net.step(net.now + std::chrono::milliseconds(50));
    if (::testing::Test::HasFatalFailure()) return;
  }
  net.faults.loss_ppm = net.faults.duplicate_ppm = net.faults.reorder_ppm = 0;
  const Time limit = net.now + std::chrono::seconds(2000);
  while (!(done(a, b) && done(b, a)) && net.now < limit) {
    a.read_all(net.now);
    b.read_all(net.now);
    net.step(limit);
    if (::testing::Test::HasFatalFailure()) return;
  }
  EXPECT_TRUE(done(a, b) && done(b, a)) << "no progress: a " << b.received << '/' << a.written << " b " << a.received
                                        << '/' << b.written;
  EXPECT_EQ(a.wrong_bytes + b.wrong_bytes, 0U);
  EXPECT_FALSE(net.failed_timer);
  EXPECT_EQ(net.last_to_software, Arrival::kAccepted);
  // Nothing is kept for an idle connection, and nothing more happens to it.
  net.run_until(net.now + std::chrono::seconds(1));
  for (const TestEnd* end : {&a, &b}) {
    EXPECT_TRUE(!end->cb.cold || end->cb.cold->path_mtu.searching);
    // Without SACK a recovery ends with what is beyond it (RFC 6582 3.2, as Linux).
    const bool recovers = (end->cb.options & kOptSack) == 0 && end->cb.recovery >= RecoveryState::kRecovery &&
                          end->cb.snd_una == end->cb.high_seq;
    EXPECT_TRUE(!end->cb.flight || end->cb.flight->undo_possible || end->cb.flight->probe_out || recovers);
  }
  EXPECT_EQ(next_deadline(a.cb, net.now), kNever);
}

#ifdef NDEBUG
constexpr std::uint64_t kSeeds = 1500;
#else
constexpr std::uint64_t kSeeds = 40;  // debug and sanitized builds are twenty times slower
#endif

TEST(Simulation, StreamsSurviveEveryFaultFromManySeeds) {
  const char* one = std::getenv("TWINSTACK_SEED");
  if (one != nullptr) {
    run_seed(std::strtoull(one, nullptr, 10));
    return;
  }
  for (std::uint64_t seed = 1; seed <= kSeeds && !HasFailure(); ++seed) run_seed(seed);
}

}  // namespace
}  // namespace twinstack::tcp::test
