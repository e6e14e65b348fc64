// Figures of the AF_XDP link, the steering map and injection on a veth between two namespaces, by hand:
//   nic_bench [seconds per figure]
// Sender and receiver share one machine: everything is the cost of both ends of the veth unless it says otherwise.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "netns/netns_fixture.h"
#include "nic/af_xdp/af_xdp_link.h"
#include "nic/af_xdp/attachment.h"
#include "nic/af_xdp/injector.h"
#include "nic/af_xdp/netns.h"
#include "wire/build.h"

namespace twinstack::nic {
namespace {

using testing::NetnsPair;
using testing::Side;
using Clock = std::chrono::steady_clock;

std::chrono::milliseconds run_time(1000);

template <typename T>
T must(Result<T> result) {
  if (!result.has_value()) {
    fmt::print(stderr, "{}\n", result.error().message());
    std::exit(1);
  }
  return std::move(*result);
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// CPU time of this thread; softirq work of the veth is done in the sender's thread and counts. Other programs on the
// machine do not.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void pin_to(unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu % std::max(1U, std::thread::hardware_concurrency()), &set);
  sched_setaffinity(0, sizeof set, &set);
}

const FlowKey kFlow{.local = IpAddress::from_v4({10, 77, 0, 2}),
                    .remote = IpAddress::from_v4({10, 77, 0, 1}),
                    .local_port = 80,
                    .remote_port = 5000};
const FlowKey kReverse{.local = kFlow.remote, .remote = kFlow.local, .local_port = 5000, .remote_port = 80};

struct End {
  std::unique_ptr<XdpAttachment> nic;
  std::unique_ptr<AfXdpLink> link;
};

End make_end(const NetnsPair& bench, Side side, XdpMode mode, std::uint32_t frame_bytes = 0) {
  const ScopedNetns inside = must(ScopedNetns::enter(bench.fd(side)));
  End end;
  end.nic = must(XdpAttachment::attach({.interface = NetnsPair::interface(side), .mode = mode}));
  end.link = must(AfXdpLink::open(*end.nic, {.frame_bytes = frame_bytes}));
  return end;
}

std::vector<std::byte> make_frame(const End& from, const End& to, std::uint32_t payload_bytes) {
  std::vector<std::byte> frame(1514);
  wire::Segment segment;
  segment.flags = wire::kAck;
  const std::uint32_t head =
      wire::write_headers(frame, {.source_mac = from.link->info().mac, .destination_mac = to.link->info().mac},
                          kReverse, segment, payload_bytes);
  frame.resize(head + payload_bytes);
  wire::fill_checksum(frame);
  return frame;
}

// Sends in bursts until told to stop; frames per second of the sending side.
double send_until(AfXdpLink& link, const std::vector<std::byte>& frame, std::size_t burst, std::atomic<bool>& stop) {
  const auto start = Clock::now();
  const std::uint64_t before = link.stats().tx_frames;
  while (!stop.load(std::memory_order_relaxed)) {
    for (std::size_t i = 0; i < burst; ++i) {
      const auto room = link.allocate_tx();
      if (room.empty()) break;
      std::ranges::copy(frame, room.begin());
      link.commit_tx(static_cast<std::uint32_t>(frame.size()));
    }
    link.flush();
  }
  return static_cast<double>(link.stats().tx_frames - before) / seconds_since(start);
}

void measure_stream(XdpMode mode, std::uint32_t payload_bytes, std::size_t burst) {
  const auto bench = must(NetnsPair::create());
  End a = make_end(*bench, Side::kA, mode);
  End b = make_end(*bench, Side::kB, mode);
  static_cast<void>(b.nic->steering().add(kFlow, 1));
  const std::vector<std::byte> frame = make_frame(a, b, payload_bytes);
  std::atomic<bool> stop = false;
  double sent = 0;
  std::thread sender([&] {
    pin_to(0);
    sent = send_until(*a.link, frame, burst, stop);
  });
  pin_to(1);
  const auto start = Clock::now();
  std::uint64_t received = 0;
  while (Clock::now() - start < run_time) {
    received += b.link->receive(burst).size();
    b.link->release();
  }
  const double seconds = seconds_since(start);
  stop = true;
  sender.join();
  fmt::print("stream {:8} {:5} B burst {:3}: tx {:8.0f}/s  rx {:8.0f}/s  rx dropped {:7}  frames per kick {:.1f}\n",
             name(mode), frame.size(), burst, sent, static_cast<double>(received) / seconds, b.link->stats().rx_dropped,
             static_cast<double>(a.link->stats().tx_frames) / static_cast<double>(a.link->kicks()));
}

// Both ends on this thread: send a burst, receive it, again. What one core needs for a frame out and a frame in.
void measure_one_core(XdpMode mode, std::uint32_t payload_bytes, std::size_t burst) {
  const auto bench = must(NetnsPair::create());
  End a = make_end(*bench, Side::kA, mode);
  End b = make_end(*bench, Side::kB, mode);
  static_cast<void>(b.nic->steering().add(kFlow, 1));
  const std::vector<std::byte> frame = make_frame(a, b, payload_bytes);
  pin_to(1);
  const auto start = Clock::now();
  const double cpu_before = cpu_seconds();
  std::uint64_t received = 0;
  double sending = 0;
  while (Clock::now() - start < run_time) {
    const double before = cpu_seconds();
    for (std::size_t i = 0; i < burst; ++i) {
      const auto room = a.link->allocate_tx();
      std::ranges::copy(frame, room.begin());
      a.link->commit_tx(static_cast<std::uint32_t>(frame.size()));
    }
    a.link->flush();
    sending += cpu_seconds() - before;
    for (std::size_t wanted = burst; wanted > 0;) {
      const std::size_t got = b.link->receive(wanted).size();
      b.link->release();
      wanted -= got;
      received += got;
      if (got == 0 && Clock::now() - start > run_time) break;
    }
  }
  fmt::print("one core {:8} {:5} B burst {:3}: {:.2f} us CPU per frame (flush {:.2f} us)\n", name(mode), frame.size(),
             burst, (cpu_seconds() - cpu_before) * 1e6 / static_cast<double>(received),
             sending * 1e6 / static_cast<double>(received));
}

// struct virtio_net_hdr; its header is no C++.
struct OffloadHeader {
  std::uint8_t flags = 1;     // NEEDS_CSUM
  std::uint8_t gso_type = 1;  // TCPV4
  std::uint16_t header_bytes = 54;
  std::uint16_t gso_bytes = 1460;
  std::uint16_t checksum_start = 34;
  std::uint16_t checksum_offset = 16;
};

// GSO super-packets as the kernel's TCP sends them, here by a packet socket. Receiving by AF_XDP, all on this thread.
void measure_super_packets(std::uint32_t frame_bytes, std::uint32_t payload_bytes) {
  const auto bench = must(NetnsPair::create());
  End b = make_end(*bench, Side::kB, XdpMode::kGeneric, frame_bytes);
  static_cast<void>(b.nic->steering().add(kFlow, 1));
  const UniqueFd socket = must(bench->socket(Side::kA, AF_PACKET, SOCK_RAW, 0));
  const int one = 1;
  if (::setsockopt(socket.get(), SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) != 0) return;
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_IP);
  static_cast<void>(bench->in(Side::kA, [&] {
    address.sll_ifindex = static_cast<int>(::if_nametoindex(NetnsPair::interface(Side::kA).c_str()));
  }));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return;
  constexpr std::uint32_t kHeaders = 54;
  const OffloadHeader offload;
  std::vector<std::byte> message(sizeof offload + kHeaders + payload_bytes);
  std::memcpy(message.data(), &offload, sizeof offload);
  wire::Segment segment;
  segment.flags = wire::kAck;
  wire::write_headers(std::span(message).subspan(sizeof offload), {.destination_mac = b.link->info().mac}, kReverse,
                      segment, payload_bytes);
  const auto start = Clock::now();
  const double cpu_before = cpu_seconds();
  std::uint64_t bytes = 0;
  std::size_t parts = 0;
  std::vector<std::byte> copy(1 << 17);
  while (Clock::now() - start < run_time) {
    if (::send(socket.get(), message.data(), message.size(), 0) < 0) return;
    for (const RxFrame& frame : b.link->receive(64)) {
      bytes += Payload(frame.parts, 0, frame.length_bytes).copy_to(copy);
      parts = frame.parts.size();
    }
    b.link->release();
  }
  fmt::print("super-packets of {:5} B into buffers of {} B ({:2} parts): {:.2f} us CPU per 10 KB, sending included\n",
             payload_bytes, frame_bytes, parts, (cpu_seconds() - cpu_before) * 1e10 / static_cast<double>(bytes));
}

void measure_steering() {
  const auto bench = must(NetnsPair::create());
  End b = make_end(*bench, Side::kB, XdpMode::kGeneric);
  Steering& steering = b.nic->steering();
  constexpr int kRounds = 20000;
  FlowKey flow = kFlow;
  auto start = Clock::now();
  for (int i = 0; i < kRounds; ++i) {
    flow.remote_port = static_cast<std::uint16_t>(i);
    static_cast<void>(steering.add(flow, 1));
  }
  fmt::print("steering add {:.2f} us", seconds_since(start) * 1e6 / kRounds);
  start = Clock::now();
  for (int i = 0; i < kRounds; ++i) {
    flow.remote_port = static_cast<std::uint16_t>(i);
    static_cast<void>(steering.remove(flow));
  }
  fmt::print(", remove {:.2f} us", seconds_since(start) * 1e6 / kRounds);
  std::vector<SteeredFlow> many(1000);
  for (std::size_t i = 0; i < many.size(); ++i) {
    many[i].flow = kFlow;
    many[i].flow.remote_port = static_cast<std::uint16_t>(i);
  }
  start = Clock::now();
  static_cast<void>(steering.add_many(many));
  fmt::print(", add_many of 1000 {:.2f} us each\n", seconds_since(start) * 1e6 / 1000);
}

void measure_injection(std::size_t frames_per_call, std::uint32_t payload_bytes, bool inside_already) {
  const auto bench = must(NetnsPair::create());
  End a = make_end(*bench, Side::kA, XdpMode::kGeneric);
  End b = make_end(*bench, Side::kB, XdpMode::kGeneric);
  std::unique_ptr<PacketInjector> injector;
  {
    const ScopedNetns inside = must(ScopedNetns::enter(bench->fd(Side::kB)));
    injector = must(PacketInjector::create({.interface = NetnsPair::interface(Side::kB)}));
  }
  const std::vector<std::byte> frame = make_frame(a, b, payload_bytes);
  const ByteView view = frame;
  const std::vector<RxFrame> frames(frames_per_call, RxFrame{{&view, 1}, static_cast<std::uint32_t>(frame.size())});
  const ScopedNetns where = must(ScopedNetns::enter(bench->fd(inside_already ? Side::kB : Side::kA)));
  std::vector<double> each;
  const auto begin = Clock::now();
  while (Clock::now() - begin < run_time) {
    const auto start = Clock::now();
    static_cast<void>(must(injector->inject(frames, ChecksumMode::kVerify)));
    each.push_back(seconds_since(start) * 1e6);
  }
  std::ranges::sort(each);
  fmt::print("inject {:3} x {:4} B {}: median {:6.1f} us per call, p99 {:6.1f} us ({:.2f} us per frame)\n",
             frames_per_call, frame.size(), inside_already ? "in its namespace" : "from elsewhere  ",
             each[each.size() / 2], each[each.size() * 99 / 100],
             each[each.size() / 2] / static_cast<double>(frames_per_call));
}

// One frame there and one back, both ends asleep in poll between.
void measure_round_trip(XdpMode mode, bool spin) {
  const auto bench = must(NetnsPair::create());
  End a = make_end(*bench, Side::kA, mode);
  End b = make_end(*bench, Side::kB, mode);
  static_cast<void>(b.nic->steering().add(kFlow, 1));
  static_cast<void>(a.nic->steering().add(kReverse, 1));
  const std::vector<std::byte> there = make_frame(a, b, 64);
  std::vector<std::byte> back(1514);
  wire::Segment segment;
  segment.flags = wire::kAck;
  const std::uint32_t head = wire::write_headers(
      back, {.source_mac = b.link->info().mac, .destination_mac = a.link->info().mac}, kFlow, segment, 64);
  back.resize(head + 64);
  wire::fill_checksum(back);
  std::atomic<bool> stop = false;
  const auto wait = [&](AfXdpLink& link) {
    while (!stop) {
      const std::size_t got = link.receive(1).size();
      link.release();
      if (got > 0) return;
      pollfd waiting{.fd = link.poll_fd(), .events = POLLIN, .revents = 0};
      if (!spin) ::poll(&waiting, 1, 50);
    }
  };
  const auto send = [](AfXdpLink& link, const std::vector<std::byte>& frame) {
    const auto room = link.allocate_tx();
    std::ranges::copy(frame, room.begin());
    link.commit_tx(static_cast<std::uint32_t>(frame.size()));
    link.flush();
  };
  std::thread echo([&] {
    pin_to(0);
    while (!stop) {
      wait(*b.link);
      send(*b.link, back);
    }
  });
  pin_to(1);
  std::vector<double> each;
  const auto begin = Clock::now();
  while (Clock::now() - begin < run_time) {
    const auto start = Clock::now();
    send(*a.link, there);
    wait(*a.link);
    each.push_back(seconds_since(start) * 1e6);
  }
  stop = true;
  echo.join();
  std::ranges::sort(each);
  fmt::print("round trip {:8} {}: median {:.1f} us, p99 {:.1f} us\n", name(mode), spin ? "spinning" : "in poll ",
             each[each.size() / 2], each[each.size() * 99 / 100]);
}

void run_all() {
  for (const XdpMode mode : {XdpMode::kGeneric, XdpMode::kNative}) {
    for (const std::uint32_t payload : {64U, 1400U}) {
      for (const std::size_t burst : {1U, 8U, 32U, 64U, 256U}) measure_stream(mode, payload, burst);
    }
    for (const std::size_t burst : {1U, 8U, 32U, 64U}) measure_one_core(mode, 64, burst);
    measure_one_core(mode, 1400, 32);
    measure_round_trip(mode, true);
    measure_round_trip(mode, false);
  }
  for (const std::uint32_t payload : {14'480U, 43'440U, 64'240U}) {
    for (const std::uint32_t frame_bytes : {2048U, 4096U}) measure_super_packets(frame_bytes, payload);
  }
  measure_steering();
  for (const std::size_t frames : {1U, 2U, 8U, 32U, 64U}) measure_injection(frames, 64, true);
  measure_injection(1, 1400, true);
  measure_injection(32, 1400, true);
  measure_injection(1, 64, false);
}

}  // namespace
}  // namespace twinstack::nic

int main(int argc, char** argv) {
  using twinstack::testing::NetnsPair;
  if (const std::string reason = NetnsPair::why_unavailable(); !reason.empty()) {
    fmt::print(stderr, "{}\n", reason);
    return 1;
  }
  if (argc > 1) twinstack::nic::run_time = std::chrono::milliseconds(static_cast<int>(std::atof(argv[1]) * 1000));
  twinstack::nic::run_all();
}
