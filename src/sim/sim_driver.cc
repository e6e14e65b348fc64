#include "sim/sim_driver.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <variant>

#include "base/assert.h"
#include "ipc/channel.h"
#include "ipc/client_message.h"

namespace twinstack::sim {

using driver::ManagedConnection;
using driver::Session;

// ---- SimGrace

void SimGrace::start(Time now) {
  ++started_;
  running_ = true;
  ends_ = now + length_;
}

std::uint64_t SimGrace::request() {
  wanted_ = started_ + 1;
  if (!running_) start(now_());
  return wanted_;
}

bool SimGrace::on_time(Time now) {
  if (!running_ || ends_ > now) return false;
  completed_ = started_;
  running_ = false;
  if (wanted_ > started_) start(now);
  return true;
}

// ---- SimDriver

SimDriver::SimDriver(SimInterface& interface, HostStack& stack, std::function<Time()> now, Duration grace)
    : interface_(interface),
      stack_(stack),
      now_(std::move(now)),
      grace_(grace, now_),
      mover_(std::make_unique<driver::Mover>(
          driver::MoverGround{
              .late_packets = stack.late_packets(), .grace_periods = grace_, .now = now_, .call_deadline = Duration(1)},
          [this](ManagedConnection& conn) { connection_closed(conn); })) {
  mover_->set_interfaces({&interface});
}

SimDriver::~SimDriver() {
  if (!is_dead()) die();
}

Welcome SimDriver::open_session(std::uint32_t number, const ipc::ArenaConfig& config) {
  auto arena = ipc::Arena::create(config, number + 1);
  ASSERT(arena.has_value());
  Welcome welcome;
  welcome.arena.reset(::dup(arena->fd()));
  welcome.geometry = arena->geometry();
  std::array<int, 2> ends{};
  ASSERT(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
  welcome.socket.reset(ends[0]);
  sockets_[number].reset(ends[1]);
  for (std::uint32_t i = 0; i < welcome.geometry.lane_count + welcome.geometry.ring_count; ++i)
    welcome.fds.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  auto session = Session::without_socket(number, number + 1, std::move(*arena));
  for (auto& lane : interface_.lanes()) {
    lane->lane.open_session(number, session->arena());
    lane->doorbell();  // a sleeping lane has not asked the new rings for wake-ups
  }
  sessions_[number] = std::move(session);
  return welcome;
}

// Service::Impl::on_register() and manage().
ManagedConnection& SimDriver::register_connection(std::uint32_t session, std::uint32_t slot, std::uint32_t tag,
                                                  SocketId socket, MoveFaults& faults) {
  Session& of = *sessions_.at(session);
  auto conn = std::make_unique<ManagedConnection>();
  conn->session = &of;
  conn->move.arena = &of.arena();
  conn->move.session = session;
  conn->move.slot = slot;
  conn->move.tag = tag;
  conn->move.kernel = std::make_unique<FaultyConn>(stack_.kernel_conn(socket, faults), faults, interface_.is_dead);
  conn->move.shared().kernel_cookie.store(conn->move.kernel->cookie(), std::memory_order_release);
  ManagedConnection& known = *of.connections.emplace(slot, std::move(conn)).first->second;
  mover_->add(known);
  return known;
}

ManagedConnection* SimDriver::find(std::uint32_t session, std::uint32_t slot) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return nullptr;
  const auto conn = found->second->connections.find(slot);
  return conn == found->second->connections.end() ? nullptr : conn->second.get();
}

template <typename Work>
void SimDriver::guarded(const Work& work) {
  if (is_dead()) return;
  is_busy_ = true;
  try {
    work();
  } catch (const ServiceDied&) {
    for (const auto& [slot, word] : words_at_death_) slot->owner.store(word);
    drop_kernel_handles();
  }
  is_busy_ = false;
}

Result<> SimDriver::offload(ManagedConnection& conn) {
  Result<> done;
  guarded([&] { done = mover_->offload(conn); });
  return done;
}

void SimDriver::upload(ManagedConnection& conn) {
  guarded([&] { mover_->upload(conn, "by command"); });
}

Time SimDriver::due(Time now) const {
  if (is_dead()) return kNever;
  const Time free = std::max(now, stalled_until_);
  if (messages_wait_ || events_wait_ || stack_.late_packets_wait() || interface_.icmp_waits()) return free;
  return std::max(free, std::min(mover_->next_deadline(), grace_.due()));
}

void SimDriver::run(Time now) {
  guarded([&] { loop(now); });
}

// A turn of Service::Impl::loop().
void SimDriver::loop(Time now) {
  grace_.on_time(now);
  mover_->on_time(now);
  bury_sessions();
  if (std::exchange(messages_wait_, false)) {
    std::vector<Session*> all;
    for (auto& [number, session] : sessions_) all.push_back(session.get());
    for (Session* session : all) serve(*session);
  }
  if (stack_.late_packets_wait()) mover_->on_late_packets();
  if (interface_.icmp_waits()) mover_->on_icmp_errors();
  if (std::exchange(events_wait_, false)) take_engine_events();
  bury_sessions();
}

void SimDriver::serve(Session& session) {
  alignas(8) std::array<std::byte, 1024> buffer{};
  while (!session.ending) {
    const auto received = ipc::receive_message(sockets_.at(session.number()).get(), buffer, MSG_DONTWAIT);
    if (!received && received.error().system_errno == EAGAIN) return;
    if (!received || received->size_bytes == 0 || !handle(session, std::span(buffer).first(received->size_bytes))) {
      end_session(session);
      return;
    }
  }
}

Result<> SimDriver::handle(Session& session, std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(const ipc::ClientMessage message, ipc::decode_client_message(bytes, false));
  const auto named = [&](const auto& body) {
    ManagedConnection* const conn = find(session.number(), body.slot);
    return conn != nullptr && conn->move.tag == body.tag ? conn : nullptr;
  };
  if (const auto* close = std::get_if<ipc::Close>(&message)) {
    ManagedConnection* const conn = named(*close);
    if (conn == nullptr) return error(ErrorCode::kProtocol, "a close of a connection that is not registered");
    mover_->close(*conn);
    return {};
  }
  const auto* upload = std::get_if<ipc::Upload>(&message);
  ASSERT(upload != nullptr);
  ManagedConnection* const conn = named(*upload);
  if (conn == nullptr) return {};
  conn->stays = conn->stays || upload->stay != 0;
  mover_->upload(*conn, {upload->reason.data(), ::strnlen(upload->reason.data(), upload->reason.size())});
  return {};
}

// Service::Impl::end_session().
void SimDriver::end_session(Session& session) {
  if (session.ending) return;
  session.ending = true;
  session.arena().header().service_state.store(ipc::ServiceState::kStopped, std::memory_order_seq_cst);
  std::vector<ManagedConnection*> all;
  for (auto& [slot, conn] : session.connections) all.push_back(conn.get());
  std::ranges::sort(all, {}, [](const ManagedConnection* conn) { return conn->move.slot; });
  if (all.empty()) finished_.push_back(session.number());
  for (ManagedConnection* conn : all) mover_->close(*conn);
}

// Service::Impl::connection_closed(); the kernel's handle goes with the connection.
void SimDriver::connection_closed(ManagedConnection& conn) {
  Session& session = *conn.session;
  const std::uint32_t slot = conn.move.slot;
  ipc::OwnerGate gate = conn.move.gate();
  session.connections.erase(slot);
  gate.set_owner(ipc::Owner::kFree);
  on_closed(session.number(), slot);
  if (session.ending && session.connections.empty()) finished_.push_back(session.number());
}

void SimDriver::bury_sessions() {
  if (finished_.empty()) return;
  for (const std::uint32_t number : std::exchange(finished_, {})) {
    for (auto& lane : interface_.lanes()) lane->lane.close_session(number);
    sockets_.erase(number);
    sessions_.erase(number);
  }
  take_engine_events();
}

void SimDriver::take_engine_events() {
  mover_->on_engine_events([this](std::uint32_t session, engine::Cause) {
    const auto found = sessions_.find(session);
    if (found != sessions_.end()) end_session(*found->second);
  });
}

// The lanes go with the process. What is in the arenas stays as it is; the kernel closes the unix sockets.
void SimDriver::die() {
  interface_.is_dead = true;
  for (auto& [number, session] : sessions_)
    for (auto& [slot, conn] : session->connections) {
      words_at_death_.emplace_back(&conn->move.shared(), conn->move.shared().owner.load());
      conn->stack = ManagedConnection::Stack::kKernel;  // Session's destructor wants it
    }
  sockets_.clear();
  if (!is_busy_) drop_kernel_handles();
}

// The process's descriptors are closed.
void SimDriver::drop_kernel_handles() {
  for (auto& [number, session] : sessions_)
    for (auto& [slot, conn] : session->connections) conn->move.kernel.reset();
}

}  // namespace twinstack::sim
