// B16 to B18 and B20: no room, returns from either side, and every way in which a connection can end.
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "behaviour/behaviour_fixture.h"
#include "driver/view_json.h"
#include "engine/device.h"
#include "kernel/kernel_conn.h"

namespace twinstack::testing {
namespace {

using driver::Json;
using ipc::Owner;

class SmallEngine : public Behaviour {
 protected:
  [[nodiscard]] driver::ServiceOptions options() const override {
    driver::ServiceOptions options;
    options.max_connections = 2;
    return options;
  }
};

TEST_F(SmallEngine, B16_NoSlotLeavesItInSoftwareUnharmed) {
  std::vector<std::unique_ptr<Talk>> talks;
  for (int i = 0; i < 4; ++i) talks.push_back(open());
  to_engine(*talks[0]);
  to_engine(*talks[1]);
  for (std::size_t i = 2; i < 4; ++i) {
    ASSERT_GT(talks[i]->peer_sends(3000), 0U);
    const Json reply = service_->ask("offload", sk(*talks[i]));
    EXPECT_EQ(reply["moved"], 0) << reply.dump();
    ASSERT_EQ(reply["refused"].size(), 1U);
    EXPECT_FALSE(reply["refused"][0]["reason"].get<std::string>().empty());
    EXPECT_EQ(line(*talks[i])["reason"], reply["refused"][0]["reason"]);
    EXPECT_EQ(line(*talks[i])["stack"], "kernel");
    EXPECT_EQ(talks[i]->served->slot().hw_conn_id.load(), 0U);
  }
  for (const auto& talk : talks) talk->exchange(20000);
  // A slot that is free again serves the next one.
  to_kernel(*talks[0]);
  to_engine(*talks[2]);
  for (const auto& talk : talks) talk->exchange(20000);
  expect_no_reset();
}

// Chunks of the application: unread bytes of some connections take them all.
TEST_F(Behaviour, B16_NoMemoryLeavesItInSoftwareUnharmed) {
  constexpr std::size_t kUnread = 12U << 20;
  constexpr std::size_t kMostTalks = 10;  // of 128 MiB each may take half of what is left
  const auto other = open();
  to_engine(*other);
  std::vector<std::unique_ptr<Talk>> talks;
  Json reply;
  for (;;) {
    talks.push_back(open());
    Talk& talk = *talks.back();
    const int room = 32 << 20;
    ASSERT_EQ(::setsockopt(talk.served->fd(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room), 0);
    ASSERT_EQ(::setsockopt(talk.peer.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room), 0);
    const auto send_all = [&] {
      while (talk.to_served_sent < kUnread && talk.peer_sends(1U << 20) > 0) {
      }
      return talk.to_served_sent >= kUnread;
    };
    ASSERT_TRUE(eventually(send_all));
    ASSERT_TRUE(eventually([&] {
      int unread = 0;
      return ::ioctl(talk.served->fd(), FIONREAD, &unread) == 0 &&
             static_cast<std::size_t>(unread) == talk.to_served_sent;
    }));
    reply = service_->ask("offload", sk(talk));
    if (reply["moved"] == 0) break;
    ASSERT_LE(talks.size(), kMostTalks);
  }
  ASSERT_GT(talks.size(), 2U);
  Talk& refused = *talks.back();
  ASSERT_EQ(reply["refused"].size(), 1U) << reply.dump();
  EXPECT_EQ(reply["refused"][0]["reason"], engine::to_string(engine::Status::kNoChunk));
  EXPECT_EQ(line(refused)["reason"], reply["refused"][0]["reason"]);
  EXPECT_EQ(line(refused)["stack"], "kernel");
  EXPECT_EQ(refused.served->slot().hw_conn_id.load(), 0U);
  EXPECT_GT(service_->counter("offload_failed"), 0U);
  other->exchange(300'000);
  EXPECT_TRUE(is_in_engine(*other));
  // Memory that is free again serves the next one.
  talks[0]->settle();
  to_engine(refused);
  for (const auto& talk : talks) {
    talk->settle();
    talk->exchange(20000);
  }
  expect_no_reset();
}

// Asked of the kernel when `ls` asks: nothing has been tried.
TEST_F(Behaviour, LsTellsWhatStandsAgainstAMove) {
  const auto talk = open();
  EXPECT_EQ(line(*talk)["reason"], "");
  const auto pace = [&](std::uint32_t bytes_per_second) {
    ASSERT_EQ(
        ::setsockopt(talk->served->fd(), SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_per_second, sizeof(bytes_per_second)),
        0);
  };
  pace(1'000'000);
  EXPECT_EQ(line(*talk)["reason"], kernel::reason_text(kernel::Reason::kPacing));
  EXPECT_EQ(line(*talk)["stays"], false);
  pace(UINT32_MAX);
  EXPECT_EQ(line(*talk)["reason"], "");
  EXPECT_EQ(line(*talk)["last_return"], "");
  EXPECT_EQ(service_->counter("offload_refused"), 0U);
  to_engine(*talk);
  EXPECT_EQ(line(*talk)["reason"], "");
}

TEST_F(Behaviour, B17_EitherSideCanStartAReturn) {
  for (const bool v6 : {false, true}) {
    const auto talk = open(v6);
    to_engine(*talk);
    // The driver, by command.
    to_kernel(*talk);
    EXPECT_EQ(line(*talk)["last_return"], "by command");
    EXPECT_EQ(line(*talk)["reason"], "") << "nothing stands against another move";
    talk->exchange(10000);
    // The application.
    to_engine(*talk);
    ASSERT_TRUE(talk->served->request_upload("setsockopt", false).has_value());
    talk->expect_owner(Owner::kKernel);
    EXPECT_EQ(line(*talk)["last_return"], "setsockopt");
    EXPECT_EQ(line(*talk)["reason"], "");
    EXPECT_EQ(line(*talk)["stays"], false);
    talk->exchange(10000);
    // The engine: what it does not carry goes back.
    to_engine(*talk);
    talk->exchange(10000);
    ASSERT_EQ(::shutdown(talk->peer.get(), SHUT_WR), 0);
    talk->expect_owner(Owner::kKernel);
    EXPECT_TRUE(eventually([&] { return line(*talk)["state"] == "CLOSE-WAIT"; })) << line(*talk).dump();
    EXPECT_EQ(line(*talk)["stays"], true);
    EXPECT_NE(line(*talk)["reason"], "");
    EXPECT_EQ(line(*talk)["reason"], line(*talk)["last_return"]);
    // Half closed: the other direction goes on, in the kernel.
    talk->served_sends(30000);
    EXPECT_TRUE(eventually([&] { return talk->to_peer_read == talk->to_peer_sent; }, [&] { talk->peer_reads(); }));
  }
  // To stay is for good.
  const auto talk = open();
  to_engine(*talk);
  ASSERT_TRUE(talk->served->request_upload("shutdown", true).has_value());
  talk->expect_owner(Owner::kKernel);
  EXPECT_EQ(service_->ask("offload", sk(*talk))["refused"].size(), 1U);
  expect_no_reset();
}

// An order that would be undone at once is refused in words, not called a move.
TEST_F(Behaviour, AConnectionOnItsWayBackIsNotOffloaded) {
  const auto talk = open();
  driver::Json answer = driver::Json::object();
  for (int i = 0; i < 10 && answer.value("refused", driver::Json::array()).empty(); ++i) {
    to_engine(*talk);
    // The peer's ACKs get lost, so that the way back begins with waiting for them, five milliseconds at least.
    shell(Side::kA, "ip route add blackhole 10.77.0.2/32");
    ASSERT_GT(talk->served_sends(100), 0U);
    EXPECT_TRUE(eventually([&] { return hardware(*talk).min.snd_nxt != hardware(*talk).min.snd_una; }));
    (void)service_->ask("upload", sk(*talk));
    answer = service_->ask("offload", sk(*talk));
    shell(Side::kA, "ip route del blackhole 10.77.0.2/32");
    talk->settle();
  }
  ASSERT_EQ(answer["refused"].size(), 1U);
  EXPECT_NE(answer.dump().find("on its way back"), std::string::npos) << answer.dump();
  talk->expect_owner(Owner::kKernel);
  to_engine(*talk);
  talk->exchange(1000);
  expect_no_reset();
}

TEST_F(Behaviour, B17_TheKernelCannotRefuseAReturn) {
  const auto talk = open();
  // With full queues on both sides, in the middle of traffic.
  for (int round = 0; round < 5 && !HasFailure(); ++round) {
    to_engine(*talk, true);
    for (int i = 0; i < 50; ++i) {
      talk->peer_sends(65536);
      talk->served_sends(16384);
    }
    to_kernel(*talk);
    talk->settle();
  }
  EXPECT_EQ(service_->counter("upload_failed"), 0U);
  EXPECT_EQ(service_->counter("uploads"), 5U);
  expect_no_reset();
}

// The engine knows no urgent data: what came before it is the program's, the byte itself the kernel's.
TEST_F(Behaviour, B18_UrgentDataSendsItToTheKernel) {
  for (const bool v6 : {false, true}) {
    const auto talk = open(v6);
    to_engine(*talk);
    talk->exchange(10000);
    ASSERT_EQ(::send(talk->peer.get(), "U", 1, MSG_OOB), 1);
    talk->expect_owner(Owner::kKernel);
    char byte = 0;
    EXPECT_TRUE(eventually([&] { return ::recv(talk->served->fd(), &byte, 1, MSG_OOB) == 1; }));
    EXPECT_EQ(byte, 'U');
    talk->exchange(10000);
  }
  expect_no_reset();
}

struct Ending {
  const char* name;
  bool in_engine;
  bool v6;
};

class Endings : public Behaviour, public ::testing::WithParamInterface<Ending> {
 protected:
  std::unique_ptr<Talk> begin() {
    auto talk = open(GetParam().v6);
    talk->exchange(3000);
    if (GetParam().in_engine) to_engine(*talk);
    talk->exchange(3000);
    return talk;
  }

  // What the program's reads find at the end of the stream, in order, nothing left out.
  std::vector<std::string> reads_until_end(Talk& talk) {
    std::vector<std::string> seen;
    std::array<std::byte, 4096> bytes;
    EXPECT_TRUE(eventually([&] { return seen.size() >= 2; },
                           [&] {
                             application_->drain();
                             const auto got = talk.served->receive(bytes);
                             if (!got)
                               seen.push_back(got.error().system_errno == ECONNRESET ? "reset" : got.error().message());
                             else if (*got)
                               seen.push_back(**got == 0 ? "end" : "bytes");
                           }));
    return seen;
  }

  void expect_freed(Talk& talk) {
    EXPECT_TRUE(eventually([&] { return talk.served->owner() == Owner::kFree; }));
    EXPECT_EQ(talk.served->slot().hw_conn_id.load(), 0U);
    expect_nothing_left();
  }
};

TEST_P(Endings, B18_PeerCloses) {
  const auto talk = begin();
  talk->peer_sends(2000);
  ASSERT_EQ(::shutdown(talk->peer.get(), SHUT_WR), 0);
  talk->settle();
  EXPECT_EQ(reads_until_end(*talk), (std::vector<std::string>{"end", "end"}));
  EXPECT_EQ(talk->served->owner(), Owner::kKernel);
  EXPECT_EQ(talk->served->slot().hw_conn_id.load(), 0U);
  EXPECT_EQ(steered_flows(), 0U);
  ASSERT_TRUE(talk->served->close().has_value());
  expect_freed(*talk);
  Seen seen = Seen::kNothing;
  EXPECT_TRUE(eventually([&] { return (seen = look(talk->peer.get())) != Seen::kNothing; }));
  EXPECT_EQ(seen, Seen::kEnd);
  expect_no_reset();
}

TEST_P(Endings, B18_PeerResets) {
  const auto talk = begin();
  const linger now{.l_onoff = 1, .l_linger = 0};
  ASSERT_EQ(::setsockopt(talk->peer.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
  talk->peer.reset();
  EXPECT_EQ(reads_until_end(*talk), (std::vector<std::string>{"reset", "end"}));  // the program is told once
  EXPECT_EQ(talk->served->owner(), Owner::kKernel);
  EXPECT_EQ(talk->served->slot().hw_conn_id.load(), 0U);
  ASSERT_TRUE(talk->served->close().has_value());
  expect_freed(*talk);
  EXPECT_EQ(counter(Side::kB, "TcpOutRsts"), 0U);
}

TEST_P(Endings, B18_ProgramCloses) {
  const auto talk = begin();
  const std::size_t last = talk->served_sends(5000);  // is delivered before the FIN
  ASSERT_GT(last, 0U);
  ASSERT_TRUE(talk->served->close().has_value());
  EXPECT_TRUE(eventually([&] { return talk->to_peer_read == talk->to_peer_sent; }, [&] { talk->peer_reads(); }));
  Seen seen = Seen::kNothing;
  EXPECT_TRUE(eventually([&] { return (seen = look(talk->peer.get())) != Seen::kNothing; }));
  EXPECT_EQ(seen, Seen::kEnd);
  expect_freed(*talk);
  expect_no_reset();
}

TEST_P(Endings, B18_ProgramClosesWithUnreadData) {
  const auto talk = begin();
  ASSERT_EQ(talk->peer_sends(2000), 2000U);
  EXPECT_TRUE(eventually([&] { return line(*talk)["recv_q"] == 2000; }));
  ASSERT_TRUE(talk->served->close().has_value());
  Seen seen = Seen::kNothing;
  EXPECT_TRUE(eventually([&] { return (seen = look(talk->peer.get())) != Seen::kNothing; }));
  EXPECT_EQ(seen, Seen::kReset) << "RFC 2525 2.17: unread data was thrown away, the peer must know";
  expect_freed(*talk);
  EXPECT_EQ(counter(Side::kB, "TcpOutRsts"), 1U);
}

INSTANTIATE_TEST_SUITE_P(Stacks, Endings,
                         ::testing::Values(Ending{"Kernel", false, false}, Ending{"EngineIPv4", true, false},
                                           Ending{"EngineIPv6", true, true}),
                         [](const auto& ending) { return ending.param.name; });

// A program that has two connections, one with bytes that it has not read, waits to be killed.
class DyingProgram {
 public:
  static constexpr std::uint64_t kSeed = 20;

  DyingProgram(const std::string& path, UniqueFd one, UniqueFd two) {
    std::array<int, 2> line{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      auto application = RawApplication::connect(path, "dying");
      if (!application) ::_exit(1);
      const auto first = (*application)->adopt(std::move(one));
      const auto second = (*application)->adopt(std::move(two));
      char order = 0;
      if (!first || !second || ::write(line[1], "r", 1) != 1 || ::read(line[1], &order, 1) != 1) ::_exit(1);
      const std::uint64_t bytes = write_all_it_takes(**first);
      if (::write(line[1], &bytes, sizeof bytes) != sizeof bytes) ::_exit(1);
      for (;;) ::pause();
    }
    ::close(line[1]);
    line_.reset(line[0]);
    char byte = 0;
    EXPECT_EQ(::read(line_.get(), &byte, 1), 1);
  }
  DyingProgram(const DyingProgram&) = delete;
  DyingProgram& operator=(const DyingProgram&) = delete;
  ~DyingProgram() { kill(); }

  // Has it write to its first connection until no more is taken; returns how many bytes.
  std::uint64_t write() {
    std::uint64_t bytes = 0;
    EXPECT_EQ(::write(line_.get(), "w", 1), 1);
    EXPECT_EQ(::read(line_.get(), &bytes, sizeof bytes), static_cast<ssize_t>(sizeof bytes));
    return bytes;
  }

  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  static std::uint64_t write_all_it_takes(RawConnection& connection) {
    std::array<std::byte, 10'000> block;
    std::uint64_t sent = 0;
    for (int refused = 0; refused < 20;) {
      fill_stream(kSeed, sent, block);
      const std::size_t taken = connection.send(block).value_or(0);
      sent += taken;
      if (taken > 0) continue;
      ++refused;
      ::poll(nullptr, 0, 5);
    }
    return sent;
  }

  pid_t pid_ = -1;
  UniqueFd line_;
};

TEST_F(Behaviour, B20_ADeadProgramsConnectionsEndAsTheKernelWouldEndThem) {
  for (const bool in_engine : {false, true}) {
    auto idle = connect_pair(*pair_, false);
    auto unread = connect_pair(*pair_, true);
    ASSERT_TRUE(idle.has_value() && unread.has_value());
    DyingProgram program(service_->socket_path(), std::move(idle->served), std::move(unread->served));
    idle->served.reset();
    unread->served.reset();
    EXPECT_TRUE(eventually([&] { return service_->ask("ls", "program dying")["connections"].size() == 2; }));
    if (in_engine) {
      EXPECT_TRUE(eventually([&] {
        service_->ask("offload", "program dying");
        return service_->ask("stats")["engine_connections"] == 2;
      }));
    }
    ASSERT_EQ(::send(unread->peer.get(), "unread", 6, 0), 6);
    EXPECT_TRUE(eventually([&] {
      const auto all = service_->ask("ls", "program dying")["connections"];
      return all[0]["recv_q"] == 6 || all[1]["recv_q"] == 6;
    }));
    program.kill();
    Seen seen = Seen::kNothing;
    EXPECT_TRUE(eventually([&] { return (seen = look(idle->peer.get())) != Seen::kNothing; }));
    EXPECT_EQ(seen, Seen::kEnd) << "in engine: " << in_engine;
    seen = Seen::kNothing;
    EXPECT_TRUE(eventually([&] { return (seen = look(unread->peer.get())) != Seen::kNothing; }));
    EXPECT_EQ(seen, Seen::kReset) << "in engine: " << in_engine;
    expect_nothing_left();
    EXPECT_TRUE(eventually([&] { return service_->ask("stats")["sessions"] == 1; }));  // ours alone
  }
}

// What it has written is sent to the last byte before the end is told.
TEST_F(Behaviour, B20_WhatADeadProgramHasWrittenArrives) {
  for (const bool in_engine : {false, true}) {
    auto writer = connect_pair(*pair_, false);
    auto other = connect_pair(*pair_, true);
    ASSERT_TRUE(writer.has_value() && other.has_value());
    DyingProgram program(service_->socket_path(), std::move(writer->served), std::move(other->served));
    writer->served.reset();
    other->served.reset();
    EXPECT_TRUE(eventually([&] {
      if (in_engine) service_->ask("offload", "program dying");
      const auto all = service_->ask("ls", "program dying")["connections"];
      return all.size() == 2 && (!in_engine || service_->ask("stats")["engine_connections"] == 2);
    }));
    const std::uint64_t written = program.write();
    EXPECT_GT(written, 100'000U) << "more than the peer's window: part of it is not even sent";
    program.kill();
    std::array<std::byte, 65536> room;
    std::uint64_t read = 0;
    ssize_t got = -1;
    EXPECT_TRUE(eventually([&] {
      while ((got = ::recv(writer->peer.get(), room.data(), room.size(), MSG_DONTWAIT)) > 0) {
        EXPECT_EQ(check_stream(DyingProgram::kSeed, read, std::span(room).first(static_cast<std::size_t>(got))), -1);
        read += static_cast<std::uint64_t>(got);
      }
      return got == 0;
    })) << "errno "
        << errno;
    EXPECT_EQ(read, written) << "in engine: " << in_engine;
    Seen seen = Seen::kNothing;
    EXPECT_TRUE(eventually([&] { return (seen = look(other->peer.get())) != Seen::kNothing; }));
    EXPECT_EQ(seen, Seen::kEnd);
    writer->peer.reset();
    other->peer.reset();
    expect_nothing_left();
  }
}

}  // namespace
}  // namespace twinstack::testing
