// The bed of the socket layer's tests: a fake service for the whole program, TCP pairs over loopback of which one end
// is used through ts_*() and the other by plain system calls. Test only.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>

#include "sockets/fake_service.h"
#include "sockets/layer.h"
#include "twinstack/twinstack.h"

namespace twinstack::sockets {

inline std::string bed_path(const char* name) {
  return "/tmp/ts-sockets-" + std::to_string(::getpid()) + "-" + name + ".sock";
}

// Points the layer at a service, as the environment would before the program starts.
inline void use_service(const std::string& path) {
  ::setenv("TWINSTACK_SOCKET", path.c_str(), 1);
  ::signal(SIGPIPE, SIG_IGN);
  if (Session* session = g_layer.current.load()) session->check_alive();
  start_layer();
  // Looks for the new service at once, not after the usual second.
  const MutexLock lock(g_layer.open_mutex);
  g_layer.next_try_ns = 0;
}

// The service that most tests share.
class Bed {
 public:
  static FakeService& service(std::uint32_t flip_interval_us) {
    if (shared() == nullptr) {
      FakeServiceOptions options;
      options.path = bed_path("bed");
      shared() = std::make_unique<FakeService>(options);
      use_service(options.path);
    }
    shared()->set_flip_interval(flip_interval_us);
    return *shared();
  }
  // For a test that needs services of its own.
  static void end() { shared().reset(); }

