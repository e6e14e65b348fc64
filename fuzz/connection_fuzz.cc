// One connection with a hostile peer (two honest ends: pair_fuzz.cc), typed operations from both sides: the program
// queues, ends records, reads and closes, the peer sends segments that may be anything, routers and the other stack
// tell of themselves, time passes, the connection drains and moves; in the engine's form and as the whole machine. The
// invariants of the control block hold after each.
#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "input.h"
#include "tcp/cold_state.h"
#include "tcp/connection.h"
#include "tcp/invariants.h"

namespace twinstack {
namespace {

constexpr std::uint32_t kBuffer = 100'000;
constexpr std::uint32_t kMaxQueued = 1U << 20;

class Buffers final : public tcp::Host {
 public:
  Buffers(tcp::Counters& counters, tcp::DeliveryRate& rate) : tcp::Host(counters, rate) {}
  std::uint32_t deliver(const Payload& payload) override {
    const std::uint32_t taken = std::min(payload.size(), limit);
    unread += taken;
    return taken;
  }
  std::uint32_t receive_space() override { return kBuffer - std::min(kBuffer, unread); }

  std::uint32_t unread = 0;
  std::uint32_t limit = kBuffer;
};

class Fuzzed {
 public:
  explicit Fuzzed(fuzz::Input& input) : input_(input) {
    tcp::MinTcp state;
    state.size_bytes = sizeof(state);
    state.snd_una = input_.take<std::uint32_t>();
    state.snd_nxt = state.snd_una + input_.below(256) * 100;
    state.write_seq = state.snd_nxt + input_.below(256) * 100;
    state.snd_wnd = state.max_window = input_.below(256) * 300;
    state.rcv_nxt = state.rcv_wup = input_.take<std::uint32_t>();
    state.rcv_wnd = input_.below(256) * 300;
    state.mss = static_cast<std::uint16_t>(88 + input_.below(256) * 8);
    state.options = static_cast<std::uint16_t>(input_.below(32));
    state.snd_wscale = static_cast<std::uint8_t>(input_.below(15));
    state.rcv_wscale = static_cast<std::uint8_t>(input_.below(15));
    state.rcv_wnd = std::min(state.rcv_wnd, 65535U << state.rcv_wscale);  // no header could have offered more
    state.flags = static_cast<std::uint16_t>(input_.below(8));
    constexpr std::array<std::string_view, 4> kControls = {"cubic", "reno", "bbr", "dctcp"};
    const std::string_view control = kControls[input_.below(4)];
    std::copy(control.begin(), control.end(), state.congestion.begin());
    state.cwnd_segments = input_.below(64);
    state.ssthresh_segments = input_.below(64);
    state.keepalive_idle_s = input_.below(10);
    state.keepalive_interval_s = 1;
    state.keepalive_probes = 3;
    state.user_timeout_ms = input_.below(2) * 5000;
    start_ = state;
    whole_ = input_.below(2) != 0;
    other_stack_sends_ = !whole_ && input_.below(4) == 0;
  }

  void run() {
    if (!tcp::install(cb_, start_, now_).has_value()) return;
    if (whole_) tcp::run_whole_machine(cb_);
    if (other_stack_sends_) tcp::other_stack_may_send(cb_);
    for (int i = 0; i < 400 && !input_.empty() && !has_ended(); ++i) {
      step();
      check();
    }
  }

 private:
  [[nodiscard]] bool has_ended() const {
    const tcp::TcpState state = tcp::tcp_state(cb_);
    return is_reset_ || state == tcp::TcpState::kTimeWait || state == tcp::TcpState::kClosed;
  }

