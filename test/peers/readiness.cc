// See readiness.h.
#include "readiness.h"

#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/unique_fd.h"

namespace twinstack::peers {
namespace {

class EpollReadiness final : public Readiness {
 public:
  EpollReadiness(UniqueFd epoll, bool edge) : epoll_(std::move(epoll)), edge_(edge) {}

  Result<> add(int fd, std::uint64_t key, bool want_in, bool want_out) override {
    return control(EPOLL_CTL_ADD, fd, key, want_in, want_out);
  }
  Result<> change(int fd, std::uint64_t key, bool want_in, bool want_out) override {
    return edge_ ? Result<>{} : control(EPOLL_CTL_MOD, fd, key, want_in, want_out);
  }
  void remove(int fd) override { (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

  Result<> wait(int timeout_ms, std::vector<std::uint64_t>& keys) override {
    keys.clear();
    std::array<epoll_event, 128> events{};
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
    if (count < 0 && errno != EINTR) return system_error("epoll_wait");
    for (int i = 0; i < count; ++i) keys.push_back(events[static_cast<std::size_t>(i)].data.u64);
    return {};
  }

 private:
  Result<> control(int operation, int fd, std::uint64_t key, bool want_in, bool want_out) {
    epoll_event event{};
    event.events = (want_in ? EPOLLIN | EPOLLRDHUP : 0U) | (want_out ? EPOLLOUT : 0U);
    if (edge_) event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.u64 = key;
    if (epoll_ctl(epoll_.get(), operation, fd, &event) != 0) return system_error("epoll_ctl");
    return {};
  }

  UniqueFd epoll_;
  bool edge_;
};

class PollReadiness final : public Readiness {
 public:
  Result<> add(int fd, std::uint64_t key, bool want_in, bool want_out) override {
    polled_.push_back({fd, events(want_in, want_out), 0});
    keys_.push_back(key);
    return {};
  }
  Result<> change(int fd, std::uint64_t /*key*/, bool want_in, bool want_out) override {
    find(fd)->events = events(want_in, want_out);
    return {};
  }
  void remove(int fd) override {
    const auto at = find(fd);
    keys_.erase(keys_.begin() + (at - polled_.begin()));
    polled_.erase(at);
  }
  Result<> wait(int timeout_ms, std::vector<std::uint64_t>& keys) override {
    keys.clear();
    const int count = poll(polled_.data(), polled_.size(), timeout_ms);
    if (count < 0 && errno != EINTR) return system_error("poll");
    for (std::size_t i = 0; count > 0 && i < polled_.size(); ++i) {
      // A paused connection asks for nothing, and poll would report its hang-up for ever.
      if (polled_[i].revents != 0 && polled_[i].events != 0) keys.push_back(keys_[i]);
    }
    return {};
  }

 private:
  static short events(bool want_in, bool want_out) {
    return static_cast<short>((want_in ? POLLIN : 0) | (want_out ? POLLOUT : 0));
  }
  std::vector<pollfd>::iterator find(int fd) {
    return std::ranges::find_if(polled_, [fd](const pollfd& p) { return p.fd == fd; });
  }

  std::vector<pollfd> polled_;
  std::vector<std::uint64_t> keys_;
};

}  // namespace

Result<std::unique_ptr<Readiness>> make_readiness(LoopKind kind) {
  if (kind == LoopKind::kPoll) return std::make_unique<PollReadiness>();
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error("epoll_create1");
  return std::make_unique<EpollReadiness>(std::move(epoll), kind == LoopKind::kEdge);
}

}  // namespace twinstack::peers
