// B1 to B6: who establishes, who decides, who moves, and who learns which identifier.
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

#include "behaviour/behaviour_fixture.h"
#include "driver/view_json.h"

namespace twinstack::testing {
namespace {

using ipc::Owner;

constexpr unsigned kEstablished = 1;  // TCP_ESTABLISHED

int option(int fd, int level, int name) {
  int value = 0;
  socklen_t length = sizeof(value);
  EXPECT_EQ(::getsockopt(fd, level, name, &value, &length), 0);
  return value;
}

void set(int fd, int level, int name, int value) {
  EXPECT_EQ(::setsockopt(fd, level, name, &value, sizeof(value)), 0) << level << " " << name;
}

// Frames that the engine's lanes have seen.
std::uint64_t engine_frames(ServiceProcess& service) {
  std::uint64_t sum = 0;
  const auto stats = service.ask("stats");
  for (const auto& [name, value] : stats["counters"].items())
    if (name.find("_frames_") != std::string::npos || name.find("unknown_flow") != std::string::npos)
      sum += value.get<std::uint64_t>();
  return sum;
}

class Establish : public Behaviour, public ::testing::WithParamInterface<std::tuple<bool, Opening>> {};

TEST_P(Establish, B1_TheKernelEstablishes) {
  const auto [v6, opening] = GetParam();
  const auto talk = open(v6, opening);
  EXPECT_EQ(counter(Side::kB, opening == Opening::kPassive ? "TcpPassiveOpens" : "TcpActiveOpens"), 1U);
  EXPECT_EQ(info_of(talk->served->fd()).tcpi_state, kEstablished);
  talk->exchange(1000);
  EXPECT_EQ(engine_frames(*service_), 0U) << "the engine had a part in the handshake";
  EXPECT_FALSE(is_in_engine(*talk));
  EXPECT_EQ(line(*talk)["stack"], "kernel");
  to_engine(*talk);
  talk->exchange(100000);
  EXPECT_GT(engine_frames(*service_), 0U);
  to_kernel(*talk);
  talk->exchange(100000);
  expect_no_reset();
}

INSTANTIATE_TEST_SUITE_P(All, Establish,
                         ::testing::Combine(::testing::Bool(), ::testing::Values(Opening::kPassive, Opening::kActive)),
                         [](const auto& kind) {
                           return std::string(std::get<0>(kind.param) ? "IPv6" : "IPv4") +
                                  (std::get<1>(kind.param) == Opening::kPassive ? "Passive" : "Active");
                         });

TEST_F(Behaviour, B2_KernelAndSocketLayerKeepTheirOwnState) {
  auto sockets = connect_pair(*pair_, false);
  ASSERT_TRUE(sockets.has_value());
  const int fd = sockets->served.get();
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1234);
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 4321);
  set(fd, IPPROTO_IP, IP_TOS, 0x10);
  set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  set(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
  set(fd, SOL_SOCKET, SO_RCVBUF, 200000);
  const auto options = [fd] {
    return std::array{option(fd, IPPROTO_TCP, TCP_NODELAY),  option(fd, SOL_SOCKET, SO_KEEPALIVE),
                      option(fd, IPPROTO_TCP, TCP_KEEPIDLE), option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT),
                      option(fd, IPPROTO_IP, IP_TOS),        option(fd, SOL_SOCKET, SO_REUSEADDR),
                      option(fd, SOL_SOCKET, SO_RCVLOWAT),   option(fd, SOL_SOCKET, SO_RCVBUF),
                      option(fd, SOL_SOCKET, SO_ERROR)};
  };
  const auto before = options();
  const auto talk = adopt(std::move(*sockets));
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event wanted{.events = EPOLLIN, .data = {.u64 = 77}};
  ASSERT_EQ(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &wanted), 0);
  const auto tag = talk->served->slot().tag.load();
  const auto cookie = talk->served->cookie();
  to_engine(*talk);
  talk->exchange(50000);
  to_kernel(*talk);
  talk->exchange(50000);
  EXPECT_EQ(options(), before);
  EXPECT_EQ(talk->served->cookie(), cookie);
  EXPECT_EQ(talk->served->slot().kernel_cookie.load(), cookie);
  EXPECT_EQ(talk->served->slot().tag.load(), tag);
  // The registration made before the moves tells of data after them, and of nothing else.
  epoll_event event{};
  EXPECT_EQ(::epoll_wait(epoll.get(), &event, 1, 0), 0);
  ASSERT_GT(talk->peer_sends(100), 0U);
  ASSERT_EQ(::epoll_wait(epoll.get(), &event, 1, 5000), 1);
  EXPECT_EQ(event.data.u64, 77U);
  EXPECT_EQ(event.events, static_cast<unsigned>(EPOLLIN));
  talk->settle();
}

