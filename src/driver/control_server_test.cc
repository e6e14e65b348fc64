#include "driver/control_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "driver/control_client.h"
#include "driver/view_json.h"

namespace twinstack::driver {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr uid_t kAlice = 61001;
constexpr uid_t kBob = 61002;

class FakeTarget : public ControlTarget {
 public:
  std::vector<ConnectionView> connections(const ConnectionFilter& filter) override {
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() < start + work) continue;
    listings.emplace_back(start, std::chrono::steady_clock::now());
    std::vector<ConnectionView> passed;
    std::ranges::copy_if(views, std::back_inserter(passed), filter);
    return passed;
  }
  MoveOutcome offload(const ConnectionFilter& filter) override { return count("offload", filter); }
  MoveOutcome upload(const ConnectionFilter& filter) override { return count("upload", filter); }
  void churn(milliseconds interval, milliseconds duration) override {
    calls.push_back("churn " + std::to_string(interval.count()) + " " + std::to_string(duration.count()));
  }
  ServiceStats stats() override {
    ServiceStats stats;
    stats.connections = views.size();
    return stats;
  }

  void add(std::uint64_t cookie, std::uint32_t uid) {
    ConnectionView& view = views.emplace_back();
    view.cookie = cookie;
    view.uid = uid;
    view.stack = "kernel";
  }

  std::vector<ConnectionView> views;
  std::vector<std::string> calls;
  milliseconds work{0};  // that each listing costs the thread
  std::vector<std::pair<std::chrono::steady_clock::time_point, std::chrono::steady_clock::time_point>> listings;

 private:
  MoveOutcome count(const std::string& name, const ConnectionFilter& filter) {
    MoveOutcome outcome;
    std::string call = name;
    for (const ConnectionView& view : views) {
      if (!filter(view)) continue;
      ++outcome.matched;
      ++outcome.moved;
      call += ' ' + hex(view.cookie);
    }
    calls.push_back(call);
    return outcome;
  }
};

// Connects as another user: SO_PEERCRED takes the effective uid of the connecting thread, and the raw call changes that
// of one thread only.
UniqueFd connect_as(const std::string& path, uid_t uid) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  std::thread([&] {
    if (uid != ::geteuid()) {
      EXPECT_EQ(::syscall(SYS_setresuid, -1, uid, -1), 0);
    }
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << errno;
  }).join();
  return socket;
}

class ControlServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/ts-cli-control.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  [[nodiscard]] std::string socket_path() const { return directory_ + "/s"; }

  void start(const ControlLimits& limits = {}) {
    auto server = ControlServer::create(control_path(socket_path()), target_, limits);
    ASSERT_TRUE(server.has_value()) << server.error().message();
    server_ = std::move(*server);
  }
  UniqueFd client(uid_t uid = ::geteuid()) { return connect_as(control_path(socket_path()), uid); }

  // Runs the server as a loop would, until `done()` or for half a minute at most.
  template <typename Done>
  bool run_until(Done&& done, int client_fd = -1) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::array<pollfd, 2> fds = {{{.fd = server_->epoll_fd(), .events = POLLIN, .revents = 0},
                                    {.fd = client_fd, .events = POLLIN, .revents = 0}}};
      ::poll(fds.data(), fds.size(), 1000);
      if (fds[0].revents != 0) server_->process();
    }
    return true;
  }

  // What the client reads up to `lines` line ends, or up to the end of the connection.
  std::string read_lines(int fd, int lines = 1) {
    std::string text;
    bool closed = false;
    const bool came = run_until(
        [&] {
          std::array<char, 4096> buffer;
          for (ssize_t got = 0; (got = ::recv(fd, buffer.data(), buffer.size(), 0)) >= 0;) {
            closed = got == 0;
            if (closed) break;
            text.append(buffer.data(), static_cast<std::size_t>(got));
          }
          closed = closed || (errno != EAGAIN && errno != 0);
          return closed || std::ranges::count(text, '\n') >= lines;
        },
        fd);
    EXPECT_TRUE(came) << "no answer in time";
    return closed ? text + "[closed]" : text;
  }

  static void put(int fd, std::string_view text) {
    ASSERT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  Json ask(int fd, const std::string& request) {
    put(fd, request + "\n");
    return Json::parse(read_lines(fd), nullptr, false);
  }

  static bool is_root() { return ::geteuid() == 0; }

  FakeTarget target_;
  std::unique_ptr<ControlServer> server_;
  std::string directory_;
};

