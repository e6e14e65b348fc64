// The socket layer before a real service: what a program sees of a connection that moves.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "behaviour/behaviour_fixture.h"
#include "ipc/messages.h"
#include "sockets/layer.h"
#include "twinstack/twinstack.h"

namespace twinstack::testing {
namespace {

class Layer : public Behaviour {
 protected:
  void SetUp() override {
    Behaviour::SetUp();
    if (pair_ == nullptr || service_ == nullptr) return;
    ::setenv(ipc::kSocketPathVariable, service_->socket_path().c_str(), 1);
    ::signal(SIGPIPE, SIG_IGN);
    sockets::start_layer();
    {
      const sockets::MutexLock lock(sockets::g_layer.open_mutex);
      sockets::g_layer.next_try_ns = 0;
    }
    ASSERT_NO_FATAL_FAILURE(connect());
  }
  void TearDown() override {
    if (ours_ >= 0) ts_close(ours_);
    service_.reset();
    if (sockets::Session* session = sockets::g_layer.current.load()) session->check_alive();
  }

  void connect() {
    auto listener = pair_->socket(Side::kA, AF_INET, SOCK_STREAM);
    auto socket = pair_->socket(Side::kB, AF_INET, SOCK_STREAM);
    ASSERT_TRUE(listener.has_value() && socket.has_value());
    sockaddr_in address{};
    address.sin_family = AF_INET;
    socklen_t length = sizeof(address);
    ASSERT_EQ(::inet_pton(AF_INET, NetnsPair::address_v4(Side::kA).c_str(), &address.sin_addr), 1);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    ASSERT_EQ(::bind(listener->get(), any, length), 0);
    ASSERT_EQ(::listen(listener->get(), 1), 0);
    ASSERT_EQ(::getsockname(listener->get(), any, &length), 0);
    ours_ = socket->release();
    if (receive_buffer_bytes_ != 0) {
      ASSERT_EQ(ts_setsockopt(ours_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes_, sizeof receive_buffer_bytes_), 0);
    }
    ASSERT_EQ(ts_connect(ours_, any, length), 0);
    peer_.reset(::accept(listener->get(), nullptr, nullptr));
    ASSERT_TRUE(peer_);
    ASSERT_TRUE(eventually([&] { return describe().kernel_cookie != 0; })) << "never registered";
  }

  [[nodiscard]] ts_connection describe() const {
    ts_connection connection{};
    EXPECT_EQ(ts_describe(ours_, &connection), 0);
    return connection;
  }
  void move(const char* order, bool to_engine) {
    EXPECT_TRUE(eventually([&] { return (describe().in_engine != 0) == to_engine; },
                           [&] { static_cast<void>(service_->ask(order, "all")); }));
  }
  // As many bytes each way, read whole.
  void exchange(std::size_t bytes) {
    std::vector<std::byte> room(16384);
    std::size_t sent = 0;
    std::size_t heard = 0;
    std::size_t said = 0;
    std::size_t read = 0;
    const auto add = [](std::size_t& count, ssize_t moved) {
      count += moved > 0 ? static_cast<std::size_t>(moved) : 0;
    };
    const auto step = [&] {
      const auto part = [&](std::size_t done) { return std::min(room.size(), bytes - done); };
      if (sent < bytes) add(sent, ts_send(ours_, room.data(), part(sent), MSG_DONTWAIT));
      if (said < bytes) add(said, ::send(peer_.get(), room.data(), part(said), MSG_DONTWAIT));
      add(heard, ::recv(peer_.get(), room.data(), room.size(), MSG_DONTWAIT));
      add(read, ts_recv(ours_, room.data(), room.size(), MSG_DONTWAIT));
    };
    EXPECT_TRUE(eventually([&] { return heard == bytes && read == bytes; }, step)) << heard << ' ' << read;
    total_ += bytes;
  }
  [[nodiscard]] tcp_info info() const {
    tcp_info out{};
    socklen_t length = sizeof(out);
    EXPECT_EQ(ts_getsockopt(ours_, IPPROTO_TCP, TCP_INFO, &out, &length), 0);
    return out;
  }
  // Exact, and no counter below what it was.
  void expect_counted(const char* when) {
    const auto counted = [&] {
      const tcp_info now = info();
      return now.tcpi_bytes_received == total_ && now.tcpi_bytes_acked == total_ + 1;  // our SYN, as Linux counts
    };
    EXPECT_TRUE(eventually(counted, {}, std::chrono::seconds(3)))
        << when << ": " << info().tcpi_bytes_acked << " acknowledged, " << info().tcpi_bytes_received << " received of "
        << total_;
    const tcp_info now = info();
    int number = 0;
    const tcp::InfoCounters counters = tcp::take_counters(now);
    tcp::for_each_counter(counters, last_, [&](const auto& a, const auto& b) {
      EXPECT_GE(a, b) << when << ": counter " << number << " of InfoCounters runs backwards";
      ++number;
    });
    EXPECT_GE(now.tcpi_data_segs_out, total_ / 65536) << when;
    EXPECT_GE(now.tcpi_bytes_sent, total_) << when;
    last_ = counters;
  }

