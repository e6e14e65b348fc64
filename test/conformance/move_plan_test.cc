// Moves that break their connection: a host whose every return does, and what is made of it, whatever the script wants.
#include <gtest/gtest.h>

#include <cerrno>

#include "collection.h"
#include "core_endpoint.h"
#include "packet.h"
#include "parser.h"
#include "runner.h"

namespace twinstack::conformance {
namespace {

enum class Break : std::uint8_t { kNothing, kFails, kLosesWhatComes, kLosesItsData, kKeepsWhatCame, kResets };

// One stack, which stands for both. From the first return on it has broken.
class BreakingHost final : public CoreEndpoint {
 public:
  explicit BreakingHost(Break how) noexcept : CoreEndpoint(false), how_(how) {}

  Result<> start(std::span<const std::pair<std::string, std::string>> settings) override {
    broken_ = false;
    return CoreEndpoint::start(settings);
  }
  Result<> move(SocketId socket, Stack to) override {
    if (to == Stack::kEngine) return {};
    if (how_ == Break::kFails) return error(ErrorCode::kBroken, "no way back");
    if (how_ == Break::kResets) reset(socket);
    broken_ = true;
    return {};
  }
  void inject(ByteView packet) override {
    if (!is(Break::kLosesWhatComes)) CoreEndpoint::inject(packet);
  }
  std::optional<SentPacket> take_sent() override {
    const auto has_data = [](const SentPacket& sent) { return !read_packet(sent.bytes)->payload.empty(); };
    if (is(Break::kLosesItsData)) std::erase_if(sent_, has_data);
    return CoreEndpoint::take_sent();
  }
  CallResult receive(SocketId socket, std::span<std::byte> room, int flags) override {
    return is(Break::kKeepsWhatCame) ? -EAGAIN : CoreEndpoint::receive(socket, room, flags);
  }

 private:
  [[nodiscard]] bool is(Break how) const noexcept { return broken_ && how_ == how; }
  void reset(SocketId socket) {
    (void)CoreEndpoint::set_option(socket, "SO_LINGER", 0, {});
    (void)stack_->close(socket, now_);
  }

  Break how_;
  bool broken_ = false;
};

// Does not see what breaks: it is over too soon.
constexpr const char* kShort = "c = accepted\ninject PA 1+500 ack 1\nexpect A 1 ack 501\ncheck c state established\n";

Script broken_script(const std::string& text) {
  auto script = parse_script("s", "rfc: 1 1\nwants: x\n" + text);
  EXPECT_TRUE(script.has_value()) << script.error().message();
  return std::move(script.value());
}

std::string damage(Break how, MovePlan plan, const std::string& text = kShort) {
  BreakingHost host(how);
  const Outcome outcome = run_script(broken_script(text), host, {.moves = plan});
  EXPECT_EQ(outcome.verdict, outcome.damage.empty() ? Verdict::kPassed : Verdict::kFailed);
  return outcome.damage;
}

class EveryBreak : public testing::TestWithParam<MovePlan> {};

TEST_P(EveryBreak, IsSeenBehindAScriptThatIsOverTooSoon) {
  EXPECT_EQ(damage(Break::kNothing, GetParam()), "");
  EXPECT_TRUE(damage(Break::kFails, GetParam()).ends_with("no way back"));
  EXPECT_EQ(damage(Break::kLosesWhatComes, GetParam()), "the host takes no more of the peer's stream");
  EXPECT_EQ(damage(Break::kLosesItsData, GetParam()), "0 of 100 bytes were sent");
  EXPECT_EQ(damage(Break::kKeepsWhatCame, GetParam()), "600 bytes are acknowledged, 0 were read");
  EXPECT_EQ(damage(Break::kResets, GetParam()), "the host has reset it");
}

INSTANTIATE_TEST_SUITE_P(Plans, EveryBreak, testing::Values(MovePlan::kRoundTrip, MovePlan::kAnywhere));

// What ends a connection is no damage, nor what nobody can read any more.
TEST(Damage, IsNotWhatAnUnmovedConnectionSuffersAsWell) {
  for (const char* text :
       {"c = accepted\ninject PA 1+10 ack 1\nexpect A 1 ack 11\ninject R 11\ncheck c state closed\n",
        "c = accepted\nsend c 10\nexpect PA 1+10 ack 1\nclose c\nexpect FA 11 ack 1\ninject PA 1+5 ack 12\n"
        "expect R 12\n",
        "c = accepted\nshutdown c wr\nexpect FA 1 ack 1\ninject FA 1 ack 2\nexpect A 2 ack 2\n"}) {
    EXPECT_EQ(damage(Break::kNothing, MovePlan::kRoundTrip, text), "") << text;
    EXPECT_EQ(damage(Break::kNothing, MovePlan::kAnywhere, text), "") << text;
  }
}

Verdict marked_verdict(const std::string& mark, Break how, const CollectionOptions& options) {
  const std::vector<Script> scripts = {broken_script(mark + kShort)};
  const auto make = [how]() -> Result<std::unique_ptr<Endpoint>> { return std::make_unique<BreakingHost>(how); };
  const auto reports = run_collection(scripts, make, options);
  EXPECT_TRUE(reports.has_value());
  return reports->front().outcome.verdict;
}

TEST(Damage, IsNothingThatAMarkMeans) {
  for (const char* mark : {"round-trip: differs (so)\n", "forgotten: so\n", "moves: differs (so)\n"}) {
    const CollectionOptions options{.moves = MovePlan::kRoundTrip, .workers = 1};
    EXPECT_EQ(marked_verdict(mark, Break::kFails, options), Verdict::kFailed);
    EXPECT_EQ(marked_verdict(mark, Break::kKeepsWhatCame, options), Verdict::kFailed);
  }
}

TEST(Damage, HasAMarkOfItsOwnWhereLinuxForgets) {
  const std::string mark = "forgotten-anywhere: so\n";
  CollectionOptions options{.moves = MovePlan::kAnywhere, .workers = 1};
  EXPECT_EQ(marked_verdict(mark, Break::kKeepsWhatCame, options), Verdict::kPassed);
  EXPECT_EQ(marked_verdict(mark, Break::kNothing, options), Verdict::kFailed) << "the mark is to go";
  options.forgets = false;
  EXPECT_EQ(marked_verdict(mark, Break::kKeepsWhatCame, options), Verdict::kFailed);
}

}  // namespace
}  // namespace twinstack::conformance
