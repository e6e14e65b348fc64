// The object as packetdrill uses it, without packetdrill: loaded by name, called through its table from two threads.
// The form `own`, which needs no privilege.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "interface.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::packetdrill {
namespace {

constexpr char kFlags[] = "form=own,local=192.168.0.1,remote=192.0.2.1";
constexpr std::uint16_t kPort = 8080;
constexpr std::uint16_t kPeerPort = 40000;
constexpr std::uint32_t kPeerIsn = 1000;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kLoadFlags = RTLD_NOW | RTLD_LOCAL;  // the sanitizers' runtime refuses the rest
#else
constexpr int kLoadFlags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | RTLD_DEEPBIND;  // as packetdrill
#endif

struct Got {
  wire::Segment segment;
  std::size_t payload_bytes = 0;
  long long time_us = 0;
};

class ObjectTest : public ::testing::Test {
 protected:
  void SetUp() override {
    library_ = ::dlopen(TS_PACKETDRILL_OBJECT, kLoadFlags);
    ASSERT_NE(library_, nullptr) << ::dlerror();
    using Init = void (*)(const char*, InterfaceTable*);
    const auto init = reinterpret_cast<Init>(::dlsym(library_, "packetdrill_interface_init"));
    ASSERT_NE(init, nullptr);
    init(kFlags, &table);
    self = table.userdata;
  }
  void TearDown() override { table.free(self); }

  [[nodiscard]] static sockaddr_in address(std::uint32_t ip, std::uint16_t port) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    out.sin_port = htons(port);
    out.sin_addr.s_addr = htonl(ip);
    return out;
  }
  [[nodiscard]] static FlowKey from_peer() {
    return {.local = IpAddress::from_v4({192, 0, 2, 1}),
            .remote = IpAddress::from_v4({192, 168, 0, 1}),
            .local_port = kPeerPort,
            .remote_port = kPort};
  }

  void inject(const wire::Segment& segment, std::size_t payload_bytes = 0) {
    std::vector<std::byte> packet(wire::ip_packet_header_bytes(from_peer(), segment) + payload_bytes);
    wire::write_ip_headers(packet, {}, from_peer(), segment, static_cast<std::uint32_t>(payload_bytes));
    wire::fill_ip_checksum(packet);
    ASSERT_EQ(table.netdev_send(self, packet.data(), packet.size()), 0);
  }
  [[nodiscard]] static wire::Segment segment(std::uint8_t flags, std::uint32_t seq, std::uint32_t ack) {
    wire::Segment out;
    out.flags = flags;
    out.seq = Seq(seq);
    out.ack = Seq(ack);
    out.window = 32792;
    return out;
  }
  // The next packet; 0 bytes of packet make `none` true.
  [[nodiscard]] Got sniff(bool* none = nullptr) {
    std::vector<std::byte> room(65536);
    std::size_t bytes = room.size();
    Got got;
    EXPECT_EQ(table.netdev_receive(self, room.data(), &bytes, &got.time_us), 0);
    if (none != nullptr) *none = bytes == 0;
    if (bytes == 0) return got;
    const ByteView packet(room.data(), bytes);
    wire::TcpPacket parsed;
    EXPECT_EQ(
        wire::parse_ip_packet({&packet, 1}, static_cast<std::uint32_t>(bytes), wire::ChecksumMode::kVerify, parsed),
        wire::ParseVerdict::kOk);
    got.segment = parsed.segment;
    got.payload_bytes = parsed.payload.size();
    return got;
  }
  [[nodiscard]] long long now_us() const {
    timeval now{};
    EXPECT_EQ(table.gettimeofday(self, &now, nullptr), 0);
    return now.tv_sec * 1'000'000LL + now.tv_usec;
  }

  [[nodiscard]] int listen() {
    const int fd = table.socket(self, AF_INET, SOCK_STREAM, IPPROTO_TCP);
    const sockaddr_in local = address(0xc0a80001, kPort);
    EXPECT_EQ(table.bind(self, fd, reinterpret_cast<const sockaddr*>(&local), sizeof local), 0);
    EXPECT_EQ(table.listen(self, fd, 1), 0);
    return fd;
  }
  // A connection that the peer has opened; `rtt_us` between SYN-ACK and ACK.
  [[nodiscard]] int connection(useconds_t rtt_us = 10'000) {
    listener = listen();
    inject(segment(wire::kSyn, kPeerIsn, 0));
    const Got syn_ack = sniff();
    EXPECT_EQ(syn_ack.segment.flags, wire::kSyn | wire::kAck);
    our_seq = syn_ack.segment.seq.raw() + 1;
    table.usleep(self, rtt_us);
    inject(segment(wire::kAck, kPeerIsn + 1, our_seq));
    return table.accept(self, listener, nullptr, nullptr);
  }

