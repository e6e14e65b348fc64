// Two ends of one connection and a network between them that does what the input says: both programs write, read, close
// and set options, both ends move, segments arrive, are lost, repeated, reordered, cut and joined, routers lower the
// MTU, and somebody forges segments. What an end receives is a prefix of what the other has written, until a forged
// segment was accepted; the invariants of both control blocks hold after each operation; and when the network has
// become perfect everything arrives.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <string_view>
#include <vector>

#include "base/assert.h"
#include "input.h"
#include "tcp/cold_state.h"
#include "tcp/congestion/congestion.h"
#include "tcp/invariants.h"
#include "tcp/plan.h"
#include "tcp/test_support.h"
#include "tcp/window.h"

namespace twinstack {
namespace {

using tcp::test::TestEnd;

constexpr std::uint64_t kMostWritten = 60'000;
constexpr std::size_t kMostInFlight = 64;  // segments, each way
constexpr Duration kOneWay = std::chrono::milliseconds(1);
// No segment lives longer in the network (RFC 9293 3.4.2, MSL); timestamps rely on it.
constexpr Duration kLongestLife = std::chrono::minutes(2);
// Of the perfect network: both ends may stand at their longest timeout.
constexpr Duration kPatience = std::chrono::seconds(2000);

struct InFlight {
  wire::Segment segment;
  std::vector<std::byte> payload;
  Time sent{};

  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(payload.size()); }
};

// An end, what is on its way to it, and what is remembered of it.
struct Side {
  explicit Side(const tcp::MinTcp& state, Time now, std::uint32_t capacity)
      : end(state, now, capacity), edge(tcp::window_right_edge(end.cb)), offered(edge) {
    end.keep_text = false;
  }