 private:
  static std::unique_ptr<FakeService>& shared() {
    static std::unique_ptr<FakeService> service;
    return service;
  }
};

inline bool eventually(const std::function<bool()>& holds, std::chrono::seconds limit = std::chrono::seconds(10)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

class Listener {
 public:
  explicit Listener(int family = AF_INET) : family_(family), fd_(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    address.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET) reinterpret_cast<sockaddr_in&>(address).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (family == AF_INET6) reinterpret_cast<sockaddr_in6&>(address).sin6_addr = in6addr_loopback;
    ::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    ::listen(fd_, 128);
    length_ = sizeof(address_);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address_), &length_);
  }
  ~Listener() { ts_close(fd_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] const sockaddr* address() const { return reinterpret_cast<const sockaddr*>(&address_); }
  [[nodiscard]] socklen_t length() const { return length_; }
  // A plain client socket, connected.
  [[nodiscard]] int connect_plainly() const {
    const int fd = ::socket(family_, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(::connect(fd, address(), length()), 0) << std::strerror(errno);
    return fd;
  }

 private:
  int family_;
  int fd_;
  sockaddr_storage address_{};
  socklen_t length_ = 0;
};

inline bool in_engine(int fd) {
  ts_connection connection{};
  return ts_describe(fd, &connection) == 0 && connection.in_engine != 0;
}

// Waits until that many bytes can be read, wherever they lie.
inline bool has_unread(int fd, int bytes) {
  return eventually([&] {
    int unread = 0;
    return ts_ioctl(fd, FIONREAD, reinterpret_cast<uintptr_t>(&unread)) == 0 && unread == bytes;
  });
}

// One connection: `ours` by ts_*(), `peer` by the kernel.
struct Pair {
  explicit Pair(int flags = 0, int family = AF_INET) : listener(family) {
    peer = listener.connect_plainly();
    ours = ts_accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC | flags);
    EXPECT_GE(ours, 0);
    ts_connection connection{};
    EXPECT_EQ(ts_describe(ours, &connection), 0) << "the connection has no Sonode";
    EXPECT_TRUE(eventually([&] { return ts_describe(ours, &connection) == 0 && connection.kernel_cookie != 0; }));
  }
  ~Pair() {
    if (ours >= 0) ts_close(ours);
    if (peer >= 0) ::close(peer);
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  void close_ours() { EXPECT_EQ(ts_close(std::exchange(ours, -1)), 0); }
  void close_peer() { EXPECT_EQ(::close(std::exchange(peer, -1)), 0); }
  void say(const std::string& text) const {
    EXPECT_EQ(::send(peer, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // All that the peer gets until `size` bytes or the end.
  [[nodiscard]] std::string hear(std::size_t size) const {
    std::string text(size, '\0');
    std::size_t got = 0;
    while (got < size) {
      const ssize_t n = ::recv(peer, text.data() + got, size - got, 0);
      if (n <= 0) break;
      got += static_cast<std::size_t>(n);
    }
    text.resize(got);
    return text;
  }

  Listener listener;
  int ours = -1;
  int peer = -1;
};

// An epoll set of the program.
struct EpollFd {
  EpollFd() : fd(ts_epoll_create1(EPOLL_CLOEXEC)) {}
  ~EpollFd() { ts_close(fd); }
  EpollFd(const EpollFd&) = delete;
  EpollFd& operator=(const EpollFd&) = delete;

  void control(int operation, int target, std::uint32_t events, std::uint64_t data = 7) const {
    epoll_event event{};
    event.events = events;
    event.data.u64 = data;
    EXPECT_EQ(ts_epoll_ctl(fd, operation, target, &event), 0) << std::strerror(errno);
  }
  // The bits of the next event; 0 when none comes within the time.
  [[nodiscard]] std::uint32_t next(int timeout_ms, std::uint64_t data = 7) const {
    epoll_event event{};
    const int count = ts_epoll_wait(fd, &event, 1, timeout_ms);
    EXPECT_GE(count, 0) << std::strerror(errno);
    if (count <= 0) return 0;
    const std::uint64_t got = event.data.u64;  // a copy: the struct is packed
    EXPECT_EQ(got, data);
    return event.events;
  }

  int fd;
};

// What can be had now.
inline std::string read_all(int fd) {
  std::string all;
  std::array<char, 4096> buffer;
  ssize_t n = 0;
  while ((n = ts_recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0)
    all.append(buffer.data(), static_cast<std::size_t>(n));
  return all;
}

// Where the connection is while a test runs.
enum class Where { kKernel, kEngine, kFlipping };

inline std::ostream& operator<<(std::ostream& out, Where where) {
  return out << (where == Where::kKernel ? "kernel" : where == Where::kEngine ? "engine" : "flipping");
}

// A test that runs in each of the three situations: what the program sees must be the same.
class Everywhere : public ::testing::TestWithParam<Where> {
 protected:
  void SetUp() override {
    service_ = &Bed::service(GetParam() == Where::kFlipping ? 1000 : 0);
    violations_ = service_->counters().violations.load();
  }
  void TearDown() override { EXPECT_EQ(service_->counters().violations.load(), violations_); }

  // Puts the connection where the test wants it.
  void place(int fd) {
    if (GetParam() != Where::kEngine) return;
    EXPECT_TRUE(eventually([&] {
      service_->offload_all();
      return in_engine(fd);
    }));
  }
  // The connection is the kernel's, `first` lies in chunks of the engine (if the test wants that) and `then` behind it
  // in the kernel.
  void put_on_both_sides(const Pair& pair, const std::string& first, const std::string& then) {
    place(pair.ours);
    pair.say(first);
    ASSERT_TRUE(has_unread(pair.ours, static_cast<int>(first.size())));
    service_->upload_all();
    ASSERT_TRUE(eventually([&] { return !in_engine(pair.ours); }));
    pair.say(then);
    ASSERT_TRUE(has_unread(pair.ours, static_cast<int>(first.size() + then.size())));
  }
  FakeService& service() { return *service_; }

 private:
  FakeService* service_ = nullptr;
  std::uint64_t violations_ = 0;
};

inline std::string where_name(const ::testing::TestParamInfo<Where>& info) {
  return ::testing::PrintToString(info.param);
}

// What one ts_recv() gives, at most `size` bytes.
inline std::string receive_some(int fd, std::size_t size, int flags = 0) {
  std::string text(size, '\0');
  const ssize_t n = ts_recv(fd, text.data(), size, flags);
  EXPECT_GE(n, 0) << std::strerror(errno);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

}  // namespace twinstack::sockets
