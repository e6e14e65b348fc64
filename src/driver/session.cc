#include "driver/session.h"

#include <sys/socket.h>

#include <algorithm>
#include <span>

#include "base/assert.h"
#include "ipc/channel.h"

namespace twinstack::driver {

Result<std::unique_ptr<Session>> Session::open(UniqueFd& socket, std::uint32_t number, std::uint64_t id,
                                               const ipc::Hello& hello, const std::vector<LaneRunner*>& lanes) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
    return system_error("getsockopt(SO_PEERCRED)");
  ASSIGN_OR_RETURN(ipc::Arena arena, ipc::Arena::create({.lane_count = static_cast<std::uint32_t>(lanes.size())}, id));
  std::unique_ptr<Session> self(new Session(number, id, std::move(arena), lanes));
  self->pid_ = peer.pid;
  self->uid_ = peer.uid;
  const auto end = std::find(hello.program.begin(), hello.program.end(), '\0');
  self->program_.assign(hello.program.begin(), end);
  TRY(self->welcome(socket.get(), lanes));
  self->socket_ = std::move(socket);
  return self;
}

std::unique_ptr<Session> Session::without_socket(std::uint32_t number, std::uint64_t id, ipc::Arena arena) {
  return std::unique_ptr<Session>(new Session(number, id, std::move(arena), {}));
}

Session::Session(std::uint32_t number, std::uint64_t id, ipc::Arena arena, const std::vector<LaneRunner*>& lanes)
    : number_(number), id_(id), arena_(std::move(arena)), lanes_(lanes) {}

Result<> Session::welcome(int socket, const std::vector<LaneRunner*>& lanes) {
  const auto& geometry = arena_.geometry();
  std::vector<int> fds{arena_.fd()};
  for (LaneRunner* lane : lanes) {
    ASSIGN_OR_RETURN(UniqueFd doorbell, lane->make_doorbell());
    fds.push_back(doorbell.get());
    doorbells_.push_back(std::move(doorbell));
  }
  std::vector<int> events;
  for (std::uint32_t i = 0; i < geometry.ring_count; ++i) {
    ASSIGN_OR_RETURN(ipc::WakeEvent event, ipc::WakeEvent::create());
    events.push_back(event.signal_fd());
    fds.push_back(event.watch_fd());
    ring_events_.push_back(std::move(event));
  }
  for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i]->open_session(number_, arena_, events, doorbells_[i].get());
  const ipc::Welcome message{.head = {.type = ipc::MessageType::kWelcome, .size_bytes = sizeof(message)},
                             .session_id = id_,
                             .geometry = geometry};
  TRY(ipc::send_message(socket, std::as_bytes(std::span(&message, 1)), fds));
  for (ipc::WakeEvent& event : ring_events_) event.close_watch();
  return {};
}

Session::~Session() {
  for (auto& [slot, conn] : connections) ASSERT(!conn->in_engine());
  for (LaneRunner* lane : lanes_) lane->close_session(number_);
}

}  // namespace twinstack::driver
