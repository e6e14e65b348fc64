#include "driver/control_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "driver/control_server.h"

namespace twinstack::driver {
namespace {

std::unexpected<Error> cannot_connect(std::string_view path, int error_number) {
  if (error_number == ENOENT)
    return error(ErrorCode::kNotFound,
                 fmt::format("no service runs at {} (start one: twinstack service --interface IF, "
                             "or say where it is: --socket PATH)",
                             path));
  if (error_number == ECONNREFUSED)
    return error(ErrorCode::kNotFound, fmt::format("the service of {} is gone (its socket file is left; starting a "
                                                   "service again clears it)",
                                                   path));
  return system_error(fmt::format("connect({})", path), error_number);
}

pid_t peer_pid(int socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.pid : 0;
}

}  // namespace

Result<ControlClient> ControlClient::connect(std::string_view socket_path) {
  const std::string path = control_path(socket_path);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return error(ErrorCode::kInvalid,
                 fmt::format("the socket path '{}' is too long (at most {} bytes)", path, sizeof address.sun_path - 1));
  std::ranges::copy(path, address.sun_path);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return system_error("socket(AF_UNIX)");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return cannot_connect(socket_path, errno);
  const pid_t pid = peer_pid(socket.get());
  return ControlClient(std::move(socket), pid);
}

Result<Json> ControlClient::ask(const Json& request, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  TRY(send_line(to_line(request) + '\n'));
  ASSIGN_OR_RETURN(const std::string line, read_line(deadline));
  Json reply = Json::parse(line, nullptr, false);
  if (!reply.is_object() || !reply.contains("ok") || !reply["ok"].is_boolean())
    return error(ErrorCode::kProtocol, "the service's answer is not what was expected");
  if (!reply["ok"].get<bool>()) {
    const auto what = reply.find("error");
    const bool said = what != reply.end() && what->is_string();
    return error(ErrorCode::kInvalid, said ? what->get<std::string>() : "the service refused without a reason");
  }
  reply.erase("ok");
  return reply;
}

// A request is far shorter than a socket's buffer: sending does not block.
Result<> ControlClient::send_line(std::string line) {
  std::size_t sent = 0;
  while (sent < line.size()) {
    const ssize_t put = ::send(socket_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    // It may have answered and closed ("too many clients"): the answer tells more than EPIPE.
    if (put < 0 && (errno == EPIPE || errno == ECONNRESET)) return {};
    if (put < 0) return system_error("sending to the service");
    sent += static_cast<std::size_t>(put);
  }
  return {};
}

Result<std::string> ControlClient::read_line(std::chrono::steady_clock::time_point deadline) {
  std::string line;
  std::array<char, 65536> buffer;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&readable, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return system_error("waiting for the service");
    if (ready == 0) return error(ErrorCode::kTimeout, "the service does not answer in time");
    const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0 && errno != ECONNRESET) return system_error("reading from the service");
    if (got <= 0) return error(ErrorCode::kProtocol, "the service closed the connection without an answer");
    line.append(buffer.data(), static_cast<std::size_t>(got));
    if (line.back() == '\n') return line;
  }
}

}  // namespace twinstack::driver
