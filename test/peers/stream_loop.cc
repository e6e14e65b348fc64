// See stream_loop.h. A connection lives in a slot of a vector; its key in Readiness is the slot's number + kFirstKey.
#include "stream_loop.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "readiness.h"
#include "sockets.h"

namespace twinstack::peers {
namespace {

constexpr std::uint64_t kListenerKey = 0;
constexpr std::uint64_t kSignalKey = 1;
constexpr std::uint64_t kFirstKey = 2;
constexpr int kStepsPerTurn = 16;  // so that one connection cannot starve the others
constexpr std::uint64_t kNsPerMs = 1'000'000;
constexpr std::uint64_t kTickNs = 100 * kNsPerMs;

struct Slot {
  UniqueFd fd;
  bool connecting = false;
  std::optional<HeaderReader> header;  // server, until the header is complete
  std::optional<Sender> sender;
  std::optional<Receiver> receiver;
  Shared shared;
  Step sending = Step::kProgress;
  Step receiving = Step::kProgress;
  bool in_run_queue = false;
  bool want_in = true;
  bool want_out = true;
  std::uint64_t progress_ns = 0;
};

class StreamLoop {
 public:
  StreamLoop(Role role, const StreamOptions& options, StreamReport& report, std::unique_ptr<Readiness> readiness)
      : role_(role), options_(options), report_(report), readiness_(std::move(readiness)) {}

  Result<> run();

 private:
  Result<> prepare();
  Result<> prepare_server();
  void open_client(std::uint64_t now);
  void accept_all(std::uint64_t now);
  std::size_t take_slot(UniqueFd fd, std::uint64_t now);
  Slot* at(std::size_t index) { return index < slots_.size() ? slots_[index].get() : nullptr; }
  void drive(std::size_t index, std::uint64_t now);
  bool steps(Slot& slot, std::uint64_t now);
  bool header_step(Slot& slot);
  void settle(std::size_t index, bool more);
  void end(std::size_t index, std::string failure);
  void tick(std::uint64_t now);
  [[nodiscard]] int timeout_ms(std::uint64_t now);
  [[nodiscard]] bool finished() const;