  void step() {
    switch (input_.below(13)) {
      case 0:
      case 1:
      case 2:
        segment();
        break;
      case 3:
        transmit();
        break;
      case 4:
        queue();
        break;
      case 5:
        read();
        break;
      case 6:
        time_passes();
        break;
      case 7:
        tcp::set_draining(cb_, input_.below(2) != 0, now_);
        break;
      case 8:
        move();
        break;
      case 9:
        close();
        break;
      case 10:
        too_big();
        break;
      case 11:
        other_stack();
        break;
      default:
        settings();
        break;
    }
  }

  // Near what would be right, so that it gets past the first checks.
  void segment() {
    wire::Segment in;
    in.seq = cb_.rcv_nxt + static_cast<std::uint32_t>(input_.take<std::int16_t>());
    in.ack = cb_.snd_una + static_cast<std::uint32_t>(input_.take<std::int16_t>());
    if (input_.below(4) == 0) in.ack = cb_.snd_nxt;
    if (input_.below(4) == 0) in.seq = cb_.rcv_nxt;
    in.window = input_.take<std::uint16_t>();
    in.urgent = input_.take<std::uint8_t>();
    in.flags = static_cast<std::uint8_t>(wire::kAck ^ (input_.below(4) == 0 ? input_.take<std::uint8_t>() : 0U));
    in.ecn = static_cast<wire::Ecn>(input_.below(4));
    in.options.has_timestamps = (start_.options & tcp::kOptTimestamps) != 0 && input_.below(8) != 0;
    in.options.ts_val = ts_ += input_.below(3);
    in.options.ts_ecr = input_.take<std::uint8_t>();
    in.options.sack_count = static_cast<std::uint8_t>(input_.below(wire::kMaxSackBlocks + 1));
    for (std::size_t i = 0; i < in.options.sack_count; ++i) {
      in.options.sack[i].left = cb_.snd_una + static_cast<std::uint32_t>(input_.take<std::int16_t>());
      in.options.sack[i].right = in.options.sack[i].left + static_cast<std::uint32_t>(input_.take<std::int16_t>());
    }
    const std::uint32_t length = input_.below(4) == 0 ? input_.take<std::uint16_t>() : input_.below(200) * 8;
    const std::vector<std::byte> bytes(length);
    const ByteView part(bytes);
    Buffers host(counters_, delivery_rate_);
    host.unread = unread_;
    host.limit = input_.below(5) == 0 ? input_.below(2000) : kBuffer;
    is_reset_ = tcp::on_segment(cb_, in, Payload({&part, 1}, 0, length), host, now_) == tcp::Arrival::kReset;
    ASSERT(whole_ || !is_reset_);
    unread_ = host.unread;
  }

  void transmit() {
    Buffers host(counters_, delivery_rate_);
    host.unread = unread_;
    tcp::SegmentPlan plan;
    const std::uint32_t most = 1 + input_.below(40);
    for (std::uint32_t i = 0; i < most && tcp::poll_transmit(cb_, host, now_, plan); ++i) {
      if (plan.payload_bytes == 0) continue;
      ASSERT(plan.segment.seq >= cb_.snd_una && plan.segment.seq + plan.payload_bytes <= cb_.write_seq);
      ASSERT(plan.payload_bytes <= most_in_a_segment());
    }
  }

  // A probe is larger than other segments, but no larger than the path may carry (RFC 4821 7.3).
  [[nodiscard]] std::uint32_t most_in_a_segment() const {
    if (cb_.cold == nullptr) return cb_.mss;
    const tcp::PathMtu& path = cb_.cold->path_mtu;
    ASSERT(path.probe == 0 || path.probe <= path.high);
    return std::max(cb_.mss, path.probe);
  }

  void queue() {
    const std::uint32_t bytes = input_.take<std::uint16_t>();
    if (bytes == 0 || is_closed_ || bytes_between(cb_.snd_una, cb_.write_seq) + bytes > kMaxQueued) return;
    tcp::on_queued(cb_, bytes, (bytes & 1) != 0);
    if (input_.below(4) == 0) tcp::end_record(cb_);
  }

