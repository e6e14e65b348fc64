#include "driver/host_settings.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace twinstack::driver {
namespace {

class HostSettingsTest : public ::testing::Test {
 protected:
  HostSettingsTest() { std::filesystem::create_directory(directory); }
  ~HostSettingsTest() override { std::filesystem::remove_all(directory); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(directory + "/" + name) << text << '\n';
  }
  [[nodiscard]] engine::HostSettings read() const { return read_host_settings(directory + "/"); }

  const std::string directory = ::testing::TempDir() + "host_settings_" + std::to_string(::getpid());
};

TEST_F(HostSettingsTest, AreThoseOfTheNamespace) {
  write("tcp_slow_start_after_idle", "0");
  write("tcp_moderate_rcvbuf", "0");
  write("tcp_rmem", "4096\t131072\t33554432");
  write("tcp_wmem", "4096\t16384\t1000000");
  write("tcp_min_tso_segs", "4");
  EXPECT_FALSE(read().tcp_slow_start_after_idle);
  EXPECT_FALSE(read().tcp_moderate_rcvbuf);
  EXPECT_EQ(read().tcp_rmem_max_bytes, 33'554'432U);
  EXPECT_EQ(read().tcp_wmem_max_bytes, 1'000'000U);
  write("tcp_invalid_ratelimit", "0");
  write("tcp_mtu_probing", "2");
  EXPECT_EQ(read().tcp_mtu_probing, 2U);
  EXPECT_EQ(read().tcp_min_tso_segs, 4U);
  EXPECT_EQ(read().tcp_invalid_ratelimit_ms, 0U);
}

TEST_F(HostSettingsTest, WhatCannotBeReadKeepsItsDefault) {
  const engine::HostSettings defaults;
  write("tcp_rmem", "4096 131072");
  write("tcp_wmem", "nonsense");
  EXPECT_EQ(read().tcp_rmem_max_bytes, defaults.tcp_rmem_max_bytes);
  EXPECT_EQ(read().tcp_wmem_max_bytes, defaults.tcp_wmem_max_bytes);
  EXPECT_TRUE(read().tcp_slow_start_after_idle);
  EXPECT_TRUE(read().tcp_moderate_rcvbuf);
}

}  // namespace
}  // namespace twinstack::driver
