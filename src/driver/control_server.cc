#include "driver/control_server.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <utility>

#include "base/assert.h"
#include "base/monotonic.h"
#include "base/unique_fd.h"
#include "driver/filter.h"
#include "driver/view_json.h"
#include "ipc/channel.h"

namespace twinstack::driver {
namespace {

using std::chrono::milliseconds;

constexpr uid_t kRoot = 0;
constexpr std::uint64_t kListenerId = 0;
constexpr std::uint64_t kTimerId = 1;
constexpr std::uint64_t kFirstClientId = 2;

// Bounds of one call of process().
constexpr int kEventsPerCall = 32;
constexpr int kAcceptsPerCall = 8;
constexpr int kRequestsPerCall = 4;
constexpr std::size_t kReadBytesPerCall = std::size_t{16} * 1024;
constexpr std::size_t kWriteBytesPerCall = std::size_t{256} * 1024;

constexpr Duration kAcceptPause = milliseconds(100);  // after the process ran out of descriptors
constexpr int kRestPerWork = 4;                       // other users than root get a fifth of the thread's time
constexpr milliseconds kMaxChurnInterval = std::chrono::hours(1);
constexpr milliseconds kMaxChurnDuration = std::chrono::hours(24);

Json refusal(std::string_view what) { return {{"ok", false}, {"error", what}}; }

// ---- the requests ---------------------------------------------------------------------------------------------------

// Who may see and move what: root all, others what is theirs.
ConnectionFilter of_user(uid_t uid, ConnectionFilter filter) {
  if (uid == kRoot) return filter;
  return [uid, filter = std::move(filter)](const ConnectionView& view) { return view.uid == uid && filter(view); };
}

Result<ConnectionFilter> requested_filter(const Json& request, uid_t uid) {
  const auto text = request.find("filter");
  if (text == request.end()) return error(ErrorCode::kInvalid, "the request has no 'filter'");
  if (!text->is_string()) return error(ErrorCode::kInvalid, "'filter' must be a string");
  ASSIGN_OR_RETURN(ConnectionFilter filter, parse_filter(text->get_ref<const std::string&>()));
  return of_user(uid, std::move(filter));
}

Result<milliseconds> requested_time(const Json& request, const char* name, milliseconds least, milliseconds most) {
  const auto field = request.find(name);
  if (field != request.end() && field->is_number_integer()) {
    const milliseconds time(field->get<std::int64_t>());
    if (time >= least && time <= most) return time;
  }
  return error(ErrorCode::kInvalid,
               fmt::format("'{}' must be a number from {} to {}", name, least.count(), most.count()));
}

Json with_ok(const Json& body) {
  Json reply = {{"ok", true}};
  reply.update(body);
  return reply;
}

class Requests {
 public:
  explicit Requests(ControlTarget& target) : target_(target) {}

  [[nodiscard]] Json answer(std::string_view line, uid_t uid) {
    const Json request = Json::parse(line, nullptr, false);
    if (!request.is_object()) return refusal("the request is not one JSON object on one line");
    const auto command = request.find("cmd");
    if (command == request.end() || !command->is_string()) return refusal("the request has no 'cmd'");
    const Result<Json> reply = carry_out(command->get_ref<const std::string&>(), request, uid);
    return reply.has_value() ? with_ok(*reply) : refusal(reply.error().message());
  }

 private:
  Result<Json> carry_out(const std::string& command, const Json& request, uid_t uid) {
    if (command == "ls") return list(request, uid);
    if (command == "offload" || command == "upload") return move(command == "offload", request, uid);
    if (command == "stats") return to_json(target_.stats());
    if (command == "churn") return churn(request, uid);
    return error(ErrorCode::kInvalid, "unknown 'cmd' '" + command + "' (ls, offload, upload, stats, churn)");
  }

  Result<Json> list(const Json& request, uid_t uid) {
    ConnectionFilter filter = of_user(uid, [](const ConnectionView&) { return true; });
    if (request.contains("filter")) {
      ASSIGN_OR_RETURN(filter, requested_filter(request, uid));
    }
    Json connections = Json::array();
    for (const ConnectionView& view : target_.connections(filter)) connections.push_back(to_json(view));
    return Json{{"connections", std::move(connections)}};
  }

