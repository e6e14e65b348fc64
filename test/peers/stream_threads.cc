// See stream_threads.h.
#include "stream_threads.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>
#include <vector>

#include "sockets.h"
#include "stream_loop.h"

namespace twinstack::peers {
namespace {

constexpr int kPollMs = 100;

Result<> set_timeouts(int fd, double seconds) {
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(seconds);
  limit.tv_usec = static_cast<suseconds_t>((seconds - static_cast<double>(limit.tv_sec)) * 1e6);
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    if (setsockopt(fd, SOL_SOCKET, option, &limit, sizeof limit) != 0) return system_error("setsockopt(SO_*TIMEO)");
  }
  return {};
}

void sleep_until_ns(std::uint64_t when_ns) {
  const std::uint64_t now = now_ns();
  if (when_ns > now) std::this_thread::sleep_for(std::chrono::nanoseconds(when_ns - now));
}

// One connection: the receiver in the calling thread, the sender in a thread of its own.
class ThreadedStream {
 public:
  ThreadedStream(UniqueFd fd, Role role, const StreamHeader& header, const StreamOptions& options,
                 std::uint64_t stop_ns)
      : fd_(std::move(fd)),
        sender_(role, header, options.behaviour, stop_ns),
        receiver_(role, header, options.behaviour) {}

  void run(StreamReport& report) {
    std::thread sending([this] { send_all(); });
    receive_all();
    sending.join();
    report.add(sender_, receiver_, receiver_.failure.empty() ? sender_.failure : receiver_.failure);
  }

 private:
  // A failed direction ends the other one too.
  void give_up() { (void)shutdown(fd_.get(), SHUT_RDWR); }

  void receive_all() {
    Step step = Step::kProgress;
    while (step != Step::kDone && step != Step::kFailed) {
      step = receiver_.step(fd_.get(), shared_, now_ns());
      if (step == Step::kPaused) sleep_until_ns(receiver_.resume_at_ns);
      if (step == Step::kBlocked) {
        receiver_.failure = "no byte came within the stall limit";
        step = Step::kFailed;
      }
      if (step == Step::kFailed) give_up();
      const std::lock_guard lock(mutex_);
      ended_ = step == Step::kDone || step == Step::kFailed;
      received_.notify_one();
    }
  }

  void send_all() {
    Step step = Step::kProgress;
    while (step != Step::kDone && step != Step::kFailed) {
      const std::uint64_t seen = shared_.received_bytes.load(std::memory_order_acquire);
      step = sender_.step(fd_.get(), shared_, now_ns());
      if (step == Step::kPaused) sleep_until_ns(sender_.resume_at_ns);
      if (step == Step::kNoCredit && !wait_for_more(seen)) {
        sender_.failure = "the other direction failed";
        step = Step::kFailed;
      }
      if (step == Step::kBlocked) {
        sender_.failure = "no byte was taken within the stall limit";
        step = Step::kFailed;
      }
      if (step == Step::kFailed) give_up();
    }
  }

  // Until more was received, the other direction has ended, or a moment is over. False: it failed.
  bool wait_for_more(std::uint64_t seen_bytes) {
    std::unique_lock lock(mutex_);
    received_.wait_for(lock, std::chrono::milliseconds(kPollMs), [this, seen_bytes] {
      return ended_ || shared_.received_bytes.load(std::memory_order_acquire) != seen_bytes;
    });
    return !shared_.failed.load(std::memory_order_acquire);
  }

  UniqueFd fd_;
  Sender sender_;
  Receiver receiver_;
  Shared shared_;
  std::mutex mutex_;
  std::condition_variable received_;
  bool ended_ = false;  // guarded by mutex_
};

void serve_connection(UniqueFd fd, const StreamOptions& options, StreamReport& report) {
  if (const auto set = set_timeouts(fd.get(), options.stall_limit_s); !set) {
    report.add_failure(set.error().message());
    return;
  }
  HeaderReader reader;
  Step step = Step::kProgress;
  while (step == Step::kProgress) step = reader.step(fd.get());
  if (step != Step::kDone) {
    report.add_failure(step == Step::kBlocked ? "no header within the stall limit" : reader.failure);
    return;
  }
  ThreadedStream stream(std::move(fd), Role::kServer, reader.header(), options, 0);
  stream.run(report);
}

Result<> run_server(const StreamOptions& options, StreamReport& report) {
  ASSIGN_OR_RETURN(const UniqueFd signals, stop_signals_fd());
  ASSIGN_OR_RETURN(const Address address, parse_address(options.host, options.port));
  ASSIGN_OR_RETURN(const UniqueFd listener, listen_on(address, 4096, options.buffer_bytes));
  ASSIGN_OR_RETURN(const std::uint16_t port, local_port(listener.get()));
  print_ready(port);
  std::vector<std::jthread> threads;
  std::array<pollfd, 2> polled{pollfd{listener.get(), POLLIN, 0}, pollfd{signals.get(), POLLIN, 0}};
  const auto finished = [&] {
    return options.exit_after_connections != 0 && report.ended() >= options.exit_after_connections;
  };
  while (!finished()) {
    if (poll(polled.data(), polled.size(), kPollMs) < 0 && errno != EINTR) return system_error("poll");
    if ((polled[1].revents & POLLIN) != 0) break;
    UniqueFd fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) continue;
    threads.emplace_back(
        [&options, &report, fd = std::move(fd)]() mutable { serve_connection(std::move(fd), options, report); });
  }
  return {};  // the threads are joined: each ends within the stall limit
}

Result<> run_client(const StreamOptions& options, StreamReport& report) {
  (void)signal(SIGPIPE, SIG_IGN);
  ASSIGN_OR_RETURN(const Address address, parse_address(options.host, options.port));
  const std::uint64_t stop_ns = stop_time_ns(options);
  const std::uint64_t wanted = std::max<std::uint64_t>(options.total_connections, options.connections);
  std::atomic<std::uint64_t> next{0};
  const auto work = [&] {
    for (std::uint64_t index = next++; index < wanted; index = next++) {
      auto fd = connect_blocking(address, options.buffer_bytes);
      const auto set = fd ? set_timeouts(fd->get(), options.stall_limit_s) : Result<>{};
      if (!fd || !set) {
        report.add_failure(!fd ? fd.error().message() : set.error().message());
        continue;
      }
      ThreadedStream stream(std::move(*fd), Role::kClient, make_header(options, index), options, stop_ns);
      stream.run(report);
    }
  };
  std::vector<std::jthread> threads;
  for (std::uint32_t i = 0; i < options.connections; ++i) threads.emplace_back(work);
  return {};
}

}  // namespace

Result<> run_stream_threads(Role role, const StreamOptions& options, StreamReport& report) {
  return role == Role::kServer ? run_server(options, report) : run_client(options, report);
}

}  // namespace twinstack::peers
