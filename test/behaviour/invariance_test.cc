// A move as such, over the real kernel: a script of steps, and at each gap between two of them, in a connection of its
// own, a round trip kernel -> engine -> kernel. Neither the stream changes (Talk checks it) nor what a program can hold
// us to: MSS, options, ECN, windows, estimates and counters of TCP_INFO, on both ends, but for what docs/limits.md says
// that Linux cannot take back.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "behaviour/behaviour_fixture.h"
#include "ipc/layout.h"
#include "tcp/info_counters.h"

namespace twinstack::testing {
namespace {

struct Setting {
  const char* name;
  bool v6;
  bool timestamps;
  bool ecn;
  const char* congestion;
};

void PrintTo(const Setting& setting, std::ostream* out) { *out << setting.name; }

struct Step {
  const char* name;
  std::function<void(Talk&)> take;
};

void set_option(int fd, int level, int name, int value) {
  ASSERT_EQ(::setsockopt(fd, level, name, &value, sizeof(value)), 0) << name;
}

std::vector<Step> script() {
  return {{"a small write", [](Talk& talk) { talk.served_sends(100); }},
          {"its peer's answer", [](Talk& talk) { talk.peer_sends(300); }},
          {"both read", [](Talk& talk) { talk.settle(); }},
          {"a large write", [](Talk& talk) { talk.served_sends(200'000); }},
          {"unread bytes", [](Talk& talk) { talk.peer_sends(30'000); }},
          {"half of them read", [](Talk& talk) { talk.served_reads(15'000); }},
          {"traffic both ways", [](Talk& talk) { talk.exchange(50'000); }},
          {"no delay", [](Talk& talk) { set_option(talk.served->fd(), IPPROTO_TCP, TCP_NODELAY, 1); }},
          {"small writes",
           [](Talk& talk) {
             for (int i = 0; i < 5; ++i) talk.served_sends(10);
           }},
          {"keepalive", [](Talk& talk) { set_option(talk.served->fd(), SOL_SOCKET, SO_KEEPALIVE, 1); }},
          {"all read", [](Talk& talk) { talk.settle(); }},
          {"a last write", [](Talk& talk) { talk.served_sends(5000); }}};
}

// What the program is told: the kernel's answer, and what was counted in stays before.
tcp_info told(const Talk& talk) {
  // As the socket layer.
  EXPECT_TRUE(eventually([&] { return talk.served->slot().lesson_due.load() == 0; }));
  tcp_info info = info_of(talk.served->fd());
  tcp::InfoCounters sum = ipc::load_counters(talk.served->slot().base);
  sum += tcp::take_counters(info);
  tcp::put_counters(sum, info);
  return info;
}

// Nothing is under way any more, but for what an end does not read.
void wait_until_quiet(Talk& talk) {
  tcp_info before = told(talk);
  EXPECT_TRUE(eventually([&] {
    ::usleep(45'000);  // a delayed ACK is 40 ms
    const tcp_info now = told(talk);
    const bool quiet =
        now.tcpi_unacked == 0 && now.tcpi_segs_in == before.tcpi_segs_in && now.tcpi_segs_out == before.tcpi_segs_out;
    before = now;
    return quiet;
  }));
}

void expect_same_negotiation(const tcp_info& before, const tcp_info& after) {
  EXPECT_EQ(after.tcpi_state, before.tcpi_state);
  EXPECT_EQ(after.tcpi_options & ~TCPI_OPT_ECN_SEEN, before.tcpi_options & ~TCPI_OPT_ECN_SEEN)
      << "timestamps, SACK, window scaling, ECN";
  EXPECT_EQ(after.tcpi_snd_wscale, before.tcpi_snd_wscale);
  EXPECT_EQ(after.tcpi_rcv_wscale, before.tcpi_rcv_wscale);
  EXPECT_EQ(after.tcpi_pmtu, before.tcpi_pmtu);
  EXPECT_EQ(after.tcpi_snd_mss, before.tcpi_snd_mss);
}

// `bbr` begins anew: no threshold.
void expect_same_sender(const tcp_info& before, const tcp_info& after, bool keeps_threshold) {
  EXPECT_EQ(after.tcpi_ca_state, before.tcpi_ca_state);
  EXPECT_GE(after.tcpi_snd_wnd, before.tcpi_snd_wnd) << "the peer's window, which it may have opened meanwhile";
  EXPECT_EQ(after.tcpi_snd_cwnd, before.tcpi_snd_cwnd);
  if (keeps_threshold) {
    EXPECT_EQ(after.tcpi_snd_ssthresh, before.tcpi_snd_ssthresh);
  }
  EXPECT_EQ(after.tcpi_reordering, before.tcpi_reordering);
  EXPECT_EQ(after.tcpi_retransmits, 0U);
  EXPECT_EQ(after.tcpi_backoff, 0U);
  EXPECT_EQ(after.tcpi_probes, before.tcpi_probes);
  EXPECT_EQ(after.tcpi_notsent_bytes, before.tcpi_notsent_bytes);
  if ((before.tcpi_options & TCPI_OPT_TIMESTAMPS) == 0) return;  // then Linux takes no round trip from us
  EXPECT_GE(after.tcpi_rtt, before.tcpi_rtt);
  EXPECT_LE(after.tcpi_rtt, before.tcpi_rtt + 3000) << "measured in milliseconds";
  EXPECT_LT(after.tcpi_rto, 1'000'000U);
}

void expect_same_counters(const tcp_info& before, const tcp_info& after) {
  // At the very beginning the byte that teaches the round trip counts (kernel/repeated_ack.h).
  EXPECT_EQ(after.tcpi_bytes_acked,
            std::max<std::uint64_t>(before.tcpi_bytes_acked, after.tcpi_bytes_acked > 0 ? 1 : 0));
  EXPECT_EQ(after.tcpi_bytes_received, before.tcpi_bytes_received);
  EXPECT_EQ(after.tcpi_total_retrans, before.tcpi_total_retrans);
  EXPECT_EQ(after.tcpi_dsack_dups, before.tcpi_dsack_dups);
  EXPECT_EQ(after.tcpi_reord_seen, before.tcpi_reord_seen);
  EXPECT_EQ(after.tcpi_rcv_ooopack, before.tcpi_rcv_ooopack);
  EXPECT_GE(after.tcpi_segs_in, before.tcpi_segs_in);
  EXPECT_GE(after.tcpi_segs_out, before.tcpi_segs_out);
  EXPECT_LE(after.tcpi_segs_out, before.tcpi_segs_out + 4) << "a few ACKs tell the peer where the connection stands";
  EXPECT_EQ(after.tcpi_data_segs_out, before.tcpi_data_segs_out);
  EXPECT_EQ(after.tcpi_data_segs_in, before.tcpi_data_segs_in);
  EXPECT_EQ(after.tcpi_bytes_sent, before.tcpi_bytes_sent);
  EXPECT_EQ(after.tcpi_bytes_retrans, before.tcpi_bytes_retrans);
  EXPECT_EQ(after.tcpi_delivered_ce, before.tcpi_delivered_ce);
}

void expect_counters_go_on(const tcp::InfoCounters& before, const tcp::InfoCounters& after) {
  tcp::for_each_counter(before, after, [](const auto& was, const auto& is) { EXPECT_LE(was, is); });
}

// What a plain peer can see of it.
void expect_peer_saw_nothing(const tcp_info& before, const tcp_info& after) {
  EXPECT_EQ(after.tcpi_state, before.tcpi_state);
  EXPECT_EQ(after.tcpi_total_retrans, before.tcpi_total_retrans);
  EXPECT_EQ(after.tcpi_ca_state, before.tcpi_ca_state);
  EXPECT_EQ(after.tcpi_dsack_dups, before.tcpi_dsack_dups);
  EXPECT_EQ(after.tcpi_rcv_ooopack, before.tcpi_rcv_ooopack);
  EXPECT_EQ(after.tcpi_data_segs_in, before.tcpi_data_segs_in) << "a segment came twice";
  EXPECT_EQ(after.tcpi_snd_mss, before.tcpi_snd_mss);
  EXPECT_GE(after.tcpi_snd_wnd, before.tcpi_snd_wnd) << "a window that was offered was taken back";
}

class MoveInvariance : public Behaviour, public ::testing::WithParamInterface<Setting> {
 protected:
  void prepare() {
    const auto sysctl = [&](Side side, const std::string& name, const std::string& value) {
      shell(side, "sysctl -qw net.ipv4." + name + "=" + value);
    };
    for (const Side side : {Side::kA, Side::kB}) {
      sysctl(side, "tcp_timestamps", GetParam().timestamps ? "1" : "0");
      sysctl(side, "tcp_ecn", GetParam().ecn ? "1" : "2");
    }
  }

  void round_trip(Talk& talk) {
    wait_until_quiet(talk);
    const tcp_info before = told(talk);
    const tcp_info peer_before = info_of(talk.peer.get());
    to_engine(talk);
    to_kernel(talk);
    wait_until_quiet(talk);
    const tcp_info after = told(talk);
    expect_same_negotiation(before, after);
    expect_same_sender(before, after, std::string(GetParam().congestion) != "bbr");
    expect_same_counters(before, after);
    expect_peer_saw_nothing(peer_before, info_of(talk.peer.get()));
  }

  void hasty_round_trip(Talk& talk) {
    const tcp_info before = told(talk);
    to_engine(talk);
    tcp::InfoCounters in_engine = ipc::counters_of(hardware(talk));
    in_engine += ipc::load_counters(talk.served->slot().base);
    to_kernel(talk);
    const tcp_info after = told(talk);
    expect_same_negotiation(before, after);
    expect_counters_go_on(tcp::take_counters(before), in_engine);
    expect_counters_go_on(in_engine, tcp::take_counters(after));
  }

  // The whole script, once for each place in it.
  void at_each_gap(const std::function<void(Talk&)>& move) {
    prepare();
    const std::vector<Step> steps = script();
    for (std::size_t gap = 0; gap <= steps.size() && !HasFailure(); ++gap) {
      SCOPED_TRACE(gap == 0 ? std::string("before anything") : std::string("after: ") + steps[gap - 1].name);
      const auto talk = open(GetParam().v6);
      // By socket: a namespace may not have all of them for its default.
      const std::string congestion = GetParam().congestion;
      ASSERT_EQ(::setsockopt(talk->served->fd(), IPPROTO_TCP, TCP_CONGESTION, congestion.data(),
                             static_cast<socklen_t>(congestion.size())),
                0);
      for (std::size_t i = 0; i < gap; ++i) steps[i].take(*talk);
      move(*talk);
      for (std::size_t i = gap; i < steps.size(); ++i) steps[i].take(*talk);
      expect_well(*talk);
      ASSERT_TRUE(talk->served->close().has_value());
    }
  }

  void expect_well(Talk& talk) const {
    talk.settle();
    EXPECT_LT(told(talk).tcpi_rto, 1'000'000U) << "what Linux did not take back it has measured anew";
    int value = 0;
    socklen_t length = sizeof(value);
    ASSERT_EQ(::getsockopt(talk.served->fd(), IPPROTO_TCP, TCP_NODELAY, &value, &length), 0);
    EXPECT_EQ(value, 1);
    ASSERT_EQ(::getsockopt(talk.served->fd(), SOL_SOCKET, SO_KEEPALIVE, &value, &length), 0);
    EXPECT_EQ(value, 1);
    expect_no_reset();
  }
};

TEST_P(MoveInvariance, BetweenAnyTwoSteps) {
  at_each_gap([this](Talk& talk) { round_trip(talk); });
}

// As the last step has left it, with data of both ends on its way.
TEST_P(MoveInvariance, WithDataUnderWay) {
  at_each_gap([this](Talk& talk) { hasty_round_trip(talk); });
}

// DCTCP where the kernel has it.
std::vector<Setting> settings() {
  std::vector<Setting> all = {{"Cubic", false, true, false, "cubic"},
                              {"CubicV6", true, true, false, "cubic"},
                              {"NoTimestamps", false, false, false, "cubic"},
                              {"Ecn", false, true, true, "cubic"},
                              {"Reno", true, true, true, "reno"},
                              {"Bbr", false, true, false, "bbr"}};
  std::ifstream available("/proc/sys/net/ipv4/tcp_available_congestion_control");
  for (std::string name; available >> name;)
    if (name == "dctcp") all.push_back({"Dctcp", false, true, true, "dctcp"});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Settings, MoveInvariance, ::testing::ValuesIn(settings()),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace twinstack::testing
