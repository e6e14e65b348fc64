#include "driver/service.h"

#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "base/log.h"
#include "base/monotonic.h"
#include "driver/service_impl.h"
#include "ipc/channel.h"

namespace twinstack::driver {
namespace {

constexpr Duration kStopDeadline = std::chrono::seconds(5);

std::uint64_t pack(std::uint32_t source, std::uint32_t number) { return std::uint64_t{source} << 32 | number; }

// Moves are short; with ordinary scheduling a busy machine would stretch their pauses. Without the privilege we go on.
void raise_priority() {
  const sched_param priority{.sched_priority = 1};
  if (::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority) != 0)
    spdlog::warn("the driver runs at ordinary priority, pauses may be longer: sched_setscheduler: errno {}", errno);
}

// A descriptor for each connection: the usual soft limit of 1024 is for programs that use select(). Returns the limit.
std::uint64_t raise_descriptor_limit() {
  rlimit limit{.rlim_cur = 1024, .rlim_max = 1024};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return limit.rlim_cur;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return limit.rlim_cur;
  spdlog::warn("descriptors stay limited: setrlimit(RLIMIT_NOFILE): errno {}", errno);
  return before;
}

}  // namespace

Result<InterfaceOption> parse_interface(const std::string& word) {
  const auto at = word.find('@');
  InterfaceOption option{.name = word.substr(0, at), .netns = at == std::string::npos ? "" : word.substr(at + 1)};
  if (option.name.empty() || (at != std::string::npos && option.netns.empty()))
    return error(ErrorCode::kInvalid, "interface '" + word + "': write NAME or NAME@NETNS");
  return option;
}

Result<std::unique_ptr<Service>> Service::create(const ServiceOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  TRY(impl->set_up());
  return std::unique_ptr<Service>(new Service(std::move(impl)));
}

Service::Service(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Service::~Service() = default;

Result<> Service::run() { return impl_->run(); }

Service::Impl::~Impl() {
  for (auto* lane : lanes_) lane->stop();
  sessions_.clear();
  if (listen_) ::unlink(options_.socket_path.c_str());
}

Result<> Service::Impl::set_up() {
  if (options_.interfaces.empty()) return error(ErrorCode::kInvalid, "no interface given: --interface NAME[@NETNS]");
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);  // the terminal that it was started from is closed
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return system_error("sigprocmask");
  ::signal(SIGPIPE, SIG_IGN);
  closer_.emplace();
  signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return system_error("signalfd");
  event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event_) return system_error("eventfd");
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return system_error("epoll_create1");
  TRY(open_sockets());
  open_spare();
  for (const InterfaceOption& option : options_.interfaces) {
    ASSIGN_OR_RETURN(auto interface, AttachedInterface::attach(
                                         option, options_, static_cast<std::uint32_t>(lanes_.size()), event_.get()));
    spdlog::info("{}: {} queue(s), XDP {} ({})", interface->name(), interface->lanes().size(),
                 nic::name(interface->xdp().mode()), interface->xdp().mode_reason());
    for (auto& lane : interface->lanes()) lanes_.push_back(lane.get());
    interfaces_.push_back(std::move(interface));
  }
  if (lanes_.size() > ipc::kMaxLanes / 2)
    return error(ErrorCode::kInvalid, "more than 32 queues in all: attach fewer interfaces");
  TRY(make_mover());
  TRY(watch(signals_.get(), Source::kSignal, 0));
  TRY(watch(event_.get(), Source::kEvent, 0));
  TRY(watch(late_filter_->poll_fd(), Source::kLate, 0));
  TRY(watch(listen_.get(), Source::kListen, 0));
  TRY(watch(control_->epoll_fd(), Source::kControl, 0));
  for (auto& interface : interfaces_) {
    TRY(watch(interface->routes().poll_fd(), Source::kRoutes, 0));
    TRY(watch(interface->icmp().poll_fd(), Source::kIcmp, 0));
  }
  for (auto* lane : lanes_) lane->start();
  return {};
}

Result<> Service::Impl::make_mover() {
  ASSIGN_OR_RETURN(late_filter_, kernel::LateFilter::load());
  auto congestion = kernel::CongestionHook::load();
  if (congestion)
    congestion_ = std::move(*congestion);
  else
    spdlog::warn(
        "connections come back with the initial congestion window, and what pacing (bbr) has stamped is guessed: {}",
        congestion.error().message());
  parker_.emplace(event_.get());
  mover_ = std::make_unique<Mover>(
      MoverGround{.late_packets = *late_filter_, .grace_periods = *parker_, .now = monotonic_now},
      [this](ManagedConnection& conn) { connection_closed(conn); });
  mover_->set_orphan_patience(options_.orphan_patience);
  mover_->on_returned([this] {
    if (options_.policy != Policy::kManual && !stopping_)
      policy_due_ = std::min(policy_due_, monotonic_now() + kPolicyAgain);
  });
  std::vector<Interface*> all;
  for (auto& interface : interfaces_) all.push_back(interface.get());
  mover_->set_interfaces(std::move(all));
  return {};
}

Result<> Service::Impl::open_sockets() {
  const std::string& path = options_.socket_path;
  const auto slash = path.rfind('/');
  if (slash != std::string::npos && slash > 0) ::mkdir(path.substr(0, slash).c_str(), 0755);
  ASSIGN_OR_RETURN(listen_, ipc::listen_on(path, SOCK_SEQPACKET));
  // Applications run unprivileged: everybody may connect.
  if (::chmod(path.c_str(), 0666) != 0) return system_error("chmod(" + path + ")");
  ASSIGN_OR_RETURN(control_, ControlServer::create(path + ".control", *this));
  return {};
}

