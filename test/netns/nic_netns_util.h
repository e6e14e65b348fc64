// What the tests of src/nic/af_xdp share: kernel sockets on both sides of the bench, frames taken out of a link.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "netns/netns_fixture.h"
#include "nic/af_xdp/af_xdp_link.h"
#include "nic/af_xdp/attachment.h"
#include "nic/af_xdp/netns.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::nic {

using testing::NetnsOptions;
using testing::NetnsPair;
using testing::Side;
using Clock = std::chrono::steady_clock;

inline constexpr auto kPatience = std::chrono::seconds(10);

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

inline Endpoint endpoint(bool v6, Side side, std::uint16_t port) {
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

inline Endpoint local_of(int fd) {
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

inline Connection connect_pair(const NetnsPair& bench, bool v6) {
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

inline std::vector<std::byte> pattern(std::size_t bytes) {
  std::vector<std::byte> result(bytes);
  for (std::size_t i = 0; i < bytes; ++i) result[i] = static_cast<std::byte>((i * 2654435761U) >> 13);
  return result;
}

// Reads `bytes` bytes from a kernel socket, or fewer when the patience ends.
inline std::vector<std::byte> read_exactly(int fd, std::size_t bytes) {
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

inline bool readable_within(int fd, int milliseconds) {
  pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&waiting, 1, milliseconds) == 1;
}

// A frame taken out of a link, flat or in its parts.
struct KeptFrame {
  std::vector<std::vector<std::byte>> parts;
  std::vector<ByteView> views;
  std::uint32_t length_bytes = 0;

  KeptFrame(KeptFrame&&) noexcept = default;
  KeptFrame& operator=(KeptFrame&&) noexcept = default;
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

inline std::vector<std::byte> flat(const RxFrame& frame) {
  std::vector<std::byte> result(frame.length_bytes);
  Payload(frame.parts, 0, frame.length_bytes).copy_to(result);
  return result;
}

// UDP/IPv4 without checksum (RFC 768 allows 0), so that the test needs nothing but bytes.
inline std::uint32_t write_udp(std::span<std::byte> frame, const MacAddress& from, const MacAddress& to,
                               std::uint16_t port, std::span<const std::byte> payload) {
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

inline MacAddress mac_of(const NetnsPair& bench, Side side) {
  const auto inside = ScopedNetns::enter(bench.fd(side));
  const auto facts = interface_facts(NetnsPair::interface(side));
  EXPECT_TRUE(inside.has_value() && facts.has_value());
  return facts.has_value() ? facts->mac : MacAddress{};
}

// A UDP socket of side A that can hold everything that the tests send.
inline UniqueFd udp_sink(const NetnsPair& bench) {
  auto sink = bench.socket(Side::kA, AF_INET, SOCK_DGRAM);
  EXPECT_TRUE(sink.has_value());
  const int room = 64 << 20;
  EXPECT_EQ(::setsockopt(sink->get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room), 0);
  const Endpoint any = endpoint(false, Side::kA, 0);
  EXPECT_EQ(::bind(sink->get(), any.get(), any.length), 0);
  return std::move(*sink);
}

// A flow that no socket has, as side B sees it, and an empty ACK of it as side A would send it.
inline FlowKey crafted_flow() {
  return {.local = endpoint(false, Side::kB, 0).ip(),
          .remote = endpoint(false, Side::kA, 0).ip(),
          .local_port = 80,
          .remote_port = 5000};
}

inline std::vector<std::byte> crafted_frame(const MacAddress& from, const MacAddress& to) {
  const FlowKey flow = crafted_flow();
  const FlowKey reverse{.local = flow.remote, .remote = flow.local, .local_port = 5000, .remote_port = 80};
  wire::Segment segment;
  segment.flags = wire::kAck;
  std::vector<std::byte> frame(wire::header_bytes(reverse, segment));
  wire::write_headers(frame, {.source_mac = from, .destination_mac = to}, reverse, segment, 0);
  wire::fill_checksum(frame);
  return frame;
}

inline void send_frame(AfXdpLink& link, std::span<const std::byte> frame) {
  const auto room = link.allocate_tx();
  ASSERT_GE(room.size(), frame.size());
  std::ranges::copy(frame, room.begin());
  link.commit_tx(static_cast<std::uint32_t>(frame.size()));
  link.flush();
}

// Waits until one of the links has a frame: its place and the frame.
inline std::pair<std::uint32_t, std::vector<KeptFrame>> collect_from_any(
    std::span<const std::unique_ptr<AfXdpLink>> links) {
  std::vector<pollfd> waiting;
  for (const auto& link : links) waiting.push_back({.fd = link->poll_fd(), .events = POLLIN, .revents = 0});
  ::poll(waiting.data(), waiting.size(), 5000);
  for (std::uint32_t queue = 0; queue < links.size(); ++queue) {
    if ((waiting[queue].revents & POLLIN) == 0) continue;
    return {queue, collect(*links[queue], [](const auto& frames) { return !frames.empty(); })};
  }
  return {};
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

  std::unique_ptr<NetnsPair> bench;
};

}  // namespace twinstack::nic
