// Applications: sessions and their messages. A message that breaks the protocol ends the session that sent it.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <variant>

#include "base/log.h"
#include "base/monotonic.h"
#include "driver/service_impl.h"
#include "ipc/channel.h"
#include "ipc/client_message.h"

namespace twinstack::driver {
namespace {

constexpr int kAcceptsPerTurn = 16;
constexpr std::uint32_t kMaxSessions = 4096;
// Messages of one session in a row before the others have their turn.
constexpr int kMessagesPerTurn = 64;

template <typename... Each>
struct Handlers : Each... {
  using Each::operator()...;
};

void refuse(int socket, const std::string& why) {
  ipc::Refused message{.head = {.type = ipc::MessageType::kRefused, .size_bytes = sizeof(message)}, .reason = {}};
  std::copy_n(why.begin(), std::min(why.size(), message.reason.size() - 1), message.reason.begin());
  (void)ipc::send_message(socket, std::as_bytes(std::span(&message, 1)), {});
}

// Of the process that connected; a socket that does not say is nobody's.
uid_t peer_uid(int socket) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  constexpr uid_t kNobody = 65534;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.uid : kNobody;
}

// What is none is not looked at further.
bool is_tcp(int fd) {
  int domain = 0;
  int protocol = 0;
  socklen_t length = sizeof(int);
  return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
         ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
         (domain == AF_INET || domain == AF_INET6) && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
}

}  // namespace

void Service::Impl::open_spare() { spare_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

void Service::Impl::accept_applications() {
  for (int turn = 0; turn < kAcceptsPerTurn; ++turn) {
    UniqueFd socket(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket && (errno == EMFILE || errno == ENFILE)) {
      // One descriptor is kept for this: whoever waits is sent away, or the listener would stay readable for ever.
      spare_.reset();
      socket.reset(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      socket.reset();
      open_spare();
      continue;
    }
    if (!socket) return;
    const std::uint32_t number = next_greeting_++;
    const uid_t uid = peer_uid(socket.get());
    if (closer_->is_clogged(uid) || !watch(socket.get(), Source::kGreeting, number)) {
      closer_->close(std::move(socket), uid);
      continue;
    }
    auto displaced = greetings_.add(number, std::move(socket), uid, monotonic_now());
    if (displaced) drop_greeting(std::move(*displaced));
  }
}

void Service::Impl::expire_greetings(Time now) {
  for (Greeting& greeting : greetings_.expire(now)) drop_greeting(std::move(greeting));
}

// Closed without a word: the library goes on without us.
void Service::Impl::drop_greeting(Greeting greeting) {
  spdlog::debug("a client of user {} was silent for too long", greeting.uid);
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, greeting.socket.get(), nullptr);
  closer_->close(std::move(greeting.socket), greeting.uid);
}

void Service::Impl::hand_to_closer(std::vector<UniqueFd>& fds, uid_t uid) {
  for (UniqueFd& fd : fds) closer_->close(std::move(fd), uid);
}

void Service::Impl::greet(std::uint32_t number) {
  auto greeting = greetings_.take(number);
  if (!greeting) return;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, greeting->socket.get(), nullptr);
  std::array<std::byte, 512> buffer;
  auto received = ipc::receive_message(greeting->socket.get(), buffer, MSG_DONTWAIT);
  if (received) {
    hand_to_closer(received->fds, greeting->uid);
    if (received->size_bytes > 0) welcome(*greeting, std::span(buffer).first(received->size_bytes));
  }
  closer_->close(std::move(greeting->socket), greeting->uid);  // unless a session has it
}

void Service::Impl::welcome(Greeting& greeting, std::span<const std::byte> message) {
  const auto hello = ipc::decode_hello(message);
  if (!hello) {
    refuse(greeting.socket.get(), "the library and the service are of different versions");
    return;
  }
  std::uint32_t free_number = 0;
  while (sessions_.contains(free_number)) ++free_number;
  if (free_number >= kMaxSessions) {
    refuse(greeting.socket.get(), "the service has as many applications as it can serve");
    return;
  }
  if (!quota_.add_session(greeting.uid)) {
    refuse_session(greeting.socket.get(), greeting.uid);
    return;
  }
  auto session = Session::open(greeting.socket, free_number, next_session_id_++, *hello, lanes_);
  if (!session) {
    quota_.remove_session(greeting.uid);
    spdlog::warn("an application could not be accepted: {}", session.error().message());
    return;
  }
  if (!watch((*session)->socket(), Source::kSession, free_number)) {
    quota_.remove_session(greeting.uid);
    greeting.socket = (*session)->take_socket();
    return;
  }
  spdlog::debug("session {}: {} (pid {})", (*session)->id(), (*session)->program(), (*session)->pid());
  sessions_.emplace(free_number, std::move(*session));
}

