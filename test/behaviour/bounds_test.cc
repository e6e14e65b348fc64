// What one user may take of the service, and what it does with clients that keep to no rule: silent ones, ones that
// pass too much. What must stay: everybody else's service.
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "behaviour/behaviour_fixture.h"
#include "driver/lingering.h"
#include "driver/view_json.h"
#include "ipc/channel.h"

namespace twinstack::testing {
namespace {

using ipc::Owner;

constexpr uid_t kAnna = 54321;
constexpr uid_t kBert = 54322;

// The service sees what it connects as this user's.
class AsUser {
 public:
  explicit AsUser(uid_t uid) { EXPECT_EQ(::seteuid(uid), 0); }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;
  ~AsUser() { EXPECT_EQ(::seteuid(0), 0); }
};

// The receiver has the only descriptor then.
template <typename Message>
void pass(int socket, const Message& message, UniqueFd fd) {
  const int raw = fd.get();
  EXPECT_TRUE(ipc::send_message(socket, std::as_bytes(std::span(&message, 1)), {&raw, 1}).has_value());
}

class Bounds : public Behaviour {
 protected:
  void SetUp() override {
    Behaviour::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    // The test's own directory is closed to other users.
    std::filesystem::permissions(std::filesystem::path(service_->socket_path()).parent_path(),
                                 std::filesystem::perms(0755));
  }
  [[nodiscard]] driver::ServiceOptions options() const override {
    driver::ServiceOptions options;
    options.user_bounds = {.sessions = 2, .connections = 3};
    return options;
  }

  Result<std::unique_ptr<RawApplication>> connect_as(uid_t uid) {
    const AsUser user(uid);
    return RawApplication::connect(service_->socket_path(), "user");
  }

