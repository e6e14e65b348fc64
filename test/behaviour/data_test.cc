// B11 to B15: the data path across moves.
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "behaviour/behaviour_fixture.h"
#include "nic/af_xdp/injector.h"
#include "wire/build.h"

namespace twinstack::testing {
namespace {

using ipc::Owner;

TEST_F(Behaviour, B11_SendsGoByHardwareIdPastTheKernel) {
  const auto talk = open();
  talk->exchange(10000);
  to_engine(*talk);
  talk->exchange(1000);
  const tcp_info before = info_of(talk->served->fd());
  const std::uint64_t segments = counter(Side::kB, "TcpOutSegs");
  talk->exchange(300000);
  EXPECT_EQ(counter(Side::kB, "TcpOutSegs"), segments) << "the kernel of the served side has sent";
  EXPECT_LE(info_of(talk->served->fd()).tcpi_segs_out, before.tcpi_segs_out);  // less once it is parked
  EXPECT_GE(hardware(*talk).info.bytes_acked + 65536, 300000U);
  to_kernel(*talk);
  talk->exchange(300000);
  EXPECT_GT(counter(Side::kB, "TcpOutSegs"), segments);
}

// In order across a move: what was given before a move precedes what is given after it. The stream's bytes tell.
TEST_F(Behaviour, B11_SendsStayInOrderAcrossMoves) {
  const auto talk = open();
  for (int i = 0; i < 10 && !HasFailure(); ++i) {
    talk->served_sends(60000);
    to_engine(*talk);
    talk->served_sends(60000);
    talk->served_sends(60000);
    to_kernel(*talk, true);
  }
  talk->settle();
  expect_no_reset();
}

TEST_F(Behaviour, B12_DataQueuedInSoftwareIsReadFirst) {
  for (const bool v6 : {false, true}) {
    const auto talk = open(v6);
    ASSERT_EQ(talk->peer_sends(9000), 9000U);
    EXPECT_TRUE(eventually([&] { return line(*talk)["recv_q"] == 9000; }));
    to_engine(*talk);
    ASSERT_EQ(talk->peer_sends(9000), 9000U);
    EXPECT_TRUE(eventually([&] { return talk->served->slot().rx_posted_bytes.load() == 18000; }));
    talk->served_reads(100);
    to_kernel(*talk);
    // On the way back too: the bytes that lie in shared chunks, then those of the kernel.
    ASSERT_EQ(talk->peer_sends(9000), 9000U);
    EXPECT_TRUE(eventually([&] { return line(*talk)["recv_q"] == 9000; }));
    talk->settle();
    EXPECT_EQ(talk->to_served_read, 27000U);
  }
}

// Hands a segment of the peer to the kernel of the served side, past the XDP program.
class WrongWay {
 public:
  explicit WrongWay(const NetnsPair& pair) {
    (void)pair.in(Side::kB, [&] {
      auto made = nic::PacketInjector::create({.interface = NetnsPair::interface(Side::kB)});
      if (made) injector_ = std::move(*made);
    });
  }

  [[nodiscard]] bool inject(const tcp::MinTcp& min, std::uint8_t flags, std::span<const std::byte> payload) {
    wire::Segment segment;
    segment.seq = Seq(min.rcv_nxt);
    segment.ack = Seq(min.snd_una);
    segment.window = 1000;
    segment.flags = flags;
    segment.options.has_timestamps = (min.options & tcp::kOptTimestamps) != 0;
    segment.options.ts_val = min.ts_recent;
    segment.options.ts_ecr = min.ts_val;
    const FlowKey flow{.local = min.flow.remote,
                       .remote = min.flow.local,
                       .local_port = min.flow.remote_port,
                       .remote_port = min.flow.local_port};
    std::vector<std::byte> frame(wire::header_bytes(flow, segment) + payload.size());
    const auto head = wire::write_headers(frame, {}, flow, segment, static_cast<std::uint32_t>(payload.size()));
    std::copy(payload.begin(), payload.end(), frame.begin() + head);
    wire::fill_checksum(frame);
    const ByteView part(frame);
    const nic::RxFrame whole{.parts = {&part, 1}, .length_bytes = static_cast<std::uint32_t>(frame.size())};
    const auto count = injector_->inject({&whole, 1}, wire::ChecksumMode::kVerify);
    return count.has_value() && count->injected == 1;
  }