Result<> Service::Impl::watch(int fd, Source source, std::uint32_t number) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = pack(static_cast<std::uint32_t>(source), number)}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return system_error("epoll_ctl");
  return {};
}

Result<> Service::Impl::run() {
  const auto lanes = static_cast<std::uint32_t>(lanes_.size());
  const std::uint32_t of_a_session = 2 + lanes + lanes * ipc::ArenaConfig{}.rings_per_lane;  // socket, arena, eventfds
  quota_.set_bounds(options_.user_bounds.within(raise_descriptor_limit(), of_a_session));
  raise_priority();
  std::puts("ready");
  std::fflush(stdout);
  return loop();
}

Result<> Service::Impl::loop() {
  std::array<epoll_event, 64> events;
  for (;;) {
    const Time now = monotonic_now();
    on_time(now);
    bury_sessions();
    if (stopping_ && (all_home() || now >= stop_deadline_)) break;
    const Time deadline = next_deadline(now);
    timespec limit{};
    if (deadline != kNever) {
      const auto left = std::max(deadline - monotonic_now(), Duration::zero()).count();
      limit = {.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    }
    const int count = ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                     deadline == kNever ? nullptr : &limit, nullptr);
    if (count < 0 && errno != EINTR) return system_error("epoll_pwait2");
    for (int i = 0; i < count; ++i) {
      const std::uint64_t data = events[static_cast<std::size_t>(i)].data.u64;
      dispatch(static_cast<Source>(data >> 32), static_cast<std::uint32_t>(data));
    }
  }
  end_stop();
  return {};
}

void Service::Impl::dispatch(Source source, std::uint32_t number) {
  switch (source) {
    case Source::kListen:
      accept_applications();
      return;
    case Source::kGreeting:
      greet(number);
      return;
    case Source::kSession:
      serve(number);
      return;
    case Source::kLate:
      mover_->on_late_packets();
      return;
    case Source::kRoutes:
      mover_->on_route_events();
      return;
    case Source::kIcmp:
      mover_->on_icmp_errors();
      return;
    case Source::kControl:
      control_->process();
      return;
    case Source::kSignal:
      begin_stop();
      return;
    case Source::kEvent: {
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(event_.get(), &count, sizeof(count));
      take_engine_events();
      return;
    }
  }
}

void Service::Impl::take_engine_events() {
  mover_->on_engine_events([this](std::uint32_t session, engine::Cause cause) {
    const auto found = sessions_.find(session);
    if (found == sessions_.end()) return;
    ++broken_sessions_;
    end_session(*found->second, engine::to_string(cause));
  });
}

void Service::Impl::on_time(Time now) {
  mover_->on_time(now);
  if (now >= icmp_deadline()) mover_->on_icmp_errors();
  expire_greetings(now);
  if (stopping_) return;
  if (now >= churn_due_) churn_once(now);
  if (now >= policy_due_) apply_policy(now);
}

Time Service::Impl::next_deadline(Time) const {
  Time next = std::min({mover_->next_deadline(), icmp_deadline(), greetings_.next_deadline(), churn_due_, policy_due_});
  if (stopping_) next = std::min(next, stop_deadline_);
  return next;
}

Time Service::Impl::icmp_deadline() const {
  Time next = kNever;
  for (const auto& interface : interfaces_) next = std::min(next, interface->icmp().rests_until());
  return next;
}

bool Service::Impl::all_home() const {
  return std::all_of(sessions_.begin(), sessions_.end(), [](const auto& entry) {
    const auto& conns = entry.second->connections;
    return std::none_of(conns.begin(), conns.end(), [](const auto& conn) { return conn.second->in_engine(); });
  });
}

// Every connection goes back to the kernel; then the loop ends.
void Service::Impl::begin_stop() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
  }
  if (stopping_) return;
  stopping_ = true;
  stop_deadline_ = monotonic_now() + kStopDeadline;
  churn_due_ = kNever;
  policy_due_ = kNever;
  closer_->close(std::move(listen_), 0);
  ::unlink(options_.socket_path.c_str());
  for (auto& [number, session] : sessions_) {
    std::vector<ManagedConnection*> all;
    for (auto& [slot, conn] : session->connections) all.push_back(conn.get());
    for (ManagedConnection* conn : all) mover_->upload(*conn, "the service stops");
  }
}

void Service::Impl::end_stop() {
  const Error why{.code = ErrorCode::kTimeout, .system_errno = 0, .what = "the service had to stop"};
  std::size_t lost = 0;
  for (auto& [number, session] : sessions_) {
    std::vector<ManagedConnection*> left;
    for (auto& [slot, conn] : session->connections)
      if (conn->in_engine()) left.push_back(conn.get());
    lost += left.size();
    for (ManagedConnection* conn : left) mover_->give_up(*conn, why);
    session->arena().header().service_state.store(ipc::ServiceState::kStopped, std::memory_order_seq_cst);
  }
  if (lost > 0) spdlog::error("{} connection(s) could not be returned to the kernel and were reset", lost);
  for (auto& [number, session] : sessions_) bury(*session);
  sessions_.clear();
}

}  // namespace twinstack::driver