  InterfaceTable table{};
  void* self = nullptr;
  int listener = -1;
  std::uint32_t our_seq = 0;

 private:
  void* library_ = nullptr;
};

// The scheduler's state of a thread of this process, as packetdrill looks for it.
char state_of(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(file, text);
  return text.at(text.rfind(')') + 2);
}

TEST_F(ObjectTest, EveryEntryOfTheTableIsThere) {
  std::array<void*, sizeof(InterfaceTable) / sizeof(void*)> entries{};
  std::memcpy(entries.data(), &table, sizeof table);
  for (std::size_t i = 0; i < entries.size(); ++i) EXPECT_NE(entries[i], nullptr) << i;
}

TEST_F(ObjectTest, TheClockStandsStillButForItsReadings) {
  const long long first = now_us();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_EQ(now_us(), first + 1);
  table.usleep(self, 1'000'000);
  EXPECT_EQ(now_us(), first + 1'000'002);
}

TEST_F(ObjectTest, AHandshakeHasItsTimes) {
  (void)listen();
  const long long before = now_us();
  inject(segment(wire::kSyn, kPeerIsn, 0));
  const Got syn_ack = sniff();
  EXPECT_EQ(syn_ack.segment.flags, wire::kSyn | wire::kAck);
  EXPECT_EQ(syn_ack.segment.ack, Seq(kPeerIsn + 1));
  EXPECT_EQ(syn_ack.time_us, before);
  const Got again = sniff();
  EXPECT_EQ(again.segment.flags, wire::kSyn | wire::kAck);
  EXPECT_NEAR(static_cast<double>(again.time_us - before), 1e6, 1e3) << "RFC 6298 2.1";
}

TEST_F(ObjectTest, DescriptorsAreRealAndDifferent) {
  const int fd = connection();
  ASSERT_GE(fd, 0);
  EXPECT_NE(fd, listener);
  EXPECT_GE(::fcntl(fd, F_GETFD), 0);
  EXPECT_EQ(table.fcntl(self, fd, F_GETFL), O_RDWR);
}

TEST_F(ObjectTest, AcceptTellsThePeer) {
  listener = listen();
  inject(segment(wire::kSyn, kPeerIsn, 0));
  inject(segment(wire::kAck, kPeerIsn + 1, sniff().segment.seq.raw() + 1));
  sockaddr_in peer{};
  socklen_t length = sizeof peer;
  ASSERT_GE(table.accept(self, listener, reinterpret_cast<sockaddr*>(&peer), &length), 0);
  EXPECT_EQ(length, sizeof peer);
  EXPECT_EQ(ntohl(peer.sin_addr.s_addr), 0xc0000201U);
  EXPECT_EQ(ntohs(peer.sin_port), kPeerPort);
}

TEST_F(ObjectTest, DataGoesBothWays) {
  const int fd = connection();
  std::vector<char> bytes(100);
  EXPECT_EQ(table.write(self, fd, bytes.data(), bytes.size()), 100);
  const Got sent = sniff();
  EXPECT_EQ(sent.payload_bytes, 100U);
  EXPECT_EQ(sent.segment.seq, Seq(our_seq));
  inject(segment(wire::kAck | wire::kPsh, kPeerIsn + 1, our_seq + 100), 50);
  EXPECT_EQ(table.read(self, fd, bytes.data(), bytes.size()), 50);
  EXPECT_EQ(table.write(self, fd, nullptr, 10), -1);
  EXPECT_EQ(errno, EFAULT);
}