  std::unique_ptr<nic::PacketInjector> injector_;
};

TEST_F(Behaviour, B13_PacketAtTheWrongStackIsHandedOver) {
  WrongWay wrong(*pair_);
  ASSERT_NE(wrong.injector_, nullptr);
  for (const bool v6 : {false, true}) {
    const auto talk = open(v6);
    talk->exchange(5000);
    to_engine(*talk);
    wait_until_parked(*talk);
    talk->exchange(5000);
    const std::uint64_t late = service_->counter("late_packets");
    // The peer's next bytes come to the kernel, before the peer itself sends them.
    std::vector<std::byte> bytes(700);
    fill_stream(talk->seed_to_served(), talk->to_served_sent, bytes);
    ASSERT_TRUE(wrong.inject(hardware(*talk).min, wire::kAck | wire::kPsh, bytes));
    EXPECT_TRUE(eventually([&] { return talk->to_served_read == 5000 + 5000 + 700; }, [&] { talk->served_reads(); }));
    EXPECT_EQ(service_->counter("late_packets"), late + 1);
    EXPECT_EQ(info_of(talk->served->fd()).tcpi_state, 1U);
    // Now the peer sends them too: they are known and are not processed twice.
    ASSERT_EQ(talk->peer_sends(700), 700U);
    EXPECT_TRUE(eventually([&] { return hardware(*talk).info.segs_in >= 1 && talk->is_settled(); },
                           [&] { talk->served_reads(); }));
    talk->exchange(30000);
    EXPECT_EQ(talk->to_served_read, talk->to_served_sent);
    to_kernel(*talk);
    talk->exchange(30000);
  }
  expect_no_reset();
}

// A packet of an offloaded connection that no socket of the kernel may answer: an old duplicate, and a bare ACK.
TEST_F(Behaviour, B13_TheKernelNeverAnswersForTheEngine) {
  WrongWay wrong(*pair_);
  ASSERT_NE(wrong.injector_, nullptr);
  const auto talk = open();
  talk->exchange(5000);
  to_engine(*talk);
  wait_until_parked(*talk);
  talk->exchange(5000);
  const std::uint64_t segments = counter(Side::kB, "TcpOutSegs");
  tcp::MinTcp old = hardware(*talk).min;
  old.rcv_nxt -= 3000;
  const std::vector<std::byte> bytes(500);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(wrong.inject(old, wire::kAck, bytes));
    ASSERT_TRUE(wrong.inject(hardware(*talk).min, wire::kAck, {}));
  }
  EXPECT_TRUE(eventually([&] { return service_->counter("late_packets") >= 40; }));
  talk->exchange(20000);
  EXPECT_EQ(counter(Side::kB, "TcpOutSegs"), segments);
  expect_no_reset();
}

TEST_F(Behaviour, B14_PacketsDuringTheMoveAreHeldAndProcessedOnce) {
  for (const bool v6 : {false, true}) {
    const auto talk = open(v6);
    // Unread bytes beyond the limit of a move are a reason to refuse it; unbounded, a fast peer keeps them there.
    const int buffer_bytes = 200'000;
    ASSERT_EQ(::setsockopt(talk->served->fd(), SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes), 0);
    std::atomic<bool> stop = false;
    std::uint64_t sent = 0;
    // The peer never pauses: packets arrive in the middle of the moves.
    std::thread sender([&] {
      std::vector<std::byte> bytes(3000);
      while (!stop.load()) {
        fill_stream(talk->seed_to_served(), sent, bytes);
        const ssize_t n = ::send(talk->peer.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) sent += static_cast<std::uint64_t>(n);
      }
    });
    const auto step = [&] {
      // Unread bytes beyond the limit of a move would be a reason to refuse it.
      for (int i = 0; i < 64 && talk->served_reads() > 0; ++i) {
      }
      talk->served_sends(100);
      talk->peer_reads();
    };
    for (int round = 0; round < 30 && !HasFailure(); ++round) {
      const bool to_engine = round % 2 == 0;
      const auto wanted = to_engine ? Owner::kEngine : Owner::kKernel;
      EXPECT_TRUE(eventually(
          [&] {
            if (talk->served->owner() != wanted) service_->ask(to_engine ? "offload" : "upload", sk(*talk));
            return talk->served->owner() == wanted;
          },
          step))
          << "round " << round << ": " << line(*talk).dump();
      for (int i = 0; i < 20; ++i) step();
    }
    stop = true;
    sender.join();
    talk->to_served_sent = sent;
    talk->settle();
  }
  // (Not `late_packets`: those may have come after the commit.)
  EXPECT_GT(service_->counter("lane0_held_frames"), 0U) << "no packet waited for a move: this test has shown nothing";
  EXPECT_GT(service_->counter("held_frames"), 0U) << "none waited for a return";
  EXPECT_EQ(service_->counter("broken_streams"), 0U);
  expect_no_reset();
}

// As long as queues may become: more than any one command carries, and than the kernel's buffers at the start.
TEST_F(Behaviour, B15_LongQueuesTravelBothWays) {
  constexpr std::size_t kUnread = 30U << 20;
  constexpr std::size_t kUnsent = 12U << 20;
  const auto talk = open();
  const int room = 48 << 20;
  for (const int fd : {talk->served->fd(), talk->peer.get()})
    for (const int option : {SO_RCVBUFFORCE, SO_SNDBUFFORCE})
      ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, option, &room, sizeof room), 0);
  const int small = 65536;
  ASSERT_EQ(::setsockopt(talk->peer.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
  ASSERT_TRUE(eventually([&] {
    while (talk->to_served_sent < kUnread && talk->peer_sends(1U << 20) > 0) {
    }
    while (talk->to_peer_sent < kUnsent && talk->served_sends(1U << 20) > 0) {
    }
    return talk->to_served_sent >= kUnread && talk->to_peer_sent >= kUnsent;
  }));
  EXPECT_TRUE(eventually([&] { return line(*talk)["recv_q"] == talk->to_served_sent; }));
  EXPECT_GT(line(*talk)["send_q"], kUnsent / 2);
  to_engine(*talk);
  to_kernel(*talk);
  talk->settle();
  talk->exchange(100'000);
  expect_no_reset();
}

TEST_F(Behaviour, B15_UnsentAndUnreadDataComeBack) {
  for (const bool v6 : {false, true}) {
    const auto talk = open(v6);
    to_engine(*talk);
    // Neither side reads: bytes pile up in front of both windows.
    EXPECT_TRUE(eventually(
        [&] {
          const auto state = hardware(*talk);
          return state.info.notsent_bytes > 100000 && state.unread_bytes > 50000;
        },
        [&] {
          talk->peer_sends(65536);
          talk->served_sends(16384);
        }));
    const auto before = hardware(*talk);
    to_kernel(*talk);
    const auto seen = line(*talk);
    EXPECT_EQ(seen["stack"], "kernel");
    EXPECT_GT(seen["send_q"], 50000) << "the unsent bytes are not in the kernel's queue";
    EXPECT_GE(before.unread_bytes, 50000U);
    EXPECT_GT(talk->to_served_sent - talk->to_served_read, 100000U);
    // And once more there and back with the queues full.
    to_engine(*talk);
    EXPECT_GT(hardware(*talk).info.notsent_bytes + hardware(*talk).min.write_seq - hardware(*talk).min.snd_una, 50000U);
    to_kernel(*talk);
    talk->settle();
    talk->exchange(50000);
  }
  expect_no_reset();
}

}  // namespace
}  // namespace twinstack::testing
