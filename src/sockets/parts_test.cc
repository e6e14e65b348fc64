// The parts of the socket layer that need no connection.
#include <gtest/gtest.h>
#include <linux/tcp.h>

#include <array>
#include <cerrno>
#include <string>
#include <thread>
#include <vector>

#include "sockets/chunks.h"
#include "sockets/errno_map.h"
#include "sockets/io_cursor.h"
#include "sockets/mutex.h"
#include "sockets/sonode_table.h"
#include "sockets/tcp_info.h"

namespace twinstack::sockets {
namespace {

TEST(IoCursor, WalksThroughTheParts) {
  std::array<char, 3> a{};
  std::array<char, 0> none{};
  std::array<char, 4> b{};
  const std::array<iovec, 3> parts{iovec{a.data(), 3}, iovec{none.data(), 0}, iovec{b.data(), 4}};
  IoCursor cursor(parts);
  EXPECT_EQ(cursor.left(), 7U);
  const std::string text = "abcdefgh";
  cursor.copy_in(reinterpret_cast<const std::byte*>(text.data()), 2);
  cursor.skip(2);
  cursor.copy_in(reinterpret_cast<const std::byte*>(text.data()) + 4, 4);
  EXPECT_EQ(cursor.left(), 0U);
  EXPECT_EQ(cursor.done(), 7U) << "not more than there is room for";
  EXPECT_EQ(std::string(a.data(), 2), "ab");
  EXPECT_EQ(std::string(b.data() + 1, 3), "efg");
}

TEST(IoCursor, TellsTheKernelTheRest) {
  std::array<char, 8> a{};
  std::array<char, 8> b{};
  const std::array<iovec, 2> parts{iovec{a.data(), 8}, iovec{b.data(), 8}};
  IoCursor cursor(parts);
  cursor.skip(3);
  std::array<iovec, 4> room{};
  auto rest = cursor.next(room, 100);
  ASSERT_EQ(rest.size(), 2U);
  EXPECT_EQ(rest[0].iov_base, a.data() + 3);
  EXPECT_EQ(rest[0].iov_len, 5U);
  EXPECT_EQ(rest[1].iov_len, 8U);
  rest = cursor.next(room, 6);
  ASSERT_EQ(rest.size(), 2U);
  EXPECT_EQ(rest[1].iov_len, 1U);
  EXPECT_EQ(cursor.next(std::span(room).first(1), 100).size(), 1U);
}

TEST(IoCursor, RefusesWhatLinuxRefuses) {
  std::vector<iovec> many(IOV_MAX + 1);
  EXPECT_FALSE(IoCursor::is_valid(many));
  many.resize(IOV_MAX);
  EXPECT_TRUE(IoCursor::is_valid(many));
  many[0].iov_len = SSIZE_MAX;
  EXPECT_TRUE(IoCursor::is_valid(many));
  many[1].iov_len = 1;
  EXPECT_FALSE(IoCursor::is_valid(many));
}

TEST(SonodeTable, RemembersEveryFieldOfAnEntry) {
  static SonodeTable table;
  EXPECT_EQ(table.get(5).kind, FdKind::kUnknown);
  const FdEntry entry{.kind = FdKind::kSonode, .session = kMaxSessions - 1, .slot = kMaxSlots - 1, .tag = 0xfedcba98};
  EXPECT_EQ(table.exchange(5, entry), FdEntry{});
  EXPECT_EQ(table.get(5), entry);
  EXPECT_EQ(table.get(6), FdEntry{});
  EXPECT_FALSE(table.replace(5, {}, {}));
  EXPECT_TRUE(table.replace(5, entry, {.kind = FdKind::kEpoll, .session = 0, .slot = 3, .tag = 1}));
  EXPECT_EQ(table.exchange(5, {}).slot, 3U);
}

TEST(SonodeTable, AnyNumberMayBeAskedFor) {
  static SonodeTable table;
  const FdEntry entry{.kind = FdKind::kInternal, .session = 0, .slot = 0, .tag = 0};
  for (const int fd : {-1, INT32_MIN, INT32_MAX, static_cast<int>(SonodeTable::kMaxFds)}) {
    EXPECT_EQ(table.exchange(fd, entry), FdEntry{});
    EXPECT_EQ(table.get(fd), FdEntry{});
  }
  const int last = static_cast<int>(SonodeTable::kMaxFds) - 1;
  table.exchange(last, entry);
  EXPECT_EQ(table.get(last), entry);
}

TEST(SonodeTable, ListsWhatItKnowsInOrder) {
  static SonodeTable table;
  const FdEntry entry{.kind = FdKind::kEpoll, .session = 0, .slot = 1, .tag = 1};
  for (const int fd : {7, 1023, 1024, 900'000}) table.exchange(fd, entry);
  std::vector<int> seen;
  table.for_each(0, ~0U, [&](int fd, FdEntry) { seen.push_back(fd); });
  EXPECT_EQ(seen, (std::vector<int>{7, 1023, 1024, 900'000}));
  seen.clear();
  table.for_each(8, 1023, [&](int fd, FdEntry) { seen.push_back(fd); });
  EXPECT_EQ(seen, std::vector<int>{1023});
}

TEST(TxChunks, AreTakenAndGivenBack) {
  TxChunks chunks;
  ASSERT_TRUE(chunks.init(3));
  std::array<bool, 3> taken{};
  for (int i = 0; i < 3; ++i) {
    const std::uint32_t chunk = chunks.take();
    ASSERT_LT(chunk, 3U);
    EXPECT_FALSE(taken[chunk]);
    taken[chunk] = true;
  }
  EXPECT_TRUE(chunks.is_empty());
  EXPECT_EQ(chunks.take(), kNoChunk);
  chunks.give(1);
  EXPECT_EQ(chunks.available(), 1U);
  EXPECT_EQ(chunks.take(), 1U);
}

TEST(Mutex, LetsOneInAtATime) {
  Mutex mutex;
  int count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        const MutexLock lock(mutex);
        ++count;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(count, 80'000);
  mutex.lock();
  bool taken = false;
  std::thread([&] {
    if (mutex.try_lock()) {
      taken = true;
      mutex.unlock();
    }
  }).join();
  EXPECT_FALSE(taken);
  mutex.unlock();
}

TEST(ErrnoMap, IsLinuxs) {
  EXPECT_EQ(fail(Failure::kWouldBlock), -EAGAIN);
  EXPECT_EQ(fail(Failure::kInterrupted), -EINTR);
  EXPECT_EQ(fail(Failure::kAborted), -ECONNABORTED);
  EXPECT_EQ(fail(Failure::kBadDescriptor), -EBADF);
  EXPECT_TRUE(would_block(-EWOULDBLOCK));
  errno = 0;
  EXPECT_EQ(finish<int>(fail(Failure::kInvalid)), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(finish<ssize_t>(7), 7);
  errno = EPIPE;
  EXPECT_EQ(outcome_of(-1), -EPIPE);
}

TEST(TcpInfo, WhatTheEngineKnowsReplacesTheSockets) {
  tcp::TcpInfo info;
  info.rtt_us = 1;
  info.bytes_acked = 7;  // of a socket that is not parked yet: part of the base
  info.pmtu = 1500;
  info.busy_time_us = 3;
  tcp::InfoCounters base{};
  base.bytes_acked = 100;
  base.segs_out = 10;
  base.delivered = 9;
  ipc::HwConnState state{};
  state.info.rtt_us = 250;
  state.info.lost = 4;
  state.info.bytes_acked = 5;
  state.info.segs_out = 2;
  state.info.data_segs_in = 3;
  state.info.ca_state = 3;
  put_engine_state(state, base, info);
  EXPECT_EQ(info.rtt_us, 250U);
  EXPECT_EQ(info.lost, 4U);
  EXPECT_EQ(info.ca_state, 3U);
  EXPECT_EQ(info.bytes_acked, 105U);
  EXPECT_EQ(info.segs_out, 12U);
  EXPECT_EQ(info.data_segs_in, 3U);
  EXPECT_EQ(info.delivered, 9U);
  EXPECT_EQ(info.pmtu, 1500U) << "what the engine does not know stays";
  EXPECT_EQ(info.busy_time_us, 3U);
}

TEST(TcpInfo, TheBaseIsAddedAsFarAsTheAnswerGoes) {
  tcp::InfoCounters base{};
  base.bytes_acked = 500;
  base.total_retrans = 4;
  base.segs_in = 6;
  tcp_info info{};
  info.tcpi_bytes_acked = 20;
  info.tcpi_total_retrans = 1;
  info.tcpi_segs_in = 2;
  add_base(base, &info, offsetof(tcp_info, tcpi_segs_in));
  EXPECT_EQ(info.tcpi_bytes_acked, 520U);
  EXPECT_EQ(info.tcpi_total_retrans, 5U);
  EXPECT_EQ(info.tcpi_segs_in, 2U) << "the program has no room for it";
  add_base({}, &info, 0);
}

}  // namespace
}  // namespace twinstack::sockets
