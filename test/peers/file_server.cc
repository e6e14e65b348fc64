// file_server: a small static HTTP/1.1 server for curl: files of a directory, and /random/SEED/BYTES. Keep-alive,
// Content-Length, read+write; single-threaded level-triggered epoll. Prints `ready PORT`, and a JSON line at SIGTERM.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "http_reply.h"
#include "sockets.h"

namespace twinstack::peers {
namespace {

constexpr std::size_t kMaxHeadBytes = 16384;
constexpr std::size_t kWriteBytes = 65536;

struct Connection {
  UniqueFd fd;
  std::string input;
  std::optional<Reply> reply;  // being sent; no new request is read meanwhile
  std::vector<std::byte> output;
  std::size_t output_at = 0;
  std::uint32_t events = EPOLLIN;
};

class FileServer {
 public:
  FileServer(std::string directory, UniqueFd listener, UniqueFd signals, UniqueFd epoll)
      : directory_(std::move(directory)),
        listener_(std::move(listener)),
        signals_(std::move(signals)),
        epoll_(std::move(epoll)) {}

  Result<> run();

 private:
  Result<> watch(int fd, std::uint32_t events, int operation);
  void accept_all();
  // These return false when the connection is to be closed.
  bool serve(Connection& connection);
  static bool read_input(Connection& connection);
  bool send_reply(Connection& connection);
  bool send_output(Connection& connection);
  void start_reply(Connection& connection);
  bool wait_for(Connection& connection, std::uint32_t events);

  std::string directory_;
  UniqueFd listener_;
  UniqueFd signals_;
  UniqueFd epoll_;
  std::unordered_map<int, Connection> connections_;
  std::uint64_t accepted_ = 0;
  std::uint64_t requests_ = 0;
  std::uint64_t bytes_ = 0;
};

Result<> FileServer::watch(int fd, std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), operation, fd, &event) != 0) return system_error("epoll_ctl");
  return {};
}

void FileServer::accept_all() {
  while (true) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    const int number = fd.get();
    set_no_delay(number);
    if (!watch(number, EPOLLIN, EPOLL_CTL_ADD)) continue;
    ++accepted_;
    connections_[number].fd = std::move(fd);
  }
}

bool FileServer::wait_for(Connection& connection, std::uint32_t events) {
  if (connection.events == events) return true;
  connection.events = events;
  return watch(connection.fd.get(), events, EPOLL_CTL_MOD).has_value();
}

bool FileServer::read_input(Connection& connection) {
  std::array<char, 8192> buffer{};
  const ssize_t got = read(connection.fd.get(), buffer.data(), buffer.size());
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  connection.input.append(buffer.data(), static_cast<std::size_t>(got));
  return connection.input.size() <= kMaxHeadBytes;
}

void FileServer::start_reply(Connection& connection) {
  const std::size_t length = request_head_length(connection.input);
  if (length == 0) return;
  connection.reply = make_reply(std::string_view(connection.input).substr(0, length), directory_);
  connection.input.erase(0, length);
  const auto head = std::as_bytes(std::span(connection.reply->head));
  connection.output.assign(head.begin(), head.end());
  connection.output_at = 0;
  ++requests_;
}

// False also when the socket is full; errno tells.
bool FileServer::send_output(Connection& connection) {
  while (connection.output_at < connection.output.size()) {
    const std::span<const std::byte> rest = std::span<const std::byte>(connection.output).subspan(connection.output_at);
    const ssize_t sent = write(connection.fd.get(), rest.data(), rest.size());
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    connection.output_at += static_cast<std::size_t>(sent);
    bytes_ += static_cast<std::uint64_t>(sent);
  }
  return true;
}

bool FileServer::send_reply(Connection& connection) {
  while (true) {
    if (!send_output(connection)) return errno == EAGAIN && wait_for(connection, EPOLLOUT);
    Reply& reply = *connection.reply;
    if (reply.body.at_end()) break;
    connection.output.resize(kWriteBytes);
    const std::size_t size = reply.body.next(connection.output);
    if (size == 0) return false;  // the file shrank: what was announced cannot be kept
    connection.output.resize(size);
    connection.output_at = 0;
  }
  const bool keep = connection.reply->keep_alive;
  connection.reply.reset();
  return keep;
}

bool FileServer::serve(Connection& connection) {
  if (!connection.reply && !read_input(connection)) return false;
  if (!connection.reply) start_reply(connection);
  while (connection.reply) {
    if (!send_reply(connection)) return false;
    if (connection.reply) return true;  // waits for room
    start_reply(connection);            // a pipelined request
  }
  return wait_for(connection, EPOLLIN);
}

Result<> FileServer::run() {
  TRY(watch(listener_.get(), EPOLLIN, EPOLL_CTL_ADD));
  TRY(watch(signals_.get(), EPOLLIN, EPOLL_CTL_ADD));
  std::array<epoll_event, 128> events{};
  while (true) {
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    if (count < 0 && errno != EINTR) return system_error("epoll_wait");
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == listener_.get()) {
        accept_all();
      } else if (fd == signals_.get()) {
        fmt::print("{{\"connections\":{},\"requests\":{},\"bytes_sent\":{}}}\n", accepted_, requests_, bytes_);
        return {};
      } else if (const auto found = connections_.find(fd); found != connections_.end() && !serve(found->second)) {
        connections_.erase(found);
      }
    }
  }
}

Result<> serve(const std::string& host, std::uint16_t port, const std::string& directory) {
  ASSIGN_OR_RETURN(UniqueFd signals, stop_signals_fd());
  ASSIGN_OR_RETURN(const Address address, parse_address(host, port));
  ASSIGN_OR_RETURN(UniqueFd listener, listen_on(address, 1024));
  ASSIGN_OR_RETURN(const std::uint16_t bound_port, local_port(listener.get()));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error("epoll_create1");
  FileServer server(directory, std::move(listener), std::move(signals), std::move(epoll));
  print_ready(bound_port);
  return server.run();
}

}  // namespace
}  // namespace twinstack::peers

int main(int argc, char** argv) {
  std::string host = "0.0.0.0";
  std::string directory;
  std::uint16_t port = 0;
  CLI::App app("Static HTTP/1.1 file server; /random/SEED/BYTES generates; prints 'ready PORT'");
  app.add_option("-b,--bind", host, "address to listen on (numeric; :: for both families)");
  app.add_option("-p,--port", port, "TCP port; 0 = any");
  app.add_option("-d,--directory", directory, "directory to serve");
  CLI11_PARSE(app, argc, argv);
  twinstack::peers::raise_descriptor_limit();
  const auto result = twinstack::peers::serve(host, port, directory);
  if (result) return 0;
  std::fprintf(stderr, "file_server: %s\n", result.error().message().c_str());
  return 1;
}
