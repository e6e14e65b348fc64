#include "driver/user_quota.h"

#include <gtest/gtest.h>

#include "driver/test_users.h"

namespace twinstack::driver {
namespace {

TEST(UserQuota, AUserHasBoundsOfHisOwn) {
  UserQuota quota({.sessions = 2, .connections = 3});
  EXPECT_TRUE(quota.add_session(kAnna));
  EXPECT_TRUE(quota.add_session(kAnna));
  EXPECT_FALSE(quota.add_session(kAnna));
  EXPECT_TRUE(quota.add_session(kBert));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(quota.add_connection(kAnna));
  EXPECT_FALSE(quota.add_connection(kAnna));
  EXPECT_TRUE(quota.add_connection(kBert));
}

TEST(UserQuota, WhatEndsMakesRoom) {
  UserQuota quota({.sessions = 1, .connections = 1});
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(quota.add_session(kAnna));
    EXPECT_FALSE(quota.add_session(kAnna));
    EXPECT_TRUE(quota.add_connection(kAnna));
    EXPECT_FALSE(quota.add_connection(kAnna));
    quota.remove_connection(kAnna);
    quota.remove_session(kAnna);
  }
}

TEST(UserQuota, RootHasNoBound) {
  UserQuota quota({.sessions = 1, .connections = 1});
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(quota.add_session(kRoot));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(quota.add_connection(kRoot));
}

TEST(UserQuota, OneUserLeavesDescriptorsToTheOthers) {
  const UserBounds wanted{.sessions = 1024, .connections = 65536};
  const UserBounds many = wanted.within(1'000'000, 6);
  EXPECT_EQ(many.sessions, 1024U);
  EXPECT_EQ(many.connections, 65536U);
  const UserBounds few = wanted.within(4096, 8);
  EXPECT_EQ(few.sessions, 128U);
  EXPECT_EQ(few.connections, 2048U);
  EXPECT_LE(few.sessions * 8 + few.connections, 4096U * 3 / 4);
  EXPECT_EQ(wanted.within(16, 100).sessions, 1U);
}

TEST(UserQuota, RefusalsFloodNoLog) {
  UserQuota quota({.sessions = 1, .connections = 1});
  const Time start = Time() + std::chrono::seconds(100);
  EXPECT_TRUE(quota.may_log(kAnna, start));
  EXPECT_FALSE(quota.may_log(kAnna, start + std::chrono::seconds(1)));
  EXPECT_TRUE(quota.may_log(kBert, start + std::chrono::seconds(1)));
  EXPECT_TRUE(quota.may_log(kAnna, start + std::chrono::seconds(11)));
}

}  // namespace
}  // namespace twinstack::driver
