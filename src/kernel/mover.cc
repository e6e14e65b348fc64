#include "kernel/mover.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include "wire/seq.h"

namespace twinstack::kernel::testing {

Result<Snapshot> Mover::freeze() {
  const auto eligible = costs.time("check_eligible", [&] { return conn->check_eligible(limits); });
  if (!eligible.has_value()) return std::unexpected(eligible.error());
  TRY(costs.time("attach_filter", [&] { return conn->attach_late_filter(); }));
  hold->set(true);
  return costs.time("freeze", [&] { return conn->freeze({receive_room, send_room}); });
}

Result<LateBytes> Mover::park(const Snapshot& frozen) {
  TRY(costs.time("wait", [&] { return wait_packets_in_flight(); }));
  unread.assign(frozen.unread.begin(), frozen.unread.end());
  return costs.time("park", [&] { return conn->park(receive_room); });
}

void Mover::inject_late() {
  const auto count = bench.shared.late_filter->poll([&](const LatePacket& packet) {
    if (packet.cookie != conn->cookie()) return;
    EXPECT_TRUE(ok(injector->inject(packet)));
  });
  ASSERT_TRUE(count.has_value());
  late_packets += *count;
  // While the hold is still on, or newer packets would overtake; what comes at the very end follows the switch.
  for (std::size_t more = 1; more > 0; held_packets += more) {
    const auto held = hold->inject(*injector);
    ASSERT_TRUE(ok(held));
    more = *held;
  }
  hold->set(false);
  const auto last = hold->inject(*injector);
  ASSERT_TRUE(ok(last));
  held_packets += *last;
}

Result<> Mover::round_trip(bool probe) {
  auto frozen = freeze();
  // kNoResource: more has arrived since the check than the room beyond the limit holds.
  const ErrorCode refused = frozen.has_value() ? ErrorCode::kSystem : frozen.error().code;
  if (refused == ErrorCode::kNotEligible || refused == ErrorCode::kNoResource) {
    if (++refusals > kMaxRefusals) return std::unexpected(frozen.error());
    ++reasons[refused == ErrorCode::kNoResource ? "no-room" : std::string(reason_name(conn->reason()))];
    TRY(conn->detach_late_filter());
    inject_late();
    pollfd wait{.fd = conn->fd(), .events = POLLIN, .revents = 0};  // until something has changed
    ::poll(&wait, 1, 1);
    return {};
  }
  if (!frozen.has_value()) return std::unexpected(frozen.error());
  ASSIGN_OR_RETURN(const LateBytes late, park(*frozen));
  return back(*frozen, late, probe);
}

Result<> Mover::back(const Snapshot& frozen, const LateBytes& late, bool probe) {
  tcp::MinTcp min = frozen.min;
  unread.insert(unread.end(), late.bytes.begin(), late.bytes.end());
  late_bytes += late.bytes.size();
  min.rcv_nxt += static_cast<std::uint32_t>(late.bytes.size());
  // Both spans are one, [snd_una, write_seq); the kernel may have moved the marks in it.
  min.snd_una = max(Seq(min.snd_una), Seq(late.snd_una)).raw();
  min.snd_nxt = max(Seq(min.snd_nxt), Seq(late.snd_nxt)).raw();
  const std::span<const std::byte> all(frozen.unacked.data(), min.write_seq - frozen.min.snd_una);
  const auto unacked = all.subspan(min.snd_una - frozen.min.snd_una, min.snd_nxt - min.snd_una);
  const auto unsent = all.subspan(min.snd_nxt - frozen.min.snd_una);
  with_unread += !unread.empty();
  with_unacked += !unacked.empty();
  with_unsent += !unsent.empty();
  ASSIGN_OR_RETURN(const RestoreReport restored,
                   costs.time("restore", [&] { return conn->restore(min, {unread, unacked}); }));
  congestion_failed += !restored.congestion_restored;
  ASSIGN_OR_RETURN(const ReleaseReport released, costs.time("release", [&] { return conn->release(unsent, probe); }));
  const auto rest = unsent.subspan(released.unsent_taken_bytes);
  pending.insert(pending.begin(), rest.begin(), rest.end());
  inject_late();
  ++moves;
  return {};
}

bool Mover::write_pending(int fd) {
  if (pending.empty()) return true;
  const ssize_t sent = ::send(fd, pending.data(), pending.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0) pending.erase(pending.begin(), pending.begin() + sent);
  return pending.empty();
}

void Mover::print(const std::string& title) {
  fmt::print("{} moves, {} refused; with unread {}, unacked {}, unsent {}; late packets {}, late bytes {}, held {}\n",
             moves, refusals, with_unread, with_unacked, with_unsent, late_packets, late_bytes, held_packets);
  for (const auto& [name, count] : reasons) fmt::print("  refused: {} {}\n", name, count);
  for (const Side side : {Side::kA, Side::kB}) {
    fmt::print("  {}: retransmitted {}, timeouts {}, loss probes {}, out of order {}\n",
               side == Side::kA ? "ours" : "peer", bench.counter(side, "Tcp", "RetransSegs"),
               bench.counter(side, "TcpExt", "TCPTimeouts"), bench.counter(side, "TcpExt", "TCPLossProbes"),
               bench.counter(side, "TcpExt", "TCPOFOQueue"));
  }
  costs.print(title);
}

void MoveTest::SetUp() {
  if (const std::string reason = NetnsPair::why_unavailable(); !reason.empty()) GTEST_SKIP() << reason;
  auto made = Bench::create();
  ASSERT_TRUE(made.has_value()) << made.error().message();
  bench_ = std::move(*made);
}

void MoveTest::make(Mover& mover, Family family, bool passive) {
  auto connected = bench_->connect(family, passive);
  ASSERT_TRUE(connected.has_value()) << connected.error().message();
  connection_ = std::move(*connected);
  auto conn = bench_->take(connection_.ours.get());
  ASSERT_TRUE(conn.has_value()) << conn.error().message();
  mover.conn = std::move(*conn);
  auto injector = WireInjector::open(bench_->pair());
  ASSERT_TRUE(injector.has_value()) << injector.error().message();
  mover.injector = std::move(*injector);
  auto hold = IngressHold::attach(bench_->pair());
  ASSERT_TRUE(hold.has_value()) << hold.error().message();
  mover.hold = std::move(*hold);
}

std::uint64_t MoveTest::both(const std::string& group, const std::string& name) const {
  return bench_->counter(Side::kA, group, name) + bench_->counter(Side::kB, group, name);
}

std::uint64_t MoveTest::resets() const { return both("Tcp", "OutRsts"); }

bool MoveTest::wait_for(int fd, short events) {
  pollfd wait{.fd = fd, .events = events, .revents = 0};
  return ::poll(&wait, 1, 5000) == 1;
}

}  // namespace twinstack::kernel::testing
