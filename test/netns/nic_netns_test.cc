// Traffic through the AF_XDP link and the injector on a real link: kernel TCP on both sides, our program on side B.
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <thread>

#include "netns/nic_netns_util.h"
#include "nic/af_xdp/injector.h"
#include "wire/build.h"

namespace twinstack::nic {
namespace {

class NicNetnsFamily : public NicNetns, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(Families, NicNetnsFamily, ::testing::Values(false, true),
                         [](const auto& param) { return param.param ? "IPv6" : "IPv4"; });

TEST_P(NicNetnsFamily, SteeredFlowComesToUsAndOthersGoOn) {
  make_bench();
  const auto nic = attach(Side::kB);
  ASSERT_NE(nic, nullptr);
  const auto link = open(*nic);
  ASSERT_NE(link, nullptr);
  const Connection steered = connect_pair(*bench, GetParam());
  const Connection plain = connect_pair(*bench, GetParam());
  ASSERT_TRUE(nic->steering().add(steered.flow, 5).has_value());

  ASSERT_EQ(::send(steered.a.get(), "for us", 6, 0), 6);
  const auto kept = collect(*link, [](const auto& frames) { return !frames.empty(); });
  ASSERT_FALSE(kept.empty());
  wire::TcpPacket packet;
  ASSERT_EQ(wire::parse_frame(kept[0].views, kept[0].length_bytes, link->info().checksum, packet),
            wire::ParseVerdict::kOk);
  EXPECT_EQ(packet.flow, steered.flow);
  char text[16] = {};
  EXPECT_EQ(packet.payload.copy_to(std::as_writable_bytes(std::span(text))), 6U);
  EXPECT_STREQ(text, "for us");
  EXPECT_GE(nic->steering().state(steered.flow)->packets, 1U);
  EXPECT_FALSE(readable_within(steered.b.get(), 0));

  ASSERT_EQ(::send(plain.a.get(), "for it", 6, 0), 6);
  EXPECT_EQ(read_exactly(plain.b.get(), 6).size(), 6U);

  // Taken out again: the sender's retransmission reaches the kernel, which never saw the first copy.
  ASSERT_TRUE(*nic->steering().remove(steered.flow));
  EXPECT_EQ(read_exactly(steered.b.get(), 6).size(), 6U);
}

TEST_P(NicNetnsFamily, SteeredFlowWithoutASocketStaysInTheKernel) {
  make_bench();
  const auto nic = attach(Side::kB);
  ASSERT_NE(nic, nullptr);
  const Connection connection = connect_pair(*bench, GetParam());
  ASSERT_TRUE(nic->steering().add(connection.flow, 1).has_value());
  ASSERT_EQ(::send(connection.a.get(), "hello", 5, 0), 5);
  EXPECT_EQ(read_exactly(connection.b.get(), 5).size(), 5U);
  EXPECT_GE(nic->steering().state(connection.flow)->packets, 1U);
}

// The kernel sends its initial window as one or two super-packets; held, they are given to the kernel afterwards.
TEST_P(NicNetnsFamily, SuperPacketsArriveInPartsAndCanBeInjected) {
  make_bench();
  const auto nic = attach(Side::kB);
  ASSERT_NE(nic, nullptr);
  const auto link = open(*nic);
  ASSERT_NE(link, nullptr);
  auto injector = [&]() -> Result<std::unique_ptr<PacketInjector>> {
    ASSIGN_OR_RETURN(const ScopedNetns inside, ScopedNetns::enter(bench->fd(Side::kB)));
    return PacketInjector::create({.interface = NetnsPair::interface(Side::kB)});
  }();
  ASSERT_TRUE(injector.has_value()) << injector.error().message();
  const Connection connection = connect_pair(*bench, GetParam());
  ASSERT_TRUE(nic->steering().add(connection.flow, 1).has_value());

  const std::vector<std::byte> data = pattern(10'000);  // within the initial window
  ASSERT_EQ(::send(connection.a.get(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  std::vector<RxFrame> frames;
  const auto kept = collect(*link, [&](const auto& so_far) {
    std::size_t bytes = 0;
    for (const KeptFrame& frame : so_far) bytes += frame.length_bytes;
    return bytes > data.size();
  });
  std::vector<std::byte> stream;
  bool saw_parts = false;
  for (const KeptFrame& frame : kept) {
    wire::TcpPacket packet;
    ASSERT_EQ(wire::parse_frame(frame.views, frame.length_bytes, link->info().checksum, packet),
              wire::ParseVerdict::kOk);
    saw_parts = saw_parts || frame.parts.size() > 1;
    frames.push_back(frame.frame());
    if (stream.size() >= data.size()) continue;  // a retransmission
    const std::size_t before = stream.size();
    stream.resize(before + packet.payload.size());
    packet.payload.copy_to(std::span(stream).subspan(before));
  }
  EXPECT_TRUE(saw_parts);
  EXPECT_EQ(stream, data);

  ASSERT_TRUE(*nic->steering().remove(connection.flow));
  const auto count = (*injector)->inject(frames, link->info().checksum);
  ASSERT_TRUE(count.has_value()) << count.error().message();
  EXPECT_EQ(count->refused, 0U);
  EXPECT_GE(count->injected, data.size() / 1460);
  EXPECT_EQ(read_exactly(connection.b.get(), data.size()), data);
}

TEST_P(NicNetnsFamily, FramesOfTooManyPartsAreDroppedAndCounted) {
  make_bench();
  const auto nic = attach(Side::kB);
  ASSERT_NE(nic, nullptr);
  const auto link = open(*nic, {.rx_frames = 64, .max_parts = 2});
  ASSERT_NE(link, nullptr);
  const Connection connection = connect_pair(*bench, GetParam());
  ASSERT_TRUE(nic->steering().add(connection.flow, 1).has_value());
  const std::vector<std::byte> data = pattern(10'000);
  ASSERT_EQ(::send(connection.a.get(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  // What comes after the dropped ones are single segments: probes for the tail, retransmissions.
  const auto kept = collect(*link, [](const auto& frames) { return frames.size() >= 3; });
  EXPECT_GE(kept.size(), 3U);
  EXPECT_GE(link->chains_too_long(), 1U);
  EXPECT_EQ(link->stats().rx_dropped, link->chains_too_long());
  for (const KeptFrame& frame : kept) EXPECT_LE(frame.parts.size(), 2U);
}

TEST_P(NicNetnsFamily, InjectionIsInOrderAndCutsManyFramesIntoBatches) {
  make_bench();
  const auto nic = attach(Side::kB);
  ASSERT_NE(nic, nullptr);
  const auto link = open(*nic);
  ASSERT_NE(link, nullptr);
  const auto inside = ScopedNetns::enter(bench->fd(Side::kB));
  ASSERT_TRUE(inside.has_value());
  auto injector = PacketInjector::create({.interface = NetnsPair::interface(Side::kB)});
  ASSERT_TRUE(injector.has_value()) << injector.error().message();
  const Connection connection = connect_pair(*bench, GetParam());
  // One captured segment shows the numbers; the rest is made from it.
  ASSERT_TRUE(nic->steering().add(connection.flow, 1).has_value());
  ASSERT_EQ(::send(connection.a.get(), "x", 1, 0), 1);
  const auto kept = collect(*link, [](const auto& frames) { return !frames.empty(); });
  ASSERT_FALSE(kept.empty());
  wire::TcpPacket first;
  ASSERT_EQ(wire::parse_frame(kept[0].views, kept[0].length_bytes, link->info().checksum, first),
            wire::ParseVerdict::kOk);
  // The flow stays steered: what is injected carries the mark that lets it pass the program.

  constexpr std::uint32_t kPackets = 200;  // more than three batches
  const FlowKey reverse{.local = first.flow.remote,
                        .remote = first.flow.local,
                        .local_port = first.flow.remote_port,
                        .remote_port = first.flow.local_port};
  std::vector<std::vector<std::byte>> packets;
  std::vector<ByteView> views;
  const std::vector<std::byte> data = pattern(std::size_t{kPackets} * 10);
  for (std::uint32_t i = 0; i < kPackets; ++i) {
    wire::Segment segment = first.segment;
    segment.seq = first.segment.seq + i * 10;
    const std::uint32_t head = wire::header_bytes(reverse, segment);
    std::vector<std::byte> frame(head + 10);
    wire::write_headers(frame, {}, reverse, segment, 10);
    std::copy_n(data.begin() + i * 10, 10, frame.begin() + head);
    wire::fill_checksum(frame);
    packets.emplace_back(frame.begin() + 14, frame.end());  // as a late packet: without Ethernet header
  }
  for (const auto& packet : packets) views.emplace_back(packet);
  std::vector<RxFrame> frames;
  for (const ByteView& view : views) frames.push_back({{&view, 1}, static_cast<std::uint32_t>(view.size())});

  std::vector<std::byte> broken = packets[0];
  broken.back() ^= std::byte{1};
  const ByteView broken_view = broken;
  const RxFrame broken_frame{{&broken_view, 1}, static_cast<std::uint32_t>(broken.size())};
  const auto refused = (*injector)->inject_ip({&broken_frame, 1}, ChecksumMode::kAcceptPartial);
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->refused, 1U);
  EXPECT_EQ(refused->injected, 0U);

  const auto count = (*injector)->inject_ip(frames, ChecksumMode::kAcceptPartial);
  ASSERT_TRUE(count.has_value()) << count.error().message();
  EXPECT_EQ(count->injected, kPackets);
  EXPECT_EQ(read_exactly(connection.b.get(), data.size()), data);
  EXPECT_TRUE(nic->steering().contains(connection.flow));
  // In order: nothing waited in the out-of-order queue.
  tcp_info info{};
  socklen_t length = sizeof info;
  ASSERT_EQ(::getsockopt(connection.b.get(), IPPROTO_TCP, TCP_INFO, &info, &length), 0);
  EXPECT_EQ(info.tcpi_rcv_ooopack, 0U);
}

TEST_P(NicNetnsFamily, NativeModeWorksToo) {
  make_bench();
  const auto nic = attach(Side::kB, {.interface = {}, .mode = XdpMode::kNative});
  ASSERT_NE(nic, nullptr);
  EXPECT_EQ(nic->mode(), XdpMode::kNative);
  const auto link = open(*nic);
  ASSERT_NE(link, nullptr);
  EXPECT_EQ(link->mode(), XdpMode::kNative);
  const Connection connection = connect_pair(*bench, GetParam());
  ASSERT_TRUE(nic->steering().add(connection.flow, 1).has_value());
  ASSERT_EQ(::send(connection.a.get(), "hello", 5, 0), 5);
  EXPECT_FALSE(collect(*link, [](const auto& frames) { return !frames.empty(); }).empty());
}

TEST_F(NicNetns, ThousandsOfFramesLeaveInOrder) {
  make_bench();
  const auto nic = attach(Side::kB);
  ASSERT_NE(nic, nullptr);
  const auto link = open(*nic, {.tx_frames = 256});
  ASSERT_NE(link, nullptr);
  const UniqueFd sink = udp_sink(*bench);
  const std::uint16_t port = local_of(sink.get()).port();
  const MacAddress target = mac_of(*bench, Side::kA);
  constexpr std::uint32_t kFrames = 5000;
  for (std::uint32_t i = 0; i < kFrames; ++i) {
    std::span<std::byte> room = link->allocate_tx();
    if (room.empty()) {
      link->flush();
      room = link->allocate_tx();
    }
    ASSERT_GE(room.size(), 1514U);
    EXPECT_EQ(link->allocate_tx().data(), room.data());  // the same room until it is committed
    link->commit_tx(write_udp(room, link->info().mac, target, port, std::as_bytes(std::span(&i, 1))));
  }
  link->flush();
  for (std::uint32_t i = 0; i < kFrames; ++i) {
    std::uint32_t number = 0;
    ASSERT_TRUE(readable_within(sink.get(), 5000)) << i;
    ASSERT_EQ(::recv(sink.get(), &number, sizeof number, MSG_DONTWAIT), 4);
    ASSERT_EQ(number, i);
  }
  EXPECT_EQ(link->tx_room(), 256U);  // every buffer came back
  EXPECT_EQ(link->stats().tx_frames, kFrames);
  EXPECT_EQ(link->stats().tx_dropped, 0U);
}

// flush() leaves the system call to kick(), beside which another thread commits (as lane and driver do): whoever kicks
// after his flush() has sent his frames.
TEST_F(NicNetns, FramesLeaveWithTheKickOfWhoCommittedThem) {
  make_bench();
  const auto nic = attach(Side::kB);
  ASSERT_NE(nic, nullptr);
  const auto link = open(*nic, {.tx_frames = 256, .defer_kick = true});
  ASSERT_NE(link, nullptr);
  const UniqueFd sink = udp_sink(*bench);
  const std::uint16_t port = local_of(sink.get()).port();
  const MacAddress target = mac_of(*bench, Side::kA);
  std::mutex link_mutex;
  std::mutex kick_mutex;
  const auto kick = [&] {
    const std::lock_guard lock(kick_mutex);
    link->kick();
  };
  const auto commit = [&](std::uint32_t number) {
    for (;;) {
      {
        const std::lock_guard lock(link_mutex);
        if (const std::span<std::byte> room = link->allocate_tx(); !room.empty()) {
          link->commit_tx(write_udp(room, link->info().mac, target, port, std::as_bytes(std::span(&number, 1))));
          link->flush();
          return;
        }
        link->flush();
      }
      kick();
    }
  };
  commit(0);
  EXPECT_FALSE(readable_within(sink.get(), 50)) << "nobody has kicked";
  constexpr std::uint32_t kFrames = 2500;
  std::array<std::thread, 2> threads;
  for (std::uint32_t t = 0; t < 2; ++t) {
    threads[t] = std::thread([&, t] {
      for (std::uint32_t i = 1; i <= kFrames; ++i) {
        commit(t << 16 | i);
        kick();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::array<std::uint32_t, 2> last{};
  for (std::uint32_t i = 0; i < 2 * kFrames + 1; ++i) {
    std::uint32_t number = 0;
    ASSERT_TRUE(readable_within(sink.get(), 5000)) << i;
    ASSERT_EQ(::recv(sink.get(), &number, sizeof number, MSG_DONTWAIT), 4);
    if (number == 0) continue;
    ASSERT_EQ(number & 0xffffU, ++last.at(number >> 16)) << "each frame once, in order";
  }
  link->flush();
  EXPECT_EQ(link->tx_room(), 256U);
  EXPECT_EQ(link->stats().tx_dropped, 0U);
}

TEST_F(NicNetns, JumboFramesLeaveInSeveralBuffers) {
  make_bench({.mtu_bytes = 9000});
  const auto nic = attach(Side::kB);
  ASSERT_NE(nic, nullptr);
  const auto link = open(*nic);
  ASSERT_NE(link, nullptr);
  ASSERT_TRUE(link->multi_buffer());
  const UniqueFd sink = udp_sink(*bench);
  const std::uint16_t port = local_of(sink.get()).port();
  const std::vector<std::byte> data = pattern(8972);  // the largest that fits
  const std::size_t room_before = link->tx_room();
  for (int i = 0; i < 2000; ++i) {  // more than there are slots
    std::span<std::byte> room = link->allocate_tx();
    ASSERT_GE(room.size(), 9014U);
    link->commit_tx(write_udp(room, link->info().mac, mac_of(*bench, Side::kA), port, data));
    link->flush();
    std::vector<std::byte> got(10'000);
    ASSERT_TRUE(readable_within(sink.get(), 5000)) << i;
    got.resize(static_cast<std::size_t>(::recv(sink.get(), got.data(), got.size(), MSG_DONTWAIT)));
    ASSERT_EQ(got, data);
  }
  EXPECT_EQ(link->tx_room(), room_before);
}

TEST_F(NicNetns, InjectedUdpReachesAKernelSocket) {
  make_bench();
  const UniqueFd sink = udp_sink(*bench);
  const std::uint16_t port = local_of(sink.get()).port();
  const std::vector<std::byte> data = pattern(100);
  std::vector<std::byte> frame(200);
  frame.resize(write_udp(frame, {}, {}, port, data));  // any destination MAC: the injector puts the right one
  auto injector = [&]() -> Result<std::unique_ptr<PacketInjector>> {
    ASSIGN_OR_RETURN(const ScopedNetns inside, ScopedNetns::enter(bench->fd(Side::kA)));
    return PacketInjector::create({.interface = NetnsPair::interface(Side::kA)});
  }();
  ASSERT_TRUE(injector.has_value()) << injector.error().message();
  const ByteView view = frame;
  const RxFrame one{{&view, 1}, static_cast<std::uint32_t>(frame.size())};
  const auto count = (*injector)->inject({&one, 1}, ChecksumMode::kVerify);
  ASSERT_TRUE(count.has_value()) << count.error().message();
  EXPECT_EQ(count->injected, 1U);
  std::vector<std::byte> got(200);
  ASSERT_TRUE(readable_within(sink.get(), 5000));
  got.resize(static_cast<std::size_t>(::recv(sink.get(), got.data(), got.size(), MSG_DONTWAIT)));
  EXPECT_EQ(got, data);
}
}  // namespace
}  // namespace twinstack::nic