  // What the service says to one application more; "" when it welcomes it.
  std::string refusal_for(uid_t uid) {
    UniqueFd socket;
    {
      const AsUser user(uid);
      auto connected = ipc::connect_to(service_->socket_path());
      EXPECT_TRUE(connected.has_value()) << connected.error().message();
      if (connected) socket = std::move(*connected);
    }
    const ipc::Hello hello{.head = {.type = ipc::MessageType::kHello, .size_bytes = sizeof(hello)},
                           .version = ipc::kLayoutVersion,
                           .reserved = 0,
                           .program = {}};
    EXPECT_TRUE(ipc::send_message(socket.get(), std::as_bytes(std::span(&hello, 1)), {}).has_value());
    std::array<std::byte, 1024> buffer;
    const auto received = ipc::receive_message(socket.get(), buffer, 0);
    EXPECT_TRUE(received.has_value());
    ipc::Refused refused;
    if (!received || received->size_bytes != sizeof(refused)) return "";
    std::memcpy(&refused, buffer.data(), sizeof(refused));
    return refused.reason.data();
  }
};

TEST_F(Bounds, AUserCannotTakeAllSessions) {
  auto first = connect_as(kAnna);
  const auto second = connect_as(kAnna);
  ASSERT_TRUE(first.has_value()) << first.error().message();
  ASSERT_TRUE(second.has_value()) << second.error().message();
  const std::string why = refusal_for(kAnna);
  EXPECT_NE(why.find("user 54321 has 2 applications"), std::string::npos) << why;
  EXPECT_EQ(service_->counter("refused_sessions"), 1U);
  EXPECT_TRUE(connect_as(kBert).has_value());
  std::vector<std::unique_ptr<RawApplication>> of_root;
  for (int i = 0; i < 5; ++i) {
    auto connected = RawApplication::connect(service_->socket_path());
    ASSERT_TRUE(connected.has_value()) << connected.error().message();
    of_root.push_back(std::move(*connected));
  }
  first->reset();
  EXPECT_TRUE(eventually([&] { return connect_as(kAnna).has_value(); }));
}

TEST_F(Bounds, AUserCannotRegisterAllConnections) {
  auto application = connect_as(kAnna);
  ASSERT_TRUE(application.has_value()) << application.error().message();
  RawApplication& annas = **application;
  std::vector<std::unique_ptr<Talk>> talks;
  for (int i = 0; i < 3; ++i) talks.push_back(open(false, Opening::kPassive, &annas));
  auto sockets = connect_pair(*pair_, false);
  ASSERT_TRUE(sockets.has_value());
  auto served = annas.adopt(std::move(sockets->served));
  ASSERT_TRUE(served.has_value());
  Talk beyond(annas, std::move(*served), std::move(sockets->peer), 77);
  EXPECT_TRUE(eventually([&] { return service_->counter("refused_registrations") == 1; }));
  EXPECT_EQ(service_->ask("stats")["connections"], 3);
  // The kernel serves it, the session goes on, others have their own bound.
  beyond.exchange(20'000);
  EXPECT_EQ(beyond.served->owner(), Owner::kKernel);
  to_engine(*talks[0]);
  talks[0]->exchange(20'000);
  const auto roots = open();
  to_engine(*roots);
  ASSERT_TRUE(beyond.served->close().has_value());
  EXPECT_TRUE(eventually([&] { return beyond.served->owner() == Owner::kFree; }));
  // One that ends makes room.
  ASSERT_TRUE(talks[2]->served->close().has_value());
  EXPECT_TRUE(eventually([&] { return talks[2]->served->owner() == Owner::kFree; }));
  to_engine(*open(false, Opening::kPassive, &annas));
  EXPECT_EQ(service_->counter("broken_sessions"), 0U);
}

// Registrations for which the service has no descriptor left, and such as bring too many, cost nothing but themselves.
TEST_F(Bounds, ARegistrationWithoutItsDescriptorIsRefusedAlone) {
  const auto talk = open();
  to_engine(*talk);
  rlimit before{};
  ASSERT_EQ(::prlimit(service_->pid(), RLIMIT_NOFILE, nullptr, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  auto sockets = connect_pair(*pair_, false);
  ASSERT_TRUE(sockets.has_value());
  ASSERT_EQ(::prlimit(service_->pid(), RLIMIT_NOFILE, &none, nullptr), 0);
  auto served = application_->adopt(std::move(sockets->served));
  ASSERT_TRUE(served.has_value());
  EXPECT_TRUE(is_in_engine(*talk));  // answered behind the registration
  ASSERT_EQ(::prlimit(service_->pid(), RLIMIT_NOFILE, &before, nullptr), 0);
  ipc::Register two{};
  two.head = {.type = ipc::MessageType::kRegister, .size_bytes = sizeof(two)};
  two.slot = 1000;
  const std::array<int, 2> both{talk->peer.get(), talk->peer.get()};
  ASSERT_TRUE(application_->post(two, both).has_value());
  EXPECT_TRUE(is_in_engine(*talk));

  std::string reasons;
  const auto listed = service_->ask("ls", "all");
  for (const auto& conn : listed["connections"]) reasons += conn["reason"].get<std::string>() + ";";
  EXPECT_NE(reasons.find("no descriptor left"), std::string::npos) << reasons;
  EXPECT_NE(reasons.find("more than one descriptor"), std::string::npos) << reasons;
  EXPECT_EQ(service_->counter("broken_sessions"), 0U);
  talk->exchange(20'000);
  Talk refused(*application_, std::move(*served), std::move(sockets->peer), 77);
  refused.exchange(20'000);
  ASSERT_TRUE(refused.served->close().has_value());
  EXPECT_TRUE(eventually([&] { return refused.served->owner() == Owner::kFree; }));
  to_engine(*open());
}

// The last close of what a program passes may sleep for as long as it likes.
TEST_F(Bounds, ADescriptorWhoseCloseSleepsHoldsNobodyUp) {
  const auto honest = open();
  to_engine(*honest);
  const auto hostile = connect_as(kAnna);
  ASSERT_TRUE(hostile.has_value()) << hostile.error().message();
  std::array lingering{driver::Lingering(20), driver::Lingering(20), driver::Lingering(20)};
  // With a Hello; as a registration that is none of a TCP socket; in the queue of a session that ends. The service
  // reads none of them before it has the only descriptor.
  ASSERT_EQ(::kill(service_->pid(), SIGSTOP), 0);
  auto silent = ipc::connect_to(service_->socket_path());
  ASSERT_TRUE(silent.has_value());
  pass(silent->get(), std::byte{0}, std::move(lingering[0].socket));
  ipc::Register registration{};
  registration.head = {.type = ipc::MessageType::kRegister, .size_bytes = sizeof(registration)};
  std::array<int, 2> unix_pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, unix_pair.data()), 0);
  UniqueFd near(unix_pair[0]);
  const UniqueFd far(unix_pair[1]);
  pass(far.get(), std::byte{0}, std::move(lingering[1].socket));
  pass((*hostile)->socket(), registration, std::move(near));
  pass((*hostile)->socket(), std::byte{0}, std::move(lingering[2].socket));
  ASSERT_EQ(::kill(service_->pid(), SIGCONT), 0);
  EXPECT_TRUE(eventually([&] { return (*hostile)->is_ended(); }, {}, std::chrono::seconds(5)));
  // Who serves nobody answers nobody.
  const auto before = std::chrono::steady_clock::now();
  to_kernel(*honest);
  to_engine(*honest);
  honest->exchange(20'000);
  EXPECT_TRUE(connect_as(kBert).has_value());
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
  for (auto& one : lingering) one.peer.reset();
}

// Any user may connect and say nothing.
TEST_F(Bounds, SilentClientsShutNobodyOut) {
  std::vector<UniqueFd> silent;
  for (const uid_t uid : {kAnna, uid_t{0}}) {
    const AsUser user(uid);
    for (int i = 0; i < 300; ++i) {
      auto connected = ipc::connect_to(service_->socket_path());
      ASSERT_TRUE(connected.has_value()) << connected.error().message();
      silent.push_back(std::move(*connected));
    }
  }
  EXPECT_TRUE(connect_as(kBert).has_value());
  EXPECT_TRUE(connect_as(kAnna).has_value());
  EXPECT_TRUE(RawApplication::connect(service_->socket_path()).has_value());
  // Nobody stays for long.
  const auto is_closed = [](const UniqueFd& socket) { return look(socket.get()) == Seen::kEnd; };
  EXPECT_FALSE(is_closed(silent.back()));
  EXPECT_TRUE(eventually([&] { return std::ranges::all_of(silent, is_closed); }, {}, std::chrono::seconds(5)));
  EXPECT_TRUE(connect_as(kBert).has_value());
}

}  // namespace
}  // namespace twinstack::testing
