// B7 to B10: the identifiers and the state behind them, what crosses between the stacks, what the kernel keeps.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <thread>

#include "behaviour/behaviour_fixture.h"
#include "driver/view_json.h"

namespace twinstack::testing {
namespace {

using ipc::Owner;

constexpr unsigned kEstablished = 1;  // TCP_ESTABLISHED

TEST_F(Behaviour, B7_TheHardwareStateCanBeQueried) {
  const auto talk = open();
  EXPECT_FALSE(is_in_engine(*talk)) << "an answer for a connection of the kernel";
  to_engine(*talk);
  const ipc::HwConnState before = hardware(*talk);
  EXPECT_EQ(before.hw_conn_id, talk->served->slot().hw_conn_id.load());
  talk->exchange(30000);
  ipc::HwConnState after = hardware(*talk);
  // The last bytes may be read by the peer before its ACK is here.
  EXPECT_TRUE(eventually([&] { return after.min.snd_una == after.min.snd_nxt; }, [&] { after = hardware(*talk); }));
  EXPECT_EQ(after.info.bytes_received - before.info.bytes_received, 30000U);
  EXPECT_EQ(after.info.bytes_acked - before.info.bytes_acked, 30000U);
  EXPECT_EQ(after.min.rcv_nxt - before.min.rcv_nxt, 30000U);
  EXPECT_EQ(after.min.snd_una - before.min.snd_una, 30000U);
  EXPECT_GE(after.info.segs_in, before.info.segs_in + 1);
  EXPECT_GE(after.info.segs_out, before.info.segs_out + 1);
  EXPECT_GT(after.min.srtt_us, 0U);
  EXPECT_EQ(after.unread_bytes, 0U);
  ASSERT_EQ(talk->peer_sends(5000), 5000U);
  EXPECT_TRUE(eventually([&] { return hardware(*talk).unread_bytes == 5000; }));
  talk->settle();
}

TEST_F(Behaviour, B8_TheThreeIdentifiersResolveToEachOther) {
  const auto one = open();
  const auto two = open(true);
  to_engine(*one);
  to_engine(*two);
  for (const auto* each : {&one, &two}) {
    const Talk& talk = **each;
    const std::uint64_t cookie = talk.served->cookie();
    const std::uint64_t hw = talk.served->slot().hw_conn_id.load();
    // Kernel cookie -> socket and hardware id; hardware id -> socket and cookie; socket -> both.
    const auto by_cookie = service_->ask("ls", sk(talk))["connections"];
    const auto by_hardware = service_->ask("ls", "hw:" + driver::hex(hw))["connections"];
    ASSERT_EQ(by_cookie.size(), 1U);
    ASSERT_EQ(by_hardware.size(), 1U);
    for (const auto& found : {by_cookie[0], by_hardware[0]}) {
      EXPECT_EQ(found["slot"], talk.served->slot_index());
      EXPECT_EQ(found["tag"], talk.served->tag());
      EXPECT_EQ(found["fd"], talk.served->fd());
      EXPECT_EQ(found["sk"], driver::hex(cookie));
      EXPECT_EQ(found["hw"], driver::hex(hw));
    }
    EXPECT_EQ(hardware(talk).hw_conn_id, hw);
    EXPECT_EQ(talk.served->slot().kernel_cookie.load(), cookie);
  }
  const auto filter = "hw:" + driver::hex(one->served->slot().hw_conn_id.load());
  const auto cookie = sk(*one);
  ASSERT_TRUE(one->served->close().has_value());
  EXPECT_TRUE(eventually([&] { return one->served->slot().owner.load() % 256 == 0; }));
  EXPECT_TRUE(service_->ask("ls", filter)["connections"].empty());
  EXPECT_TRUE(service_->ask("ls", cookie)["connections"].empty());
  EXPECT_FALSE(is_in_engine(*one));
  EXPECT_TRUE(is_in_engine(*two));
}

void expect_same_connection(const tcp::MinTcp& min, const tcp_info& info) {
  const auto negotiated = [&](unsigned ours, unsigned kernels) {
    EXPECT_EQ((min.options & ours) != 0, (info.tcpi_options & kernels) != 0) << "option " << kernels;
  };
  negotiated(tcp::kOptTimestamps, TCPI_OPT_TIMESTAMPS);
  negotiated(tcp::kOptSack, TCPI_OPT_SACK);
  negotiated(tcp::kOptWindowScale, TCPI_OPT_WSCALE);
  EXPECT_EQ(min.snd_wscale, info.tcpi_snd_wscale);
  EXPECT_EQ(min.rcv_wscale, info.tcpi_rcv_wscale);
  const unsigned timestamps = (min.options & tcp::kOptTimestamps) != 0 ? 12 : 0;  // in every segment
  EXPECT_EQ(min.mss, info.tcpi_snd_mss + timestamps);
}

TEST_F(Behaviour, B9_OnlyMinTcpAndQueuesCross) {
  for (const bool v6 : {false, true}) {
    const auto talk = open(v6);
    talk->exchange(50000);
    ASSERT_EQ(talk->peer_sends(7000), 7000U);
    EXPECT_TRUE(eventually([&] { return line(*talk)["recv_q"] == 7000; }));
    const tcp_info before = info_of(talk->served->fd());
    to_engine(*talk);
    const ipc::HwConnState state = hardware(*talk);
    expect_same_connection(state.min, before);
    EXPECT_EQ(state.min.advmss, before.tcpi_advmss);
    EXPECT_EQ(state.min.version, tcp::kMinTcpVersion);
    EXPECT_EQ(state.unread_bytes, 7000U);
    // Counters of a stack are its own and stay behind: the engine's start from nothing.
    EXPECT_EQ(state.info.bytes_received, 0U);
    EXPECT_EQ(state.info.bytes_acked, 0U);
    talk->exchange(50000);
    // Its shell starts from nothing as well once it is parked.
    EXPECT_LE(info_of(talk->served->fd()).tcpi_bytes_received, before.tcpi_bytes_received) << "the kernel took part";
    const ipc::HwConnState last = hardware(*talk);
    to_kernel(*talk);
    talk->exchange(1000);
    const tcp_info after = info_of(talk->served->fd());
    expect_same_connection(last.min, after);
    EXPECT_EQ(after.tcpi_state, kEstablished);
    // Linux re-establishes without the deduction for timestamps: what it announced before, or that.
    EXPECT_THAT(after.tcpi_advmss, ::testing::AnyOf(before.tcpi_advmss, before.tcpi_advmss + 12));
  }
  expect_no_reset();
}

// Sets TCP_USER_TIMEOUT again and again while the kernel has the connection, as the socket layer would: inside the
// gate.
class OptionSetter {
 public:
  explicit OptionSetter(const RawConnection& served) : served_(served), thread_([this] { run(); }) {}
  ~OptionSetter() {
    stop_ = true;
    thread_.join();
  }
  OptionSetter(const OptionSetter&) = delete;
  OptionSetter& operator=(const OptionSetter&) = delete;

