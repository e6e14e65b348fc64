#include "cli/service_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/unique_fd.h"
#include "driver/control_server.h"
#include "ipc/channel.h"

namespace twinstack::cli {
namespace {

using ::testing::HasSubstr;

TEST(KernelRelease, OldOnesAreRefusedWithTheirName) {
  for (const char* fit : {"5.18.0", "5.18-rc1", "5.20", "6.1.0-18-amd64", "6.18.44-fc", "10.0", "strange", "", "5"})
    EXPECT_TRUE(check_kernel_release(fit).has_value()) << fit;
  for (const char* old : {"5.17.99", "5.10.0-8-amd64", "4.19.0", "2.6.32"}) {
    const auto result = check_kernel_release(old);
    ASSERT_FALSE(result.has_value()) << old;
    EXPECT_THAT(result.error().message(), HasSubstr(std::string("this kernel is ") + old));
  }
}

TEST(Capabilities, ARefusalNamesWhatIsMissing) {
  EXPECT_TRUE(check_capabilities({.effective = ~std::uint64_t{0}, .unlimited_memlock = false}, true).has_value());
  const auto refused = check_capabilities({.effective = 0, .unlimited_memlock = true}, false);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(),
              HasSubstr("the service needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON: start it as root"));
}

class StaleSockets : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/ts-cli-stale.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] std::string path() const { return directory_ + "/s"; }
  [[nodiscard]] std::string control() const { return driver::control_path(path()); }
  [[nodiscard]] std::string complaint() const {
    const Result<> result = clear_stale_sockets(path());
    return result.has_value() ? "no error" : result.error().message();
  }

  std::string directory_;
};

TEST_F(StaleSockets, OneServiceStartsAtATime) {
  UniqueFd first = take_turn_to_start(path());
  ASSERT_TRUE(first);
  std::atomic<bool> has_turn = false;
  std::thread second([&] {
    const UniqueFd turn = take_turn_to_start(path());
    has_turn = static_cast<bool>(turn);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_FALSE(has_turn);
  first.reset();
  second.join();
  EXPECT_TRUE(has_turn);
  EXPECT_FALSE(take_turn_to_start(directory_ + "/none/s")) << "listening there will say what is wrong";
}

TEST_F(StaleSockets, NothingThereIsFine) {
  EXPECT_EQ(complaint(), "no error");
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(StaleSockets, LeavesOfADeadServiceAreRemoved) {
  ASSERT_TRUE(ipc::listen_on(path(), SOCK_SEQPACKET).has_value());  // closed at once: the file stays
  ASSERT_TRUE(ipc::listen_on(control(), SOCK_STREAM).has_value());
  ASSERT_TRUE(std::filesystem::exists(path()));
  EXPECT_EQ(complaint(), "no error");
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_FALSE(std::filesystem::exists(control()));
}

TEST_F(StaleSockets, ARunningServiceIsNamedByItsPidAndLeftAlone) {
  const auto applications = ipc::listen_on(path(), SOCK_SEQPACKET);
  ASSERT_TRUE(applications.has_value());
  const std::string expected = "a service runs at " + path() + " already (pid " + std::to_string(::getpid()) + ")";
  EXPECT_THAT(complaint(), HasSubstr(expected));
  const auto commands = ipc::listen_on(control(), SOCK_STREAM);
  ASSERT_TRUE(commands.has_value());
  EXPECT_THAT(complaint(), HasSubstr(expected));
  EXPECT_TRUE(std::filesystem::exists(path()));
}

TEST_F(StaleSockets, WhatIsNotOursIsLeftAlone) {
  std::ofstream(path()) << "precious";
  EXPECT_THAT(complaint(), HasSubstr("it is no socket"));
  EXPECT_TRUE(std::filesystem::exists(path()));
  std::filesystem::remove(path());
  const auto other = ipc::listen_on(path(), SOCK_STREAM);  // somebody else's kind of socket
  ASSERT_TRUE(other.has_value());
  EXPECT_THAT(complaint(), HasSubstr("socket of another program"));
}

TEST_F(StaleSockets, LongPathsAreRefused) {
  EXPECT_EQ(clear_stale_sockets(std::string(120, 'x')).error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace twinstack::cli