  Result<Json> move(bool offload, const Json& request, uid_t uid) {
    ASSIGN_OR_RETURN(const ConnectionFilter filter, requested_filter(request, uid));
    return to_json(offload ? target_.offload(filter) : target_.upload(filter));
  }

  Result<Json> churn(const Json& request, uid_t uid) {
    if (uid != kRoot) return error(ErrorCode::kInvalid, "only root may churn");
    ASSIGN_OR_RETURN(const milliseconds duration,
                     requested_time(request, "duration_ms", milliseconds(0), kMaxChurnDuration));
    milliseconds interval(0);
    if (duration > milliseconds(0)) {
      ASSIGN_OR_RETURN(interval, requested_time(request, "interval_ms", milliseconds(1), kMaxChurnInterval));
    }
    target_.churn(interval, duration);
    return Json::object();
  }

  ControlTarget& target_;
};

// ---- the clients ----------------------------------------------------------------------------------------------------

struct Client {
  UniqueFd socket;
  uid_t uid = 0;
  std::string input;        // at most one line and kReadBytesPerCall
  std::string output;       // the reply under way; no further request is read before it is written
  std::size_t written = 0;  // of output
  std::uint32_t interest = 0;
  Time since;          // of the oldest byte of `input` or `output`, else of the last activity
  bool ended = false;  // close when the output is written

  [[nodiscard]] bool writing() const { return written < output.size(); }
  [[nodiscard]] bool has_request() const { return !writing() && input.find('\n') != std::string::npos; }
};

}  // namespace

std::string control_path(std::string_view socket_path) { return std::string(socket_path) + ".control"; }

class ControlServer::Impl {
 public:
  Impl(std::string path, ControlTarget& target, const ControlLimits& limits)
      : path_(std::move(path)), requests_(target), limits_(limits) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    if (listener_) ::unlink(path_.c_str());
  }

  Result<> open();
  [[nodiscard]] int epoll_fd() const noexcept { return epoll_.get(); }
  void process();

 private:
  using Clients = std::map<std::uint64_t, Client>;

  Result<> watch(int fd, std::uint64_t id);
  void accept_clients();
  bool accept_client();
  static void turn_away(UniqueFd socket);
  [[nodiscard]] bool has_room_for(uid_t uid) const;
  void on_client_event(std::uint64_t id, std::uint32_t events);
  void read_from(Client& client);
  void write_to(Client& client);
  void serve_waiting();
  void serve(Client& client);
  void set_output(Client& client, const Json& reply);
  [[nodiscard]] bool must_rest(const Client& client) const { return client.uid != kRoot && now_ < rest_until_; }
  [[nodiscard]] std::optional<Time> deadline(const Client& client) const;
  void close_expired();
  void update_interest(std::uint64_t id, Client& client);
  void arm_timer();

  std::string path_;
  Requests requests_;
  ControlLimits limits_;
  UniqueFd listener_;
  UniqueFd epoll_;
  UniqueFd timer_;
  Clients clients_;
  std::uint64_t next_id_ = kFirstClientId;
  std::uint64_t last_served_ = 0;  // the turn goes round
  std::size_t waiting_reply_bytes_ = 0;
  Time now_;
  Time rest_until_;                // of the requests of other users than root
  std::optional<Time> accept_at_;  // set: not accepting before then
};

Result<> ControlServer::Impl::open() {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return system_error("epoll_create1");
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!timer_) return system_error("timerfd_create");
  ASSIGN_OR_RETURN(listener_, ipc::listen_on(path_, SOCK_STREAM));
  // What a client may do goes by its uid, so that everybody may connect.
  if (::chmod(path_.c_str(), 0666) != 0) return system_error("chmod(" + path_ + ")");
  TRY(watch(timer_.get(), kTimerId));
  return watch(listener_.get(), kListenerId);
}

Result<> ControlServer::Impl::watch(int fd, std::uint64_t id) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = id}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return system_error("epoll_ctl(control socket)");
  return {};
}

