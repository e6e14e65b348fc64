// rr_client: closed-loop load for rr_server. C connections in one epoll thread, one request in flight on each; every
// reply is compared byte by byte. Prints one JSON line: requests per second and latency. Exit code 1 if anything was
// wrong.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "histogram.h"
#include "pattern.h"
#include "sockets.h"

namespace twinstack::peers {
namespace {

struct Options {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
  std::uint32_t connections = 64;
  std::uint32_t size_bytes = 64;
  double duration_s = 5;
  double warmup_s = 0.5;
  double stall_limit_s = 10;
  std::uint64_t seed = 1;
};

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

std::uint64_t to_ns(double seconds) { return static_cast<std::uint64_t>(seconds * static_cast<double>(kNsPerSecond)); }

struct Connection {
  UniqueFd fd;
  std::uint64_t sent_at_ns = 0;
  std::uint64_t sequence = 0;  // of the request in flight
  std::size_t received = 0;    // bytes of its reply so far
  std::size_t sent = 0;        // bytes of it that the socket has taken
  bool wants_out = false;      // EPOLLOUT is asked for
  std::vector<std::byte> request;
};

struct Totals {
  std::uint64_t requests = 0;  // in the measured time
  std::uint64_t all_requests = 0;
  std::uint64_t wrong_replies = 0;
  std::uint64_t errors = 0;
  std::uint64_t measured_ns = 0;
};

class Client {
 public:
  Client(Options options, UniqueFd epoll) : options_(std::move(options)), epoll_(std::move(epoll)) {}

  Result<> connect_all(const Address& address);
  Result<> run();
  void print() const;
  [[nodiscard]] bool clean() const { return totals_.wrong_replies == 0 && totals_.errors == 0 && totals_.requests > 0; }

 private:
  void start_request(Connection& connection, std::size_t index);
  void push(Connection& connection, std::size_t index);
  void serve(std::size_t index, std::uint32_t events);
  void announce_phase();
  void reply_done(Connection& connection, std::size_t index);
  void drop(Connection& connection, const char* why);

  Options options_;
  UniqueFd epoll_;
  std::vector<Connection> connections_;
  std::array<std::byte, 65536> buffer_{};
  Histogram latency_;
  Totals totals_;
  std::uint64_t measure_from_ns_ = 0;
  std::uint64_t measure_to_ns_ = 0;
  std::uint64_t now_ns_ = 0;
  std::size_t in_flight_ = 0;
  int phase_ = 0;  // 0 = before the measured time, 1 = in it, 2 = after it
};

Result<> Client::connect_all(const Address& address) {
  connections_.resize(options_.connections);
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    ASSIGN_OR_RETURN(UniqueFd fd, connect_blocking(address));
    TRY(set_nonblocking(fd.get(), true));
    set_no_delay(fd.get());
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return system_error("epoll_ctl");
    connections_[i].fd = std::move(fd);
    connections_[i].request.resize(options_.size_bytes);
  }
  return {};
}

void Client::drop(Connection& connection, const char* why) {
  std::fprintf(stderr, "rr_client: connection lost: %s\n", why);
  ++totals_.errors;
  connection.fd.reset();
  --in_flight_;
}

void Client::push(Connection& connection, std::size_t index) {
  const std::span<const std::byte> rest = std::span<const std::byte>(connection.request).subspan(connection.sent);
  const ssize_t sent = write(connection.fd.get(), rest.data(), rest.size());
  if (sent < 0 && errno != EAGAIN && errno != EINTR) {
    drop(connection, std::strerror(errno));
    return;
  }
  if (sent > 0) connection.sent += static_cast<std::size_t>(sent);
  const bool blocked = connection.sent < connection.request.size();
  if (blocked == connection.wants_out) return;
  connection.wants_out = blocked;
  epoll_event event{};
  event.events = blocked ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.u64 = index;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.fd.get(), &event) != 0) drop(connection, std::strerror(errno));
}

void Client::start_request(Connection& connection, std::size_t index) {
  const std::uint64_t seed = options_.seed + (index << 32);
  Pattern(seed).fill(connection.sequence * options_.size_bytes, connection.request);
  connection.sent_at_ns = now_ns_;
  connection.received = 0;
  connection.sent = 0;
  ++in_flight_;
  push(connection, index);
}

void Client::reply_done(Connection& connection, std::size_t index) {
  --in_flight_;
  ++connection.sequence;
  ++totals_.all_requests;
  if (now_ns_ >= measure_from_ns_ && now_ns_ < measure_to_ns_) {
    ++totals_.requests;
    latency_.record(now_ns_ - connection.sent_at_ns);
  }
  if (now_ns_ < measure_to_ns_) start_request(connection, index);
}