  Role role_;
  const StreamOptions& options_;
  StreamReport& report_;
  std::unique_ptr<Readiness> readiness_;
  UniqueFd listener_;
  UniqueFd signals_;
  Address address_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::deque<std::size_t> run_queue_;  // edge triggered only: slots that stopped before EAGAIN
  std::uint64_t opened_ = 0;
  std::uint64_t wanted_ = 0;
  std::uint64_t stop_at_ns_ = 0;
  std::uint64_t next_tick_ns_ = 0;
  std::size_t alive_ = 0;
  bool stop_ = false;
};

Result<> StreamLoop::prepare_server() {
  ASSIGN_OR_RETURN(signals_, stop_signals_fd());
  TRY(readiness_->add(signals_.get(), kSignalKey, true, false));
  ASSIGN_OR_RETURN(listener_, listen_on(address_, 4096, options_.buffer_bytes));
  ASSIGN_OR_RETURN(const std::uint16_t port, local_port(listener_.get()));
  TRY(readiness_->add(listener_.get(), kListenerKey, true, false));
  print_ready(port);
  return {};
}

Result<> StreamLoop::prepare() {
  ASSIGN_OR_RETURN(address_, parse_address(options_.host, options_.port));
  if (role_ == Role::kServer) return prepare_server();
  stop_at_ns_ = stop_time_ns(options_);
  wanted_ = std::max<std::uint64_t>(options_.total_connections, options_.connections);
  for (std::uint32_t i = 0; i < options_.connections; ++i) open_client(now_ns());
  return {};
}

std::size_t StreamLoop::take_slot(UniqueFd fd, std::uint64_t now) {
  auto slot = std::make_unique<Slot>();
  slot->fd = std::move(fd);
  slot->progress_ns = now;
  ++alive_;
  ++opened_;
  const auto free_slot = std::ranges::find_if(slots_, [](const auto& held) { return held == nullptr; });
  const auto index = static_cast<std::size_t>(free_slot - slots_.begin());
  if (free_slot == slots_.end()) slots_.emplace_back();
  slots_[index] = std::move(slot);
  return index;
}

void StreamLoop::open_client(std::uint64_t now) {
  const StreamHeader header = make_header(options_, opened_);
  auto fd = start_connect(address_, options_.buffer_bytes);
  if (!fd) {
    ++opened_;
    report_.add_failure(fd.error().message());
    return;
  }
  const std::size_t index = take_slot(std::move(*fd), now);
  Slot& slot = *slots_[index];
  slot.connecting = true;
  slot.sender.emplace(Role::kClient, header, options_.behaviour, stop_at_ns_);
  slot.receiver.emplace(Role::kClient, header, options_.behaviour);
  if (const auto added = readiness_->add(slot.fd.get(), index + kFirstKey, true, true); !added) {
    end(index, added.error().message());
  }
}

void StreamLoop::accept_all(std::uint64_t now) {
  while (true) {
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    const std::size_t index = take_slot(std::move(fd), now);
    Slot& slot = *slots_[index];
    slot.header.emplace();
    slot.want_out = false;
    if (const auto added = readiness_->add(slot.fd.get(), index + kFirstKey, true, false); !added) {
      end(index, added.error().message());
    }
  }
}

// True when it may go on at once.
bool StreamLoop::header_step(Slot& slot) {
  slot.receiving = slot.header->step(slot.fd.get());
  if (slot.receiving != Step::kDone) return slot.receiving == Step::kProgress;
  slot.sender.emplace(Role::kServer, slot.header->header(), options_.behaviour, 0);
  slot.receiver.emplace(Role::kServer, slot.header->header(), options_.behaviour);
  slot.header.reset();
  slot.receiving = Step::kProgress;
  return true;
}

// One turn of a connection; true when it stopped only because its turn was over.
bool StreamLoop::steps(Slot& slot, std::uint64_t now) {
  for (int i = 0; i < kStepsPerTurn; ++i) {
    if (slot.header) {
      if (!header_step(slot)) return false;
      continue;
    }
    if (slot.receiving != Step::kDone) slot.receiving = slot.receiver->step(slot.fd.get(), slot.shared, now);
    if (slot.sending != Step::kDone) slot.sending = slot.sender->step(slot.fd.get(), slot.shared, now);
    if (slot.receiving == Step::kFailed || slot.sending == Step::kFailed) return false;
    if (slot.receiving == Step::kProgress || slot.sending == Step::kProgress) slot.progress_ns = now;
    // A direction that has just ended may let the other one go on (the server's end waits for the client's).
    const bool may_go_on = slot.receiving == Step::kProgress || slot.sending == Step::kProgress ||
                           (slot.receiving == Step::kDone && slot.sending == Step::kNoCredit);
    if (!may_go_on) return false;
  }
  return true;
}

void StreamLoop::drive(std::size_t index, std::uint64_t now) {
  Slot* slot = at(index);
  if (slot == nullptr) return;
  if (slot->connecting) {
    if (const int error = connect_error(slot->fd.get()); error != 0) {
      end(index, std::string("connect: ") + std::strerror(error));
      return;
    }
    slot->connecting = false;
  }
  const bool more = steps(*slot, now);
  if (slot->header && slot->receiving == Step::kFailed) {
    end(index, slot->header->failure);
  } else if (slot->receiver && slot->receiving == Step::kFailed) {
    end(index, slot->receiver->failure);
  } else if (slot->sender && slot->sending == Step::kFailed) {
    end(index, slot->sender->failure);
  } else if (slot->receiving == Step::kDone && slot->sending == Step::kDone) {
    end(index, "");
  } else {
    settle(index, more);
  }
}

// Asks for what the connection waits for now.
void StreamLoop::settle(std::size_t index, bool more) {
  Slot& slot = *slots_[index];
  if (slot.sender && slot.sending == Step::kPaused) next_tick_ns_ = std::min(next_tick_ns_, slot.sender->resume_at_ns);
  if (slot.receiver && slot.receiving == Step::kPaused) {
    next_tick_ns_ = std::min(next_tick_ns_, slot.receiver->resume_at_ns);
  }
  if (options_.loop == LoopKind::kEdge) {
    if (more && !slot.in_run_queue) run_queue_.push_back(index);
    slot.in_run_queue = more;
    return;
  }
  const auto waits = [](Step step) { return step == Step::kProgress || step == Step::kBlocked; };
  const bool want_in = waits(slot.receiving);
  const bool want_out = !slot.header && waits(slot.sending);
  if (want_in == slot.want_in && want_out == slot.want_out) return;
  slot.want_in = want_in;
  slot.want_out = want_out;
  const auto changed = readiness_->change(slot.fd.get(), index + kFirstKey, want_in, want_out);
  if (!changed) end(index, changed.error().message());
}

void StreamLoop::end(std::size_t index, std::string failure) {
  Slot& slot = *slots_[index];
  readiness_->remove(slot.fd.get());
  if (slot.sender && slot.receiver) {
    report_.add(*slot.sender, *slot.receiver, failure);
  } else {
    report_.add_failure(failure);
  }
  slots_[index].reset();
  --alive_;
  if (role_ == Role::kClient && opened_ < wanted_) open_client(now_ns());
}

// Looks at every connection: pauses that are over, streams whose time is up, stalls.
void StreamLoop::tick(std::uint64_t now) {
  next_tick_ns_ = now + kTickNs;
  const auto stall_limit_ns = static_cast<std::uint64_t>(options_.stall_limit_s * 1e9);
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    Slot* slot = at(i);
    if (slot == nullptr) continue;
    const bool paused = slot->sending == Step::kPaused || slot->receiving == Step::kPaused;
    if (!paused && slot->progress_ns + stall_limit_ns < now) {
      end(i, "no progress for " + std::to_string(options_.stall_limit_s) + " s");
    } else if (!slot->connecting && (paused || slot->sending == Step::kNoCredit)) {
      drive(i, now);
    }
  }
}

int StreamLoop::timeout_ms(std::uint64_t now) {
  if (!run_queue_.empty() || next_tick_ns_ <= now) return 0;
  return static_cast<int>((next_tick_ns_ - now + kNsPerMs - 1) / kNsPerMs);
}

bool StreamLoop::finished() const {
  if (role_ == Role::kClient) return alive_ == 0 && opened_ >= wanted_;
  return stop_ || (options_.exit_after_connections != 0 && report_.ended() >= options_.exit_after_connections);
}

Result<> StreamLoop::run() {
  TRY(prepare());
  std::vector<std::uint64_t> ready;
  while (!finished()) {
    TRY(readiness_->wait(timeout_ms(now_ns()), ready));
    const std::uint64_t now = now_ns();
    for (const std::uint64_t key : ready) {
      if (key == kListenerKey) accept_all(now);
      if (key == kSignalKey) stop_ = true;
      if (key >= kFirstKey) drive(key - kFirstKey, now);
    }
    for (std::size_t turns = run_queue_.size(); turns > 0; --turns) {
      const std::size_t index = run_queue_.front();
      run_queue_.pop_front();
      if (Slot* slot = at(index); slot != nullptr) slot->in_run_queue = false;
      drive(index, now);
    }
    if (now >= next_tick_ns_) tick(now);
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] != nullptr) end(i, "still open when the server was stopped");
  }
  return {};
}

}  // namespace

