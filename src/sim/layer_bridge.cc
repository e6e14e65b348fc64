#include "sim/layer_bridge.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "sockets/layer.h"
#include "sockets/real_calls.h"
#include "twinstack/twinstack.h"

namespace twinstack::sim {
namespace {

constexpr Duration kOwnerWait = std::chrono::milliseconds(20);  // as in sockets/process.cc
constexpr int kFirstDescriptor = 700'000;  // within SonodeTable::kMaxFds, above any limit of descriptors in use

LayerBridge* g_bridge = nullptr;
sockets::RealCalls g_saved;

bool is_simulated(int fd) noexcept { return fd >= kFirstDescriptor; }
SocketId socket_of(int fd) noexcept { return g_bridge->socket_of(fd); }

ssize_t answer(Moved moved) noexcept {
  if (moved >= 0) return moved;
  errno = static_cast<int>(-moved);
  return -1;
}

ssize_t sim_recv(int fd, void* buffer, size_t size, int flags) {
  if (!is_simulated(fd)) return g_saved.recv(fd, buffer, size, flags);
  return answer(g_bridge->stack().receive(socket_of(fd), {static_cast<std::byte*>(buffer), size}, g_bridge->now()));
}

ssize_t sim_send(int fd, const void* buffer, size_t size, int flags) {
  if (!is_simulated(fd)) return g_saved.send(fd, buffer, size, flags);
  const std::span bytes(static_cast<const std::byte*>(buffer), size);
  return answer(g_bridge->stack().send(socket_of(fd), bytes, (flags & MSG_MORE) != 0, g_bridge->now()));
}

ssize_t sim_write(int fd, const void* buffer, size_t size) {
  if (!is_simulated(fd)) {
    g_bridge->ring(fd);
    return static_cast<ssize_t>(size);
  }
  return sim_send(fd, buffer, size, 0);
}

int sim_shutdown(int fd, int how) {
  if (!is_simulated(fd)) return g_saved.shutdown(fd, how);
  ASSERT(how == SHUT_WR);
  return static_cast<int>(answer(g_bridge->stack().shutdown_send(socket_of(fd), g_bridge->now())));
}

int sim_close(int fd) {
  if (!is_simulated(fd)) return g_saved.close(fd);
  g_bridge->stack().close(socket_of(fd), g_bridge->now());
  g_bridge->forget(fd);
  return 0;
}

// `value` of TCP_CORK stands here for all flags of MinTcp: the layer only passes it on.
int sim_setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
  if (!is_simulated(fd)) return g_saved.setsockopt(fd, level, option, value, length);
  if (level == SOL_SOCKET && option == SO_LINGER) {
    g_bridge->stack().set_abortive(socket_of(fd), g_bridge->now());
    return 0;
  }
  ASSERT(level == IPPROTO_TCP && option == TCP_CORK);
  const auto flags = static_cast<std::uint16_t>(*static_cast<const int*>(value));
  g_bridge->stack().set_flags(socket_of(fd), flags, g_bridge->now());
  return 0;
}

}  // namespace

// ---- LayerBridge

LayerBridge::LayerBridge(HostStack& stack, std::function<Time()> now, const Time& world_now)
    : stack_(stack), now_(std::move(now)), world_now_(world_now) {
  ASSERT(g_bridge == nullptr);
  g_bridge = this;
  g_saved = sockets::g_real;
  sockets::g_real.recv = sim_recv;
  sockets::g_real.send = sim_send;
  sockets::g_real.write = sim_write;
  sockets::g_real.shutdown = sim_shutdown;
  sockets::g_real.close = sim_close;
  sockets::g_real.setsockopt = sim_setsockopt;
  sockets::g_real.sched_yield = [] { return 0; };
}

LayerBridge::~LayerBridge() {
  sockets::g_real = g_saved;
  sockets::g_layer.session_count.store(0);
  g_bridge = nullptr;
}

int LayerBridge::open(SocketId socket) {
  sockets_.push_back(socket);
  const int fd = kFirstDescriptor + static_cast<int>(sockets_.size()) - 1;
  ASSERT(static_cast<std::uint32_t>(fd) < sockets::SonodeTable::kMaxFds);
  return fd;
}

SocketId LayerBridge::socket_of(int fd) const noexcept {
  const auto index = static_cast<std::size_t>(fd - kFirstDescriptor);
  return index < sockets_.size() ? sockets_[index] : kNoSocket;
}

void LayerBridge::forget(int fd) noexcept { sockets_[static_cast<std::size_t>(fd - kFirstDescriptor)] = kNoSocket; }

void LayerBridge::ring(int fd) {
  const auto found = doorbells_.find(fd);
  if (found != doorbells_.end()) found->second();
}

// ---- LayerEndpoint

// The calls of twinstack.h on one descriptor.
class LayerEndpoint final : public Endpoint {
 public:
  LayerEndpoint(AppProcess& app, int fd, sockets::Sonode& sonode) : app_(app), fd_(fd), sonode_(sonode) {}

