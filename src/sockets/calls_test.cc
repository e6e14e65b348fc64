// Data calls: the same in the kernel, in the engine, and with the owner changing all the time.
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <csignal>
#include <vector>

#include "sockets/test_bed.h"

namespace twinstack::sockets {
namespace {

using namespace std::string_literals;

class Calls : public Everywhere {};
INSTANTIATE_TEST_SUITE_P(, Calls, ::testing::Values(Where::kKernel, Where::kEngine, Where::kFlipping), where_name);
class CallsAtRest : public Everywhere {};
INSTANTIATE_TEST_SUITE_P(, CallsAtRest, ::testing::Values(Where::kKernel, Where::kEngine), where_name);
class CallsInTheKernel : public Everywhere {};
INSTANTIATE_TEST_SUITE_P(, CallsInTheKernel, ::testing::Values(Where::kKernel), where_name);

TEST_P(Calls, ReadAndWrite) {
  Pair pair;
  place(pair.ours);
  pair.say("hello");
  char buffer[16] = {};
  EXPECT_EQ(ts_read(pair.ours, buffer, sizeof(buffer)), 5);
  EXPECT_STREQ(buffer, "hello");
  EXPECT_EQ(ts_write(pair.ours, "world", 5), 5);
  EXPECT_EQ(pair.hear(5), "world");
}

// A program that waits for edges takes a short read for the end of what there is (epoll(7)).
TEST_P(CallsAtRest, AReadTakesWhatTheEngineAndTheKernelHave) {
  Pair pair;
  put_on_both_sides(pair, "01234", "56789");
  EXPECT_EQ(receive_some(pair.ours, 3, MSG_PEEK), "012");
  EXPECT_EQ(receive_some(pair.ours, 64, MSG_PEEK), "0123456789");
  EXPECT_EQ(receive_some(pair.ours, 3), "012");
  EXPECT_EQ(receive_some(pair.ours, 64), "3456789");
  // Also of a connection that stays in the kernel from now on.
  put_on_both_sides(pair, "01234", "56789");
  g_layer.find(pair.ours)->plain.store(true);
  EXPECT_EQ(receive_some(pair.ours, 64), "0123456789");
  pair.close_peer();
  EXPECT_EQ(receive_some(pair.ours, 64), "");
}

TEST_P(Calls, OverIpv6) {
  Pair pair(0, AF_INET6);
  place(pair.ours);
  pair.say("six");
  EXPECT_EQ(receive_some(pair.ours, 3, MSG_WAITALL), "six");
  EXPECT_EQ(ts_send(pair.ours, "6", 1, 0), 1);
  EXPECT_EQ(pair.hear(1), "6");
}

TEST_P(Calls, VectorsAreFilledAndSentInOrder) {
  Pair pair;
  place(pair.ours);
  char a[] = "ab";
  char b[] = "";
  char c[] = "cde";
  const iovec out[] = {{a, 2}, {b, 0}, {c, 3}};
  EXPECT_EQ(ts_writev(pair.ours, out, 3), 5);
  EXPECT_EQ(pair.hear(5), "abcde");
  pair.say("12345");
  ASSERT_TRUE(has_unread(pair.ours, 5));
  char d[2] = {};
  char e[8] = {};
  const iovec in[] = {{d, 2}, {e, 8}};
  // The engine may have some and the kernel the rest: two calls then.
  ssize_t got = ts_readv(pair.ours, in, 2);
  std::string all = std::string(d, 2) + e;
  while (got < 5) {
    char more[8] = {};
    const ssize_t n = ts_read(pair.ours, more, 5 - static_cast<std::size_t>(got));
    ASSERT_GT(n, 0);
    all.resize(static_cast<std::size_t>(got));
    all.append(more, static_cast<std::size_t>(n));
    got += n;
  }
  all.resize(5);
  EXPECT_EQ(all, "12345");
  EXPECT_EQ(ts_readv(pair.ours, in, -1), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(ts_readv(pair.ours, in, 2000), -1);
  EXPECT_EQ(errno, EINVAL);
}

// What the engine received lies before the urgent byte, and is none.
TEST_P(Calls, UrgentDataIsTheKernels) {
  Pair pair;
  place(pair.ours);
  pair.say("abc");
  ASSERT_TRUE(has_unread(pair.ours, 3));
  char byte = 0;
  EXPECT_EQ(ts_recv(pair.ours, &byte, 1, MSG_OOB), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_FALSE(in_engine(pair.ours)) << "such a connection stays";
  ASSERT_EQ(::send(pair.peer, "U", 1, MSG_OOB), 1);
  pair.say("def");
  ASSERT_TRUE(eventually([&] { return ts_recv(pair.ours, &byte, 1, MSG_OOB) == 1; }));
  EXPECT_EQ(byte, 'U');
  const auto at_mark = [&] {
    int mark = -1;
    EXPECT_EQ(ts_ioctl(pair.ours, SIOCATMARK, reinterpret_cast<uintptr_t>(&mark)), 0);
    return mark;
  };
  EXPECT_EQ(at_mark(), 0);
  EXPECT_EQ(receive_some(pair.ours, 3, MSG_WAITALL), "abc");
  EXPECT_EQ(at_mark(), 1);
  EXPECT_EQ(receive_some(pair.ours, 3, MSG_WAITALL), "def");
}

// As a listener hands it on: the option was set before the connection was known.
TEST_P(Calls, TheKernelsControlDataReachesTheProgram) {
  if (GetParam() != Where::kKernel) return;  // the fake service does not look at options, the driver refuses the move
  Pair pair;
  const int on = 1;
  ASSERT_EQ(::setsockopt(pair.ours, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)), 0);
  // The first packets may have none: Linux begins to stamp a little later.
  EXPECT_TRUE(eventually([&] {
    pair.say("m");
    char data = 0;
    iovec part{&data, 1};
    alignas(cmsghdr) char control[64];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    EXPECT_EQ(ts_recvmsg(pair.ours, &message, 0), 1);
    const cmsghdr* first = CMSG_FIRSTHDR(&message);
    return first != nullptr && first->cmsg_type == SCM_TIMESTAMP;
  }));
}

TEST_P(Calls, MessagesCarryNoAddressAndNoControlData) {
  Pair pair;
  place(pair.ours);
  pair.say("m");
  char data = 0;
  iovec part{&data, 1};
  char control[64];
  sockaddr_in name{};
  msghdr message{};
  message.msg_name = &name;
  message.msg_namelen = sizeof(name);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  message.msg_flags = -1;
  EXPECT_EQ(ts_recvmsg(pair.ours, &message, 0), 1);
  EXPECT_EQ(message.msg_namelen, 0U);
  EXPECT_EQ(message.msg_controllen, 0U);
  EXPECT_EQ(message.msg_flags, 0);
  pair.say("n");
  socklen_t length = sizeof(name);
  EXPECT_EQ(ts_recvfrom(pair.ours, &data, 1, 0, reinterpret_cast<sockaddr*>(&name), &length), 1);
  EXPECT_EQ(length, 0U);
}

TEST_P(Calls, PeekLeavesTheBytes) {
  Pair pair;
  place(pair.ours);
  pair.say("peek");
  EXPECT_EQ(receive_some(pair.ours, 1, MSG_PEEK), "p");
  EXPECT_EQ(receive_some(pair.ours, 1, MSG_PEEK), "p");
  EXPECT_EQ(receive_some(pair.ours, 4, MSG_WAITALL), "peek");
}

TEST_P(Calls, WaitAllWaitsForAll) {
  Pair pair;
  place(pair.ours);
  std::thread talker([&] {
    for (char c = 'a'; c <= 'z'; ++c) pair.say(std::string(100, c));
  });
  std::string text(2600, '\0');
  EXPECT_EQ(ts_recv(pair.ours, text.data(), text.size(), MSG_WAITALL), 2600);
  talker.join();
  for (std::size_t i = 0; i < text.size(); ++i) ASSERT_EQ(text[i], static_cast<char>('a' + i / 100));
}

TEST_P(Calls, WaitAllReturnsWhatThereWasAtTheEnd) {
  Pair pair;
  place(pair.ours);
  pair.say("abc");
  pair.close_peer();
  EXPECT_EQ(receive_some(pair.ours, 10, MSG_WAITALL), "abc");
  EXPECT_EQ(receive_some(pair.ours, 10, MSG_WAITALL), "");
}

TEST_P(Calls, TruncDiscards) {
  Pair pair;
  place(pair.ours);
  pair.say("xxy");
  char untouched[2] = {'-', '-'};
  std::size_t gone = 0;
  while (gone < 2) {
    const ssize_t n = ts_recv(pair.ours, untouched, 2 - gone, MSG_TRUNC);
    ASSERT_GT(n, 0);
    gone += static_cast<std::size_t>(n);
  }
  EXPECT_EQ(std::string(untouched, 2), "--");
  EXPECT_EQ(receive_some(pair.ours, 1), "y");
}

TEST_P(Calls, NothingAskedNothingDone) {
  Pair pair;
  place(pair.ours);
  char buffer[1];
  EXPECT_EQ(ts_read(pair.ours, buffer, 0), 0);
  EXPECT_EQ(ts_write(pair.ours, buffer, 0), 0);
  EXPECT_EQ(ts_recv(pair.ours, buffer, 0, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  pair.say("x");
  EXPECT_EQ(receive_some(pair.ours, 1, MSG_PEEK), "x");
  EXPECT_EQ(ts_recv(pair.ours, buffer, 0, 0), 0);
}

TEST_P(Calls, NonBlockingReceiveSaysSo) {
  Pair pair(SOCK_NONBLOCK);
  place(pair.ours);
  char buffer[1];
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  // The flag is the kernel's: taken off, the call waits.
  EXPECT_EQ(ts_fcntl(pair.ours, F_SETFL, 0), 0);
  std::thread talker([&] { pair.say("z"); });
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), 1);
  talker.join();
  int on = 1;
  EXPECT_EQ(ts_ioctl(pair.ours, FIONBIO, reinterpret_cast<uintptr_t>(&on)), 0);
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
}

TEST_P(Calls, NonBlockingSendFillsUpAndGoesOn) {
  Pair pair(SOCK_NONBLOCK);
  place(pair.ours);
  const std::string block(65536, 'b');
  std::size_t sent = 0;
  ssize_t n = 0;
  while ((n = ts_send(pair.ours, block.data(), block.size(), 0)) > 0) sent += static_cast<std::size_t>(n);
  EXPECT_EQ(n, -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GT(sent, 65536U);
  EXPECT_EQ(pair.hear(sent), std::string(sent, 'b'));
}

TEST_P(Calls, BlockingSendSendsAll) {
  Pair pair;
  place(pair.ours);
  std::string block(8 << 20, '\0');
  for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<char>(i * 31 + i / 977);
  ssize_t sent = 0;
  std::thread sender([&] { sent = ts_send(pair.ours, block.data(), block.size(), 0); });
  const std::string got = pair.hear(block.size());
  sender.join();
  EXPECT_EQ(sent, static_cast<ssize_t>(block.size()));
  EXPECT_TRUE(got == block);
}

TEST_P(Calls, ReceiveTimeLimitHolds) {
  Pair pair;
  place(pair.ours);
  timeval limit{.tv_sec = 0, .tv_usec = 50'000};
  ASSERT_EQ(ts_setsockopt(pair.ours, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
  const auto start = std::chrono::steady_clock::now();
  char buffer[1];
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(45));
}

TEST_P(Calls, SendTimeLimitHolds) {
  Pair pair;
  timeval limit{.tv_sec = 0, .tv_usec = 50'000};
  ASSERT_EQ(ts_setsockopt(pair.ours, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)), 0);
  place(pair.ours);
  const std::string block(1 << 20, 'b');
  ssize_t n = 0;
  for (int i = 0; i < 1000 && (n = ts_send(pair.ours, block.data(), block.size(), 0)) > 0; ++i) {
  }
  EXPECT_EQ(n, -1);
  EXPECT_EQ(errno, EAGAIN);
}

std::atomic<int> g_signals = 0;

void count_signal(int) { g_signals.fetch_add(1, std::memory_order_relaxed); }

TEST_P(Calls, SignalsInterruptUnlessTheyRestart) {
  Pair pair;
  place(pair.ours);
  struct sigaction action{};
  action.sa_handler = count_signal;
  struct sigaction old{};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &old), 0);
  const pthread_t self = ::pthread_self();
  std::atomic<bool> over = false;
  // Until the call has ended: the signal may come before the call sleeps.
  std::thread signaler([&] {
    while (!over) {
      ::pthread_kill(self, SIGUSR1);
      std::this_thread::yield();
    }
  });
  char buffer[1];
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), -1);
  EXPECT_EQ(errno, EINTR);
  over = true;
  signaler.join();
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);
  g_signals = 0;
  std::thread later([&] {
    EXPECT_TRUE(eventually([&] {
      ::pthread_kill(self, SIGUSR1);
      return g_signals >= 3;
    }));
    pair.say("r");
  });
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), 1);
  later.join();
  ::sigaction(SIGUSR1, &old, nullptr);
}

