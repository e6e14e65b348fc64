// What programs ask of descriptors: options, names, copies, fork, close, connect. On the kernel, in the engine, and
// while moving.
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

// The same cases as Calls (calls_test.cc), for what is asked of descriptors rather than of data.
class Descriptors : public Everywhere {};
INSTANTIATE_TEST_SUITE_P(, Descriptors, ::testing::Values(Where::kKernel, Where::kEngine, Where::kFlipping),
                         where_name);

TEST_P(Descriptors, OptionsAreTheKernels) {
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

TEST_P(Descriptors, TcpInfoTellsOfTheOwner) {
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

TEST_P(Descriptors, QueuesAreCounted) {
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

TEST_P(Descriptors, NamesAreKnown) {
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

TEST_P(Descriptors, CopiesOfTheDescriptorAreTheConnection) {
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

TEST_P(Descriptors, SendfileGoesThroughTheKernel) {
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

TEST_P(Descriptors, RareFlagsAndCallsGoThroughTheKernel) {
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

TEST_P(Descriptors, ADescriptorThatLeavesStaysInTheKernel) {
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

TEST_P(Descriptors, AForkedChildUsesTheKernelsSocket) {
  Pair pair;
  place(pair.ours);
  pair.say("for the child");
  ASSERT_TRUE(has_unread(pair.ours, 13));
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

TEST_P(Descriptors, AForkThatTouchesNoSocketChangesNothing) {
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

TEST_P(Descriptors, CloseWhileAnotherThreadWaits) {
  Pair pair;
  place(pair.ours);
  ssize_t result = 0;
  int error = 0;
  std::thread reader([&] {
    char byte = 0;
    result = ts_read(pair.ours, &byte, 1);
    error = errno;
  });
  // A call that begins while the descriptor is being closed may reach the kernel's socket, and wait there as on Linux.
  EXPECT_TRUE(eventually([&] {
    const SonodeRef sonode = g_layer.find(pair.ours);
    const MutexLock lock(sonode->rx_mutex);
    return sonode->watches != nullptr;
  }));
  ts_close(pair.ours);
  reader.join();
  pair.ours = -1;
  EXPECT_EQ(result, -1);
  EXPECT_EQ(error, EBADF);
}

TEST_P(Descriptors, TwoThreadsShareAConnection) {
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

TEST_P(Descriptors, ADup3ThatFailsLeavesItsTargetAlone) {
  Pair pair;
  Pair target;
  place(pair.ours);
  place(target.ours);
  const int bad = ::dup(0);
  ::close(bad);
  EXPECT_EQ(ts_dup3(pair.ours, target.ours, O_NONBLOCK), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(ts_dup2(bad, target.ours), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(ts_dup2(pair.ours, 1 << 30), -1);
  EXPECT_EQ(errno, EBADF);
  ts_connection known{};
  EXPECT_EQ(ts_describe(target.ours, &known), 0);
  target.say("still there");
  EXPECT_EQ(receive_some(target.ours, 11, MSG_WAITALL), "still there");
}

TEST_P(Descriptors, OwnDescriptorsCannotBeClosed) {
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

TEST_P(Descriptors, ConnectedSocketsAreKnownToo) {
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

TEST_P(Descriptors, NonBlockingConnectIsKnownWhenItIsEstablished) {
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

TEST_P(Descriptors, SlotsAreUsedAgain) {
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
