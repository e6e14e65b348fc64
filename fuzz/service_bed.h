// The bed of sessions_fuzz.cc: the service's own sessions, mover and lane between two simulated hosts in virtual time,
// without its threads and devices. One thread, but for the service's closer.
//
// To be compiled without access control: sessions are put into the service as greet() would.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "arena.h"
#include "base/assert.h"
#include "driver/service_impl.h"
#include "sim/layer_bridge.h"
#include "sim/plan.h"
#include "sim/sim_driver.h"
#include "sim/sim_interface.h"
#include "sim/soft_host.h"

namespace twinstack::fuzz {

using driver::ManagedConnection;
using sim::Frame;
using sim::SocketId;

inline constexpr Duration kOneWay = std::chrono::milliseconds(1);
inline constexpr std::uint16_t kPort = 80;
inline constexpr std::uint32_t kSlots = kArena.slot_count;
inline constexpr std::uint32_t kPieces = 1024;
inline constexpr uid_t kGoodUser = 1000;
inline constexpr uid_t kEvilUser = 1001;
inline constexpr int kMostRounds = 10'000;  // at one instant: more is no progress

// What a program may pass as if it were a connection. A TCP socket among them is the real kernel's, and stays there.
struct Descriptors {
  Descriptors() {
    null.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    plain_tcp.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    unix_socket.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* const where = reinterpret_cast<sockaddr*>(&address);
    ASSERT(::bind(listener.get(), where, length) == 0 && ::listen(listener.get(), 1) == 0);
    ASSERT(::getsockname(listener.get(), where, &length) == 0);
    tcp.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT(::connect(tcp.get(), where, length) == 0);
    other_end.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT(null && plain_tcp && unix_socket && other_end);
  }
  UniqueFd null, plain_tcp, unix_socket, tcp, other_end;
};

inline const Descriptors& descriptors() {
  static const Descriptors all;
  return all;
}

inline stack::Config host(const IpAddress& address) {
  stack::Config config;
  config.addresses = {address};
  config.tcp_rmem = {.min_bytes = 4096, .default_bytes = 32768, .max_bytes = 32768};
  config.tcp_wmem = {.min_bytes = 4096, .default_bytes = 32768, .max_bytes = 32768};
  return config;
}

// A connection of two simulated hosts.
struct Joined {
  SocketId ours = sim::LayerBridge::kNoSocket;
  SocketId peers = sim::LayerBridge::kNoSocket;
};

class Service;

// The product's. It is made once, as its threads and rooms take their time: each input finds it empty and must leave it
// so, and what it stands on is of the input that runs.
class Product final : public kernel::LatePackets, public driver::GracePeriods {
 public:
  static Product& instance() {
    static auto* const only = new Product();
    return *only;
  }

  Result<std::size_t> poll(const std::function<void(const kernel::LatePacket&)>& callback) override;
  [[nodiscard]] std::uint64_t request() override;
  [[nodiscard]] std::uint64_t completed() override;
  // Times and cookies begin anew.
  void begin(Service& ground, driver::Interface& interface) {
    ground_ = &ground;
    driver::Mover& mover = *impl.mover_;
    mover.set_interfaces({&interface});
    mover.to_park_.clear();
    mover.draining_.clear();
    mover.settling_.clear();
    mover.settle_at_ = kNever;
  }

  driver::Service::Impl impl;

 private:
  Product();
  static driver::ServiceOptions options() {
    driver::ServiceOptions out;
    out.policy = driver::Policy::kManual;
    return out;
  }

  Service* ground_ = nullptr;
};

// The service with its host, and a host at the other end of its wire.
class Service {
 public:
  Service() {
    auto nic =
        std::make_unique<sim::LaneNic>(pool_, [this](Frame frame) { send(to_peer_, std::move(frame)); }, 0, 1500);
    sim::SimLaneHooks hooks{.now = [this] { return now_; },
                            .signal_driver = [this] { events_wait_ = true; },
                            .wake_program = [this](std::uint32_t, std::uint32_t) { is_woken = true; }};
    interface_.add_lane(std::make_unique<sim::SimLane>(0, engine::LaneCapacity{.connections = 8, .pieces = kPieces},
                                                       std::move(nic), std::move(hooks)));
    Product::instance().begin(*this, interface_);
    kernel_.stack_.next_cookie_ = 1ULL << 48;  // none that a socket of the real kernel has
    kernel_.on_ready = [this](SocketId) { is_woken = true; };
    listener_ = kernel_.listen(kPort, false, now_);
  }

  [[nodiscard]] Time now() const { return now_; }
  [[nodiscard]] sim::SoftHost& kernel() { return kernel_; }
  [[nodiscard]] sim::SoftHost& peer() { return peer_; }
  [[nodiscard]] sim::SimLane& lane() { return *interface_.lanes()[0]; }
  [[nodiscard]] sim::SimGrace& grace() { return grace_; }
  [[nodiscard]] driver::Mover& mover() { return *impl_.mover_; }
  [[nodiscard]] const Time& clock() const { return now_; }
  [[nodiscard]] std::size_t sessions() const { return impl_.sessions_.size(); }

