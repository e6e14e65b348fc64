// rr_server: single-threaded epoll server of fixed-size requests, with as little work of its own as possible: the reply
// is the request with its first 8 bytes inverted. The program whose CPU time the comparison of the stacks measures.
// At SIGTERM/SIGINT it prints one JSON line.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "sockets.h"

namespace twinstack::peers {
namespace {

constexpr std::size_t kInvertedBytes = 8;

struct Options {
  std::string host = "0.0.0.0";
  std::uint16_t port = 0;
  std::uint32_t size_bytes = 64;
  int stats_fd = STDOUT_FILENO;
};

struct Connection {
  UniqueFd fd;
  std::vector<std::byte> request;  // a part of a request that has come so far
  std::vector<std::byte> unsent;   // replies that the socket did not take
};

class Server {
 public:
  Server(Options options, UniqueFd listener, UniqueFd signals, UniqueFd epoll)
      : options_(std::move(options)),
        listener_(std::move(listener)),
        signals_(std::move(signals)),
        epoll_(std::move(epoll)) {}

  Result<> run();

 private:
  Result<> watch(int fd, std::uint32_t events, int operation);
  void accept_all();
  void serve(int fd, std::uint32_t events);
  bool read_requests(Connection& connection);
  bool answer(Connection& connection, std::span<std::byte> requests);
  bool flush(Connection& connection);
  void print_stats() const;

  Options options_;
  UniqueFd listener_;
  UniqueFd signals_;
  UniqueFd epoll_;
  std::unordered_map<int, Connection> connections_;
  std::array<std::byte, 65536> buffer_{};
  std::uint64_t requests_ = 0;
  std::uint64_t accepted_ = 0;
  std::uint64_t errors_ = 0;
};

Result<> Server::watch(int fd, std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), operation, fd, &event) != 0) return system_error("epoll_ctl");
  return {};
}

void Server::accept_all() {
  while (true) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;  // EAGAIN, or a peer that went away again
    set_no_delay(fd.get());
    const int number = fd.get();
    if (!watch(number, EPOLLIN, EPOLL_CTL_ADD)) {
      ++errors_;
      continue;
    }
    ++accepted_;
    connections_[number].fd = std::move(fd);
  }
}

bool Server::flush(Connection& connection) {
  std::span<const std::byte> rest = connection.unsent;
  while (!rest.empty()) {
    const ssize_t sent = write(connection.fd.get(), rest.data(), rest.size());
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent < 0) break;
    rest = rest.subspan(static_cast<std::size_t>(sent));
  }
  const auto gone = static_cast<std::ptrdiff_t>(connection.unsent.size() - rest.size());
  connection.unsent.erase(connection.unsent.begin(), connection.unsent.begin() + gone);
  const std::uint32_t events = connection.unsent.empty() ? EPOLLIN : EPOLLOUT;  // reads wait until replies are out
  return watch(connection.fd.get(), events, EPOLL_CTL_MOD).has_value();
}

// REQUIRES: requests holds whole requests.
bool Server::answer(Connection& connection, std::span<std::byte> requests) {
  for (std::size_t at = 0; at < requests.size(); at += options_.size_bytes) {
    for (std::byte& b : requests.subspan(at, kInvertedBytes)) b = ~b;
    ++requests_;
  }
  const ssize_t sent = write(connection.fd.get(), requests.data(), requests.size());
  if (sent == static_cast<ssize_t>(requests.size())) return true;
  if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
  const auto rest = requests.subspan(sent < 0 ? 0 : static_cast<std::size_t>(sent));
  connection.unsent.insert(connection.unsent.end(), rest.begin(), rest.end());
  return flush(connection);
}

bool Server::read_requests(Connection& connection) {
  const ssize_t got = read(connection.fd.get(), buffer_.data(), buffer_.size());
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  const std::span<std::byte> bytes(buffer_.data(), static_cast<std::size_t>(got));
  if (connection.request.empty() && bytes.size() % options_.size_bytes == 0) return answer(connection, bytes);
  connection.request.insert(connection.request.end(), bytes.begin(), bytes.end());
  const std::size_t whole = connection.request.size() / options_.size_bytes * options_.size_bytes;
  if (whole == 0) return true;
  std::vector<std::byte> requests(connection.request.begin(),
                                  connection.request.begin() + static_cast<std::ptrdiff_t>(whole));
  connection.request.erase(connection.request.begin(), connection.request.begin() + static_cast<std::ptrdiff_t>(whole));
  return answer(connection, requests);
}

void Server::serve(int fd, std::uint32_t events) {
  const auto found = connections_.find(fd);
  if (found == connections_.end()) return;
  Connection& connection = found->second;
  const bool alive = (events & EPOLLOUT) != 0 ? flush(connection) : read_requests(connection);
  if (!alive) connections_.erase(found);
}

void Server::print_stats() const {
  const std::string line = fmt::format("{{\"requests\":{},\"connections\":{},\"errors\":{},\"cpu_us\":{}}}\n",
                                       requests_, accepted_, errors_, own_cpu_us());
  if (write(options_.stats_fd, line.data(), line.size()) < 0) std::perror("rr_server: stats");
}

Result<> Server::run() {
  TRY(watch(listener_.get(), EPOLLIN, EPOLL_CTL_ADD));
  TRY(watch(signals_.get(), EPOLLIN, EPOLL_CTL_ADD));
  std::array<epoll_event, 256> events{};
  while (true) {
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    if (count < 0 && errno != EINTR) return system_error("epoll_wait");
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.fd == signals_.get()) {
        print_stats();
        return {};
      }
      if (event.data.fd == listener_.get()) {
        accept_all();
      } else {
        serve(event.data.fd, event.events);
      }
    }
  }
}

Result<> serve(const Options& options) {
  ASSIGN_OR_RETURN(UniqueFd signals, stop_signals_fd());
  ASSIGN_OR_RETURN(const Address address, parse_address(options.host, options.port));
  ASSIGN_OR_RETURN(UniqueFd listener, listen_on(address, 4096));
  ASSIGN_OR_RETURN(const std::uint16_t port, local_port(listener.get()));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error("epoll_create1");
  const auto server = std::make_unique<Server>(options, std::move(listener), std::move(signals), std::move(epoll));
  print_ready(port);
  return server->run();
}

}  // namespace
}  // namespace twinstack::peers

int main(int argc, char** argv) {
  twinstack::peers::Options options;
  CLI::App app("Request/response server for measurements; prints 'ready PORT', and a JSON line at SIGTERM");
  app.add_option("-b,--bind", options.host, "address to listen on (numeric; :: for both families)");
  app.add_option("-p,--port", options.port, "TCP port; 0 = any");
  app.add_option("-s,--size", options.size_bytes, "bytes of a request and of a reply")->check(CLI::Range(8, 65536));
  app.add_option("--stats-fd", options.stats_fd, "descriptor for the JSON line");
  CLI11_PARSE(app, argc, argv);
  twinstack::peers::raise_descriptor_limit();
  const auto result = twinstack::peers::serve(options);
  if (result) return 0;
  std::fprintf(stderr, "rr_server: %s\n", result.error().message().c_str());
  return 1;
}
