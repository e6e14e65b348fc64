// Data calls, options and descriptors: the same in the kernel, in the engine, and with the owner changing all the time.
#include <linux/sockios.h>
#include <netinet/tcp.h>
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

std::string receive_some(int fd, std::size_t size, int flags = 0) {
  std::string text(size, '\0');
  const ssize_t n = ts_recv(fd, text.data(), size, flags);
  EXPECT_GE(n, 0) << std::strerror(errno);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

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
  ASSERT_TRUE(eventually([&] {
    int unread = 0;
    return ts_ioctl(pair.ours, FIONREAD, reinterpret_cast<uintptr_t>(&unread)) == 0 && unread == 5;
  }));
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

TEST_P(Calls, AResetIsReportedOnce) {
  // The fake engine's own read would take the error.
  if (GetParam() != Where::kKernel) GTEST_SKIP() << "only the kernel reports resets";
  Pair pair;
  const linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(pair.peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  pair.close_peer();
  char buffer[1];
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(ts_read(pair.ours, buffer, 1), 0);
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

TEST_P(Calls, OptionsAreTheKernels) {
  Pair pair;
  place(pair.ours);
  for (const int wanted : {1, 0, 1}) {
    ASSERT_EQ(ts_setsockopt(pair.ours, IPPROTO_TCP, TCP_NODELAY, &wanted, sizeof(wanted)), 0);
    int value = -1;
    socklen_t length = sizeof(value);
    ASSERT_EQ(ts_getsockopt(pair.ours, IPPROTO_TCP, TCP_NODELAY, &value, &length), 0);
    EXPECT_EQ(value, wanted);
    ASSERT_EQ(ts_setsockopt(pair.ours, SOL_SOCKET, SO_KEEPALIVE, &wanted, sizeof(wanted)), 0);
    ASSERT_EQ(ts_getsockopt(pair.ours, SOL_SOCKET, SO_KEEPALIVE, &value, &length), 0);
    EXPECT_EQ(value, wanted);
  }
  int nothing = 0;
  EXPECT_EQ(ts_setsockopt(pair.ours, IPPROTO_TCP, 12345, &nothing, sizeof(nothing)), -1);
  EXPECT_EQ(errno, ENOPROTOOPT);
  pair.say("still here");
  EXPECT_EQ(receive_some(pair.ours, 10, MSG_WAITALL), "still here");
}

TEST_P(Calls, TcpInfoTellsOfTheOwner) {
  Pair pair;
  place(pair.ours);
  tcp_info info{};
  socklen_t length = sizeof(info);
  ASSERT_EQ(ts_getsockopt(pair.ours, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
  EXPECT_EQ(info.tcpi_state, TCP_ESTABLISHED);
  EXPECT_EQ(length, sizeof(info));
  if (GetParam() == Where::kEngine) {
    EXPECT_EQ(info.tcpi_rtt, 4242U);
    EXPECT_EQ(info.tcpi_snd_cwnd, 33U);
    EXPECT_EQ(info.tcpi_snd_mss, 1448U);
    int mss = 0;
    length = sizeof(mss);
    ASSERT_EQ(ts_getsockopt(pair.ours, IPPROTO_TCP, TCP_MAXSEG, &mss, &length), 0);
    EXPECT_EQ(mss, 1448);
    EXPECT_TRUE(in_engine(pair.ours)) << "asking moves nothing";
  }
  char small[8];
  length = sizeof(small);
  ASSERT_EQ(ts_getsockopt(pair.ours, IPPROTO_TCP, TCP_INFO, small, &length), 0);
  EXPECT_EQ(length, sizeof(small));
}

TEST_P(Calls, QueuesAreCounted) {
  Pair pair;
  place(pair.ours);
  int count = -1;
  ASSERT_EQ(ts_ioctl(pair.ours, FIONREAD, reinterpret_cast<uintptr_t>(&count)), 0);
  EXPECT_EQ(count, 0);
  pair.say(std::string(10'000, 'q'));
  EXPECT_TRUE(eventually(
      [&] { return ts_ioctl(pair.ours, FIONREAD, reinterpret_cast<uintptr_t>(&count)) == 0 && count == 10'000; }));
  ASSERT_EQ(ts_send(pair.ours, "abc", 3, 0), 3);
  EXPECT_EQ(pair.hear(3), "abc");
  EXPECT_TRUE(eventually(
      [&] { return ts_ioctl(pair.ours, SIOCOUTQ, reinterpret_cast<uintptr_t>(&count)) == 0 && count == 0; }));
  EXPECT_EQ(ts_ioctl(pair.ours, SIOCOUTQNSD, reinterpret_cast<uintptr_t>(&count)), 0);
  EXPECT_EQ(count, 0);
}

TEST_P(Calls, NamesAreKnown) {
  Pair pair;
  place(pair.ours);
  sockaddr_in name{};
  socklen_t length = sizeof(name);
  ASSERT_EQ(ts_getsockname(pair.ours, reinterpret_cast<sockaddr*>(&name), &length), 0);
  EXPECT_EQ(name.sin_port, reinterpret_cast<const sockaddr_in*>(pair.listener.address())->sin_port);
  ASSERT_EQ(ts_getpeername(pair.ours, reinterpret_cast<sockaddr*>(&name), &length), 0);
  sockaddr_in peer{};
  length = sizeof(peer);
  ::getsockname(pair.peer, reinterpret_cast<sockaddr*>(&peer), &length);
  EXPECT_EQ(name.sin_port, peer.sin_port);
}

TEST_P(Calls, CopiesOfTheDescriptorAreTheConnection) {
  Pair pair;
  place(pair.ours);
  const int copy = ts_dup(pair.ours);
  const int other = ts_fcntl(pair.ours, F_DUPFD_CLOEXEC, 100);
  EXPECT_GE(other, 100);
  EXPECT_EQ(ts_dup2(pair.ours, 90), 90);
  EXPECT_EQ(ts_dup3(pair.ours, 91, O_CLOEXEC), 91);
  ts_connection a{};
  ts_connection b{};
  EXPECT_EQ(ts_describe(pair.ours, &a), 0);
  for (const int fd : {copy, other, 90, 91}) {
    EXPECT_EQ(ts_describe(fd, &b), 0);
    EXPECT_EQ(a.slot, b.slot);
  }
  pair.close_ours();
  for (const int fd : {other, 90, 91}) EXPECT_EQ(ts_close(fd), 0);
  pair.say("by the copy");
  EXPECT_EQ(receive_some(copy, 11, MSG_WAITALL), "by the copy");
  EXPECT_EQ(ts_close(copy), 0);
  EXPECT_EQ(pair.hear(1), "");
  EXPECT_EQ(ts_read(copy, &a, 1), -1);
  EXPECT_EQ(errno, EBADF);
}

TEST_P(Calls, SendfileGoesThroughTheKernel) {
  Pair pair;
  place(pair.ours);
  char name[] = "/tmp/ts-sendfile-XXXXXX";
  const int file = ::mkstemp(name);
  ::unlink(name);
  const std::string block(50'000, 'f');
  ASSERT_EQ(::write(file, block.data(), block.size()), static_cast<ssize_t>(block.size()));
  ASSERT_EQ(ts_send(pair.ours, "first ", 6, 0), 6);
  off_t offset = 0;
  std::thread sender([&] { EXPECT_EQ(ts_sendfile(pair.ours, file, &offset, block.size()), 50'000); });
  EXPECT_EQ(pair.hear(50'006), "first " + block);
  sender.join();
  ::close(file);
}

TEST_P(Calls, RareFlagsAndCallsGoThroughTheKernel) {
  Pair pair;
  place(pair.ours);
  EXPECT_EQ(ts_send(pair.ours, "x", 1, MSG_OOB), 1);
  char byte = 0;
  EXPECT_TRUE(eventually([&] { return ::recv(pair.peer, &byte, 1, MSG_OOB) == 1; }));
  EXPECT_EQ(byte, 'x');
  pair.say("mm");
  char data[2] = {};
  iovec part{data, 2};
  mmsghdr message{};
  message.msg_hdr.msg_iov = &part;
  message.msg_hdr.msg_iovlen = 1;
  EXPECT_EQ(ts_recvmmsg(pair.ours, &message, 1, MSG_WAITALL, nullptr), 1);
  EXPECT_EQ(std::string(data, 2), "mm");
  EXPECT_EQ(ts_sendmmsg(pair.ours, &message, 1, 0), 1);
  EXPECT_EQ(pair.hear(2), "mm");
  service().offload_all();
  EXPECT_FALSE(in_engine(pair.ours)) << "such a connection stays";
}

TEST_P(Calls, ADescriptorThatLeavesStaysInTheKernel) {
  Pair pair;
  place(pair.ours);
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  char byte = 'x';
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(c), &pair.ours, sizeof(int));
  EXPECT_EQ(ts_sendmsg(ends[0], &message, 0), 1);
  service().offload_all();
  EXPECT_FALSE(in_engine(pair.ours));
  ASSERT_EQ(::recvmsg(ends[1], &message, 0), 1);
  int passed = -1;
  std::memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
  EXPECT_EQ(::send(passed, "q", 1, 0), 1) << "used past the layer";
  EXPECT_EQ(pair.hear(1), "q");
  for (const int fd : {ends[0], ends[1], passed}) ::close(fd);
}

TEST_P(Calls, AForkedChildUsesTheKernelsSocket) {
  Pair pair;
  place(pair.ours);
  pair.say("for the child");
  ASSERT_TRUE(eventually([&] {
    int unread = 0;
    return ts_ioctl(pair.ours, FIONREAD, reinterpret_cast<uintptr_t>(&unread)) == 0 && unread == 13;
  }));
  const pid_t child = ::fork();
  if (child == 0) {
    char text[13];
    const bool heard = ts_recv(pair.ours, text, 13, MSG_WAITALL) == 13 && std::memcmp(text, "for the child", 13) == 0;
    const bool said = ts_send(pair.ours, "thanks", 6, 0) == 6;
    ts_close(pair.ours);
    ::_exit(heard && said ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(pair.hear(6), "thanks");
  EXPECT_EQ(ts_send(pair.ours, "parent", 6, 0), 6) << "the child's close is not ours";
  EXPECT_EQ(pair.hear(6), "parent");
}

TEST_P(Calls, AForkThatTouchesNoSocketChangesNothing) {
  Pair pair;
  place(pair.ours);
  const auto uploads = service().counters().uploads.load();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(service().counters().uploads.load(), uploads);
  pair.say("on");
  EXPECT_EQ(receive_some(pair.ours, 2, MSG_WAITALL), "on");
}

TEST_P(Calls, CloseWhileAnotherThreadWaits) {
  Pair pair;
  place(pair.ours);
  std::atomic<bool> started = false;
  ssize_t result = 0;
  int error = 0;
  std::thread reader([&] {
    char byte = 0;
    started = true;
    result = ts_read(pair.ours, &byte, 1);
    error = errno;
  });
  EXPECT_TRUE(eventually([&] { return started.load(); }));
  ts_close(pair.ours);
  reader.join();
  pair.ours = -1;
  EXPECT_EQ(result, -1);
  EXPECT_EQ(error, EBADF);
}

TEST_P(Calls, TwoThreadsShareAConnection) {
  Pair pair;
  place(pair.ours);
  const std::size_t total = 2 << 20;
  std::thread writer([&] {
    const std::string block(10'000, 'w');
    for (std::size_t sent = 0; sent < total; sent += block.size()) {
      ASSERT_EQ(ts_send(pair.ours, block.data(), block.size(), 0), 10'000);
    }
  });
  std::thread echo([&] {
    std::vector<char> buffer(65536);
    ssize_t n = 0;
    while ((n = ::recv(pair.peer, buffer.data(), buffer.size(), 0)) > 0)
      if (::send(pair.peer, buffer.data(), static_cast<std::size_t>(n), MSG_NOSIGNAL) != n) break;
  });
  std::size_t got = 0;
  std::vector<char> buffer(50'000);
  while (got < total) {
    const ssize_t n = ts_recv(pair.ours, buffer.data(), buffer.size(), 0);
    ASSERT_GT(n, 0);
    for (ssize_t i = 0; i < n; ++i) ASSERT_EQ(buffer[static_cast<std::size_t>(i)], 'w');
    got += static_cast<std::size_t>(n);
  }
  writer.join();
  ts_shutdown(pair.ours, SHUT_WR);
  echo.join();
}

TEST_P(Calls, OwnDescriptorsCannotBeClosed) {
  Pair pair;
  place(pair.ours);
  int internal = -1;
  g_layer.table.for_each(0, SonodeTable::kMaxFds - 1, [&](int fd, FdEntry entry) {
    if (entry.kind == FdKind::kInternal) internal = fd;
  });
  ASSERT_GE(internal, 0);
  EXPECT_EQ(ts_close(internal), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(ts_dup2(pair.ours, internal), -1);
  EXPECT_EQ(errno, EBUSY);
  const int high = ts_fcntl(pair.ours, F_DUPFD, 300);
  EXPECT_EQ(ts_close_range(300, ~0U, 0), 0);
  EXPECT_EQ(::fcntl(high, F_GETFD), -1);
  EXPECT_NE(::fcntl(internal, F_GETFD), -1);
  pair.say("ok");
  EXPECT_EQ(receive_some(pair.ours, 2, MSG_WAITALL), "ok");
}

TEST_P(Calls, ConnectedSocketsAreKnownToo) {
  const Listener listener;
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(ts_connect(fd, listener.address(), listener.length()), 0);
  const int peer = ::accept(listener.fd(), nullptr, nullptr);
  place(fd);
  EXPECT_EQ(ts_connect(fd, listener.address(), listener.length()), -1);
  EXPECT_EQ(errno, EISCONN);
  EXPECT_EQ(ts_write(fd, "c", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(peer, &byte, 1), 1);
  EXPECT_EQ(byte, 'c');
  ts_close(fd);
  EXPECT_EQ(::read(peer, &byte, 1), 0);
  ::close(peer);
}

TEST_P(Calls, NonBlockingConnectIsKnownWhenItIsEstablished) {
  const Listener listener;
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int result = ts_connect(fd, listener.address(), listener.length());
  ASSERT_TRUE(result == 0 || errno == EINPROGRESS);
  const int peer = ::accept(listener.fd(), nullptr, nullptr);
  pollfd entry{.fd = fd, .events = POLLOUT, .revents = 0};
  EXPECT_EQ(ts_poll(&entry, 1, 5000), 1);
  int error = -1;
  socklen_t length = sizeof(error);
  EXPECT_EQ(ts_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
  EXPECT_EQ(error, 0);
  place(fd);
  EXPECT_EQ(ts_write(fd, "n", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(peer, &byte, 1), 1);
  ts_close(fd);
  ::close(peer);
}

TEST_P(Calls, SlotsAreUsedAgain) {
  const auto registered = service().counters().registered.load();
  for (int i = 0; i < 600; ++i) {
    Pair pair;  // expects a Sonode: there are 256 slots
    pair.say("x");
    char byte = 0;
    ASSERT_EQ(ts_read(pair.ours, &byte, 1), 1);
  }
  EXPECT_GE(service().counters().registered.load(), registered + 600);
}

TEST(PlainDescriptors, PassThrough) {
  Bed::service(0);
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  EXPECT_EQ(ts_write(ends[0], "u", 1), 1);
  char byte = 0;
  EXPECT_EQ(ts_read(ends[1], &byte, 1), 1);
  ts_connection connection{};
  EXPECT_EQ(ts_describe(ends[0], &connection), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(ts_close(ends[0]), 0);
  EXPECT_EQ(ts_close(ends[0]), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(ts_close(ends[1]), 0);
  EXPECT_EQ(ts_read(-1, &byte, 1), -1);
  EXPECT_EQ(errno, EBADF);
}

TEST(PlainDescriptors, UnixConnectionsAreLeftAlone) {
  Bed::service(0);
  const std::string path = bed_path("unix");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(listener, 4), 0);
  const int client = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(ts_connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const int server = ts_accept(listener, nullptr, nullptr);
  ts_connection connection{};
  EXPECT_EQ(ts_describe(server, &connection), -1);
  EXPECT_EQ(ts_describe(client, &connection), -1);
  for (const int fd : {listener, client, server}) ts_close(fd);
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace twinstack::sockets