std::vector<std::string> cookies(const Json& reply) {
  std::vector<std::string> all;
  for (const Json& one : reply["connections"]) all.push_back(one["sk"]);
  return all;
}

using Strings = std::vector<std::string>;

TEST_F(ControlServerTest, AnswersEachCommand) {
  if (!is_root()) GTEST_SKIP() << "needs root: churn is root's";
  target_.add(0x1a, 0);
  target_.add(0x1b, kAlice);
  start();
  const UniqueFd fd = client();
  EXPECT_EQ(cookies(ask(fd.get(), R"({"cmd":"ls"})")), (Strings{"1a", "1b"}));
  EXPECT_EQ(cookies(ask(fd.get(), R"({"cmd":"ls","filter":"sk:1b"})")), (Strings{"1b"}));
  EXPECT_EQ(ask(fd.get(), R"({"cmd":"offload","filter":"sk:1a"})"),
            Json::parse(R"({"ok":true,"matched":1,"moved":1,"already":0,"refused":[]})"));
  EXPECT_EQ(ask(fd.get(), R"({"cmd":"upload","filter":"all"})")["matched"], 2);
  EXPECT_EQ(ask(fd.get(), R"({"cmd":"stats"})")["connections"], 2);
  EXPECT_EQ(ask(fd.get(), R"({"cmd":"churn","interval_ms":20,"duration_ms":5000})"), Json::parse(R"({"ok":true})"));
  EXPECT_EQ(ask(fd.get(), R"({"cmd":"churn","duration_ms":0})"), Json::parse(R"({"ok":true})"));
  EXPECT_EQ(target_.calls, (Strings{"offload 1a", "upload 1a 1b", "churn 20 5000", "churn 0 0"}));
}

TEST_F(ControlServerTest, RefusesWhatItDoesNotUnderstandAndGoesOn) {
  start();
  const UniqueFd fd = client();
  for (const std::string request :
       {"", "nonsense", "[1]", "{}", R"({"cmd":7})", R"({"cmd":"fly"})", R"({"cmd":"offload"})",
        R"({"cmd":"offload","filter":3})", R"({"cmd":"ls","filter":"what"})", R"({"cmd":"churn"})",
        R"({"cmd":"churn","interval_ms":0,"duration_ms":5})", R"({"cmd":"churn","interval_ms":"x","duration_ms":5})",
        R"({"cmd":"churn","interval_ms":1,"duration_ms":-1})",
        R"({"cmd":"churn","interval_ms":1,"duration_ms":18446744073709551615})"}) {
    const Json reply = ask(fd.get(), request);
    EXPECT_EQ(reply["ok"], false) << request;
    EXPECT_TRUE(reply["error"].is_string()) << request;
  }
  EXPECT_TRUE(target_.calls.empty());
  EXPECT_EQ(ask(fd.get(), R"({"cmd":"stats"})")["ok"], true);
}

TEST_F(ControlServerTest, OthersSeeAndMoveOnlyTheirOwn) {
  if (!is_root()) GTEST_SKIP() << "needs root: connects as several users";
  target_.add(1, 0);
  target_.add(2, kAlice);
  target_.add(3, kBob);
  start();
  const UniqueFd alice = client(kAlice);
  EXPECT_EQ(cookies(ask(alice.get(), R"({"cmd":"ls"})")), (Strings{"2"}));
  EXPECT_EQ(cookies(ask(alice.get(), R"({"cmd":"ls","filter":"sk:3 or sk:2"})")), (Strings{"2"}));
  EXPECT_EQ(ask(alice.get(), R"({"cmd":"upload","filter":"all"})")["matched"], 1);
  EXPECT_EQ(ask(alice.get(), R"({"cmd":"offload","filter":"not sk:2"})")["matched"], 0);
  EXPECT_EQ(target_.calls, (Strings{"upload 2", "offload"}));
  EXPECT_EQ(ask(alice.get(), R"({"cmd":"stats"})")["ok"], true);
  EXPECT_THAT(ask(alice.get(), R"({"cmd":"churn","interval_ms":1,"duration_ms":1})")["error"].get<std::string>(),
              HasSubstr("only root"));
}

TEST_F(ControlServerTest, PipelinedAndSplitRequestsAreAnsweredInOrder) {
  target_.add(5, ::geteuid());
  start();
  const UniqueFd fd = client();
  put(fd.get(), "{\"cmd\":\"ls\"}\n{\"cmd\":\"stats\"}\nbad\n{\"cmd\":");
  const std::string three = read_lines(fd.get(), 3);
  EXPECT_THAT(three, ::testing::MatchesRegex("\\{\"ok\":true,\"connections\".*\n\\{\"ok\":true,\"sessions\".*\n"
                                             "\\{\"ok\":false.*\n"));
  put(fd.get(), "\"ls\"}\n");
  EXPECT_THAT(read_lines(fd.get()), HasSubstr("\"connections\":[{"));
}