  [[nodiscard]] unsigned last() const { return last_; }

 private:
  void run() {
    ipc::OwnerGate gate(served_.slot());
    for (unsigned value = 100'000; !stop_; ++value) {
      ipc::Owner owner{};
      if (gate.enter(owner)) {
        if (owner == Owner::kKernel) set(value);
        gate.leave();
      }
      // Bursts, in which a move must not be made, and rests, in which it can be.
      if (value % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }
  void set(unsigned value) {
    ASSERT_EQ(::setsockopt(served_.fd(), IPPROTO_TCP, TCP_USER_TIMEOUT, &value, sizeof(value)), 0);
    last_ = value;
    served_.slot().option_changes.fetch_add(1);
  }

  const RawConnection& served_;
  std::atomic<unsigned> last_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

// The options are read before the program is held.
TEST_F(Behaviour, AnOptionThatIsSetWhileItMovesIsNotMissed) {
  const auto talk = open();
  const OptionSetter setter(*talk->served);
  for (int i = 0; i < 200; ++i) {
    to_engine(*talk);
    ASSERT_EQ(hardware(*talk).min.user_timeout_ms, setter.last()) << "move " << i;
    to_kernel(*talk);
  }
  talk->exchange(1000);
  expect_no_reset();
}

// Another socket cannot have the port, whatever the connection does meanwhile.
int bind_error(const NetnsPair& pair, std::uint16_t port) {
  const auto socket = pair.socket(Side::kB, AF_INET, SOCK_STREAM);
  if (!socket) return -1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  ::inet_pton(AF_INET, NetnsPair::address_v4(Side::kB).c_str(), &address.sin_addr);
  return ::bind(socket->get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
}

TEST_F(Behaviour, B10_TheKernelStateIsKeptAndHoldsThePorts) {
  for (const Opening opening : {Opening::kPassive, Opening::kActive}) {
    const auto talk = open(false, opening);
    talk->exchange(1000);
    const std::uint64_t cookie = talk->served->cookie();
    sockaddr_in local{};
    socklen_t length = sizeof(local);
    ASSERT_EQ(::getsockname(talk->served->fd(), reinterpret_cast<sockaddr*>(&local), &length), 0);
    const auto expect_kept = [&](const char* when) {
      EXPECT_EQ(bind_error(*pair_, ntohs(local.sin_port)), EADDRINUSE) << when;
      const std::string ss =
          shell(Side::kB, "ss -Htne state established sport = :" + std::to_string(ntohs(local.sin_port)));
      EXPECT_NE(ss.find("sk:" + driver::hex(cookie) + " "), std::string::npos) << when << ": " << ss;
      EXPECT_EQ(talk->served->cookie(), cookie) << when;
      EXPECT_EQ(info_of(talk->served->fd()).tcpi_state, kEstablished) << when;
    };
    expect_kept("before");
    for (int i = 0; i < 3; ++i) {
      to_engine(*talk);
      wait_until_parked(*talk);
      expect_kept("in the engine");
      talk->exchange(20000);
      expect_kept("in the engine, later");
      to_kernel(*talk);
      talk->exchange(20000);
      expect_kept("after the return");
    }
    // Marked while it is away: a stray write to it goes nowhere.
    to_engine(*talk);
    int repair = 0;
    socklen_t size = sizeof(repair);
    EXPECT_TRUE(eventually(
        [&] { return ::getsockopt(talk->served->fd(), IPPROTO_TCP, TCP_REPAIR, &repair, &size) == 0 && repair == 1; }));
    to_kernel(*talk);
    ASSERT_EQ(::getsockopt(talk->served->fd(), IPPROTO_TCP, TCP_REPAIR, &repair, &size), 0);
    EXPECT_EQ(repair, 0);
    talk->exchange(1000);
  }
  expect_no_reset();
}

}  // namespace
}  // namespace twinstack::testing
