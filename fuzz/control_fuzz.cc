// The control socket with a hostile client: lines of any bytes, in pieces, with ends in between. Whatever it says, every
// whole line is answered by one object of JSON, in order, or the client is closed; and the next client is served.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/assert.h"
#include "base/unique_fd.h"
#include "driver/control_server.h"
#include "driver/view_json.h"
#include "input.h"

namespace twinstack {
namespace {

class Target final : public driver::ControlTarget {
 public:
  std::vector<driver::ConnectionView> connections(const driver::ConnectionFilter& filter) override {
    driver::ConnectionView view;
    view.program = "program \"\\\x01\xff";
    return filter(view) ? std::vector{view} : std::vector<driver::ConnectionView>{};
  }
  driver::MoveOutcome offload(const driver::ConnectionFilter& filter) override { return move(filter); }
  driver::MoveOutcome upload(const driver::ConnectionFilter& filter) override { return move(filter); }
  void churn(std::chrono::milliseconds, std::chrono::milliseconds) override {}
  driver::ServiceStats stats() override { return {}; }

 private:
  driver::MoveOutcome move(const driver::ConnectionFilter& filter) {
    return {.matched = connections(filter).size(), .moved = 0, .already = 0, .refused = {}};
  }
};

const std::string& socket_path() {
  static const std::string path = "/tmp/twinstack-fuzz-" + std::to_string(::getpid()) + ".control";
  return path;
}

UniqueFd connect_to_server() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_path().c_str(), socket_path().size() + 1);
  ASSERT(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return fd;
}

// What the server has said; `open` turns false when it has closed.
std::string read_all(const UniqueFd& fd, bool& open) {
  std::string all;
  std::array<char, 4096> part;
  for (;;) {
    const auto got = ::recv(fd.get(), part.data(), part.size(), 0);
    if (got > 0) {
      all.append(part.data(), static_cast<std::size_t>(got));
      continue;
    }
    open = open && got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    return all;
  }
}

void check_answers(const std::string& answers, std::size_t lines, bool open) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < answers.size(); ++count) {
    const std::size_t end = answers.find('\n', at);
    ASSERT(end != std::string::npos);
    ASSERT(driver::Json::parse(answers.substr(at, end - at)).is_object());
    at = end + 1;
  }
  ASSERT(count <= lines && (!open || count == lines));
}

}  // namespace
}  // namespace twinstack

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace twinstack;
  static Target target;
  static const auto server = [] {
    ::unlink(socket_path().c_str());
    auto made = driver::ControlServer::create(socket_path(), target);
    ASSERT(made.has_value());
    std::atexit([] { ::unlink(socket_path().c_str()); });
    return std::move(*made);
  }();
  const auto serve = [&] {
    for (int i = 0; i < 64; ++i) server->process();
  };
  fuzz::Input input(data, size);
  const UniqueFd client = connect_to_server();
  bool open = true;
  std::string said;
  std::size_t lines = 0;
  while (!input.empty() && open) {
    std::string piece;
    for (std::uint32_t i = 1 + input.below(64); i > 0 && !input.empty(); --i) piece += static_cast<char>(input.take<std::uint8_t>());
    if (::send(client.get(), piece.data(), piece.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(piece.size())) break;
    lines += static_cast<std::size_t>(std::count(piece.begin(), piece.end(), '\n'));
    serve();
    said += read_all(client, open);
  }
  check_answers(said, lines, open);
  const UniqueFd next = connect_to_server();
  constexpr std::string_view kStats = "{\"cmd\":\"stats\"}\n";
  ASSERT(::send(next.get(), kStats.data(), kStats.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(kStats.size()));
  serve();
  bool next_open = true;
  check_answers(read_all(next, next_open), 1, true);
  ASSERT(next_open);
  return 0;
}
