// The AF_XDP side of src/nic on a real link: two namespaces, kernel TCP on both sides, our program on side B.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>

#include "netns/netns_fixture.h"
#include "nic/af_xdp/af_xdp_link.h"
#include "nic/af_xdp/attachment.h"
#include "nic/af_xdp/injector.h"
#include "nic/af_xdp/netns.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::nic {
namespace {

using testing::NetnsOptions;
using testing::NetnsPair;
using testing::Side;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(10);

struct Endpoint {
  sockaddr_storage address{};
  socklen_t length = 0;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
  [[nodiscard]] std::uint16_t port() const { return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port); }
  [[nodiscard]] IpAddress ip() const {
    IpAddress result;
    if (address.ss_family == AF_INET6) {
      std::memcpy(result.bytes.data(), &reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr, 16);
      return result;
    }
    std::array<std::uint8_t, 4> v4{};
    std::memcpy(v4.data(), &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr, 4);
    return IpAddress::from_v4(v4);
  }
};

Endpoint endpoint(bool v6, Side side, std::uint16_t port) {
  Endpoint result;
  if (v6) {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&result.address);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    inet_pton(AF_INET6, NetnsPair::address_v6(side).c_str(), &in6->sin6_addr);
    result.length = sizeof *in6;
  } else {
    auto* in = reinterpret_cast<sockaddr_in*>(&result.address);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    inet_pton(AF_INET, NetnsPair::address_v4(side).c_str(), &in->sin_addr);
    result.length = sizeof *in;
  }
  return result;
}

Endpoint local_of(int fd) {
  Endpoint result;
  result.length = sizeof result.address;
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&result.address), &result.length), 0);
  return result;
}

// A kernel TCP connection from side A to side B.
struct Connection {
  UniqueFd a;
  UniqueFd b;
  FlowKey flow;  // as side B sees it
};

Connection connect_pair(const NetnsPair& bench, bool v6) {
  const int family = v6 ? AF_INET6 : AF_INET;
  Connection made;
  auto listening = bench.socket(Side::kB, family, SOCK_STREAM);
  auto dialling = bench.socket(Side::kA, family, SOCK_STREAM);
  EXPECT_TRUE(listening.has_value() && dialling.has_value());
  if (!listening.has_value() || !dialling.has_value()) return made;
  const Endpoint any = endpoint(v6, Side::kB, 0);
  EXPECT_EQ(::bind(listening->get(), any.get(), any.length), 0) << std::strerror(errno);
  EXPECT_EQ(::listen(listening->get(), 1), 0);
  const Endpoint server = local_of(listening->get());
  EXPECT_EQ(::connect(dialling->get(), server.get(), server.length), 0) << std::strerror(errno);
  made.b.reset(::accept4(listening->get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  made.a = std::move(*dialling);
  const Endpoint client = local_of(made.a.get());
  made.flow = {.local = server.ip(), .remote = client.ip(), .local_port = server.port(), .remote_port = client.port()};
  return made;
}

std::vector<std::byte> pattern(std::size_t bytes) {
  std::vector<std::byte> result(bytes);
  for (std::size_t i = 0; i < bytes; ++i) result[i] = static_cast<std::byte>((i * 2654435761U) >> 13);
  return result;
}

// Reads `bytes` bytes from a kernel socket, or fewer when the patience ends.
std::vector<std::byte> read_exactly(int fd, std::size_t bytes) {
  std::vector<std::byte> result(bytes);
  std::size_t done = 0;
  const auto deadline = Clock::now() + kPatience;
  while (done < bytes && Clock::now() < deadline) {
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, 100) <= 0) continue;
    const ssize_t got = ::recv(fd, result.data() + done, bytes - done, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) break;
    if (got > 0) done += static_cast<std::size_t>(got);
  }
  result.resize(done);
  return result;
}

bool readable_within(int fd, int milliseconds) {
  pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&waiting, 1, milliseconds) == 1;
}

// A frame taken out of a link, flat or in its parts.
struct KeptFrame {
  std::vector<std::vector<std::byte>> parts;
  std::vector<ByteView> views;
  std::uint32_t length_bytes = 0;

