// Faults: the service stops under traffic or cannot start; programs that break the protocol or the rings. What must
// stay: the connections, and everybody else's session.
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "behaviour/behaviour_fixture.h"
#include "driver/view_json.h"
#include "kernel/capabilities.h"
#include "wire/build.h"
#include "wire/icmp.h"

namespace twinstack::testing {
namespace {

using ipc::Owner;

bool has_ended(pid_t pid) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

// src/kernel/capabilities.h has the list.
TEST_F(Behaviour, ExactlyTheCapabilitiesThatAreAskedForServe) {
  const auto bit = [](unsigned number) { return std::uint64_t{1} << number; };
  const std::uint64_t list =
      bit(CAP_NET_ADMIN) | bit(CAP_NET_RAW) | bit(CAP_BPF) | bit(CAP_PERFMON) | bit(CAP_IPC_LOCK);
  ASSERT_TRUE(kernel::missing_capabilities({.effective = list, .unlimited_memlock = false}, false).empty());
  application_.reset();
  service_.reset();
  ::testing::internal::CaptureStderr();
  auto service = ServiceProcess::start(*pair_, driver::Policy::kManual, options(), list);
  const std::string said = ::testing::internal::GetCapturedStderr();
  ASSERT_TRUE(service.has_value()) << said;
  EXPECT_EQ(said.find("libbpf"), std::string::npos) << said;
  service_ = std::move(*service);
  auto application = RawApplication::connect(service_->socket_path());
  ASSERT_TRUE(application.has_value()) << application.error().message();
  application_ = std::move(*application);
  for (const bool v6 : {false, true}) {
    const auto talk = open(v6);
    talk->exchange(5000);
    to_engine(*talk, true);
    talk->exchange(50000);
    to_kernel(*talk, true);
    talk->exchange(50000);
  }
  EXPECT_EQ(service_->counter("congestion_not_restored"), 0U);
  expect_no_reset();
}

TEST_F(Behaviour, StopUnderTrafficBringsAllHomeAndLeavesNothing) {
  std::vector<std::unique_ptr<Talk>> talks;
  for (int i = 0; i < 50; ++i) talks.push_back(open(i % 2 == 1));
  const auto step = [&] {
    for (const auto& talk : talks) talk->step(1000);
  };
  EXPECT_TRUE(eventually(
      [&] {
        service_->ask("offload", "all");
        return service_->ask("stats")["engine_connections"] == 50;
      },
      step));
  const auto maps = held_maps();
  ASSERT_FALSE(maps.empty());
  step();
  ASSERT_EQ(::kill(service_->pid(), SIGTERM), 0);
  EXPECT_TRUE(eventually([&] { return has_ended(service_->pid()); }, step));
  EXPECT_EQ(service_->stop(), 0);
  for (const auto& talk : talks) {
    EXPECT_EQ(talk->served->owner(), Owner::kKernel);
    EXPECT_EQ(talk->served->slot().hw_conn_id.load(), 0U);
  }
  EXPECT_EQ(application_->arena().header().service_state.load(), ipc::ServiceState::kStopped);
  for (int i = 0; i < 5; ++i) step();
  for (const auto& talk : talks) talk->settle();
  for (const auto& talk : talks) talk->exchange(5000);
  expect_no_reset();
  const std::string link = shell(Side::kB, "ip -j -d link show dev " + NetnsPair::interface(Side::kB));
  EXPECT_EQ(link.find("\"xdp\""), std::string::npos) << link;
  // The kernel frees maps and programs a grace period after their last descriptor.
  for (const int id : maps) {
    EXPECT_TRUE(eventually([&] {
      return shell(Side::kB, "bpftool map show id " + std::to_string(id)).find("Error") != std::string::npos;
    })) << "map "
        << id;
  }
}

// What Service::create() says; "" when it came up. In a child: it changes signals and starts threads.
std::string start_error(const driver::ServiceOptions& options) {
  std::array<int, 2> says{};
  EXPECT_EQ(::pipe(says.data()), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const auto service = driver::Service::create(options);
    const std::string text = service ? "" : service.error().message();
    [[maybe_unused]] const ssize_t written = ::write(says[1], text.data(), text.size());
    ::_exit(0);
  }
  ::close(says[1]);
  std::string text;
  std::array<char, 512> part{};
  for (ssize_t got = 0; (got = ::read(says[0], part.data(), part.size())) > 0;)
    text.append(part.data(), static_cast<std::size_t>(got));
  ::close(says[0]);
  ::waitpid(pid, nullptr, 0);
  return text;
}

// The route goes, and the kernel cannot take the connection (R14): the return is tried again and again, succeeds once
// there is a route, and nothing is reset.
TEST_F(Behaviour, AReturnWithoutARouteIsTriedUntilThereIsOne) {
  const auto talk = open();
  talk->exchange(20'000);
  to_engine(*talk);
  talk->exchange(20'000);
  shell(Side::kB, "ip link set ts-b0 down");
  talk->served_sends(5000);
  EXPECT_TRUE(eventually([&] { return service_->counter("upload_failed") >= 4; }));
  EXPECT_TRUE(is_in_engine(*talk));
  // More reasons for a return, while one is waiting: by command, and by the engine, which has heard nothing for long.
  service_->ask("upload", sk(*talk));
  EXPECT_TRUE(eventually([&] { return hardware(*talk).info.total_retrans >= 5; }));
  shell(Side::kB, "ip link set ts-b0 up");
  EXPECT_TRUE(eventually([&] { return talk->served->owner() == Owner::kKernel; }));
  talk->settle();
  talk->exchange(20'000);
  EXPECT_EQ(service_->counter("broken_streams"), 0U);
  expect_no_reset();
}

// "Too big" about the segment that begins at the connection's snd_una, from the peer's side of the link.
void send_packet_too_big(const NetnsPair& net, const tcp::MinTcp& state, std::uint32_t mtu) {
  wire::Segment segment;
  segment.seq = Seq(state.snd_una);
  segment.ack = Seq(state.rcv_nxt);
  segment.flags = wire::kAck;
  std::vector<std::byte> quoted(wire::ip_packet_header_bytes(state.flow, segment));
  wire::write_ip_headers(quoted, {}, state.flow, segment, 0);
  const wire::IcmpError error{.flow = {}, .seq = {}, .mtu = mtu, .kind = wire::IcmpKind::kTooBig, .code = 4};
  const auto message = wire::make_icmp_error(error, state.flow.remote, quoted);
  ASSERT_TRUE(net.in(Side::kA,
                     [&] {
                       sockaddr_ll to{};
                       to.sll_family = AF_PACKET;
                       to.sll_protocol = htons(state.flow.is_v4() ? ETH_P_IP : ETH_P_IPV6);
                       to.sll_ifindex = static_cast<int>(::if_nametoindex("ts-a0"));
                       to.sll_halen = ETH_ALEN;
                       std::memset(to.sll_addr, 0xff, ETH_ALEN);
                       const UniqueFd packets(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, to.sll_protocol));
                       EXPECT_EQ(::sendto(packets.get(), message.data(), message.size(), 0,
                                          reinterpret_cast<const sockaddr*>(&to), sizeof(to)),
                                 static_cast<ssize_t>(message.size()));
                     })
                  .has_value());
}

// The kernel, which does not know the connection, is told by a router that its segments are too big.
TEST_F(Behaviour, SegmentsThatARouterCannotForwardBecomeSmaller) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    const auto talk = open(v6);
    talk->exchange(20'000);
    to_engine(*talk);
    talk->exchange(20'000);
    // The peer's ACKs get lost, so that something is out.
    const std::string hole =
        std::string(v6 ? "-6 route {} blackhole fd77:0::2/128" : "route {} blackhole 10.77.0.2/32");
    const auto route = [&](const char* verb) {
      std::string command = "ip " + hole;
      command.replace(command.find("{}"), 2, verb);
      shell(Side::kA, command);
    };
    route("add");
    talk->served_sends(5000);
    EXPECT_TRUE(eventually([&] { return hardware(*talk).min.snd_nxt != hardware(*talk).min.snd_una; }));
    const std::uint64_t before = service_->counter("icmp_too_big");
    const std::uint32_t mtu = 1300;
    send_packet_too_big(*pair_, hardware(*talk).min, mtu);
    EXPECT_TRUE(eventually([&] { return service_->counter("icmp_too_big") == before + 1; }));
    EXPECT_EQ(hardware(*talk).min.mss, mtu - (v6 ? 60 : 40));
    route("del");
    talk->settle();
    talk->exchange(50'000);
    EXPECT_TRUE(is_in_engine(*talk));
    EXPECT_EQ(hardware(*talk).min.mss, mtu - (v6 ? 60 : 40));
    to_kernel(*talk);
    talk->exchange(50'000);
  }
  expect_no_reset();
}

// A link that swallows what is longer than the other end's MTU and tells nobody (RFC 4821). The kernel, which would not
// find out by itself, is told of the size.
TEST_F(Behaviour, ABlackHoleIsFoundAndTheSizeGoesAlong) {
  shell(Side::kB, "ethtool -K ts-b0 tso off gso off");  // veth measures no super-packets
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    const auto talk = open(v6);
    talk->exchange(20'000);
    to_engine(*talk);
    talk->exchange(20'000);
    shell(Side::kA, "ip link set ts-a0 mtu 1300");
    talk->served_sends(50'000);
    talk->settle();
    EXPECT_TRUE(is_in_engine(*talk));
    const std::uint16_t found = hardware(*talk).min.mss_found;
    EXPECT_GE(found, 1024);
    EXPECT_LE(found, 1300 - 40);
    to_kernel(*talk);
    EXPECT_LE(info_of(talk->served->fd()).tcpi_snd_mss, found);
    talk->exchange(50'000);
    to_engine(*talk);
    EXPECT_LE(hardware(*talk).min.mss_found, 1300 - 40);
    talk->exchange(50'000);
    shell(Side::kA, "ip link set ts-a0 mtu 1500");
  }
  expect_no_reset();
}

class ImpatientWithOrphans : public Behaviour {
 protected:
  [[nodiscard]] driver::ServiceOptions options() const override {
    driver::ServiceOptions options;
    options.orphan_patience = std::chrono::seconds(1);
    return options;
  }
};

// Without a route as above, but nobody has the connection any more: it is not tried for ever. One that a program still
// has is, and `ls` says why.
TEST_F(ImpatientWithOrphans, AReturnThatNobodyWaitsForIsGivenUp) {
  const auto kept = open();
  const auto closed = open();
  for (Talk* talk : {kept.get(), closed.get()}) {
    to_engine(*talk);
    talk->exchange(20'000);
  }
  shell(Side::kB, "ip link set ts-b0 down");
  EXPECT_TRUE(eventually([&] { return service_->counter("upload_failed") >= 4; }));
  const std::string reason = line(*kept)["reason"];
  EXPECT_NE(reason.find("the kernel does not take it"), std::string::npos) << reason;
  ::poll(nullptr, 0, 1100);  // what fails before the close does not count
  ASSERT_TRUE(closed->served->close().has_value());
  ::poll(nullptr, 0, 300);
  EXPECT_EQ(service_->counter("broken_streams"), 0U);
  EXPECT_TRUE(eventually([&] { return closed->served->owner() == Owner::kFree; }));
  EXPECT_EQ(service_->counter("broken_streams"), 1U);
  EXPECT_EQ(service_->ask("stats")["connections"], 1);
  EXPECT_TRUE(is_in_engine(*kept));
  shell(Side::kB, "ip link set ts-b0 up");
  EXPECT_TRUE(eventually([&] { return kept->served->owner() == Owner::kKernel; }));
  kept->exchange(20'000);
  const std::string back = line(*kept)["reason"];
  EXPECT_EQ(back.find("the kernel does not take it"), std::string::npos) << back;
}

TEST_F(Behaviour, AServiceThatCannotStartSaysWhy) {
  driver::ServiceOptions options;
  options.interfaces = {{.name = NetnsPair::interface(Side::kB), .netns = pair_->name(Side::kB)}};
  options.socket_path = service_->socket_path();
  const auto talk = open();
  to_engine(*talk);
  const std::string twice = start_error(options);
  EXPECT_NE(twice.find(service_->socket_path()), std::string::npos) << twice;
  options.socket_path += ".other";
  const std::string taken = start_error(options);  // another service has that interface
  EXPECT_NE(taken.find(NetnsPair::interface(Side::kB)), std::string::npos) << taken;
  options.interfaces[0].name = "ts-none9";
  const std::string missing = start_error(options);
  EXPECT_NE(missing.find("ts-none9"), std::string::npos) << missing;
  options.interfaces[0].netns = "ts-no-such-netns";
  const std::string nowhere = start_error(options);
  EXPECT_NE(nowhere.find("ts-no-such-netns"), std::string::npos) << nowhere;
  // The one that runs is unharmed.
  talk->exchange(20000);
  to_kernel(*talk);
  talk->exchange(20000);
}

// A hostile program beside an honest one, both with a connection in the engine.
class Hostile : public Behaviour {
 protected:
  void SetUp() override {
    Behaviour::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    auto connected = RawApplication::connect(service_->socket_path(), "hostile");
    ASSERT_TRUE(connected.has_value());
    hostile_ = std::move(*connected);
    honest_ = open();
    theirs_ = open(false, Opening::kPassive, hostile_.get());
    to_engine(*honest_);
    to_engine(*theirs_);
    honest_->exchange(3000);
    theirs_->exchange(3000);
  }

  // The session is over; the hostile program's connection lives on in the kernel, its peer is served there; the honest
  // one has noticed nothing.
  void expect_only_the_hostile_ended() {
    EXPECT_TRUE(eventually([&] { return hostile_->is_ended(); })) << "the session goes on";
    EXPECT_TRUE(eventually([&] { return theirs_->served->owner() == Owner::kFree; }));
    EXPECT_EQ(service_->counter("broken_sessions"), 1U);
    EXPECT_EQ(service_->ask("stats")["sessions"], 1);
    EXPECT_EQ(service_->ask("stats")["engine_connections"], 1);
    EXPECT_EQ(steered_flows(), 1U);
    for (const auto& [from, to] : {std::pair(theirs_->peer.get(), theirs_->served->fd()),
                                   std::pair(theirs_->served->fd(), theirs_->peer.get())}) {
      ASSERT_EQ(::send(from, "alive", 5, MSG_NOSIGNAL), 5);
      EXPECT_TRUE(eventually([&] { return look(to) == Seen::kBytes; }));
    }
    EXPECT_EQ(line(*honest_)["stack"], "engine");
    honest_->exchange(30000);
    to_kernel(*honest_);
    honest_->exchange(30000);
    expect_no_reset();
  }

  template <typename Message>
  static Message message(ipc::MessageType type) {
    Message made{};
    made.head = {.type = type, .size_bytes = sizeof(made)};
    return made;
  }

  std::unique_ptr<RawApplication> hostile_;
  std::unique_ptr<Talk> honest_;
  std::unique_ptr<Talk> theirs_;
};

TEST_F(Hostile, MessageOfAWrongSize) {
  auto close = message<ipc::Close>(ipc::MessageType::kClose);
  close.head.size_bytes = 4096;
  ASSERT_TRUE(hostile_->post(close).has_value());
  expect_only_the_hostile_ended();
}

TEST_F(Hostile, MessageCutShort) {
  ASSERT_TRUE(hostile_->post(std::uint32_t{3}).has_value());
  expect_only_the_hostile_ended();
}

TEST_F(Hostile, MessageOfAnUnknownType) {
  ASSERT_TRUE(hostile_->post(message<ipc::Close>(static_cast<ipc::MessageType>(999))).has_value());
  expect_only_the_hostile_ended();
}

TEST_F(Hostile, MessageWithAWrongTag) {
  auto close = message<ipc::Close>(ipc::MessageType::kClose);
  close.slot = theirs_->served->slot_index();
  close.tag = theirs_->served->tag() + 1;
  ASSERT_TRUE(hostile_->post(close).has_value());
  expect_only_the_hostile_ended();
}

// Slots are numbered per session: the honest one's slot 1 is none of the hostile one's.
TEST_F(Hostile, MessageForAnothersSlot) {
  const auto second = open();
  to_engine(*second);
  auto close = message<ipc::Close>(ipc::MessageType::kClose);
  close.slot = second->served->slot_index();
  close.tag = second->served->tag();
  ASSERT_NE(close.slot, theirs_->served->slot_index());
  ASSERT_TRUE(hostile_->post(close).has_value());
  EXPECT_TRUE(eventually([&] { return hostile_->is_ended(); }));
  EXPECT_EQ(line(*second)["stack"], "engine");
  second->exchange(5000);
  to_kernel(*second);
  expect_only_the_hostile_ended();
}

TEST_F(Hostile, RegistrationWithoutADescriptor) {
  auto registration = message<ipc::Register>(ipc::MessageType::kRegister);
  registration.slot = 100;
  ASSERT_TRUE(hostile_->post(registration).has_value());
  expect_only_the_hostile_ended();
}

TEST_F(Hostile, RegistrationOfASlotThatDoesNotExist) {
  auto registration = message<ipc::Register>(ipc::MessageType::kRegister);
  registration.slot = 0xffffffff;
  const int fd = theirs_->served->fd();
  ASSERT_TRUE(hostile_->post(registration, {&fd, 1}).has_value());
  expect_only_the_hostile_ended();
}

// A counter at its maximum in a descriptor that may block: whoever writes to it waits.
TEST_F(Hostile, DescriptorsThatBlockHoldNobodyUp) {
  const std::uint64_t most = ~std::uint64_t{0} - 1;
  const auto& events = hostile_->ring_events();
  for (std::uint32_t ring = 0; ring < events.size(); ++ring) {
    ::fcntl(events[ring].get(), F_SETFL, 0);
    EXPECT_EQ(::write(events[ring].get(), &most, sizeof(most)), -1);
    hostile_->arena().ring(ring).cq_need_wakeup.value.store(1);
  }
  theirs_->exchange(30000);
  honest_->exchange(30000);
  to_kernel(*theirs_);
  to_kernel(*honest_);
  expect_no_reset();
}

struct BadEntry {
  const char* name;
  void (*spoil)(ipc::SubmitEntry& entry, const ipc::ArenaGeometry& geometry);
};

class HostileRing : public Hostile, public ::testing::WithParamInterface<BadEntry> {};

TEST_P(HostileRing, EntryEndsTheSession) {
  const ipc::ConnSlot& slot = theirs_->served->slot();
  ipc::SubmitEntry entry{};
  entry.op = ipc::SubmitOp::kSend;
  entry.slot = theirs_->served->slot_index();
  entry.hw_conn_id = slot.hw_conn_id.load();
  entry.length = 100;
  GetParam().spoil(entry, hostile_->arena().geometry());
  hostile_->submit(slot.ring.load(), entry);
  expect_only_the_hostile_ended();
}

INSTANTIATE_TEST_SUITE_P(
    Entries, HostileRing,
    ::testing::Values(
        BadEntry{"Op", [](auto& entry, const auto&) { entry.op = static_cast<ipc::SubmitOp>(77); }},
        BadEntry{"IdOfNobody", [](auto& entry, const auto&) { entry.hw_conn_id += 1; }},
        BadEntry{"IdOfAnotherLane", [](auto& entry, const auto&) { entry.hw_conn_id |= std::uint64_t{0xff} << 56; }},
        BadEntry{"ChunkOfTheEngine", [](auto& entry, const auto& geometry) { entry.chunk = geometry.tx_chunk_count; }},
        BadEntry{"ChunkBeyondAll", [](auto& entry, const auto& geometry) { entry.chunk = geometry.chunk_count + 5; }},
        BadEntry{"Offset", [](auto& entry, const auto& geometry) { entry.offset = geometry.chunk_bytes; }},
        BadEntry{"OffsetThatWraps", [](auto& entry, const auto&) { entry.offset = 0xffffffff; }},
        BadEntry{"Length", [](auto& entry, const auto& geometry) { entry.length = geometry.chunk_bytes + 1; }}),
    [](const auto& entry) { return entry.param.name; });

}  // namespace
}  // namespace twinstack::testing