StreamHeader make_header(const StreamOptions& options, std::uint64_t index) {
  StreamHeader header;
  header.seed_up = mix64(options.seed + 2 * index);
  header.seed_down = mix64(options.seed + 2 * index + 1);
  header.bytes_up = options.bytes_up;
  header.bytes_down = options.bytes_down;
  header.request_bytes = options.request_bytes;
  header.response_bytes = options.response_bytes;
  if (options.duration_s > 0) {
    header.bytes_up = kUntilEnd;
    header.bytes_down = kUntilEnd;
  } else if (options.request_bytes != 0) {
    const std::uint64_t rounds = std::max<std::uint64_t>(1, options.bytes_up / options.request_bytes);
    header.bytes_up = rounds * options.request_bytes;
    header.bytes_down = rounds * options.response_bytes;
  }
  return header;
}

std::uint64_t stop_time_ns(const StreamOptions& options) {
  return options.duration_s > 0 ? now_ns() + static_cast<std::uint64_t>(options.duration_s * 1e9) : 0;
}

Result<> run_stream_loop(Role role, const StreamOptions& options, StreamReport& report) {
  ASSIGN_OR_RETURN(auto readiness, make_readiness(options.loop));
  StreamLoop loop(role, options, report, std::move(readiness));
  return loop.run();
}

}  // namespace twinstack::peers