TEST_F(ObjectTest, ABlockedReadSleepsAndEndsWhenThePacketComes) {
  const int fd = connection();
  std::atomic<pid_t> reader = 0;
  ssize_t got = 0;
  long long ended = 0;
  std::thread thread([&] {
    reader = static_cast<pid_t>(::syscall(SYS_gettid));
    std::vector<char> room(2000);
    got = table.read(self, fd, room.data(), room.size());
    ended = now_us();
  });
  while (reader == 0 || state_of(reader) != 'S') std::this_thread::yield();
  table.usleep(self, 100'000);
  const long long arrives = now_us();
  inject(segment(wire::kAck | wire::kPsh, kPeerIsn + 1, our_seq), 1000);
  // The clock waits for the reader's thread, whatever this one does.
  table.usleep(self, 500'000);
  thread.join();
  EXPECT_EQ(got, 1000);
  EXPECT_EQ(ended, arrives);
}

TEST_F(ObjectTest, WithoutAPacketTheWaitEndsInVirtualTime) {
  (void)listen();
  const long long before = now_us();
  const auto real = std::chrono::steady_clock::now();
  bool none = false;
  (void)sniff(&none);
  EXPECT_TRUE(none);
  EXPECT_GE(now_us() - before, 3'000'000);
  EXPECT_LT(std::chrono::steady_clock::now() - real, std::chrono::seconds(2));
}

TEST_F(ObjectTest, EpollTellsOfEdgesOnce) {
  const int fd = connection();
  const int epoll_fd = table.epoll_create(self, 1);
  epoll_event wanted{};
  wanted.events = EPOLLIN | EPOLLET;
  wanted.data.fd = fd;
  ASSERT_EQ(table.epoll_ctl(self, epoll_fd, EPOLL_CTL_ADD, fd, &wanted), 0);
  epoll_event event{};
  EXPECT_EQ(table.epoll_wait(self, epoll_fd, &event, 1, 0), 0);
  inject(segment(wire::kAck | wire::kPsh, kPeerIsn + 1, our_seq), 10);
  EXPECT_EQ(table.epoll_wait(self, epoll_fd, &event, 1, 0), 1);
  EXPECT_EQ(event.events, static_cast<std::uint32_t>(EPOLLIN));
  EXPECT_EQ(event.data.fd, fd);
  EXPECT_EQ(table.epoll_wait(self, epoll_fd, &event, 1, 0), 0) << "until something comes";
  inject(segment(wire::kAck | wire::kPsh, kPeerIsn + 11, our_seq), 10);
  EXPECT_EQ(table.epoll_wait(self, epoll_fd, &event, 1, 0), 1);
}

TEST_F(ObjectTest, PollWaitsForItsTimeOut) {
  const int fd = connection();
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  std::atomic<pid_t> poller = 0;
  int result = -1;
  std::thread thread([&] {
    poller = static_cast<pid_t>(::syscall(SYS_gettid));
    result = table.poll(self, &entry, 1, 100);
    (void)now_us();
  });
  while (poller == 0 || state_of(poller) != 'S') std::this_thread::yield();
  table.usleep(self, 200'000);
  thread.join();
  EXPECT_EQ(result, 0);
}

TEST_F(ObjectTest, ZerocopyCompletionsComeMergedByTheErrorQueue) {
  const int fd = connection();
  const int on = 1;
  ASSERT_EQ(table.setsockopt(self, fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on), 0);
  std::vector<char> bytes(10);
  for (std::uint32_t i = 1; i <= 2; ++i) {
    ASSERT_EQ(table.send(self, fd, bytes.data(), bytes.size(), MSG_ZEROCOPY), 10);
    (void)sniff();
    inject(segment(wire::kAck, kPeerIsn + 1, our_seq + 10 * i));
  }
  std::array<char, 128> control{};
  msghdr message{};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ASSERT_EQ(table.recvmsg(self, fd, &message, MSG_ERRQUEUE), 0);
  EXPECT_EQ(message.msg_flags, MSG_ERRQUEUE);
  const cmsghdr* const head = CMSG_FIRSTHDR(&message);
  ASSERT_NE(head, nullptr);
  sock_extended_err error{};
  std::memcpy(&error, CMSG_DATA(head), sizeof error);
  EXPECT_EQ(error.ee_info, 0U);
  EXPECT_EQ(error.ee_data, 1U);
  EXPECT_EQ(table.recvmsg(self, fd, &message, MSG_ERRQUEUE), -1);
  EXPECT_EQ(errno, EAGAIN);
}

}  // namespace
}  // namespace twinstack::packetdrill