void Service::Impl::refuse_session(int socket, uid_t uid) {
  ++refused_sessions_;
  const std::string why = "user " + std::to_string(uid) + " has " + std::to_string(quota_.bounds().sessions) +
                          " applications here, which is as many as one user may have";
  refuse(socket, why);
  if (quota_.may_log(uid, monotonic_now())) spdlog::warn("an application is refused: {}", why);
}

void Service::Impl::serve(std::uint32_t number) {
  const auto found = sessions_.find(number);
  if (found == sessions_.end() || found->second->ending) return;
  Session& session = *found->second;
  alignas(8) std::array<std::byte, 1024> buffer;
  for (int i = 0; i < kMessagesPerTurn && !session.ending; ++i) {
    if (closer_->is_clogged(session.uid())) {
      end_session(session, "descriptors that its user passed cannot be closed");
      return;
    }
    auto received = ipc::receive_message(session.socket(), buffer, MSG_DONTWAIT);
    if (!received) {
      if (received.error().system_errno == EAGAIN) return;
      end_session(session, received.error().message());
      return;
    }
    if (received->size_bytes == 0) {
      end_session(session, "the program has ended");
      return;
    }
    const auto handled = received->is_cut ? Result<>(error(ErrorCode::kProtocol, "a message that is too long"))
                                          : handle(session, std::span(buffer).first(received->size_bytes), *received);
    hand_to_closer(received->fds, session.uid());
    if (!handled) {
      ++broken_sessions_;
      end_session(session, handled.error().message());
    }
  }
}

Result<> Service::Impl::handle(Session& session, std::span<const std::byte> bytes, ipc::Received& received) {
  const bool brings_descriptors = !received.fds.empty() || received.has_lost_fds;
  ASSIGN_OR_RETURN(const ipc::ClientMessage message, ipc::decode_client_message(bytes, brings_descriptors));
  const Handlers handlers{[&](const ipc::Register& body) { return on_register(session, body, received); },
                          [&](const ipc::Close& body) { return on_close(session, body); },
                          [&](const ipc::Upload& body) { return on_upload(session, body); },
                          [&](const ipc::Query& body) { return on_query(session, body); }};
  return std::visit(handlers, message);
}

ManagedConnection* Service::Impl::find(Session& session, std::uint32_t slot, std::uint32_t tag) {
  const auto found = session.connections.find(slot);
  return found != session.connections.end() && found->second->move.tag == tag ? found->second.get() : nullptr;
}

// A descriptor too many, or one that found no room here, costs this registration only.
Result<> Service::Impl::on_register(Session& session, const ipc::Register& message, ipc::Received& received) {
  if (message.slot >= session.arena().geometry().slot_count || session.connections.contains(message.slot) ||
      session.has_refused(message.slot))
    return error(ErrorCode::kProtocol, "a registration that contradicts the arena");
  if (!quota_.add_connection(session.uid())) {
    refuse_registration(session, message.slot);
    return {};
  }
  auto conn = std::make_unique<ManagedConnection>();
  conn->session = &session;
  conn->program_fd = message.program_fd;
  conn->move.arena = &session.arena();
  conn->move.session = session.number();
  conn->move.slot = message.slot;
  conn->move.tag = message.tag;
  if (received.has_lost_fds)
    conn->reason = "the service has no descriptor left for its socket";
  else if (received.fds.size() > 1)
    conn->reason = "more than one descriptor came with its registration";
  else
    manage(*conn, received.fds[0]);
  conn->stays = conn->move.kernel == nullptr;
  ManagedConnection& known = *session.connections.emplace(message.slot, std::move(conn)).first->second;
  if (options_.policy == Policy::kManual || known.stays || stopping_) return {};
  if (options_.policy == Policy::kAll && mover_->offload(known)) return {};
  policy_due_ = std::min(policy_due_, monotonic_now() + kPolicyAgain);
  return {};
}

kernel::LinuxShared Service::Impl::shared_for(std::uint64_t netns_cookie) {
  kernel::LinuxShared shared{.late_filter = late_filter_.get(), .congestion = congestion_.get(), .diag = nullptr};
  for (auto& interface : interfaces_) {
    if (interface->netns_cookie() == netns_cookie) shared.diag = &interface->diag();
  }
  return shared;
}

void Service::Impl::manage(ManagedConnection& conn, UniqueFd& socket) {
  if (!is_tcp(socket.get())) {
    conn.reason = "not a TCP socket";
    return;
  }
  auto created = kernel::LinuxKernelConn::create(std::move(socket), shared_for(0));
  if (!created) {
    conn.reason = created.error().message();
    return;
  }
  (*created)->set_shared(shared_for((*created)->netns_cookie()));
  const auto other = mover_->by_cookie().find((*created)->cookie());
  if (other != mover_->by_cookie().end()) {
    // The same socket twice: two holders, of which one would not see the moves of the other.
    conn.reason = "another descriptor of the same socket is registered";
    other->second->stays = true;
    other->second->reason = conn.reason;
    mover_->upload(*other->second, conn.reason);
    return;
  }
  conn.linux_conn = created->get();
  conn.move.kernel = std::move(*created);
  conn.move.shared().kernel_cookie.store(conn.move.kernel->cookie(), std::memory_order_release);
  mover_->add(conn);
}

