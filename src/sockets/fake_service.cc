#include "sockets/fake_service.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <future>
#include <map>

#include "ipc/channel.h"
#include "ipc/messages.h"
#include "ipc/owner_gate.h"
#include "ipc/ring.h"
#include "sockets/fake_service_parts.h"

namespace twinstack::sockets {

namespace {

constexpr std::uint64_t kListenerKey = 1;
constexpr std::uint64_t kCommandKey = 2;
constexpr std::uint64_t kTimerKey = 3;

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "fake service: %s\n", what.c_str());
  std::abort();
}

void write_event(int fd) {
  const std::uint64_t one = 1;
  if (::write(fd, &one, sizeof(one)) != sizeof(one) && errno != EAGAIN) give_up("write(eventfd)");
}

void read_event(int fd) {
  std::uint64_t count = 0;
  if (::read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN) give_up("read(eventfd)");
}

template <typename T>
T message_as(const std::byte* bytes) {
  T message;
  std::memcpy(&message, bytes, sizeof(message));
  return message;
}

template <typename T>
void send_struct(int socket, T message) {
  // The other side may be gone.
  static_cast<void>(ipc::send_message(socket, std::as_bytes(std::span(&message, 1)), {}));
}

}  // namespace

FakeService::FakeService(FakeServiceOptions options) : options_(std::move(options)), rng_(options_.seed) {
  ::unlink(options_.path.c_str());
  auto listener = ipc::listen_on(options_.path, SOCK_SEQPACKET);
  if (!listener.has_value()) give_up(listener.error().message());
  listener_ = std::move(*listener);
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  command_event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  const auto add = [this](int fd, std::uint64_t key) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = key;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  };
  add(listener_.get(), kListenerKey);
  add(command_event_.get(), kCommandKey);
  add(timer_.get(), kTimerKey);
  thread_ = std::thread([this] { run(); });
  set_flip_interval(options_.flip_interval_us);
}

FakeService::~FakeService() {
  if (thread_.joinable()) stop();
  ::unlink(options_.path.c_str());
}

void FakeService::call(std::function<void()> task) {
  std::promise<void> done;
  {
    const std::lock_guard lock(tasks_mutex_);
    tasks_.push_back([&] {
      task();
      done.set_value();
    });
  }
  write_event(command_event_.get());
  done.get_future().wait();
}

void FakeService::offload_all() {
  call([this] { flip_all(true); });
}

void FakeService::set_stalled(bool stalled) {
  call([this, stalled] {
    stalled_ = stalled;
    for (const auto& session : sessions_) {
      drain_submissions(*session);
      post_late(*session);
    }
  });
}

void FakeService::set_flip_interval(std::uint32_t interval_us) {
  call([this, interval_us] {
    options_.flip_interval_us = interval_us;
    // Ticks also when nothing flips: uploads that did not succeed at once are tried again.
    const long interval_ns = (interval_us != 0 ? interval_us : 1000) * 1000L;
    const timespec interval{.tv_sec = interval_ns / 1'000'000'000, .tv_nsec = interval_ns % 1'000'000'000};
    const itimerspec setting{.it_interval = interval, .it_value = interval};
    ::timerfd_settime(timer_.get(), 0, &setting, nullptr);
  });
}

void FakeService::upload_all() {
  call([this] { flip_all(false); });
}

void FakeService::stop() {
  call([this] {
    flip_all(false);
    ending_ = true;
  });
  thread_.join();
  sessions_.clear();
}

void FakeService::die() {
  call([this] { ending_ = true; });
  thread_.join();
  sessions_.clear();
}

std::size_t FakeService::connection_count() {
  std::size_t count = 0;
  call([&] {
    for (const auto& session : sessions_) count += session->connections.size();
  });
  return count;
}

std::size_t FakeService::engine_connection_count() {
  std::size_t count = 0;
  call([&] {
    for (const auto& session : sessions_)
      for (const auto& [slot, connection] : session->connections) count += connection->engine ? 1 : 0;
  });
  return count;
}

void FakeService::run() {
  std::array<epoll_event, 64> events;
  while (!ending_) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i)
      on_event(events[static_cast<std::size_t>(i)].data.u64, events[static_cast<std::size_t>(i)].events);
    for (const auto& session : sessions_)
      if (!session->over && session->arena != nullptr) {
        drain_submissions(*session);
        post_late(*session);
      }
    serve_wishes();
    std::erase_if(sessions_, [](const auto& session) { return session->over; });
  }
}

void FakeService::on_event(std::uint64_t key, std::uint32_t events) {
  if (key == kListenerKey) return accept_session();
  if (key == kTimerKey) {
    read_event(timer_.get());
    if (options_.flip_interval_us != 0) flip_some();
    return;
  }
  if (key == kCommandKey) {
    read_event(command_event_.get());
    std::vector<std::function<void()>> tasks;
    {
      const std::lock_guard lock(tasks_mutex_);
      tasks.swap(tasks_);
    }
    for (const auto& task : tasks) task();
    return;
  }
  for (const auto& session : sessions_) {
    if (session->key == key) return on_message(*session);
    if (session->doorbell_key == key) return read_event(session->doorbell.get());
    for (const auto& [slot, connection] : session->connections) {
      if (connection->key != key) continue;
      // A FIN or an error is for the kernel, as with the engine.
      if ((events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) connection->wants_upload = connection->stay = true;
      if ((events & EPOLLOUT) != 0) transmit(*connection);
      if ((events & EPOLLIN) != 0 && !connection->wants_upload) receive(*connection);
      return;
    }
  }
}

void FakeService::accept_session() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) return;
  auto session = std::make_unique<Session>();
  session->socket = std::move(socket);
  session->key = next_key_++;
  session->doorbell_key = next_key_++;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = session->key;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, session->socket.get(), &event);
  sessions_.push_back(std::move(session));
}