  // As greet() and Session::open().
  std::uint32_t open_session(uid_t uid, sim::Welcome& welcome) {
    std::uint32_t number = 0;
    while (impl_.sessions_.contains(number)) ++number;
    ASSERT(impl_.quota_.add_session(uid));
    auto arena = ipc::Arena::create(kArena, number + 1);
    ASSERT(arena.has_value());
    welcome.arena.reset(::dup(arena->fd()));
    welcome.geometry = arena->geometry();
    std::array<int, 2> ends{};
    ASSERT(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
    welcome.socket.reset(ends[0]);
    for (std::uint32_t i = 0; i < kArena.lane_count + welcome.geometry.ring_count; ++i)
      welcome.fds.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    auto session = driver::Session::without_socket(number, number + 1, std::move(*arena));
    session->socket_.reset(ends[1]);
    session->uid_ = uid;
    lane().lane.open_session(number, session->arena());
    lane().doorbell();
    impl_.sessions_.emplace(number, std::move(session));
    return number;
  }
  [[nodiscard]] driver::Session* session(std::uint32_t number) {
    const auto found = impl_.sessions_.find(number);
    return found == impl_.sessions_.end() || found->second->ending ? nullptr : found->second.get();
  }
  [[nodiscard]] static ManagedConnection* find(driver::Session& session, std::uint32_t slot) {
    const auto found = session.connections.find(slot);
    return found == session.connections.end() ? nullptr : found->second.get();
  }

  // A registration by the service's code; the socket that it brings is then put in place of /dev/null.
  bool manage(std::uint32_t number, std::uint32_t slot, std::uint32_t tag, SocketId socket) {
    driver::Session& of = *impl_.sessions_.at(number);
    const ipc::Register message{.head = {.type = ipc::MessageType::kRegister, .size_bytes = sizeof(message)},
                                .slot = slot,
                                .tag = tag,
                                .program_fd = 3,
                                .reserved = 0};
    ipc::Received received{.size_bytes = sizeof(message), .fds = {}};
    received.fds.emplace_back(::dup(descriptors().null.get()));
    const bool is_new = find(of, slot) == nullptr;
    const auto done = impl_.handle(of, std::as_bytes(std::span(&message, 1)), received);
    ASSERT(is_new || !done);
    ManagedConnection* const conn = find(of, slot);
    if (!done || conn == nullptr) return false;
    conn->move.kernel = kernel_.kernel_conn(socket, no_faults_);
    conn->move.shared().kernel_cookie.store(conn->move.kernel->cookie(), std::memory_order_release);
    conn->stays = false;
    impl_.mover_->add(*conn);
    return true;
  }

  // Opened by the peer.
  Joined join() {
    const std::uint16_t port = next_port_++;
    const Joined joined{.peers = peer_.connect({.local = sim::address_of_peer(0, false),
                                                .remote = sim::address_of_mover(false),
                                                .local_port = port,
                                                .remote_port = kPort},
                                               now_)};
    FlowKey flow;
    for (int tries = 0; tries < 100; ++tries) {
      const SocketId ours = kernel_.accept(listener_, flow, now_);
      if (ours >= 0) return {.ours = ours, .peers = joined.peers};
      pass(kOneWay);
    }
    ASSERT(false && "the peer cannot connect");
    return {};
  }

  // Does what there is to do until then.
  void pass(Duration span) {
    const Time end = now_ + span;
    for (settle(); next_event() <= end; settle()) now_ = std::max(now_ + Duration(1), next_event());
    now_ = std::max(now_, end);
  }

  // Nothing is left but `sessions` of the good user's, with so many connections.
  void check_left(std::size_t sessions, std::size_t conns) {
    ASSERT(impl_.sessions_.size() == sessions && impl_.finished_sessions_.empty());
    ASSERT(impl_.quota_.users_.size() == sessions && impl_.quota_.users_.count(kGoodUser) == sessions);
    driver::Mover& of = mover();
    ASSERT(of.by_cookie().size() == conns && of.by_hw_.size() <= conns);
    const auto in_engine = static_cast<std::uint32_t>(of.by_hw_.size());
    ASSERT(lane().lane.active_connections() == in_engine);
    ASSERT(interface_.steered_flows() == in_engine && interface_.hop_users() == in_engine);
    ASSERT(interface_.watched_.size() <= conns);
    if (conns == 0) ASSERT(lane().lane.free_pieces() == kPieces);
  }

  // The programs' part of an instant: true when they have done something; and when they want to be asked again.
  std::function<bool()> run_programs = [] { return false; };
  std::function<Time()> programs_due = [] { return kNever; };
  bool is_woken = false;       // the well-behaved program
  bool messages_wait = false;  // a program has sent one, or died

 private:
  struct Travelling {
    Time arrives;
    Frame frame;
  };
  void send(std::deque<Travelling>& way, Frame frame) { way.push_back({now_ + kOneWay, std::move(frame)}); }

  bool deliver_frames() {
    bool worked = false;
    for (; !to_peer_.empty() && to_peer_.front().arrives <= now_; worked = true) {
      Frame frame = std::move(to_peer_.front().frame);
      to_peer_.pop_front();
      peer_.receive(std::move(frame), now_);
    }
    for (; !to_us_.empty() && to_us_.front().arrives <= now_; worked = true) {
      Frame frame = std::move(to_us_.front().frame);
      to_us_.pop_front();
      interface_.demultiplex(std::move(frame));
    }
    return worked;
  }

  bool run_stacks() {
    bool worked = false;
    for (sim::SoftHost* host : {&kernel_, &peer_}) {
      if (host->next_deadline() > now_) continue;
      host->on_time(now_);
      worked = true;
    }
    return worked;
  }

  // ~Session() does this where the lanes are the service's.
  void bury_sessions() {
    for (const std::uint32_t number : impl_.finished_sessions_) lane().lane.close_session(number);
    impl_.bury_sessions();
  }

  [[nodiscard]] Time service_due() {
    if (messages_wait || events_wait_ || kernel_.late_packets_wait() || !impl_.finished_sessions_.empty()) return now_;
    return std::min(mover().next_deadline(), grace_.due());
  }

  // A turn of Service::Impl::loop().
  bool run_service() {
    if (service_due() > now_) return false;
    grace_.on_time(now_);
    impl_.on_time(now_);
    bury_sessions();
    if (std::exchange(messages_wait, false)) {
      std::vector<std::uint32_t> all;
      for (const auto& [number, session] : impl_.sessions_) all.push_back(number);
      for (const std::uint32_t number : all) impl_.serve(number);
    }
    if (kernel_.late_packets_wait()) mover().on_late_packets();
    if (std::exchange(events_wait_, false)) impl_.take_engine_events();
    bury_sessions();
    return true;
  }

  bool run_lane() {
    if (lane().due(now_) > now_) return false;
    lane().run(now_);
    return true;
  }

  void settle() {
    int rounds = 0;
    for (bool worked = true; worked; ASSERT(++rounds < kMostRounds)) {
      worked = deliver_frames();
      worked = run_stacks() || worked;
      worked = run_lane() || worked;
      worked = run_service() || worked;
      worked = run_programs() || worked;
    }
  }

  [[nodiscard]] Time next_event() {
    Time next = std::min({kernel_.next_deadline(), peer_.next_deadline(), lane().due(now_), service_due(),
                          programs_due(), is_woken ? now_ : kNever});
    if (!to_peer_.empty()) next = std::min(next, to_peer_.front().arrives);
    if (!to_us_.empty()) next = std::min(next, to_us_.front().arrives);
    return next;
  }

  Time now_ = Time(std::chrono::hours(1));
  sim::FramePool pool_;
  sim::MoveFaults no_faults_;
  std::deque<Travelling> to_peer_;
  std::deque<Travelling> to_us_;
  sim::SoftHost kernel_{host(sim::address_of_mover(false)), pool_,
                        [this](Frame frame) { send(to_peer_, std::move(frame)); }, 1};
  sim::SoftHost peer_{host(sim::address_of_peer(0, false)), pool_,
                      [this](Frame frame) { send(to_us_, std::move(frame)); }, 2};
  sim::SimInterface interface_{[this](Frame frame) { kernel_.receive(std::move(frame), now_); }, pool_};
  sim::SimGrace grace_{std::chrono::milliseconds(2), [this] { return now_; }};
  SocketId listener_ = 0;
  std::uint16_t next_port_ = 5000;
  bool events_wait_ = false;
  driver::Service::Impl& impl_ = Product::instance().impl;
};

inline Product::Product() : impl(options()) {
  impl.closer_.emplace();
  impl.late_filter_.reset(new kernel::LateFilter());
  impl.quota_.set_bounds({.sessions = 2, .connections = 5});
  impl.mover_ = std::make_unique<driver::Mover>(driver::MoverGround{.late_packets = *this,
                                                                    .grace_periods = *this,
                                                                    .now = [this] { return ground_->now(); },
                                                                    .call_deadline = Duration(1)},
                                                [this](ManagedConnection& conn) { impl.connection_closed(conn); });
  impl.mover_->set_orphan_patience(std::chrono::milliseconds(200));
}

inline Result<std::size_t> Product::poll(const std::function<void(const kernel::LatePacket&)>& callback) {
  return ground_->kernel().late_packets().poll(callback);
}
inline std::uint64_t Product::request() { return ground_->grace().request(); }
inline std::uint64_t Product::completed() { return ground_->grace().completed(); }

}  // namespace twinstack::fuzz