void Client::serve(std::size_t index, std::uint32_t events) {
  Connection& connection = connections_[index];
  if ((events & EPOLLOUT) != 0 && connection.fd) push(connection, index);
  if (!connection.fd || (events & ~std::uint32_t{EPOLLOUT}) == 0) return;
  const ssize_t got = read(connection.fd.get(), buffer_.data(), buffer_.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    drop(connection, got == 0 ? "end of file" : std::strerror(errno));
    return;
  }
  const auto size = static_cast<std::size_t>(got);
  bool right = connection.received + size <= options_.size_bytes;
  for (std::size_t i = 0; right && i < size; ++i) {
    const std::size_t at = connection.received + i;
    right = buffer_[i] == (at < 8 ? ~connection.request[at] : connection.request[at]);
  }
  if (!right) {
    ++totals_.wrong_replies;
    drop(connection, "a wrong reply");
    return;
  }
  connection.received += size;
  if (connection.received == options_.size_bytes) reply_done(connection, index);
}

// Whoever measures from outside reads its clocks at these lines.
void Client::announce_phase() {
  const int phase = static_cast<int>(now_ns_ >= measure_from_ns_) + static_cast<int>(now_ns_ >= measure_to_ns_);
  if (phase == phase_) return;
  phase_ = phase;
  std::puts(phase == 1 ? "measuring" : "measured");
  std::fflush(stdout);
}

Result<> Client::run() {
  now_ns_ = now_ns();
  measure_from_ns_ = now_ns_ + to_ns(options_.warmup_s);
  measure_to_ns_ = measure_from_ns_ + to_ns(options_.duration_s);
  const std::uint64_t give_up_ns = measure_to_ns_ + to_ns(options_.stall_limit_s);
  for (std::size_t i = 0; i < connections_.size(); ++i) start_request(connections_[i], i);
  std::array<epoll_event, 256> events{};
  while (in_flight_ > 0 && now_ns_ < give_up_ns) {
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 100);
    if (count < 0 && errno != EINTR) return system_error("epoll_wait");
    now_ns_ = now_ns();
    announce_phase();
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      serve(event.data.u64, event.events);
    }
  }
  totals_.errors += in_flight_;  // replies that never came
  totals_.measured_ns = measure_to_ns_ - measure_from_ns_;
  return {};
}

void Client::print() const {
  const auto us = [this](double q) { return static_cast<double>(latency_.quantile_ns(q)) / 1e3; };
  const double seconds = static_cast<double>(totals_.measured_ns) / 1e9;
  fmt::print(
      "{{\"requests\":{},\"all_requests\":{},\"seconds\":{:.3f},\"requests_per_second\":{:.1f},\"p50_us\":{:.1f},"
      "\"p99_us\":{:.1f},\"p999_us\":{:.1f},\"max_us\":{:.1f},\"wrong_replies\":{},\"errors\":{},\"cpu_us\":{}}}\n",
      totals_.requests, totals_.all_requests, seconds, static_cast<double>(totals_.requests) / seconds, us(0.5),
      us(0.99), us(0.999), static_cast<double>(latency_.max_ns()) / 1e3, totals_.wrong_replies, totals_.errors,
      own_cpu_us());
}

Result<bool> measure(const Options& options) {
  (void)signal(SIGPIPE, SIG_IGN);
  ASSIGN_OR_RETURN(const Address address, parse_address(options.host, options.port));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error("epoll_create1");
  const auto client = std::make_unique<Client>(options, std::move(epoll));
  TRY(client->connect_all(address));
  std::puts("connected");
  std::fflush(stdout);
  TRY(client->run());
  client->print();
  return client->clean();
}

}  // namespace
}  // namespace twinstack::peers

int main(int argc, char** argv) {
  twinstack::peers::Options options;
  CLI::App app("Closed-loop request/response client for rr_server; prints one JSON line");
  app.add_option("-H,--host", options.host, "server's address (numeric)");
  app.add_option("-p,--port", options.port, "server's port")->required();
  app.add_option("-c,--connections", options.connections, "connections")->check(CLI::Range(1, 60000));
  app.add_option("-s,--size", options.size_bytes, "bytes of a request and of a reply")->check(CLI::Range(8, 65536));
  app.add_option("-d,--duration", options.duration_s, "measured seconds");
  app.add_option("-w,--warmup", options.warmup_s, "seconds before that");
  app.add_option("--stall-limit", options.stall_limit_s, "seconds to wait at the end for missing replies");
  app.add_option("--seed", options.seed, "seed of the requests' content");
  CLI11_PARSE(app, argc, argv);
  twinstack::peers::raise_descriptor_limit();
  const auto clean = twinstack::peers::measure(options);
  if (clean) return *clean ? 0 : 1;
  std::fprintf(stderr, "rr_client: %s\n", clean.error().message().c_str());
  return 2;
}