TEST_F(ControlServerTest, HalfClosedClientStillGetsItsReply) {
  start();
  const UniqueFd fd = client();
  put(fd.get(), "{\"cmd\":\"stats\"}\n{\"cmd\":\"ls\"}\n");
  ASSERT_EQ(::shutdown(fd.get(), SHUT_WR), 0);
  const std::string text = read_lines(fd.get(), 3);
  EXPECT_THAT(text, HasSubstr("sessions"));
  EXPECT_THAT(text, ::testing::EndsWith("{\"ok\":true,\"connections\":[]}\n[closed]"));
}

TEST_F(ControlServerTest, LineWithoutEndIsRefusedAndClosed) {
  start({.line_bytes = 1000});
  const UniqueFd fd = client();
  put(fd.get(), std::string(1001, 'x'));
  EXPECT_THAT(read_lines(fd.get(), 2), HasSubstr("at most 1000 bytes\"}\n[closed]"));
  const UniqueFd other = client();
  put(other.get(), std::string(500, ' ') + "{\"cmd\":\"stats\"}\n");
  EXPECT_THAT(read_lines(other.get()), HasSubstr("\"ok\":true"));
}

TEST_F(ControlServerTest, HalfLineAndIdleClientsAreClosedInTime) {
  start({.patience = milliseconds(20), .idle = milliseconds(40)});
  const UniqueFd idle = client();
  const UniqueFd half = client();
  put(half.get(), "{\"cmd\"");
  EXPECT_EQ(read_lines(half.get()), "[closed]");
  EXPECT_EQ(read_lines(idle.get()), "[closed]");
}

TEST_F(ControlServerTest, ClientThatNeverReadsIsClosedAndHurtsNobody) {
  for (std::uint64_t i = 1; i <= 2000; ++i) target_.add(i, ::geteuid());  // a reply longer than any socket buffer
  start({.patience = milliseconds(200)});
  const UniqueFd deaf = client();
  put(deaf.get(), "{\"cmd\":\"ls\"}\n{\"cmd\":\"ls\"}\n");
  const UniqueFd other = client();
  EXPECT_EQ(ask(other.get(), R"({"cmd":"stats"})")["connections"], 2000);
  const auto hung_up = [&] {
    pollfd state{.fd = deaf.get(), .events = 0, .revents = 0};
    return ::poll(&state, 1, 0) == 1 && (state.revents & POLLHUP) != 0;
  };
  EXPECT_TRUE(run_until(hung_up));
  EXPECT_EQ(ask(other.get(), R"({"cmd":"stats"})")["connections"], 2000);
}

TEST_F(ControlServerTest, ClientsPerUserAreBoundedAndRootStillGetsIn) {
  if (!is_root()) GTEST_SKIP() << "needs root: connects as several users";
  start({.clients = 3, .clients_per_uid = 2});
  std::vector<UniqueFd> alice;
  for (int i = 0; i < 3; ++i) alice.push_back(client(kAlice));
  EXPECT_THAT(read_lines(alice[2].get(), 2), HasSubstr("too many clients"));
  const UniqueFd bob = client(kBob);
  EXPECT_EQ(ask(bob.get(), R"({"cmd":"stats"})")["ok"], true);
  const UniqueFd bob_again = client(kBob);
  EXPECT_THAT(read_lines(bob_again.get(), 2), HasSubstr("too many clients"));
  const UniqueFd root = client();
  EXPECT_EQ(ask(root.get(), R"({"cmd":"stats"})")["ok"], true);
  alice.erase(alice.begin());
  // The place is free as soon as the server has seen the end.
  EXPECT_TRUE(run_until([&] {
    const UniqueFd again = client(kBob);
    put(again.get(), "{\"cmd\":\"stats\"}\n");
    return read_lines(again.get()).find("\"ok\":true") != std::string::npos;
  }));
}