void FakeService::welcome(Session& session) {
  auto arena = ipc::Arena::create(options_.arena, next_session_++);
  if (!arena.has_value()) give_up(arena.error().message());
  session.arena = std::make_unique<ipc::Arena>(std::move(*arena));
  const ipc::ArenaGeometry& g = session.arena->geometry();
  session.doorbell.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = session.doorbell_key;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, session.doorbell.get(), &event);
  std::vector<int> fds{session.arena->fd()};
  for (std::uint32_t i = 0; i < g.lane_count; ++i) fds.push_back(session.doorbell.get());
  for (std::uint32_t i = 0; i < g.ring_count; ++i) {
    auto& h = session.arena->ring(i);
    auto wake = ipc::WakeEvent::create();
    if (!wake.has_value()) give_up(wake.error().message());
    session.rings.push_back(
        Ring{.submit = {h.sq_tail, h.sq_head, h.sq_need_wakeup, session.arena->sq(i), g.sq_entries},
             .complete = {h.cq_tail, h.cq_head, h.cq_need_wakeup, session.arena->cq(i), g.cq_entries},
             .event = std::move(*wake)});
    fds.push_back(session.rings.back().event.watch_fd());
    static_cast<void>(session.rings.back().submit.prepare_sleep());
  }
  session.chunks.resize(g.chunk_count - g.tx_chunk_count);
  for (std::uint32_t i = g.tx_chunk_count; i < g.chunk_count; ++i) session.free_chunks.push_back(i);
  ipc::Welcome message{};
  message.head = {.type = ipc::MessageType::kWelcome, .size_bytes = sizeof(message)};
  message.session_id = session.arena->header().session_id;
  message.geometry = g;
  static_cast<void>(ipc::send_message(session.socket.get(), std::as_bytes(std::span(&message, 1)), fds));
}

void FakeService::on_message(Session& session) {
  alignas(8) std::array<std::byte, 512> bytes{};
  auto received = ipc::receive_message(session.socket.get(), bytes, MSG_DONTWAIT);
  if (!received.has_value() && received.error().system_errno == EAGAIN) return;
  if (!received.has_value() || received->size_bytes == 0) return end_session(session);
  const auto head = message_as<ipc::MessageHead>(bytes.data());
  if (head.size_bytes != received->size_bytes) violated("a message of another size than it says");
  const auto find = [&](std::uint32_t slot, std::uint32_t tag) -> Connection* {
    const auto at = session.connections.find(slot);
    return at != session.connections.end() && at->second->tag == tag ? at->second.get() : nullptr;
  };
  switch (head.type) {
    case ipc::MessageType::kHello:
      return welcome(session);
    case ipc::MessageType::kRegister:
      if (received->fds.size() == 1) register_connection(session, bytes.data(), received->fds[0].release());
      return;
    case ipc::MessageType::kClose: {
      const auto message = message_as<ipc::Close>(bytes.data());
      ++counters_.closed;
      Connection* connection = find(message.slot, message.tag);
      if (connection == nullptr) return violated("a close of a connection that is not registered");
      connection->closing = connection->stay = true;
      return;
    }
    case ipc::MessageType::kUpload: {
      const auto message = message_as<ipc::Upload>(bytes.data());
      ++counters_.uploads;
      if (message.stay != 0) ++counters_.stays;
      Connection* connection = find(message.slot, message.tag);
      if (connection == nullptr) return;  // of a forked child, whose parent has closed it
      connection->wants_upload = true;
      connection->stay = connection->stay || message.stay != 0;
      return;
    }
    case ipc::MessageType::kQuery:
      return answer_query(session, bytes.data());
    default:
      violated("a message of unknown type");
  }
}

void FakeService::register_connection(Session& session, const std::byte* message, int fd) {
  const auto wish = message_as<ipc::Register>(message);
  UniqueFd socket(fd);
  ++counters_.registered;
  if (session.connections.contains(wish.slot)) {
    violated("a slot that is in use was registered");
    return;
  }
  auto connection = std::make_unique<Connection>();
  connection->session = &session;
  connection->key = next_key_++;
  connection->slot = wish.slot;
  connection->tag = wish.tag;
  connection->fd = std::move(socket);
  std::uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  ::getsockopt(connection->fd.get(), SOL_SOCKET, SO_COOKIE, &cookie, &length);
  session.arena->slot(wish.slot).kernel_cookie.store(cookie);
  session.connections[wish.slot] = std::move(connection);
}

void FakeService::answer_query(Session& session, const std::byte* message) {
  const auto question = message_as<ipc::Query>(message);
  ipc::QueryReply reply{};
  reply.head = {.type = ipc::MessageType::kQueryReply, .size_bytes = sizeof(reply)};
  reply.request = question.request;
  const auto at = session.connections.find(question.slot);
  if (at != session.connections.end() && at->second->tag == question.tag && at->second->engine) {
    reply.found = 1;
    reply.state.hw_conn_id = at->second->hw_id;
    reply.state.min.mss = 1460;
    reply.state.min.options = tcp::kOptTimestamps;
    reply.state.info = {.state = 1, .snd_mss = 1448, .rtt_us = 4242, .snd_cwnd = 33};
  }
  send_struct(session.socket.get(), reply);
}

void FakeService::violated(const char* what) {
  if (++counters_.violations <= 20) std::fprintf(stderr, "fake service: %s\n", what);
}

void FakeService::end_session(Session& session) {
  session.over = true;
  session.connections.clear();
}

}  // namespace twinstack::sockets