// The program's calls go to the kernel as they do now: nothing but a bit remembers it until its close.
void Service::Impl::refuse_registration(Session& session, std::uint32_t slot) {
  ++refused_registrations_;
  session.refused.resize(session.arena().geometry().slot_count);
  session.refused[slot] = true;
  if (quota_.may_log(session.uid(), monotonic_now()))
    spdlog::warn("a connection of {} (pid {}) stays in the kernel: user {} has {} registered, as many as one user may",
                 session.program(), session.pid(), session.uid(), quota_.bounds().connections);
}

Result<> Service::Impl::on_close(Session& session, const ipc::Close& message) {
  if (session.has_refused(message.slot)) {
    session.refused[message.slot] = false;
    ipc::OwnerGate(session.arena().slot(message.slot)).set_owner(ipc::Owner::kFree);
    return {};
  }
  ManagedConnection* conn = find(session, message.slot, message.tag);
  if (conn == nullptr) return error(ErrorCode::kProtocol, "a close of a connection that is not registered");
  mover_->close(*conn);
  return {};
}

Result<> Service::Impl::on_upload(Session& session, const ipc::Upload& message) {
  ManagedConnection* conn = find(session, message.slot, message.tag);
  // A forked child asks for a connection that its parent has closed meanwhile: no breach.
  if (conn == nullptr) return {};
  const auto end = std::find(message.reason.begin(), message.reason.end(), '\0');
  const std::string why(message.reason.begin(), end);
  if (message.stay != 0) {
    conn->stays = true;
    conn->reason = why;
  }
  mover_->upload(*conn, why);
  return {};
}

Result<> Service::Impl::on_query(Session& session, const ipc::Query& message) {
  ipc::QueryReply reply{.head = {.type = ipc::MessageType::kQueryReply, .size_bytes = sizeof(reply)},
                        .request = message.request,
                        .found = 0,
                        .state = {}};
  const ManagedConnection* conn = find(session, message.slot, message.tag);
  if (conn != nullptr) {
    if (const auto state = mover_->query(*conn); state) {
      reply.found = 1;
      reply.state = *state;
    }
  }
  const auto sent = ipc::send_message(session.socket(), std::as_bytes(std::span(&reply, 1)), {});
  if (!sent) return error(ErrorCode::kProtocol, "the application does not read its socket");
  return {};
}

// The application is gone or has broken the protocol: its connections end as the kernel would end them.
void Service::Impl::end_session(Session& session, const std::string& why) {
  if (session.ending) return;
  session.ending = true;
  spdlog::info("session {} ({}, pid {}) ends: {}", session.id(), session.program(), session.pid(), why);
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, session.socket(), nullptr);
  // A program that goes on without us must see that its connections are the kernel's.
  session.arena().header().service_state.store(ipc::ServiceState::kStopped, std::memory_order_seq_cst);
  std::vector<ManagedConnection*> all;
  for (auto& [slot, conn] : session.connections) all.push_back(conn.get());
  if (all.empty()) finished_sessions_.push_back(session.number());
  for (ManagedConnection* conn : all) mover_->close(*conn);
}

void Service::Impl::connection_closed(ManagedConnection& conn) {
  Session& session = *conn.session;
  const std::uint32_t slot = conn.move.slot;
  ipc::OwnerGate gate = conn.move.gate();
  if (conn.linux_conn != nullptr) closer_->close(conn.linux_conn->take_socket(session.ending), session.uid());
  session.connections.erase(slot);
  quota_.remove_connection(session.uid());
  gate.set_owner(ipc::Owner::kFree);
  if (session.ending && session.connections.empty()) finished_sessions_.push_back(session.number());
}

void Service::Impl::bury(Session& session) {
  ::shutdown(session.socket(), SHUT_RDWR);
  closer_->close(session.take_socket(), session.uid());
  for (auto& [slot, conn] : session.connections)
    if (conn->linux_conn != nullptr) closer_->close(conn->linux_conn->take_socket(true), session.uid());
}

void Service::Impl::bury_sessions() {
  if (finished_sessions_.empty()) return;
  for (const std::uint32_t number : std::exchange(finished_sessions_, {})) {
    const auto found = sessions_.find(number);
    if (found == sessions_.end()) continue;
    bury(*found->second);
    quota_.remove_session(found->second->uid());
    sessions_.erase(found);
  }
  // What the lanes have reported of them: soon their numbers are somebody else's.
  take_engine_events();
}

}  // namespace twinstack::driver