void ControlServer::Impl::process() {
  now_ = monotonic_now();
  std::array<epoll_event, kEventsPerCall> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsPerCall, 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.u64 == kListenerId) {
      accept_clients();
    } else if (event.data.u64 == kTimerId) {
      std::uint64_t expirations = 0;
      static_cast<void>(::read(timer_.get(), &expirations, sizeof expirations));  // only to make it unreadable
    } else {
      on_client_event(event.data.u64, event.events);
    }
  }
  if (accept_at_.has_value() && now_ >= *accept_at_ && watch(listener_.get(), kListenerId).has_value())
    accept_at_.reset();
  serve_waiting();
  close_expired();
  arm_timer();
}

void ControlServer::Impl::accept_clients() {
  for (int i = 0; i < kAcceptsPerCall; ++i) {
    if (!accept_client()) return;
  }
}

bool ControlServer::Impl::accept_client() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      // The listener stays readable; looking away for a while keeps the loop from spinning on it.
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr);
      accept_at_ = now_ + kAcceptPause;
    }
    return errno == EINTR || errno == ECONNABORTED;
  }
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return true;
  if (!has_room_for(peer.uid)) {
    turn_away(std::move(socket));
    return true;
  }
  const std::uint64_t id = next_id_++;
  if (!watch(socket.get(), id).has_value()) return true;
  Client& client = clients_[id];
  client.socket = std::move(socket);
  client.uid = peer.uid;
  client.interest = EPOLLIN;
  client.since = now_;
  return true;
}

void ControlServer::Impl::turn_away(UniqueFd socket) {
  const std::string line = to_line(refusal("too many clients of the control socket; try again later")) + '\n';
  static_cast<void>(::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL));  // into an empty buffer
}

// Root has places of its own: others cannot lock it out.
bool ControlServer::Impl::has_room_for(uid_t uid) const {
  const auto count = [this](auto&& predicate) {
    return static_cast<std::size_t>(
        std::ranges::count_if(clients_, [&](const auto& entry) { return predicate(entry.second.uid); }));
  };
  if (uid == kRoot) return count([](uid_t other) { return other == kRoot; }) < limits_.clients;
  return count([](uid_t other) { return other != kRoot; }) < limits_.clients &&
         count([uid](uid_t other) { return other == uid; }) < limits_.clients_per_uid;
}

void ControlServer::Impl::on_client_event(std::uint64_t id, std::uint32_t events) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;  // closed by an earlier event of this call
  Client& client = found->second;
  if ((events & EPOLLIN) != 0) read_from(client);
  if ((events & EPOLLOUT) != 0) write_to(client);
  // Both directions are gone and nothing is left to read: nobody waits for a reply.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && (events & EPOLLIN) == 0) {
    client.ended = true;
    client.input.clear();
    waiting_reply_bytes_ -= client.output.size();
    client.output.clear();
    client.written = 0;
  }
  update_interest(id, client);
}

void ControlServer::Impl::read_from(Client& client) {
  std::array<char, kReadBytesPerCall> buffer;
  const ssize_t got = ::recv(client.socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    client.ended = true;
    return;
  }
  if (client.input.empty()) client.since = now_;
  client.input.append(buffer.data(), static_cast<std::size_t>(got));
  if (std::min(client.input.find('\n'), client.input.size()) <= limits_.line_bytes) return;
  client.input.clear();
  client.ended = true;
  set_output(client, refusal(fmt::format("a request has at most {} bytes", limits_.line_bytes)));
  write_to(client);
}