  explicit KeptFrame(const RxFrame& frame) : length_bytes(frame.length_bytes) {
    for (const ByteView part : frame.parts) parts.emplace_back(part.begin(), part.end());
    for (const auto& part : parts) views.emplace_back(part);
  }
  [[nodiscard]] RxFrame frame() const { return {views, length_bytes}; }
};

// Collects frames until `enough` says so.
template <typename Enough>
std::vector<KeptFrame> collect(Link& link, Enough enough) {
  std::vector<KeptFrame> kept;
  kept.reserve(10000);  // the views point into the elements
  const auto deadline = Clock::now() + kPatience;
  while (!enough(kept) && Clock::now() < deadline) {
    pollfd waiting{.fd = link.poll_fd(), .events = POLLIN, .revents = 0};
    ::poll(&waiting, 1, 100);
    for (const RxFrame& frame : link.receive(64)) kept.emplace_back(frame);
    link.release();
  }
  return kept;
}

std::vector<std::byte> flat(const RxFrame& frame) {
  std::vector<std::byte> result(frame.length_bytes);
  Payload(frame.parts, 0, frame.length_bytes).copy_to(result);
  return result;
}

class NicNetns : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = NetnsPair::why_unavailable(); !reason.empty()) GTEST_SKIP() << reason;
  }

  void make_bench(const NetnsOptions& options = {}) {
    auto made = NetnsPair::create(options);
    ASSERT_TRUE(made.has_value()) << made.error().message();
    bench = std::move(*made);
  }

  Result<std::unique_ptr<XdpAttachment>> try_attach(Side side, AttachOptions options = {}) const {
    options.interface = options.interface.empty() ? NetnsPair::interface(side) : options.interface;
    ASSIGN_OR_RETURN(const ScopedNetns inside, ScopedNetns::enter(bench->name(side)));
    return XdpAttachment::attach(options);
  }

  std::unique_ptr<XdpAttachment> attach(Side side, const AttachOptions& options = {}) const {
    auto made = try_attach(side, options);
    EXPECT_TRUE(made.has_value()) << made.error().message();
    return made.has_value() ? std::move(*made) : nullptr;
  }

  static std::unique_ptr<AfXdpLink> open(XdpAttachment& attachment, const AfXdpOptions& options = {}) {
    auto made = AfXdpLink::open(attachment, options);
    EXPECT_TRUE(made.has_value()) << made.error().message();
    return made.has_value() ? std::move(*made) : nullptr;
  }

  [[nodiscard]] std::string link_text(Side side) const {
    return bench->run_ok(side, "ip link show " + NetnsPair::interface(side)).value_or("?");
  }

  // Resolved by the kernel's own neighbour discovery.
  void wake_neighbours(bool v6) const { connect_pair(*bench, v6); }

  std::unique_ptr<NetnsPair> bench;
};

class NicNetnsFamily : public NicNetns, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(Families, NicNetnsFamily, ::testing::Values(false, true),
                         [](const auto& param) { return param.param ? "IPv6" : "IPv4"; });