TEST_P(Calls, EndOfStreamAndBrokenPipe) {
  Pair pair;
  place(pair.ours);
  pair.say("last");
  pair.close_peer();
  EXPECT_EQ(receive_some(pair.ours, 4, MSG_WAITALL), "last");
  EXPECT_EQ(receive_some(pair.ours, 4), "");
  // The first send draws the RST, a later one fails.
  ASSERT_TRUE(eventually([&] { return ts_send(pair.ours, "x", 1, MSG_NOSIGNAL) < 0; }));
  EXPECT_EQ(errno, EPIPE);
  EXPECT_EQ(ts_send(pair.ours, "x", 1, 0), -1) << "SIGPIPE is ignored in this program";
  EXPECT_EQ(errno, EPIPE);
}

TEST_P(Calls, SigpipeIsRaised) {
  Pair pair;
  place(pair.ours);
  pair.close_peer();
  ASSERT_TRUE(eventually([&] { return ts_send(pair.ours, "x", 1, MSG_NOSIGNAL) < 0; }));
  g_signals = 0;
  struct sigaction action{};
  action.sa_handler = count_signal;
  struct sigaction old{};
  ::sigaction(SIGPIPE, &action, &old);
  EXPECT_EQ(ts_send(pair.ours, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(g_signals, 0);
  EXPECT_EQ(ts_write(pair.ours, "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_EQ(g_signals, 1);
  ::sigaction(SIGPIPE, &old, nullptr);
}

TEST_P(Calls, HalfCloseSendsEverythingFirst) {
  Pair pair;
  place(pair.ours);
  const std::string block(300'000, 'h');
  std::thread sender([&] {
    EXPECT_EQ(ts_send(pair.ours, block.data(), block.size(), 0), static_cast<ssize_t>(block.size()));
    EXPECT_EQ(ts_shutdown(pair.ours, SHUT_WR), 0);
  });
  EXPECT_EQ(pair.hear(block.size() + 1), block);
  sender.join();
  pair.say("back");
  EXPECT_EQ(receive_some(pair.ours, 4, MSG_WAITALL), "back");
  EXPECT_EQ(ts_send(pair.ours, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_P(Calls, CloseSendsEverythingFirst) {
  Pair pair;
  place(pair.ours);
  const std::string block(100'000, 'c');
  ASSERT_EQ(ts_send(pair.ours, block.data(), block.size(), 0), static_cast<ssize_t>(block.size()));
  pair.close_ours();
  EXPECT_EQ(pair.hear(block.size() + 1), block);
}

// In the kernel: the engine hands resets back to it.
TEST_P(CallsInTheKernel, AResetIsReportedOnce) {
  Pair pair;
  const linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(pair.peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  pair.close_peer();
  char buffer[1];
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), 0);
}

// A blocking send that has sent a part when the reset comes: the count, and the error at the next call, without
// SIGPIPE.
TEST_P(CallsInTheKernel, AResetBehindSentBytesIsForTheNextCall) {
  Pair pair;
  const std::string block(32'000'000, 'r');
  ssize_t sent = 0;
  std::thread sender([&] { sent = ts_send(pair.ours, block.data(), block.size(), MSG_NOSIGNAL); });
  EXPECT_EQ(pair.hear(100'000).size(), 100'000U);
  const linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(pair.peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  pair.close_peer();
  sender.join();
  EXPECT_GT(sent, 0);
  EXPECT_LT(sent, static_cast<ssize_t>(block.size()));
  EXPECT_EQ(ts_send(pair.ours, "x", 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(ts_send(pair.ours, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_P(Calls, HeaderOptionsLeaveTheConnectionWhereItIs) {
  Pair pair;
  place(pair.ours);
  const auto where = [&] { return g_layer.find(pair.ours)->owner(); };
  const auto before = where();
  int value = 0x48;
  ASSERT_EQ(ts_setsockopt(pair.ours, IPPROTO_IP, IP_TOS, &value, sizeof(value)), 0);
  value = 33;
  ASSERT_EQ(ts_setsockopt(pair.ours, IPPROTO_IP, IP_TTL, &value, sizeof(value)), 0);
  value = 0;
  EXPECT_EQ(ts_setsockopt(pair.ours, IPPROTO_IP, IP_TTL, &value, sizeof(value)), -1) << "the kernel judges it";
  if (GetParam() == Where::kEngine) {
    EXPECT_EQ(where(), before);
  }
  socklen_t length = sizeof(value);
  ASSERT_EQ(ts_getsockopt(pair.ours, IPPROTO_IP, IP_TTL, &value, &length), 0);
  EXPECT_EQ(value, 33);
}

// Whoever has read the options must learn that they are no longer the same (ConnSlot::option_changes).
TEST_P(Calls, OptionsThatAreSetAreCounted) {
  Pair pair;
  place(pair.ours);
  const auto count = [&] { return g_layer.find(pair.ours)->slot->option_changes.load(); };
  const std::uint32_t before = count();
  int value = 1;
  socklen_t length = sizeof(value);
  ASSERT_EQ(ts_getsockopt(pair.ours, IPPROTO_TCP, TCP_NODELAY, &value, &length), 0);
  EXPECT_EQ(count(), before);
  value = 1;
  ASSERT_EQ(ts_setsockopt(pair.ours, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)), 0);
  EXPECT_EQ(count(), before + 1);
  value = 65536;
  ASSERT_EQ(ts_setsockopt(pair.ours, SOL_SOCKET, SO_SNDBUF, &value, sizeof(value)), 0) << "the kernel socket's own";
  EXPECT_EQ(count(), before + 2);
  ASSERT_EQ(ts_setsockopt(pair.ours, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)), 0) << "it stays";
  EXPECT_EQ(count(), before + 3);
}

TEST_P(Calls, SoErrorIsNotTheMovesOwn) {
  Pair pair;
  place(pair.ours);
  for (int i = 0; i < 100; ++i) {
    int error = -1;
    socklen_t length = sizeof(error);
    ASSERT_EQ(ts_getsockopt(pair.ours, SOL_SOCKET, SO_ERROR, &error, &length), 0);
    ASSERT_EQ(error, 0);
    ASSERT_EQ(length, sizeof(error));
  }
}

}  // namespace
}  // namespace twinstack::sockets
