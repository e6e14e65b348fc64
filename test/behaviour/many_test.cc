// B19, B21, B22: many moves of one connection, many connections at once, and the congestion state on a round trip.
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "behaviour/behaviour_fixture.h"
#include "driver/view_json.h"

namespace twinstack::testing {
namespace {

using ipc::Owner;

// What `ls` says each stack has carried.
struct Carried {
  std::uint64_t kernel_sent = 0;
  std::uint64_t kernel_received = 0;
  std::uint64_t engine_sent = 0;
  std::uint64_t engine_received = 0;

  explicit Carried(const driver::Json& line)
      : kernel_sent(line["kernel_bytes_sent"]),
        kernel_received(line["kernel_bytes_received"]),
        engine_sent(line["engine_bytes_sent"]),
        engine_received(line["engine_bytes_received"]) {}
  [[nodiscard]] bool adds_up_to(const Talk& talk) const {
    return kernel_sent + engine_sent == talk.to_peer_sent && kernel_received + engine_received == talk.to_served_sent;
  }
};

TEST_F(Behaviour, B19_ThousandsOfMovesUnderTraffic) {
  constexpr std::uint64_t kRoundTrips = 1050;
  const auto talk = open();
  const std::string filter = sk(*talk);
  for (std::uint64_t round = 0; round < kRoundTrips && !HasFailure(); ++round) {
    const auto move = [&](const char* order, Owner owner) {
      EXPECT_TRUE(eventually(
          [&] {
            if (talk->served->owner() != owner) service_->ask(order, filter);
            return talk->served->owner() == owner;
          },
          [&] { talk->step(2000); }, std::chrono::seconds(10)));
      for (int i = 0; i < 3; ++i) talk->step(2000);
    };
    move("offload", Owner::kEngine);
    EXPECT_NE(talk->served->slot().hw_conn_id.load(), 0U);
    move("upload", Owner::kKernel);
    EXPECT_EQ(talk->served->slot().hw_conn_id.load(), 0U);
  }
  talk->settle();
  const auto seen = line(*talk);
  EXPECT_EQ(seen["offloads"], kRoundTrips);
  EXPECT_EQ(seen["uploads"], kRoundTrips);
  EXPECT_EQ(seen["hw"], "0");
  EXPECT_TRUE(eventually([&] { return Carried(line(*talk)).adds_up_to(*talk); })) << line(*talk).dump();
  EXPECT_EQ(steered_flows(), 0U);
  EXPECT_EQ(service_->counter("broken_streams"), 0U);
  EXPECT_GT(talk->to_served_read, kRoundTrips * 2000);
  EXPECT_GT(talk->to_peer_read, kRoundTrips * 2000);
  const ipc::ConnSlot& slot = talk->served->slot();
  EXPECT_EQ(slot.rx_posted_bytes.load(), slot.rx_read_bytes.load());
  EXPECT_EQ(slot.tx_submitted_bytes.load(), slot.tx_acked_bytes.load());
  expect_no_reset();
}

// The last bytes may be read by the peer before its ACK is here.
TEST_F(Behaviour, B19_TheBytesOfTheStacksAddUpToTheStream) {
  for (const Opening opening : {Opening::kPassive, Opening::kActive}) {
    const auto talk = open(false, opening);
    const auto adds_up = [&] { return Carried(line(*talk)).adds_up_to(*talk); };
    std::uint64_t in_kernel = 0;
    std::uint64_t in_engine = 0;
    for (int round = 0; round < 3; ++round) {
      talk->exchange(100'000);
      in_kernel += 100'000;
      EXPECT_TRUE(eventually(adds_up)) << line(*talk).dump();
      EXPECT_EQ(Carried(line(*talk)).kernel_sent, in_kernel);
      EXPECT_EQ(Carried(line(*talk)).kernel_received, in_kernel);
      to_engine(*talk);
      EXPECT_TRUE(adds_up()) << "before it is parked: " << line(*talk).dump();
      talk->exchange(70'000);
      in_engine += 70'000;
      EXPECT_TRUE(eventually(adds_up)) << line(*talk).dump();
      EXPECT_EQ(Carried(line(*talk)).engine_sent, in_engine);
      EXPECT_EQ(Carried(line(*talk)).engine_received, in_engine);
      to_kernel(*talk);
      EXPECT_TRUE(adds_up()) << line(*talk).dump();
    }
    for (int round = 0; round < 20; ++round) {
      to_engine(*talk, true);
      to_kernel(*talk, true);
    }
    talk->settle();
    EXPECT_TRUE(eventually(adds_up)) << line(*talk).dump();
    ASSERT_EQ(::shutdown(talk->peer.get(), SHUT_WR), 0);
    EXPECT_TRUE(eventually([&] { return line(*talk)["state"] == "CLOSE-WAIT"; })) << line(*talk).dump();
    EXPECT_TRUE(adds_up()) << "a FIN is no byte: " << line(*talk).dump();
  }
}

TEST_F(Behaviour, B21_HundredsMoveAtOnce) {
  constexpr std::size_t kCount = 300;
  std::vector<std::unique_ptr<Talk>> talks;
  for (std::size_t i = 0; i < kCount; ++i) talks.push_back(open(i % 2 == 1));
  for (const auto& talk : talks) talk->step(1500);
  const auto all_are = [&](Owner owner) {
    return std::all_of(talks.begin(), talks.end(), [&](const auto& talk) { return talk->served->owner() == owner; });
  };
  const auto step = [&] {
    for (const auto& talk : talks) talk->step(500);
  };
  for (int round = 0; round < 2; ++round) {
    auto reply = service_->ask("offload", "all");
    EXPECT_EQ(reply["matched"], kCount);
    // One order, but for connections with something in the way just then.
    EXPECT_GT(reply["moved"], kCount - 30) << reply.dump();
    EXPECT_TRUE(eventually(
        [&] {
          if (!all_are(Owner::kEngine)) service_->ask("offload", "all");
          return all_are(Owner::kEngine);
        },
        step));
    EXPECT_EQ(service_->ask("stats")["engine_connections"], kCount);
    step();
    reply = service_->ask("upload", "all");
    EXPECT_EQ(reply["moved"], kCount) << reply.dump();
    EXPECT_TRUE(eventually([&] { return all_are(Owner::kKernel); }, step));
    EXPECT_EQ(service_->ask("stats")["engine_connections"], 0);
  }
  for (const auto& talk : talks) talk->settle();
  for (const auto& talk : talks) {
    EXPECT_GT(talk->to_served_read, 1500U);
    EXPECT_EQ(talk->served->slot().hw_conn_id.load(), 0U);
  }
  EXPECT_EQ(steered_flows(), 0U);
  expect_no_reset();
}

class SeveralQueues : public Behaviour {
 protected:
  // Generic XDP takes a veth's queue number for one too small, so of two queues only the first would be seen.
  [[nodiscard]] NetnsOptions netns() const override { return {.pairs = 1, .queues = 4, .mtu_bytes = 1500}; }
  void peer_sends_by_one_queue() { EXPECT_EQ(shell(Side::kA, "ethtool -L ts-a0 tx 1"), ""); }
};

// One lane for each queue: a connection is given to the lane that its packets come to. Those that come to another one
// reach it all the same, without the kernel.
TEST_F(SeveralQueues, ConnectionsAreServedByTheLaneOfTheirQueue) {
  ASSERT_EQ(service_->ask("stats")["interfaces"][0]["queues"], 4);
  std::vector<std::unique_ptr<Talk>> talks;
  for (int i = 0; i < 16; ++i) talks.push_back(open(i % 2 == 1));
  for (const auto& talk : talks) talk->exchange(20'000);
  std::set<std::uint32_t> lanes;
  for (const auto& talk : talks) {
    to_engine(*talk);
    lanes.insert(hardware(*talk).lane);
    talk->exchange(100'000);
  }
  EXPECT_GT(lanes.size(), 1U) << "all flows hashed to one queue: not likely among sixteen";
  EXPECT_EQ(service_->counter("stray_frames"), 0U);
  // Known still, or again, after a stay in the engine in which no packet came to the kernel.
  for (const auto& talk : talks) {
    const std::uint32_t lane = hardware(*talk).lane;
    to_kernel(*talk, true);
    talk->settle();
    to_engine(*talk);
    EXPECT_EQ(hardware(*talk).lane, lane);
  }
  peer_sends_by_one_queue();
  for (const auto& talk : talks) talk->exchange(100'000);
  EXPECT_GT(service_->counter("stray_frames"), 0U) << "no packet came by another queue: this test has shown nothing";
  EXPECT_EQ(service_->counter("late_packets"), 0U) << "packets of the engine's connections went to the kernel";
  // The next move follows them.
  for (const auto& talk : talks) to_kernel(*talk, true);
  for (const auto& talk : talks) talk->settle();
  for (const auto& talk : talks) talk->exchange(1000);
  lanes.clear();
  for (const auto& talk : talks) {
    to_engine(*talk);
    lanes.insert(hardware(*talk).lane);
    talk->exchange(100'000);
  }
  EXPECT_EQ(lanes.size(), 1U);
  EXPECT_EQ(service_->counter("broken_streams"), 0U);
  expect_no_reset();
}

TEST_F(Behaviour, AnIdleConnectionCostsThePolicyLittle) {
  constexpr std::size_t kCount = 40;
  start_service(driver::Policy::kAuto);
  std::vector<std::unique_ptr<Talk>> talks;
  for (std::size_t i = 0; i < kCount; ++i) talks.push_back(open());
  ::poll(nullptr, 0, 3200);  // the looks have become seldom
  const std::uint64_t before = service_->counter("policy_looks");
  EXPECT_GE(before, kCount);
  ::poll(nullptr, 0, 2000);
  EXPECT_LE(service_->counter("policy_looks") - before, kCount) << "of 20 times as many without a break";
  // One that becomes busy is seen, and from then on it is looked at often until it has carried enough.
  const auto began = std::chrono::steady_clock::now();
  talks[0]->exchange(30'000);
  talks[0]->expect_owner(Owner::kEngine);
  EXPECT_LE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(3500));
  // None is left that could be moved: no look, and none later.
  for (std::size_t i = 1; i < kCount; ++i) talks[i]->exchange(30'000);
  for (const auto& talk : talks) talk->expect_owner(Owner::kEngine);
  const std::uint64_t last = service_->counter("policy_looks");
  ::poll(nullptr, 0, 300);
  EXPECT_EQ(service_->counter("policy_looks"), last);
}

// ssthresh is infinite until a loss: the link is down for a while, so that there is something to carry.
TEST_F(Behaviour, B22_CongestionStateSurvivesARoundTrip) {
  auto sockets = connect_pair(*pair_, false);
  ASSERT_TRUE(sockets.has_value());
  // The machine's default may be one without a threshold (BBR).
  ASSERT_EQ(::setsockopt(sockets->served.get(), IPPROTO_TCP, TCP_CONGESTION, "cubic", 5), 0);
  const auto talk = adopt(std::move(*sockets));
  talk->exchange(300000);
  ASSERT_TRUE(pair_->run_ok(Side::kA, "ip link set ts-a0 down").has_value());
  ASSERT_GT(talk->served_sends(60000), 0U);
  EXPECT_TRUE(eventually([&] { return info_of(talk->served->fd()).tcpi_snd_ssthresh < 10000; }));
  ASSERT_TRUE(pair_->run_ok(Side::kA, "ip link set ts-a0 up").has_value());
  talk->settle();
  for (int i = 0; i < 30; ++i) talk->exchange(30000);
  // Nothing is under way: the numbers stand still.
  EXPECT_TRUE(eventually([&] { return info_of(talk->served->fd()).tcpi_unacked == 0; }));
  const tcp_info before = info_of(talk->served->fd());
  ASSERT_LT(before.tcpi_snd_ssthresh, 10000U);
  to_engine(*talk);
  const tcp::MinTcp in_engine = hardware(*talk).min;
  EXPECT_EQ(in_engine.cwnd_segments, before.tcpi_snd_cwnd);
  EXPECT_EQ(in_engine.ssthresh_segments, before.tcpi_snd_ssthresh);
  EXPECT_EQ(in_engine.srtt_us, before.tcpi_rtt);
  EXPECT_EQ(in_engine.rttvar_us, before.tcpi_rttvar);
  for (int i = 0; i < 20; ++i) talk->exchange(30000);
  ipc::HwConnState last = hardware(*talk);
  EXPECT_TRUE(eventually([&] { return last.min.snd_una == last.min.write_seq; }, [&] { last = hardware(*talk); }));
  EXPECT_GT(last.min.cwnd_segments, 1U);
  to_kernel(*talk);
  const tcp_info after = info_of(talk->served->fd());
  EXPECT_EQ(after.tcpi_snd_cwnd, last.min.cwnd_segments);
  EXPECT_EQ(after.tcpi_snd_ssthresh, last.min.ssthresh_segments);
  EXPECT_EQ(service_->counter("congestion_not_restored"), 0U);
  // Linux takes no RTT from us (kernel-facts R10), but has measured one packet, in milliseconds.
  EXPECT_GE(after.tcpi_rtt, last.min.srtt_us);
  EXPECT_LE(after.tcpi_rtt, last.min.srtt_us + 3000);
  EXPECT_LT(after.tcpi_rto, 1'000'000U) << "3 s when it knows nothing";
  EXPECT_EQ(after.tcpi_unacked, 0U);
}

}  // namespace
}  // namespace twinstack::testing