TEST_F(NicNetns, ScopedNetnsEntersAndComesBack) {
  make_bench();
  const auto home = current_netns_id();
  const auto target = netns_id(bench->fd(Side::kA));
  ASSERT_TRUE(home.has_value() && target.has_value());
  {
    const auto inside = ScopedNetns::enter(bench->name(Side::kA));
    ASSERT_TRUE(inside.has_value()) << inside.error().message();
    EXPECT_EQ(*current_netns_id(), *target);
    const auto again = ScopedNetns::enter(bench->fd(Side::kA));
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(*current_netns_id(), *target);
  }
  EXPECT_EQ(*current_netns_id(), *home);
  const auto missing = ScopedNetns::enter("ts-no-such-namespace");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

TEST_F(NicNetns, AttachPicksGenericOnVethAndLeavesNothingBehind) {
  make_bench({.queues = 2, .mtu_bytes = 1400});
  {
    const auto nic = attach(Side::kB);
    ASSERT_NE(nic, nullptr);
    EXPECT_EQ(nic->mode(), XdpMode::kGeneric);
    EXPECT_NE(nic->mode_reason().find("veth"), std::string::npos) << nic->mode_reason();
    EXPECT_EQ(nic->interface().queues, 2U);
    EXPECT_EQ(nic->interface().mtu_bytes, 1400U);
    EXPECT_EQ(nic->checksum_mode(), ChecksumMode::kAcceptPartial);
    EXPECT_NE(link_text(Side::kB).find("xdpgeneric"), std::string::npos) << link_text(Side::kB);
    EXPECT_NE(link_text(Side::kB).find("id " + std::to_string(nic->program_id())), std::string::npos);
  }
  EXPECT_EQ(link_text(Side::kB).find("xdp"), std::string::npos) << link_text(Side::kB);
}

TEST_F(NicNetns, AttachedWithoutLinkItIsTakenOffByTheDestructor) {
  make_bench();
  {
    const auto nic = attach(Side::kB, {.interface = {}, .without_link = true});
    ASSERT_NE(nic, nullptr);
    EXPECT_NE(link_text(Side::kB).find("id " + std::to_string(nic->program_id())), std::string::npos);
  }
  EXPECT_EQ(link_text(Side::kB).find("xdp"), std::string::npos) << link_text(Side::kB);
}

TEST_F(NicNetns, ProgramIsGoneWhenItsProcessIsKilled) {
  make_bench();
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const auto nic = try_attach(Side::kB);
    const char word = nic.has_value() ? 'y' : 'n';
    if (::write(ready[1], &word, 1) == 1) ::pause();
    ::_exit(0);
  }
  char word = 0;
  ASSERT_EQ(::read(ready[0], &word, 1), 1);
  EXPECT_EQ(word, 'y');
  EXPECT_NE(link_text(Side::kB).find("xdpgeneric"), std::string::npos);
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  EXPECT_EQ(link_text(Side::kB).find("xdp"), std::string::npos) << link_text(Side::kB);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(NicNetns, RefusalsSayWhatToMend) {
  make_bench();
  const auto missing = try_attach(Side::kB, {.interface = "ts-nothing"});
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message().find("ts-nothing"), std::string::npos);

  const auto first = attach(Side::kB);
  ASSERT_NE(first, nullptr);
  const auto second = try_attach(Side::kB);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kNoResource);
  EXPECT_NE(second.error().message().find("id " + std::to_string(first->program_id())), std::string::npos)
      << second.error().message();

  const auto no_queue = AfXdpLink::open(*first, {.queue = 1});
  ASSERT_FALSE(no_queue.has_value());
  EXPECT_EQ(no_queue.error().code, ErrorCode::kNotFound);
  const auto link = open(*first);
  ASSERT_NE(link, nullptr);
  const auto taken = AfXdpLink::open(*first, {.queue = 0});
  ASSERT_FALSE(taken.has_value());
  EXPECT_EQ(taken.error().code, ErrorCode::kNoResource) << taken.error().message();
}

TEST_F(NicNetns, ZeroCopyIsRefusedByVeth) {
  make_bench();
  const auto nic = attach(Side::kB, {.interface = {}, .mode = XdpMode::kZeroCopy});
  ASSERT_NE(nic, nullptr);
  const auto link = AfXdpLink::open(*nic, {});
  ASSERT_FALSE(link.has_value());
  EXPECT_EQ(link.error().code, ErrorCode::kUnsupported) << link.error().message();
}

