// A peer that falls silent: how long a connection lasts then is what the program has set, whoever serves it. A second
// connection that the kernel keeps stands beside the one that moves.
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>

#include "base/monotonic.h"
#include "behaviour/behaviour_fixture.h"

namespace twinstack::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Silence : public Behaviour {
 protected:
  struct End {
    int error = 0;
    Duration after{};
  };

  void open_both(const std::function<void(int fd)>& set_options) {
    for (auto* talk : {&moved_, &kept_}) {
      *talk = open();
      set_options((*talk)->served->fd());
      (*talk)->exchange(20'000);
    }
    to_engine(*moved_);
    for (auto* talk : {&moved_, &kept_}) (*talk)->exchange(20'000);
    // The peer's last ACK may be a delayed one.
    EXPECT_TRUE(eventually([&] {
      const tcp::MinTcp state = hardware(*moved_).min;
      return state.snd_una == state.write_seq && info_of(kept_->served->fd()).tcpi_unacked == 0;
    }));
  }
  void silence_peer() {
    shell(Side::kA, "ip route add blackhole 10.77.0.2/32");
    began_ = monotonic_now();
  }
  void wait_for_both() {
    EXPECT_TRUE(eventually([&] {
      note_end(*moved_, of_moved_);
      note_end(*kept_, of_kept_);
      return of_moved_.error != 0 && of_kept_.error != 0;
    }));
    EXPECT_EQ(of_moved_.error, ETIMEDOUT);
    EXPECT_EQ(of_kept_.error, ETIMEDOUT);
  }

  std::unique_ptr<Talk> moved_;
  std::unique_ptr<Talk> kept_;
  End of_moved_;
  End of_kept_;

 private:
  void note_end(const Talk& talk, End& end) const {
    pollfd ready{.fd = talk.served->fd(), .events = 0, .revents = 0};
    if (end.error != 0 || ::poll(&ready, 1, 0) != 1) return;
    socklen_t length = sizeof(end.error);
    ASSERT_EQ(::getsockopt(talk.served->fd(), SOL_SOCKET, SO_ERROR, &end.error, &length), 0);
    end.after = monotonic_now() - began_;
  }

  Time began_{};
};

void set(int fd, int level, int name, int value) { ASSERT_EQ(::setsockopt(fd, level, name, &value, sizeof(value)), 0); }

int user_timeout(int fd) {
  int value = 0;
  socklen_t length = sizeof(value);
  EXPECT_EQ(::getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &length), 0);
  return value;
}

// Later than in the kernel by a timeout of what is restored, or two seconds of keepalive; not by all of it again.
TEST_F(Silence, AUserTimeoutIsNotDoubledByTheReturn) {
  open_both([](int fd) { set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000); });
  silence_peer();
  moved_->served_sends(5000);
  kept_->served_sends(5000);
  wait_for_both();
  EXPECT_GT(of_moved_.after, of_kept_.after - milliseconds(500));
  EXPECT_LT(of_moved_.after, of_kept_.after + seconds(2));
}

TEST_F(Silence, NorIsKeepalive) {
  open_both([](int fd) {
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 2);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
  });
  silence_peer();
  wait_for_both();
  EXPECT_GT(of_moved_.after, of_kept_.after - milliseconds(500));
  EXPECT_LT(of_moved_.after, of_kept_.after + milliseconds(3500));
}

// The engine has given up, and before the kernel has the peer is there again.
TEST_F(Silence, APeerThatComesBackAtTheVeryEndFindsAllAsItWas) {
  // Time enough to speak in, on a busy machine too.
  shell(Side::kB, "ip route change 10.77.0.0/24 dev ts-b0 proto kernel scope link src 10.77.0.2 rto_min 2s");
  open_both([](int fd) { set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 1000); });
  silence_peer();
  moved_->served_sends(5000);
  EXPECT_TRUE(eventually([&] { return moved_->served->owner() == ipc::Owner::kKernel; }));
  shell(Side::kA, "ip route del blackhole 10.77.0.2/32");
  moved_->settle();
  moved_->exchange(20'000);
  EXPECT_TRUE(eventually([&] { return user_timeout(moved_->served->fd()) == 1000; }));
  moved_->exchange(20'000);
  expect_no_reset();
}

// Who is heard of in the last moment lives on, in the engine as in the kernel.
TEST_F(Silence, APeerThatComesBackInTimeKeepsTheConnection) {
  open_both([](int fd) { set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000); });
  silence_peer();
  moved_->served_sends(5000);
  kept_->served_sends(5000);
  EXPECT_FALSE(eventually([&] { return !is_in_engine(*moved_); }, {}, seconds(3)));
  shell(Side::kA, "ip route del blackhole 10.77.0.2/32");
  moved_->settle();
  kept_->settle();
  moved_->exchange(20'000);
  EXPECT_TRUE(is_in_engine(*moved_));
  expect_no_reset();
}

}  // namespace
}  // namespace twinstack::testing