  void close() {
    if (!whole_ || is_closed_) return;
    tcp::on_close(cb_);
    is_closed_ = true;
  }

  void too_big() {
    const Seq quoted = cb_.snd_una + static_cast<std::uint32_t>(input_.take<std::int16_t>());
    const auto mss = static_cast<std::uint16_t>(48 + input_.below(256) * 8);
    if (input_.below(4) == 0)
      tcp::on_mtu_reduced(cb_, mss, now_);
    else if (tcp::on_packet_too_big(cb_, quoted, mss, now_))
      ASSERT(quoted >= cb_.snd_una && quoted < cb_.snd_nxt && cb_.mss <= mss);
  }

  void other_stack() {
    if (!std::exchange(other_stack_sends_, false)) return;
    const std::uint32_t unsent = bytes_between(cb_.snd_nxt, cb_.write_seq);
    tcp::other_stack_silent(cb_, cb_.snd_nxt + std::min(unsent, input_.take<std::uint16_t>() * 4U), now_);
  }

  void read() {
    unread_ -= std::min<std::uint32_t>(unread_, input_.take<std::uint16_t>());
    Buffers host(counters_, delivery_rate_);
    host.unread = unread_;
    tcp::on_read(cb_, host, now_);
    unread_ = host.unread;
  }

  void time_passes() {
    now_ += std::chrono::microseconds(input_.below(4) == 0 ? input_.take<std::uint32_t>() / 64
                                                           : input_.take<std::uint16_t>());
    Buffers host(counters_, delivery_rate_);
    host.unread = unread_;
    (void)tcp::on_timer(cb_, host, now_);
    ASSERT(tcp::next_deadline(cb_, now_) > now_ - std::chrono::milliseconds(1));
  }

  // Neither stack takes over what has begun to end, and the kernel's last word comes before its connection goes back.
  void move() {
    if (tcp::tcp_state(cb_) != tcp::TcpState::kEstablished || is_closed_ || other_stack_sends_) return;
    tcp::MinTcp state = start_;
    tcp::extract(cb_, now_, state);
    ASSERT(tcp::install(cb_, state, now_).has_value());
    if (whole_) tcp::run_whole_machine(cb_);
    start_ = state;
  }

  void settings() {
    tcp::set_flags(cb_, static_cast<std::uint16_t>(input_.below(8)), now_);
    change_path(static_cast<std::uint16_t>(88 + input_.below(256) * 8));
    if (input_.below(2) == 0) tcp::acknowledge_now(cb_);
  }

  void change_path(std::uint16_t mss) {
    switch (input_.below(4)) {
      case 0:
        (void)tcp::on_packet_too_big(cb_, cb_.snd_una, mss, now_);
        break;
      case 1:
        tcp::probe_path(cb_, now_);
        break;
      default:
        tcp::set_path_limit(cb_, mss);
    }
  }

  void check() {
    ASSERT(tcp::broken_invariant(cb_) == nullptr);
    // The right edge that we offered never moves left (RFC 9293 3.8.6.2).
    const Seq edge = cb_.rcv_wup + cb_.rcv_wnd;
    ASSERT(!has_edge_ || edge >= edge_);
    edge_ = edge;
    has_edge_ = true;
  }

  fuzz::Input& input_;
  tcp::MinTcp start_;
  tcp::ControlBlock cb_;
  tcp::Counters counters_;
  tcp::DeliveryRate delivery_rate_;
  Time now_ = Time(std::chrono::hours(1));
  std::uint32_t unread_ = 0;
  std::uint32_t ts_ = 1;
  Seq edge_;
  bool has_edge_ = false;
  bool whole_ = false;
  bool other_stack_sends_ = false;
  bool is_closed_ = false;
  bool is_reset_ = false;
};

}  // namespace
}  // namespace twinstack

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  twinstack::fuzz::Input input(data, size);
  twinstack::Fuzzed(input).run();
  return 0;
}