  int receive_buffer_bytes_ = 0;  // SO_RCVBUF before the connection is made, if not 0
  int ours_ = -1;
  UniqueFd peer_;
  std::uint64_t total_ = 0;
  tcp::InfoCounters last_{};
};

TEST_F(Layer, TheCountersOfTcpInfoNeverRunBackwards) {
  for (int round = 0; round < 3; ++round) {
    exchange(500'000);
    expect_counted("in the kernel");
    move("offload", true);
    expect_counted("in the engine");
    exchange(300'000);
    expect_counted("in the engine, later");
    move("upload", false);
    expect_counted("after the return");
  }
  exchange(1000);
  expect_counted("at the end");
  // A program that was built with less of the struct.
  std::array<std::byte, offsetof(tcp_info, tcpi_segs_out)> part{};
  socklen_t length = part.size();
  ASSERT_EQ(ts_getsockopt(ours_, IPPROTO_TCP, TCP_INFO, part.data(), &length), 0);
  EXPECT_EQ(length, part.size());
  std::uint64_t received = 0;
  std::memcpy(&received, part.data() + offsetof(tcp_info, tcpi_bytes_received), sizeof(received));
  EXPECT_EQ(received, total_);
}

// A peer with Nagle sends the next small message when the last one is acknowledged: with the read, as in the kernel,
// not when a delayed ACK is due (40 ms).
TEST_F(Layer, MessagesThatNobodyAnswersAreNotHeldUpByDelayedAcks) {
  move("offload", true);
  std::array<char, 200> message{};
  const auto send_and_read = [&](int times) {
    for (int i = 0; i < times; ++i) {
      ASSERT_EQ(::send(peer_.get(), message.data(), message.size(), 0), 200);
      ASSERT_EQ(ts_recv(ours_, message.data(), message.size(), MSG_WAITALL), 200);
    }
  };
  send_and_read(30);  // the first ACKs of a connection do not wait
  const auto begin = std::chrono::steady_clock::now();
  send_and_read(50);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(500));
  EXPECT_NE(describe().in_engine, 0);
}

class SmallBufferLayer : public Layer {
 protected:
  SmallBufferLayer() { receive_buffer_bytes_ = 4096; }
};

// A program with a small buffer that reads all that there is: the window opens with each read.
TEST_F(SmallBufferLayer, IsNotHeldUpByWindowProbes) {
  exchange(1000);
  move("offload", true);
  const std::size_t bytes = 400'000;
  const auto begin = std::chrono::steady_clock::now();
  std::thread talker([&] {
    const std::vector<std::byte> all(bytes);
    EXPECT_EQ(::send(peer_.get(), all.data(), all.size(), 0), static_cast<ssize_t>(bytes));
  });
  std::vector<std::byte> room(65536);
  for (std::size_t heard = 0; heard < bytes;) {
    const ssize_t got = ts_recv(ours_, room.data(), room.size(), 0);
    ASSERT_GT(got, 0);
    heard += static_cast<std::size_t>(got);
  }
  talker.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(800));
  EXPECT_NE(describe().in_engine, 0);
}

}  // namespace
}  // namespace twinstack::testing
