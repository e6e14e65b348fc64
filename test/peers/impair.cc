// impair: a bad wire between two interfaces of this namespace. Every frame that comes in on one leaves on the other
// after a fixed delay, unless chance loses it; a rate and a queue make a bottleneck. Both directions alike, from one
// seed. Transparent (layer 2), so whatever is at the two ends shares the same wire. One thread; ends at SIGTERM.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "base/rng.h"
#include "sockets.h"

namespace twinstack::peers {
namespace {

struct Options {
  std::array<std::string, 2> interfaces;
  double delay_ms = 0;
  double loss_percent = 0;
  double rate_mbit = 0;  // 0 = as fast as it goes
  std::uint32_t queue_frames = 1000;
  std::uint64_t seed = 1;
};

struct Frame {
  std::uint64_t due_ns = 0;
  std::vector<std::byte> bytes;
};

Result<UniqueFd> open_interface(const std::string& name) {
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL)));
  if (!fd) return system_error("socket(AF_PACKET)");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
  if (address.sll_ifindex == 0) return system_error("interface " + name);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return system_error("bind");
  packet_mreq promiscuous{};
  promiscuous.mr_ifindex = address.sll_ifindex;
  promiscuous.mr_type = PACKET_MR_PROMISC;
  if (::setsockopt(fd.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)) != 0) {
    return system_error("PACKET_ADD_MEMBERSHIP");
  }
  const int buffer_bytes = 64 << 20;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof(buffer_bytes));
  return fd;
}

// One direction.
class Wire {
 public:
  Wire(const Options& options, int from, int to, std::uint64_t seed)
      : options_(options), from_(from), to_(to), rng_(seed) {}

  void take_in() {
    std::array<std::byte, 65536> buffer;
    for (;;) {
      sockaddr_ll sender{};
      socklen_t length = sizeof(sender);
      const ssize_t n =
          ::recvfrom(from_, buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&sender), &length);
      if (n <= 0) return;
      if (sender.sll_pkttype == PACKET_OUTGOING) continue;  // one that we have sent
      accept(std::span(buffer).first(static_cast<std::size_t>(n)));
    }
  }

  void let_out(std::uint64_t now) {
    while (!frames_.empty() && frames_.front().due_ns <= now) {
      (void)::send(to_, frames_.front().bytes.data(), frames_.front().bytes.size(), 0);
      frames_.pop_front();
    }
  }

  [[nodiscard]] std::uint64_t next_ns() const { return frames_.empty() ? ~std::uint64_t{0} : frames_.front().due_ns; }

  std::uint64_t passed = 0;
  std::uint64_t lost = 0;
  std::uint64_t overflowed = 0;

 private:
  void accept(std::span<const std::byte> bytes) {
    if (rng_.chance_ppm(static_cast<std::uint32_t>(options_.loss_percent * 10'000))) {
      ++lost;
      return;
    }
    const std::uint64_t now = now_ns();
    std::uint64_t leaves = now;
    if (options_.rate_mbit > 0) {
      const double ns = static_cast<double>(bytes.size()) * 8000.0 / options_.rate_mbit;
      leaves = std::max(now, free_ns_) + static_cast<std::uint64_t>(ns);
      if (static_cast<double>(leaves - now) > ns * options_.queue_frames) {
        ++overflowed;
        return;
      }
      free_ns_ = leaves;
    }
    ++passed;
    frames_.push_back({leaves + static_cast<std::uint64_t>(options_.delay_ms * 1e6), {bytes.begin(), bytes.end()}});
  }

  const Options& options_;
  int from_;
  int to_;
  Rng rng_;
  std::uint64_t free_ns_ = 0;  // when the bottleneck has sent all that it has
  std::deque<Frame> frames_;
};

Result<> run(const Options& options) {
  ASSIGN_OR_RETURN(const UniqueFd stop, stop_signals_fd());
  ASSIGN_OR_RETURN(const UniqueFd left, open_interface(options.interfaces[0]));
  ASSIGN_OR_RETURN(const UniqueFd right, open_interface(options.interfaces[1]));
  Wire there(options, left.get(), right.get(), options.seed);
  Wire back(options, right.get(), left.get(), options.seed + 1);
  std::printf("ready\n");
  std::fflush(stdout);
  std::array<pollfd, 3> watched = {{{left.get(), POLLIN, 0}, {right.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}}};
  while (watched[2].revents == 0) {
    const std::uint64_t next = std::min(there.next_ns(), back.next_ns());
    const std::uint64_t now = now_ns();
    const std::uint64_t wait = next <= now ? 0 : std::min<std::uint64_t>(next - now, 1'000'000'000);
    const timespec timeout{static_cast<time_t>(wait / 1'000'000'000), static_cast<long>(wait % 1'000'000'000)};
    if (::ppoll(watched.data(), watched.size(), &timeout, nullptr) < 0 && errno != EINTR) return system_error("ppoll");
    there.take_in();
    back.take_in();
    there.let_out(now_ns());
    back.let_out(now_ns());
  }
  for (const Wire* wire : {&there, &back}) {
    std::printf("%llu passed, %llu lost, %llu overflowed\n", static_cast<unsigned long long>(wire->passed),
                static_cast<unsigned long long>(wire->lost), static_cast<unsigned long long>(wire->overflowed));
  }
  return {};
}

}  // namespace
}  // namespace twinstack::peers

int main(int argc, char** argv) {
  twinstack::peers::Options options;
  CLI::App app("A bad wire between two interfaces of this namespace.");
  app.add_option("left", options.interfaces[0])->required();
  app.add_option("right", options.interfaces[1])->required();
  app.add_option("--delay-ms", options.delay_ms, "each way");
  app.add_option("--loss-percent", options.loss_percent, "each way");
  app.add_option("--rate-mbit", options.rate_mbit, "each way; 0 = as fast as it goes");
  app.add_option("--queue-frames", options.queue_frames, "full frames that wait at that rate");
  app.add_option("--seed", options.seed);
  CLI11_PARSE(app, argc, argv);
  const auto result = twinstack::peers::run(options);
  if (result.has_value()) return 0;
  std::fprintf(stderr, "impair: %s\n", result.error().message().c_str());
  return 1;
}
