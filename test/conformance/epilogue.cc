#include "epilogue.h"

#include <fmt/format.h>

#include <utility>

#include "names.h"

namespace twinstack::conformance {
namespace {

constexpr Duration kFirstWait = std::chrono::milliseconds(20);  // of the peer; then twice as long each time
constexpr Duration kLongest = std::chrono::minutes(5);
constexpr std::int64_t kFurtherBytes = 100;
constexpr std::int64_t kClosed = 7;

}  // namespace

std::string Ending::text() const {
  std::string out;
  for (const std::string* part : {&unread, &unsent, &unwritten}) {
    if (!part->empty()) out += (out.empty() ? "" : "; ") + *part;
  }
  return out;
}

std::string Ending::worse_than(const Ending& other) const {
  for (const auto part : {&Ending::unread, &Ending::unsent, &Ending::unwritten}) {
    if ((other.*part).empty() && !(this->*part).empty()) return this->*part;
  }
  return {};
}

Epilogue::Epilogue(Hooks hooks)
    : hooks_(std::move(hooks)),
      bytes_to_take_(hooks_.flow.bytes_acknowledged() + kFurtherBytes),
      bytes_to_write_(kFurtherBytes) {}

Ending Epilogue::carry_out(const Socket& socket, bool readable) {
  const Time until = hooks_.now() + kLongest;
  Duration wait = kFirstWait;
  while (true) {
    Ending ending{.unwritten = write_more(socket)};
    if (!is_over()) send_and_acknowledge(socket);
    hooks_.pass(wait);
    read_all(socket);
    ending.unsent = unsent(socket);
    if (readable) ending.unread = unread(socket);
    if (ending.is_whole() || is_over() || hooks_.now() >= until) return ending;
    wait *= 2;
  }
}

bool Epilogue::is_over() const {
  const auto info = hooks_.info();
  return !info.has_value() || info->at("state") == kClosed;
}

std::string Epilogue::write_more(const Socket& socket) {
  if (socket.ended || bytes_to_write_ == 0) return {};
  const CallResult result = hooks_.write(bytes_to_write_);
  if (result <= 0) return "the program cannot write: " + result_text(result);
  bytes_to_write_ -= result;
  return {};
}

void Epilogue::read_all(const Socket& socket) {
  constexpr std::int64_t kRoomBytes = 65536;
  while (!socket.closed && hooks_.read(kRoomBytes) == kRoomBytes) continue;
  hooks_.pass(Duration(0));
}

void Epilogue::send_and_acknowledge(const Socket& socket) {
  const FlowState& flow = hooks_.flow;
  const std::uint64_t taken = flow.bytes_acknowledged();
  const bool goes_on = !socket.closed && !flow.end_acknowledged() && taken < bytes_to_take_;
  hooks_.inject(flow.next_of_peer(goes_on ? static_cast<std::int64_t>(bytes_to_take_ - taken) : 0, hooks_.now()));
}

std::string Epilogue::unsent(const Socket& socket) const {
  const FlowState& flow = hooks_.flow;
  const auto info = hooks_.info();
  if (flow.bytes_sent() != socket.sent) return fmt::format("{} of {} bytes were sent", flow.bytes_sent(), socket.sent);
  if (socket.ended && !flow.end_sent()) return "no FIN was sent";
  if (!info.has_value() || !info->contains("unacked") || info->at("unacked") == 0) return {};
  return "what is acknowledged counts as out";
}

std::string Epilogue::unread(const Socket& socket) const {
  const FlowState& flow = hooks_.flow;
  if (socket.closed) return {};
  if (socket.received < flow.bytes_acknowledged()) {
    return fmt::format("{} bytes are acknowledged, {} were read", flow.bytes_acknowledged(), socket.received);
  }
  const bool stopped = flow.bytes_acknowledged() < bytes_to_take_ && !flow.end_acknowledged();
  return stopped ? "the host takes no more of the peer's stream" : "";
}

}  // namespace twinstack::conformance