TEST_F(NicNetns, WithoutPrivilegesTheMessageNamesThem) {
  make_bench();
  int report[2];
  ASSERT_EQ(::pipe(report), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const auto inside = ScopedNetns::enter(bench->name(Side::kB));
    if (::setresuid(65534, 65534, 65534) != 0) ::_exit(1);
    const auto nic = XdpAttachment::attach({.interface = NetnsPair::interface(Side::kB)});
    const std::string text = nic.has_value() ? "attached" : nic.error().message();
    ::_exit(::write(report[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  char text[512] = {};
  ASSERT_GT(::read(report[0], text, sizeof text - 1), 0);
  EXPECT_NE(std::string(text).find("CAP_BPF"), std::string::npos) << text;
  ::close(report[0]);
  ::close(report[1]);
}

TEST_F(NicNetns, SteeringMapAddsRemovesAndFills) {
  make_bench();
  const auto nic = attach(Side::kB, {.interface = {}, .mode = XdpMode::kAuto, .max_flows = 8});
  ASSERT_NE(nic, nullptr);
  Steering& steering = nic->steering();
  std::vector<SteeredFlow> flows(8);
  std::vector<FlowKey> keys;
  for (std::uint16_t i = 0; i < 8; ++i) {
    flows[i] = {.flow = {.local = IpAddress::from_v4({10, 0, 0, 1}),
                         .remote = IpAddress::from_v4({10, 0, 0, 2}),
                         .local_port = 80,
                         .remote_port = static_cast<std::uint16_t>(1000 + i)},
                .generation = i};
    keys.push_back(flows[i].flow);
  }
  FlowKey extra = keys[0];
  extra.remote_port = 9999;

  EXPECT_EQ(steering.capacity(), 8U);
  EXPECT_FALSE(steering.contains(keys[3]));
  ASSERT_TRUE(steering.add(keys[3], 7).has_value());
  EXPECT_EQ(steering.state(keys[3])->generation, 7U);
  EXPECT_EQ(steering.size(), 1U);
  ASSERT_TRUE(steering.add(keys[3], 8).has_value());
  EXPECT_EQ(steering.state(keys[3])->generation, 8U);
  EXPECT_EQ(steering.size(), 1U);
  EXPECT_EQ(*steering.remove(keys[3]), true);
  EXPECT_EQ(*steering.remove(keys[3]), false);

  ASSERT_TRUE(steering.add_many(flows).has_value());
  EXPECT_EQ(steering.size(), 8U);
  const auto full = steering.add(extra, 1);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, ErrorCode::kNoResource);
  EXPECT_FALSE(steering.contains(extra));
  ASSERT_TRUE(steering.remove(keys[2]).has_value());
  ASSERT_TRUE(steering.remove_many(keys).has_value());
  EXPECT_EQ(steering.size(), 0U);

  ASSERT_TRUE(steering.add(extra, 1).has_value());
  EXPECT_EQ(steering.add_many(flows).error().code, ErrorCode::kNoResource);  // one too many: none is added
  EXPECT_EQ(steering.size(), 1U);
}

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
  Connection connection = connect_pair(*bench, GetParam());
  // One captured segment shows the numbers; the rest is made from it.
  ASSERT_TRUE(nic->steering().add(connection.flow, 1).has_value());
  ASSERT_EQ(::send(connection.a.get(), "x", 1, 0), 1);
  const auto kept = collect(*link, [](const auto& frames) { return !frames.empty(); });
  ASSERT_FALSE(kept.empty());
  wire::TcpPacket first;
  ASSERT_EQ(wire::parse_frame(kept[0].views, kept[0].length_bytes, link->info().checksum, first),
            wire::ParseVerdict::kOk);
  ASSERT_TRUE(*nic->steering().remove(connection.flow));
  connection.a.reset(::dup(connection.a.get()));  // keep it open, send nothing more

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
  // In order: nothing waited in the out-of-order queue.
  tcp_info info{};
  socklen_t length = sizeof info;
  ASSERT_EQ(::getsockopt(connection.b.get(), IPPROTO_TCP, TCP_INFO, &info, &length), 0);
  EXPECT_EQ(info.tcpi_rcv_ooopack, 0U);
}

// UDP/IPv4 without checksum (RFC 768 allows 0), so that the test needs nothing but bytes.
std::uint32_t write_udp(std::span<std::byte> frame, const MacAddress& from, const MacAddress& to, std::uint16_t port,
                        std::span<const std::byte> payload) {
  std::ranges::fill(frame.first(42), std::byte{0});
  std::memcpy(frame.data(), to.data(), 6);
  std::memcpy(frame.data() + 6, from.data(), 6);
  const auto put16 = [&](std::size_t at, std::size_t value) {
    frame[at] = static_cast<std::byte>(value >> 8);
    frame[at + 1] = static_cast<std::byte>(value);
  };
  put16(12, 0x0800);
  frame[14] = std::byte{0x45};
  put16(16, 28 + payload.size());
  frame[22] = std::byte{64};
  frame[23] = std::byte{17};
  const Endpoint source = endpoint(false, Side::kB, 0);
  const Endpoint target = endpoint(false, Side::kA, 0);
  std::memcpy(frame.data() + 26, source.ip().v4().data(), 4);
  std::memcpy(frame.data() + 30, target.ip().v4().data(), 4);
  wire::InternetSum sum;
  sum.add(frame.subspan(14, 20));
  const std::uint16_t checksum = sum.checksum();
  std::memcpy(frame.data() + 24, &checksum, 2);
  put16(34, 4000);
  put16(36, port);
  put16(38, 8 + payload.size());
  std::ranges::copy(payload, frame.begin() + 42);
  return static_cast<std::uint32_t>(42 + payload.size());
}

MacAddress mac_of(const NetnsPair& bench, Side side) {
  const auto inside = ScopedNetns::enter(bench.fd(side));
  const auto facts = interface_facts(NetnsPair::interface(side));
  EXPECT_TRUE(inside.has_value() && facts.has_value());
  return facts.has_value() ? facts->mac : MacAddress{};
}

// A UDP socket of side A that can hold everything that the tests send.
UniqueFd udp_sink(const NetnsPair& bench) {
  auto sink = bench.socket(Side::kA, AF_INET, SOCK_DGRAM);
  EXPECT_TRUE(sink.has_value());
  const int room = 64 << 20;
  EXPECT_EQ(::setsockopt(sink->get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room), 0);
  const Endpoint any = endpoint(false, Side::kA, 0);
  EXPECT_EQ(::bind(sink->get(), any.get(), any.length), 0);
  return std::move(*sink);
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

// A flow that no socket has, as side B sees it, and an empty ACK of it as side A would send it.
FlowKey crafted_flow() {
  return {.local = endpoint(false, Side::kB, 0).ip(),
          .remote = endpoint(false, Side::kA, 0).ip(),
          .local_port = 80,
          .remote_port = 5000};
}

std::vector<std::byte> crafted_frame(const MacAddress& from, const MacAddress& to) {
  const FlowKey flow = crafted_flow();
  const FlowKey reverse{.local = flow.remote, .remote = flow.local, .local_port = 5000, .remote_port = 80};
  wire::Segment segment;
  segment.flags = wire::kAck;
  std::vector<std::byte> frame(wire::header_bytes(reverse, segment));
  wire::write_headers(frame, {.source_mac = from, .destination_mac = to}, reverse, segment, 0);
  wire::fill_checksum(frame);
  return frame;
}

void send_frame(AfXdpLink& link, std::span<const std::byte> frame) {
  const auto room = link.allocate_tx();
  ASSERT_GE(room.size(), frame.size());
  std::ranges::copy(frame, room.begin());
  link.commit_tx(static_cast<std::uint32_t>(frame.size()));
  link.flush();
}

// Waits until one of the links has a frame: its place and the frame.
std::pair<std::uint32_t, std::vector<KeptFrame>> collect_from_any(std::span<const std::unique_ptr<AfXdpLink>> links) {
  std::vector<pollfd> waiting;
  for (const auto& link : links) waiting.push_back({.fd = link->poll_fd(), .events = POLLIN, .revents = 0});
  ::poll(waiting.data(), waiting.size(), 5000);
  for (std::uint32_t queue = 0; queue < links.size(); ++queue) {
    if ((waiting[queue].revents & POLLIN) == 0) continue;
    return {queue, collect(*links[queue], [](const auto& frames) { return !frames.empty(); })};
  }
  return {};
}

class NicNetnsQueues : public NicNetns, public ::testing::WithParamInterface<XdpMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, NicNetnsQueues, ::testing::Values(XdpMode::kGeneric, XdpMode::kNative),
                         [](const auto& param) { return std::string(name(param.param)); });

TEST_P(NicNetnsQueues, EachQueueHasItsOwnLink) {
  make_bench({.queues = 4});
  const auto sender = attach(Side::kA, {.interface = {}, .mode = GetParam()});
  const auto receiver = attach(Side::kB, {.interface = {}, .mode = GetParam()});
  ASSERT_TRUE(sender != nullptr && receiver != nullptr);
  const FlowKey flow = crafted_flow();
  ASSERT_TRUE(receiver->steering().add(flow, 1).has_value());
  std::vector<std::unique_ptr<AfXdpLink>> links;
  for (std::uint32_t queue = 0; queue < 4; ++queue) {
    links.push_back(open(*receiver, {.queue = queue, .rx_frames = 256, .tx_frames = 256}));
    ASSERT_NE(links.back(), nullptr);
  }
  std::set<std::uint32_t> queues_seen;
  for (std::uint32_t queue = 0; queue < 4; ++queue) {
    const auto from = open(*sender, {.queue = queue, .rx_frames = 256, .tx_frames = 256});
    ASSERT_NE(from, nullptr);
    EXPECT_EQ(from->info().queue, queue);
    const std::vector<std::byte> sent = crafted_frame(from->info().mac, links[0]->info().mac);
    send_frame(*from, sent);
    const auto [arrived_at, kept] = collect_from_any(links);
    ASSERT_EQ(kept.size(), 1U) << "queue " << queue;
    EXPECT_EQ(flat(kept[0].frame()), sent);
    EXPECT_EQ(receiver->steering().state(flow)->rx_queue, arrived_at);
    // veth's receive queue is the peer's transmit queue; without a driver's program nobody records it, and the stack
    // reads the sender's number one too low.
    EXPECT_EQ(arrived_at, GetParam() == XdpMode::kNative ? queue : std::max(queue, 1U) - 1);
    queues_seen.insert(arrived_at);
  }
  EXPECT_EQ(receiver->steering().state(flow)->packets, 4U);
  EXPECT_GE(queues_seen.size(), 3U);
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

// Frames that the program must leave to the kernel although addresses and ports are those of a steered flow.
TEST_F(NicNetns, WhatTheProgramDoesNotUnderstandIsNotSteered) {
  make_bench();
  const auto sender = attach(Side::kA);
  const auto receiver = attach(Side::kB);
  ASSERT_TRUE(sender != nullptr && receiver != nullptr);
  const auto from = open(*sender);
  const auto to = open(*receiver);
  ASSERT_TRUE(from != nullptr && to != nullptr);
  const FlowKey flow = crafted_flow();
  ASSERT_TRUE(receiver->steering().add(flow, 1).has_value());
  const std::vector<std::byte> good = crafted_frame(from->info().mac, to->info().mac);
  const auto send = [&](const std::vector<std::byte>& frame) { send_frame(*from, frame); };
  const auto with = [&](std::size_t at, unsigned value) {
    auto frame = good;
    frame[at] = static_cast<std::byte>(value);
    return frame;
  };
  send(with(20, 0x20));  // IPv4: more fragments
  send(with(21, 0x01));  // a later fragment
  send(with(14, 0x46));  // options
  send(with(23, 17));    // UDP
  send(with(12, 0x81));  // another EtherType
  for (std::size_t bytes = 14; bytes < good.size(); ++bytes)
    send({good.begin(), good.begin() + static_cast<long>(bytes)});
  auto tagged = good;
  const std::array<std::byte, 4> vlan = {std::byte{0x81}, std::byte{0}, std::byte{0}, std::byte{5}};
  tagged.insert(tagged.begin() + 12, vlan.begin(), vlan.end());
  send(tagged);
  EXPECT_EQ(receiver->steering().state(flow)->packets, 0U);
  send(good);
  const auto kept = collect(*to, [](const auto& frames) { return !frames.empty(); });
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(flat(kept[0].frame()), good);
  EXPECT_EQ(receiver->steering().state(flow)->packets, 1U);
}

}  // namespace
}  // namespace twinstack::nic