TEST_F(ControlServerTest, WaitingRepliesOfOthersAreBounded) {
  if (!is_root()) GTEST_SKIP() << "needs root: connects as another user";
  for (std::uint64_t i = 1; i <= 100; ++i) target_.add(i, kAlice);
  start({.waiting_reply_bytes = 20'000});
  const UniqueFd alice = client(kAlice);
  EXPECT_THAT(ask(alice.get(), R"({"cmd":"ls"})")["error"].get<std::string>(), HasSubstr("too much waits"));
  EXPECT_EQ(cookies(ask(alice.get(), R"({"cmd":"ls","filter":"sk:7"})")), (Strings{"7"}));
  const UniqueFd root = client();
  EXPECT_EQ(cookies(ask(root.get(), R"({"cmd":"ls"})")).size(), 100U);
}

TEST_F(ControlServerTest, OthersGetAFifthOfTheThreadAndRootGoesFirst) {
  if (!is_root()) GTEST_SKIP() << "needs root: connects as another user";
  target_.add(1, kAlice);
  target_.work = milliseconds(5);
  start();
  const UniqueFd alice = client(kAlice);
  const UniqueFd root = client();
  put(alice.get(), "{\"cmd\":\"ls\"}\n{\"cmd\":\"ls\"}\n");
  ASSERT_TRUE(run_until([&] { return target_.listings.size() == 1; }));
  put(root.get(), "{\"cmd\":\"upload\",\"filter\":\"all\"}\n");
  ASSERT_TRUE(run_until([&] { return target_.listings.size() == 2; }));
  EXPECT_EQ(target_.calls, (Strings{"upload 1"}));  // came while alice had to rest
  const auto& [first, second] = std::pair(target_.listings[0], target_.listings[1]);
  EXPECT_GE(second.first - first.second, 4 * (first.second - first.first));
}

TEST_F(ControlServerTest, SleepsWhenThereIsNothingToDo) {
  start();
  const UniqueFd fd = client();
  EXPECT_EQ(ask(fd.get(), R"({"cmd":"stats"})")["ok"], true);
  server_->process();
  pollfd state{.fd = server_->epoll_fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&state, 1, 0), 0);
}

TEST_F(ControlServerTest, SocketFileIsForEverybodyAndGoesWithTheServer) {
  start();
  struct stat status{};
  ASSERT_EQ(::stat(control_path(socket_path()).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0666U);
  FakeTarget other;
  EXPECT_EQ(ControlServer::create(control_path(socket_path()), other).error().system_errno, EADDRINUSE);
  EXPECT_EQ(::stat(control_path(socket_path()).c_str(), &status), 0);  // the loser removes nothing
  server_.reset();
  EXPECT_NE(::stat(control_path(socket_path()).c_str(), &status), 0);
}

// ---- the client -----------------------------------------------------------------------------------------------------

TEST_F(ControlServerTest, ClientSaysWhenNoServiceRuns) {
  const auto none = ControlClient::connect(socket_path());
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(none.error().message(), HasSubstr("no service runs at"));
  EXPECT_EQ(ControlClient::connect(std::string(200, 'x')).error().code, ErrorCode::kInvalid);
}

TEST_F(ControlServerTest, ClientAsksAndGetsErrorsInTheServicesWords) {
  for (std::uint64_t i = 1; i <= 1000; ++i) target_.add(i, ::geteuid());
  start();
  std::atomic<bool> finished = false;
  std::thread asking([&] {
    auto made = ControlClient::connect(socket_path());
    ASSERT_TRUE(made.has_value()) << made.error().message();
    EXPECT_EQ(made->service_pid(), ::getpid());
    const auto reply = made->ask({{"cmd", "ls"}});
    EXPECT_TRUE(reply.has_value() && cookies(*reply).size() == 1000 && !reply->contains("ok"));
    const auto refused = made->ask({{"cmd", "ls"}, {"filter", "nonsense"}});
    EXPECT_THAT(refused.has_value() ? "" : refused.error().message(), HasSubstr("filter, column 1"));
    finished = true;
  });
  EXPECT_TRUE(run_until([&] { return finished.load(); }));
  asking.join();
}

TEST_F(ControlServerTest, ClientGivesUpInTimeAndNoticesTheEnd) {
  start();
  auto silent = ControlClient::connect(socket_path());  // the server is not run
  ASSERT_TRUE(silent.has_value());
  EXPECT_EQ(silent->ask({{"cmd", "stats"}}, milliseconds(10)).error().code, ErrorCode::kTimeout);
  auto cut = ControlClient::connect(socket_path());
  ASSERT_TRUE(cut.has_value());
  server_.reset();
  EXPECT_EQ(cut->ask({{"cmd", "stats"}}).error().code, ErrorCode::kProtocol);
}

}  // namespace
}  // namespace twinstack::driver