void ControlServer::Impl::write_to(Client& client) {
  if (!client.writing()) return;
  const std::size_t size = std::min(client.output.size() - client.written, kWriteBytesPerCall);
  const ssize_t put =
      ::send(client.socket.get(), client.output.data() + client.written, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (put < 0 && (errno == EAGAIN || errno == EINTR)) return;
  client.written = put < 0 ? client.output.size() : client.written + static_cast<std::size_t>(put);
  if (put < 0) client.ended = true;
  if (client.writing()) return;
  waiting_reply_bytes_ -= client.output.size();
  std::string().swap(client.output);  // a reply may be many megabytes: give them back
  client.written = 0;
  client.since = now_;
}

// One request of a client at a time, and the turn goes round: nobody is starved by a client that asks without end.
void ControlServer::Impl::serve_waiting() {
  int left = kRequestsPerCall;
  auto turn = clients_.upper_bound(last_served_);
  for (std::size_t i = clients_.size(); i > 0 && left > 0; --i) {
    if (turn == clients_.end()) turn = clients_.begin();
    auto& [id, client] = *turn++;
    if (!client.has_request() || must_rest(client)) continue;
    last_served_ = id;
    --left;
    serve(client);
    update_interest(id, client);
  }
}

void ControlServer::Impl::serve(Client& client) {
  const Time start = monotonic_now();
  const std::size_t end = client.input.find('\n');
  const Json reply = requests_.answer(std::string_view(client.input).substr(0, end), client.uid);
  client.input.erase(0, end + 1);
  set_output(client, reply);
  write_to(client);
  now_ = monotonic_now();
  if (client.uid != kRoot) rest_until_ = now_ + kRestPerWork * (now_ - start);
}

void ControlServer::Impl::set_output(Client& client, const Json& reply) {
  ASSERT(client.output.empty());
  client.output = to_line(reply) + '\n';
  if (client.uid != kRoot && waiting_reply_bytes_ + client.output.size() > limits_.waiting_reply_bytes)
    client.output = to_line(refusal("too much waits to be read by other clients; try again later")) + '\n';
  waiting_reply_bytes_ += client.output.size();
  client.since = now_;
}

// None while a request waits for its turn: that is our delay, not the client's.
std::optional<Time> ControlServer::Impl::deadline(const Client& client) const {
  if (client.has_request()) return std::nullopt;
  const bool owes = client.writing() || !client.input.empty();
  return client.since + (owes ? limits_.patience : limits_.idle);
}

void ControlServer::Impl::close_expired() {
  std::erase_if(clients_, [this](const auto& entry) {
    const Client& client = entry.second;
    const std::optional<Time> last = deadline(client);
    const bool done = client.ended && !client.writing() && !client.has_request();
    if (!done && (!last.has_value() || *last > now_)) return false;
    waiting_reply_bytes_ -= client.output.size();
    return true;
  });
}

void ControlServer::Impl::update_interest(std::uint64_t id, Client& client) {
  std::uint32_t wanted = 0;
  if (client.writing()) {
    wanted = EPOLLOUT;
  } else if (!client.ended && !client.has_request()) {
    wanted = EPOLLIN;
  }
  if (wanted == client.interest) return;
  client.interest = wanted;
  epoll_event event{.events = wanted, .data = {.u64 = id}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, client.socket.get(), &event) != 0) client.ended = true;
}

// The next instant at which process() has something to do without an event of a descriptor.
void ControlServer::Impl::arm_timer() {
  Time next = accept_at_.value_or(kNever);
  for (const auto& [id, client] : clients_) {
    if (const std::optional<Time> last = deadline(client)) next = std::min(next, *last);
    if (client.has_request()) next = std::min(next, must_rest(client) ? rest_until_ : now_);
  }
  itimerspec setting{};
  if (next != kNever) {
    const auto when = std::max<Duration::rep>(next.time_since_epoch().count(), 1);  // 0 would disarm it
    setting.it_value = {.tv_sec = when / 1'000'000'000, .tv_nsec = when % 1'000'000'000};
  }
  ASSERT(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &setting, nullptr) == 0);
}

Result<std::unique_ptr<ControlServer>> ControlServer::create(std::string_view path, ControlTarget& target,
                                                             const ControlLimits& limits) {
  auto impl = std::make_unique<Impl>(std::string(path), target, limits);
  TRY(impl->open());
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(impl)));
}

ControlServer::ControlServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlServer::~ControlServer() = default;

int ControlServer::epoll_fd() const noexcept { return impl_->epoll_fd(); }
void ControlServer::process() { impl_->process(); }

}  // namespace twinstack::driver
