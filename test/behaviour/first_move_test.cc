// The first live move, without the socket layer: one connection, both directions under load, moved again and again.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdio>
#include <vector>

#include "behaviour/link_pair.h"
#include "behaviour/raw_application.h"
#include "behaviour/service_process.h"

namespace twinstack::testing {
namespace {

using Clock = std::chrono::steady_clock;

class FirstMove : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (const auto why = NetnsPair::why_unavailable(); !why.empty()) GTEST_SKIP() << why;
    auto pair = NetnsPair::create();
    ASSERT_TRUE(pair.has_value()) << pair.error().message();
    pair_ = std::move(*pair);
    auto service = ServiceProcess::start(*pair_);
    ASSERT_TRUE(service.has_value()) << service.error().message();
    service_ = std::move(*service);
    auto application = RawApplication::connect(service_->socket_path());
    ASSERT_TRUE(application.has_value()) << application.error().message();
    application_ = std::move(*application);
    auto sockets = connect_pair(*pair_, GetParam());
    ASSERT_TRUE(sockets.has_value()) << sockets.error().message();
    peer_ = std::move(sockets->peer);
    auto served = application_->adopt(std::move(sockets->served));
    ASSERT_TRUE(served.has_value()) << served.error().message();
    served_ = std::move(*served);
  }

  void wait_owner(ipc::Owner owner) {
    const auto deadline = Clock::now() + std::chrono::seconds(5);
    while (served_->owner() != owner && Clock::now() < deadline) step();
    ASSERT_EQ(static_cast<int>(served_->owner()), static_cast<int>(owner));
  }

  // One round of traffic in both directions.
  void step() {
    std::vector<std::byte> buffer(65536);
    fill_stream(1, to_served_sent_, buffer);
    ssize_t n = ::send(peer_.get(), buffer.data(), 20000, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) to_served_sent_ += static_cast<std::uint64_t>(n);
    n = ::recv(peer_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0) {
      ASSERT_EQ(check_stream(2, to_peer_got_, std::span(buffer).first(static_cast<std::size_t>(n))), -1);
      to_peer_got_ += static_cast<std::uint64_t>(n);
    }
    const auto got = served_->receive(buffer);
    ASSERT_TRUE(got.has_value()) << got.error().message();
    if (*got) {
      ASSERT_NE(**got, 0U);
      ASSERT_EQ(check_stream(1, to_served_got_, std::span(buffer).first(**got)), -1);
      to_served_got_ += **got;
    }
    fill_stream(2, to_peer_sent_, buffer);
    const auto sent = served_->send(std::span(buffer).first(10000));
    ASSERT_TRUE(sent.has_value()) << sent.error().message();
    to_peer_sent_ += *sent;
    application_->drain();
  }

  std::unique_ptr<NetnsPair> pair_;
  std::unique_ptr<ServiceProcess> service_;
  std::unique_ptr<RawApplication> application_;
  std::unique_ptr<RawConnection> served_;
  UniqueFd peer_;
  std::uint64_t to_served_sent_ = 0;
  std::uint64_t to_served_got_ = 0;
  std::uint64_t to_peer_sent_ = 0;
  std::uint64_t to_peer_got_ = 0;
};

TEST_P(FirstMove, BackAndForthUnderLoad) {
  for (int i = 0; i < 50; ++i) step();
  const int rounds = 100;
  for (int round = 0; round < rounds && !HasFatalFailure(); ++round) {
    auto reply = service_->ask("offload", "all");
    for (int i = 0; i < 20 && reply["moved"] != 1 && reply["already"] != 1; ++i) {
      step();
      reply = service_->ask("offload", "all");
    }
    ASSERT_TRUE(reply["moved"] == 1 || reply["already"] == 1) << reply.dump() << " round " << round;
    wait_owner(ipc::Owner::kEngine);
    for (int i = 0; i < 20; ++i) step();
    service_->ask("upload", "all");
    wait_owner(ipc::Owner::kKernel);
    for (int i = 0; i < 20; ++i) step();
  }
  const auto stats = service_->ask("stats");
  std::printf("%s\n", stats.dump(1).c_str());
  std::printf("bytes %lu %lu, peer RST %lu RTO %lu retrans %lu\n", to_served_got_, to_peer_got_,
              net_counter(*pair_, Side::kA, "TcpEstabResets"), net_counter(*pair_, Side::kA, "TcpExtTCPTimeouts"),
              net_counter(*pair_, Side::kA, "TcpRetransSegs"));
  for (const Side side : {Side::kA, Side::kB}) {
    const auto counters = pair_->run(side, "nstat -az | grep -E 'Tcp|IpExt' | grep -v ' 0  '");
    if (counters) std::printf("%s\n", counters->text.c_str());
  }
  EXPECT_GT(to_served_got_, 1000000U);
  EXPECT_GT(to_peer_got_, 100000U);
}

INSTANTIATE_TEST_SUITE_P(Families, FirstMove, ::testing::Bool(),
                         [](const auto& family) { return family.param ? "IPv6" : "IPv4"; });

}  // namespace
}  // namespace twinstack::testing