TEST_F(Behaviour, B3_OffloadIsADecisionPerConnection) {
  const auto one = open();
  const auto two = open();
  for (const auto* talk : {&one, &two}) (*talk)->exchange(200000);  // nothing moves for its traffic alone
  EXPECT_EQ(service_->ask("stats")["engine_connections"], 0);
  to_engine(*one);
  one->exchange(200000);
  two->exchange(200000);
  EXPECT_EQ(line(*one)["stack"], "engine");
  EXPECT_EQ(line(*two)["stack"], "kernel");
  EXPECT_EQ(line(*two)["offloads"], 0);
  EXPECT_EQ(two->served->slot().hw_conn_id.load(), 0U);
}

TEST_F(Behaviour, B3_ThePolicyDecidesPerConnection) {
  start_service(driver::Policy::kAuto);
  const auto busy = open();
  const auto idle = open();
  busy->exchange(300000);
  busy->expect_owner(Owner::kEngine);
  EXPECT_EQ(line(*idle)["stack"], "kernel");
  busy->exchange(300000);
  idle->exchange(1000);
}

TEST_F(Behaviour, ThePolicyLeavesBulkToTheKernel) {
  start_service(driver::Policy::kAuto);
  const auto download = open();
  for (int i = 0; i < 10; ++i) {
    ASSERT_GT(download->served_sends(100'000), 0U);
    download->settle();
  }
  EXPECT_TRUE(eventually([&] { return line(*download)["reason"].get<std::string>().starts_with("bulk"); }));
  EXPECT_EQ(line(*download)["stack"], "kernel");
  to_engine(*download);  // by order all the same
  EXPECT_EQ(line(*download)["reason"], "");
}

TEST_F(Behaviour, B4_OnlyTheDriverMoves) {
  auto second = RawApplication::connect(service_->socket_path(), "other");
  ASSERT_TRUE(second.has_value());
  const auto moved = open();
  const auto talk = open(false, Opening::kPassive, second->get());
  to_engine(*moved);
  // The application writes into its slot what only the driver may: nothing moves, nothing reaches the peer.
  ipc::ConnSlot& slot = talk->served->slot();
  ipc::OwnerGate(slot).set_owner(Owner::kEngine);
  slot.hw_conn_id.store(moved->served->slot().hw_conn_id.load());
  const auto state = (*second)->query(*talk->served);
  ASSERT_TRUE(state.has_value());
  EXPECT_FALSE(state->has_value());
  EXPECT_EQ(service_->ask("stats")["engine_connections"], 1);
  EXPECT_EQ(line(*talk)["hw"], "0");
  EXPECT_EQ(line(*talk)["offloads"], 0);
  ipc::SubmitEntry forged{};
  forged.op = ipc::SubmitOp::kSend;
  forged.slot = talk->served->slot_index();
  forged.hw_conn_id = slot.hw_conn_id.load();
  forged.length = 100;
  (*second)->submit(0, forged);
  // It used another's id: its session ends. The other's connection carries its own bytes only.
  EXPECT_TRUE(eventually([&] { return (*second)->is_ended(); }));
  moved->exchange(50000);
  EXPECT_EQ(service_->ask("stats")["engine_connections"], 1);
  EXPECT_EQ(look(talk->peer.get()), Seen::kNothing);
}

TEST_F(Behaviour, B5_TheSoftwareSideLearnsTheHardwareId) {
  const auto talk = open();
  const ipc::ConnSlot& slot = talk->served->slot();
  EXPECT_EQ(slot.hw_conn_id.load(), 0U);
  to_engine(*talk);
  const std::uint64_t first = slot.hw_conn_id.load();
  EXPECT_NE(first, 0U);
  EXPECT_EQ(line(*talk)["hw"], driver::hex(first));
  EXPECT_EQ(hardware(*talk).hw_conn_id, first);
  to_kernel(*talk);
  EXPECT_EQ(slot.hw_conn_id.load(), 0U);
  to_engine(*talk);
  EXPECT_NE(slot.hw_conn_id.load(), 0U);
  EXPECT_NE(slot.hw_conn_id.load(), first) << "a stale id reaches a new connection";
}

// The engine names slot and tag in what it completes: that is how it knows whose bytes they are.
TEST_F(Behaviour, B6_TheHardwareSideLearnsTheReferences) {
  std::vector<std::unique_ptr<Talk>> talks;
  for (int i = 0; i < 5; ++i) talks.push_back(open(i % 2 == 1));
  for (const auto& talk : talks) to_engine(*talk);
  for (const auto& talk : talks) talk->peer_sends(5000);
  for (const auto& talk : talks) talk->exchange(30000);
  std::vector<std::uint64_t> ids;
  for (const auto& talk : talks) {
    EXPECT_EQ(hardware(*talk).hw_conn_id, talk->served->slot().hw_conn_id.load());
    EXPECT_EQ(hardware(*talk).info.bytes_received, 35000U);
    EXPECT_EQ(talk->served->slot().rx_posted_bytes.load(), 35000U);
    EXPECT_EQ(talk->served->slot().kernel_cookie.load(), talk->served->cookie());
  }
}

}  // namespace
}  // namespace twinstack::testing