  Moved send(std::span<const std::byte> bytes, bool more) override {
    if (has_to_wait()) return -EAGAIN;
    return outcome(::ts_send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0)));
  }
  Moved receive(std::span<std::byte> room) override {
    // Bytes in chunks are read in the midst of a move as well; whether there are any more is not known then.
    if (has_to_wait() && sockets_queued() == 0) return -EAGAIN;
    return outcome(::ts_recv(fd_, room.data(), room.size(), MSG_DONTWAIT));
  }
  Moved shutdown_send() override {
    if (!comes_home("shutdown")) return -EAGAIN;
    return outcome(::ts_shutdown(fd_, SHUT_WR));
  }
  Moved set_flags(std::uint16_t flags) override {
    if (!comes_home("setsockopt")) return -EAGAIN;
    const int value = flags;
    return outcome(::ts_setsockopt(fd_, IPPROTO_TCP, TCP_CORK, &value, sizeof value));
  }
  [[nodiscard]] Time asks_again() const override { return asks_again_; }
  void set_abortive() override {
    const linger now{.l_onoff = 1, .l_linger = 0};
    if (!has_to_wait()) (void)::ts_setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  void close() override {
    (void)::ts_close(fd_);
    std::erase(app_.open_, fd_);
    app_.on_message();
  }

 private:
  [[nodiscard]] static Moved outcome(ssize_t result) { return result >= 0 ? result : -errno; }
  [[nodiscard]] std::uint64_t sockets_queued() {
    app_.session().drain();
    return sonode_.rx_queued_bytes.load();
  }
  // A thread of the program would sleep until the move is over.
  [[nodiscard]] bool has_to_wait() {
    const ipc::Owner owner = sonode_.owner();
    if (owner != ipc::Owner::kToEngine && owner != ipc::Owner::kToKernel) return false;
    return app_.session().check_alive() || !sonode_.aborted.load();
  }
  // As sockets::bring_back(), which waits.
  [[nodiscard]] bool comes_home(const char* reason) {
    const ipc::Owner owner = sonode_.owner();
    if (owner == ipc::Owner::kKernel) asks_again_ = kNever;
    if (sonode_.plain.load() || sonode_.aborted.load() || owner == ipc::Owner::kKernel) return true;
    if (!app_.session().check_alive()) return true;
    const Time now = app_.bridge_.world_now();
    if (owner != ipc::Owner::kEngine || (asks_again_ != kNever && now < asks_again_)) return false;
    asks_again_ = now + kOwnerWait;
    app_.session().send_upload(sonode_, false, reason);
    app_.on_message();
    return false;
  }

  AppProcess& app_;
  int fd_;
  sockets::Sonode& sonode_;
  Time asks_again_ = kNever;
};

// ---- AppProcess

AppProcess::AppProcess(LayerBridge& bridge, std::uint32_t number, Welcome welcome,
                       std::vector<std::function<void()>> doorbells)
    : bridge_(bridge), number_(number) {
  auto arena = ipc::Arena::map(std::move(welcome.arena), welcome.geometry);
  ASSERT(arena.has_value());
  session_.reset(sockets::Session::make(std::move(welcome.socket), std::move(*arena), welcome.fds, number));
  ASSERT(session_ != nullptr);
  for (std::size_t i = 0; i < doorbells.size(); ++i)
    bridge.add_doorbell(session_->rings()[i].doorbell, std::move(doorbells[i]));
  sockets::g_layer.sessions[number].store(session_.get());
  sockets::g_layer.session_count.store(number + 1);
  sockets::g_layer.pid.store(static_cast<pid_t>(::getpid()));
}

AppProcess::~AppProcess() {
  if (!is_dead()) die();
}

std::unique_ptr<Endpoint> AppProcess::open(SocketId socket, std::uint32_t ring_hint) {
  sockets::Sonode* sonode = session_->take(sockets::SonodeState::kKnown);
  if (sonode == nullptr) return nullptr;
  sonode->slot->ring_hint.store(ring_hint);  // take() puts the thread's number there
  sonode->nonblocking.store(sockets::Toggle::kYes);
  const int fd = bridge_.open(socket);
  sockets::g_layer.table.exchange(fd, {.kind = sockets::FdKind::kSonode,
                                       .session = static_cast<std::uint8_t>(number_),
                                       .slot = sonode->slot_index,
                                       .tag = sonode->tag.load()});
  open_.push_back(fd);
  last_slot_ = sonode->slot_index;
  last_tag_ = sonode->tag.load();
  return std::make_unique<LayerEndpoint>(*this, fd, *sonode);
}

bool AppProcess::may_sleep() {
  if (session_->arm()) return true;
  session_->drain();
  return false;
}

void AppProcess::abort_calls() {
  for (std::uint32_t i = 0; i < session_->slot_count(); ++i) session_->sonode(i).aborted.store(true);
}

void AppProcess::die() {
  for (const int fd : open_) {
    sockets::g_layer.table.exchange(fd, {});
    bridge_.stack().close(bridge_.socket_of(fd), bridge_.now());
    bridge_.forget(fd);
  }
  open_.clear();
  sockets::g_layer.sessions[number_].store(nullptr);
  session_.reset();
  on_message();
}

}  // namespace twinstack::sim