  TestEnd end;
  std::deque<InFlight> arriving;
  std::uint32_t largest_payload = UINT32_MAX;  // of what arrives: the rest vanishes
  Seq edge;                                    // of the control block
  Seq offered;                                 // as far as its segments have told the other end
  Seq other_stack_nxt;
  bool other_stack_sends = false;
  bool is_closed = false;  // by its program
  bool is_gone = false;    // nobody has the connection any more
};

class Pair {
 public:
  explicit Pair(fuzz::Input& input)
      : input_(input),
        whole_(input.below(2) != 0),
        common_(negotiated(input)),
        capacity_(input.below(4) == 0 ? 4096 + input.below(256) * 16 : 60'000),
        seq_{0U - input.below(256) * 256, input.take<std::uint32_t>()},  // one of them wraps soon
        sides_{Side(state(0), now_, capacity_), Side(state(1), now_, capacity_)} {
    sides_[1].end.send_key = 2;
    sides_[1].end.receive_key = 1;
    if (!whole_) return;
    for (Side& side : sides_) tcp::run_whole_machine(side.end.cb);
  }

  void run() {
    for (int i = 0; i < 400 && !input_.empty() && !is_over_; ++i) {
      step();
      check();
    }
    if (!is_over_) arrive_in_the_end();
  }

 private:
  // ---- The beginning

  static tcp::MinTcp negotiated(fuzz::Input& input) {
    tcp::MinTcp out = tcp::test::idle_state();
    out.options = static_cast<std::uint16_t>(input.below(32));
    out.snd_wscale = out.rcv_wscale = static_cast<std::uint8_t>(input.below(8));
    return out;
  }

  tcp::MinTcp state(std::size_t which) {
    tcp::MinTcp out = common_;
    out.snd_una = out.snd_nxt = out.write_seq = seq_[which];
    out.rcv_nxt = out.rcv_wup = out.copied_seq = out.snd_wl1 = seq_[1 - which];
    out.snd_wnd = out.max_window = out.rcv_wnd = std::min(capacity_, 65535U);
    out.mss = out.mss_clamp = out.advmss = static_cast<std::uint16_t>(536 + input_.below(256) * 4);
    out.ts_val = input_.below(2) == 0 ? 0U - input_.below(256) : input_.take<std::uint32_t>();
    out.flags = static_cast<std::uint16_t>(input_.below(8));
    constexpr std::array<std::string_view, 4> kControls = {"cubic", "reno", "bbr", "dctcp"};
    const std::string_view control = kControls[input_.below(4)];
    std::copy(control.begin(), control.end(), out.congestion.begin());
    out.keepalive_idle_s = 1 + input_.below(10);
    out.keepalive_interval_s = 1;
    out.keepalive_probes = 3;
    out.user_timeout_ms = input_.below(4) == 0 ? 5000 : 0;
    return out;
  }

  // ---- Operations

  void step() {
    const std::uint32_t what = input_.take<std::uint8_t>();
    self_ = what >> 7;
    switch (what % 16) {
      case 0:
      case 1:
        arrive(0);
        break;
      case 2:
        for (std::uint32_t i = input_.below(16); i > 0; --i) arrive(0);
        break;
      case 3:
        network();
        break;
      case 4:
      case 5:
        transmit(1 + input_.below(40));
        break;
      case 6:
      case 7:
        write();
        break;
      case 8:
        side().end.read(input_.take<std::uint16_t>(), now_);
        break;
      case 9:
      case 10:
        time_passes();
        break;
      case 11:
        move();
        break;
      case 12:
        close();
        break;
      case 13:
        settings();
        break;
      case 14:
        forge();
        break;
      default:
        path();
        break;
    }
  }

  Side& side() { return sides_[self_]; }
  Side& other() { return sides_[1 - self_]; }

  // The segment with this number on its way to `self_`.
  void arrive(std::size_t index) {
    Side& to = side();
    if (index >= to.arriving.size()) return;
    const InFlight packet = std::move(to.arriving[index]);
    to.arriving.erase(to.arriving.begin() + static_cast<std::ptrdiff_t>(index));
    if (packet.size() <= to.largest_payload && now_ - packet.sent <= kLongestLife) receive(packet);
  }

  tcp::Arrival receive(const InFlight& packet) {
    Side& to = side();
    if (to.is_gone) return tcp::Arrival::kAccepted;
    const tcp::Arrival verdict = to.end.receive(packet.segment, packet.payload, now_);
    ASSERT(verdict != tcp::Arrival::kReset || whole_);
    ASSERT(!tcp::to_software(verdict) || !whole_);
    if (verdict == tcp::Arrival::kReset) {
      to.is_gone = true;
      is_broken_ = true;
    }
    if (tcp::tcp_state(to.end.cb) == tcp::TcpState::kClosed) to.is_gone = true;
    return verdict;
  }

  void transmit(std::uint32_t most) {
    Side& from = side();
    if (from.is_gone) return;
    tcp::SegmentPlan plan;
    for (std::uint32_t i = 0; i < most && other().arriving.size() < kMostInFlight; ++i) {
      if (!tcp::poll_transmit(from.end.cb, from.end, now_, plan)) return;
      check_plan(from, plan);
      put(plan);
    }
  }

  void put(const tcp::SegmentPlan& plan) {
    const bool has_data = plan.payload_bytes > 0;
    other().arriving.push_back({plan.segment, has_data ? side().end.payload_of(plan) : std::vector<std::byte>{}, now_});
  }

  void write() {
    Side& of = side();
    const std::uint32_t bytes = 1 + input_.take<std::uint16_t>() % 6000;
    if (of.is_closed || of.is_gone || of.end.written + bytes > kMostWritten) return;
    of.end.write(bytes, now_, (bytes & 1) != 0);
    if (bytes % 8 == 0) tcp::end_record(of.end.cb);
  }

  void time_passes() {
    const auto unit = input_.below(4) == 0 ? std::chrono::microseconds(4000) : std::chrono::microseconds(10);
    now_ += unit * input_.take<std::uint16_t>();
    for (self_ = 0; self_ < 2; ++self_) timers();
    self_ = 0;
  }

  void timers() {
    Side& of = side();
    if (of.is_gone) return;
    if (tcp::on_timer(of.end.cb, of.end, now_) == tcp::TimerVerdict::kToSoftware) has_given_up_ = true;
    ASSERT(tcp::next_deadline(of.end.cb, now_) > now_ - std::chrono::milliseconds(1));
    if (has_given_up_ && whole_) is_over_ = true;  // its holder would reset it
  }

  // Another stack takes over, and goes on with what this one has told it. The one before may still send some of what
  // is queued (kernel-facts.md, R16).
  void move() {
    Side& of = side();
    if (std::exchange(of.other_stack_sends, false)) {
      tcp::other_stack_silent(of.end.cb, of.other_stack_nxt, now_);
      return;
    }
    if (of.is_gone || of.is_closed || tcp::tcp_state(of.end.cb) != tcp::TcpState::kEstablished) return;
    tcp::MinTcp state = common_;
    tcp::extract(of.end.cb, now_, state);
    state.ts_recent = 0;  // as Linux, which does not tell it: with every move it would seem to be new
    const bool sends_on = !whole_ && input_.below(4) == 0;
    if (sends_on) transmit(input_.below(8));
    of.other_stack_nxt = of.end.cb.snd_nxt;
    ASSERT(tcp::install(of.end.cb, state, now_).has_value());
    of.edge = tcp::window_right_edge(of.end.cb);
    if (whole_) tcp::run_whole_machine(of.end.cb);
    if (!sends_on) return;
    of.other_stack_sends = true;
    tcp::other_stack_may_send(of.end.cb);
  }

  void close() {
    Side& of = side();
    if (!whole_ || of.is_gone) return;
    if (input_.below(8) == 0) {
      other().arriving.push_back({tcp::reset_of(of.end.cb, of.end, now_), {}, now_});
      of.is_gone = is_broken_ = true;
    } else if (!std::exchange(of.is_closed, true)) {
      tcp::on_close(of.end.cb);
    }
  }

  void settings() {
    tcp::ControlBlock& cb = side().end.cb;
    switch (input_.below(9)) {
      case 0:
        tcp::set_flags(cb, static_cast<std::uint16_t>(input_.below(8)), now_);
        break;
      case 1:
        tcp::set_congestion(cb, static_cast<tcp::CongestionKind>(input_.below(4)), now_);
        break;
      case 2:
        tcp::set_quick_ack(cb, input_.below(2) != 0);
        break;
      case 3:
        tcp::set_draining(cb, input_.below(2) != 0, now_);
        break;
      case 4:
        tcp::set_keepalive(cb, 1 + input_.below(20), 1, 1 + input_.below(3), now_);
        break;
      case 5:
        tcp::set_user_timeout(cb, input_.below(4) * 3000);
        break;
      case 6:
        tcp::set_smallest_burst(cb, static_cast<std::uint8_t>(1 + input_.below(8)));
        break;
      case 7:
        side().end.deliver_limit = input_.below(2) == 0 ? ~0U : input_.below(256) * 8;
        break;
      default:
        tcp::acknowledge_now(cb);
        break;
    }
  }

  // What the network does to a segment that is on its way to `self_`.
  void network() {
    auto& way = side().arriving;
    if (way.empty()) return;
    const auto at = input_.below(kMostInFlight) % way.size();
    switch (input_.below(7)) {
      case 0:
      case 1:
        way.erase(way.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 2:
        way.push_back(way[at]);
        break;
      case 3:
        arrive(at);
        break;
      case 4:
        cut(way, at);
        break;
      case 5:
        join(way, at);
        break;
      default:
        if (way[at].segment.ecn != wire::Ecn::kNotEct) way[at].segment.ecn = wire::Ecn::kCe;
        break;
    }
  }

  // What carries the first part has no FIN: that stands behind the rest, which is lost or comes by itself.
  void cut(std::deque<InFlight>& way, std::size_t at) {
    InFlight& head = way[at];
    if (head.payload.empty()) return;
    const std::uint32_t first = input_.take<std::uint16_t>() % head.size();
    InFlight rest = head;
    rest.payload.erase(rest.payload.begin(), rest.payload.begin() + first);
    rest.segment.seq += first;
    head.payload.resize(first);
    head.segment.flags = static_cast<std::uint8_t>(head.segment.flags & ~(wire::kFin | wire::kPsh));
    if (input_.below(2) == 0) way.insert(way.begin() + static_cast<std::ptrdiff_t>(at) + 1, std::move(rest));
  }

  // As GRO makes it.
  static void join(std::deque<InFlight>& way, std::size_t at) {
    if (at + 1 >= way.size()) return;
    InFlight& head = way[at];
    const InFlight& next = way[at + 1];
    const bool follows =
        !head.payload.empty() && !next.payload.empty() && next.segment.seq == head.segment.seq + head.size();
    const bool alike = next.segment.ack == head.segment.ack && next.segment.window == head.segment.window &&
                       next.segment.options == head.segment.options && next.segment.ecn == head.segment.ecn &&
                       head.segment.flags == wire::kAck;
    if (!follows || !alike || head.size() + next.size() > 60'000) return;
    head.segment.flags = next.segment.flags;
    head.payload.insert(head.payload.end(), next.payload.begin(), next.payload.end());
    way.erase(way.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }

  // The way from `self_` to the other carries no more than so much, and a router tells, or does not.
  void path() {
    const auto mss = static_cast<std::uint16_t>(200 + input_.below(256) * 6);
    tcp::ControlBlock& cb = side().end.cb;
    switch (input_.below(5)) {
      case 0:
        other().largest_payload = mss;
        break;
      case 1:
        other().largest_payload = UINT32_MAX;
        break;
      case 2:
        (void)tcp::on_packet_too_big(cb, cb.snd_una, mss, now_);
        break;
      case 3:
        tcp::set_path_limit(cb, mss);
        break;
      default:
        tcp::probe_path(cb, now_);
        break;
    }
  }

  // Near what would be right. Of what is turned away nothing remains but an ACK.
  void forge() {
    const tcp::ControlBlock& cb = side().end.cb;
    InFlight packet;
    wire::Segment& in = packet.segment;
    in.seq = input_.below(4) == 0 ? cb.rcv_nxt : cb.rcv_nxt + static_cast<std::uint32_t>(input_.take<std::int32_t>());
    in.ack = input_.below(4) == 0 ? cb.snd_nxt : cb.snd_una + static_cast<std::uint32_t>(input_.take<std::int32_t>());
    in.window = input_.take<std::uint16_t>();
    in.flags = static_cast<std::uint8_t>(wire::kAck ^ (input_.below(4) == 0 ? input_.take<std::uint8_t>() : 0U));
    in.options.has_timestamps = (common_.options & tcp::kOptTimestamps) != 0 && input_.below(4) != 0;
    in.options.ts_val = cb.ts_recent + input_.take<std::uint32_t>();
    in.options.ts_ecr = input_.take<std::uint32_t>();
    in.options.sack_count = static_cast<std::uint8_t>(input_.below(wire::kMaxSackBlocks + 1));
    for (std::size_t i = 0; i < in.options.sack_count; ++i) {
      in.options.sack[i].left = cb.snd_una + input_.take<std::uint16_t>();
      in.options.sack[i].right = in.options.sack[i].left + input_.take<std::uint16_t>();
    }
    packet.payload.resize(input_.below(8) * 200);
    const tcp::Arrival verdict = receive(packet);
    const bool is_taken = verdict == tcp::Arrival::kAccepted || verdict == tcp::Arrival::kDroppedNoMemory;
    is_broken_ = is_broken_ || is_taken;
  }

  // ---- What must hold

  void check() {
    for (std::size_t i = 0; i < 2; ++i) {
      Side& of = sides_[i];
      const char* const wrong = tcp::broken_invariant(of.end.cb);
      ASSERT(wrong == nullptr);
      // The right edge that we offered never moves left (RFC 9293 3.8.6.2).
      const Seq edge = tcp::window_right_edge(of.end.cb);
      ASSERT(edge >= of.edge);
      of.edge = edge;
      if (is_broken_) continue;
      ASSERT(of.end.wrong_bytes == 0);
      const Side& from = sides_[1 - i];
      ASSERT(of.end.received <= from.end.written);
      if (of.end.cb.has(tcp::kFinReceived)) ASSERT(from.is_closed && of.end.received == from.end.written);
    }
  }

  void check_plan(Side& from, const tcp::SegmentPlan& plan) {
    const tcp::ControlBlock& cb = from.end.cb;
    const Seq edge = plan.segment.ack + (std::uint32_t{plan.segment.window} << cb.rcv_wscale);
    from.offered = max(from.offered, edge);
    if (plan.payload_bytes == 0) return;
    const Seq end = plan.segment.seq + plan.payload_bytes;
    ASSERT(plan.segment.seq >= cb.snd_una && end <= tcp::data_end(cb));
    ASSERT(plan.payload_bytes <= most_in_a_segment(cb));
    if (!is_broken_) ASSERT(end <= other().offered + (1U << cb.snd_wscale));
  }

  // A probe is larger than other segments, but no larger than the path may carry (RFC 4821 7.3).
  static std::uint32_t most_in_a_segment(const tcp::ControlBlock& cb) {
    return cb.cold == nullptr ? cb.mss : std::max(cb.mss, cb.cold->path_mtu.probe);
  }

  // ---- The end

  [[nodiscard]] bool has_all(std::size_t which) const {
    const Side& from = sides_[which];
    const Side& to = sides_[1 - which];
    return to.end.received == from.end.written && (from.is_gone || from.end.cb.snd_una == from.end.cb.write_seq);
  }

  // An end that was near to giving up may still do so.
  void make_perfect() {
    for (self_ = 0; self_ < 2; ++self_) {
      Side& of = side();
      may_give_up_ = may_give_up_ || has_given_up_ || of.end.cb.retries > 2 || of.end.cb.probes_out > 0;
      of.largest_payload = UINT32_MAX;
      of.end.deliver_limit = ~0U;
      if (std::exchange(of.other_stack_sends, false)) tcp::other_stack_silent(of.end.cb, of.other_stack_nxt, now_);
      tcp::set_draining(of.end.cb, false, now_);
      tcp::set_flags(of.end.cb, 0, now_);
      tcp::set_user_timeout(of.end.cb, 0);
    }
  }

  // Everything on its way arrives, in its order.
  void arrive_all() {
    for (self_ = 0; self_ < 2; ++self_)
      for (std::size_t left = side().arriving.size(); left > 0; --left) arrive(0);
  }

  void work() {
    for (self_ = 0; self_ < 2; ++self_) {
      timers();
      if (!side().is_gone) side().end.read_all(now_);
      transmit(kMostInFlight);
    }
  }

  [[nodiscard]] Time next_event() const {
    Time next = kNever;
    for (const Side& of : sides_) {
      if (!of.arriving.empty()) return now_ + kOneWay;
      if (!of.is_gone) next = std::min(next, tcp::next_deadline(of.end.cb, now_));
    }
    return next;
  }

  void tell() const {
    for (const Side& of : sides_) {
      const tcp::ControlBlock& cb = of.end.cb;
      std::fprintf(
          stderr, "wrote %llu, received %llu, una %u nxt %u write %u wnd %u, state %d, timer %d, recovery %d\n",
          static_cast<unsigned long long>(of.end.written), static_cast<unsigned long long>(of.end.received),
          cb.snd_una.raw(), cb.snd_nxt.raw(), cb.write_seq.raw(), cb.snd_wnd, static_cast<int>(tcp::tcp_state(cb)),
          static_cast<int>(cb.sender_timer), static_cast<int>(cb.recovery));
    }
  }

  // An end that was reset or has given up, or believes what was forged, need not come to it.
  void arrive_in_the_end() {
    make_perfect();
    const Time limit = now_ + kPatience;
    for (;;) {
      work();
      check();
      ASSERT(!has_given_up_ || may_give_up_ || is_broken_);
      if (is_broken_ || has_given_up_ || (has_all(0) && has_all(1))) return;
      const Time next = next_event();
      if (next >= limit) tell();
      ASSERT(next < limit);  // kNever: nothing more would happen
      now_ = std::max(now_, next);
      arrive_all();
    }
  }

  fuzz::Input& input_;
  bool whole_;
  tcp::MinTcp common_;
  std::uint32_t capacity_;
  std::array<std::uint32_t, 2> seq_;
  Time now_ = Time(std::chrono::hours(1));
  std::array<Side, 2> sides_;
  std::size_t self_ = 0;
  bool is_broken_ = false;  // reset, or a forged segment was accepted
  bool has_given_up_ = false;
  bool may_give_up_ = false;  // although the network is perfect
  bool is_over_ = false;
};

}  // namespace
}  // namespace twinstack

// The support is the tests': what it expects is asserted here.
extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  GTEST_FLAG_SET(throw_on_failure, true);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  twinstack::fuzz::Input input(data, size);
  twinstack::Pair(input).run();
  return 0;
}
