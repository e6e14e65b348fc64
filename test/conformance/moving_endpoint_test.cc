// The host that moves: what becomes of small scripts on it, and of their marks.
#include "moving_endpoint.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "collection.h"
#include "parser.h"
#include "runner.h"

namespace twinstack::conformance {
namespace {

Script script_of(const std::string& text) {
  auto script = parse_script("s", "rfc: 1 1\nwants: x\n" + text);
  EXPECT_TRUE(script.has_value()) << script.error().message();
  return std::move(script.value());
}

Outcome run(const std::string& text, MovePlan plan = MovePlan::kRoundTrip) {
  MovingEndpoint host(false);
  return run_script(script_of(text), host, {.moves = plan});
}

long count(const Outcome& outcome, const std::string& what) {
  return std::ranges::count_if(outcome.trace, [&](const std::string& line) { return line.contains(what); });
}

Report report_of(const std::string& text, CollectionOptions options) {
  options.workers = 1;
  const std::vector<Script> scripts = {script_of(text)};
  const auto memory = options.forgets ? MovingEndpoint::Memory::kAsLinux : MovingEndpoint::Memory::kWhole;
  const auto reports = run_collection(
      scripts, [&]() -> Result<std::unique_ptr<Endpoint>> { return std::make_unique<MovingEndpoint>(false, memory); },
      options);
  EXPECT_TRUE(reports.has_value());
  Report out = reports->front();
  out.script = nullptr;
  return out;
}

constexpr const char* kTalk =
    "c = accepted\ninject PA 1+500 ack 1\nexpect A 1 ack 501\nsend c 100\nexpect PA 1+100 ack 501\n"
    "inject PA 501+500 ack 101\nrecv c 1000\nsend c 100\nexpect PA 101+100 ack 1001\n";

TEST(MovingEndpoint, AConnectionGoesAndComesBackUnderItsStream) {
  const Outcome there = run(kTalk, MovePlan::kAfterHandshake);
  EXPECT_EQ(there.verdict, Verdict::kPassed) << there.reason;
  EXPECT_EQ(there.moves, 1U);
  const Outcome back = run(kTalk);
  EXPECT_EQ(back.verdict, Verdict::kPassed) << back.reason;
  EXPECT_EQ(back.moves, 2U);
}

TEST(MovingEndpoint, TheHandOffTakesTheConnection) {
  MovingEndpoint host(false);
  ASSERT_TRUE(host.start({}).has_value());
  const SocketId listener = static_cast<SocketId>(host.socket());
  ASSERT_EQ(host.listen(listener, 1), 0);
  const auto refused = host.move(listener, Stack::kEngine);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotEligible);
  host.finish();
}

TEST(MovingEndpoint, TheEndOfAConnectionIsTheKernels) {
  const Outcome close = run("c = accepted\nclose c\nexpect FA 1 ack 1\n", MovePlan::kAfterHandshake);
  EXPECT_EQ(close.verdict, Verdict::kPassed) << close.reason;
  EXPECT_EQ(count(close, "back to the kernel: close"), 1);
  const Outcome fin =
      run("c = accepted\ninject FA 1 ack 1\nexpect A 1 ack 2\nrecv c 1 -> 0\n", MovePlan::kAfterHandshake);
  EXPECT_EQ(fin.verdict, Verdict::kPassed) << fin.reason;
  EXPECT_EQ(count(fin, "back to the kernel: peer-fin"), 1);
}

TEST(MovingEndpoint, AnOptionBringsItBackAndItMovesAgain) {
  const Outcome outcome =
      run("c = accepted\nsetsockopt c TCP_NODELAY 1\ncheck c state established\n", MovePlan::kAfterHandshake);
  EXPECT_EQ(outcome.verdict, Verdict::kPassed) << outcome.reason;
  EXPECT_EQ(count(outcome, "back to the kernel: setsockopt TCP_NODELAY"), 1);
  EXPECT_EQ(count(outcome, "to the engine again"), 1);
}

TEST(MovingEndpoint, UnreadBytesOfTheEngineMakeTheCloseAReset) {
  const Outcome outcome = run("c = accepted\ninject PA 1+10 ack 1\nexpect A 1 ack 11\nclose c\nexpect RA 1 ack 11\n",
                              MovePlan::kAfterHandshake);
  EXPECT_EQ(outcome.verdict, Verdict::kPassed) << outcome.reason;
}

// The second segment is lost with what the kernel has measured of the first.
constexpr const char* kTimeout =
    "c = accepted rtt 20ms\nsend c 10\nexpect PA 1+10 ack 1\n+220ms expect PA 1+10 ack 1\n";

TEST(Marks, WhatLinuxForgetsHasToShowAndMustNotElsewhere) {
  const std::string marked = std::string("forgotten: the timeout\n") + kTimeout;
  const Report seen = report_of(marked, {.moves = MovePlan::kRoundTrip});
  EXPECT_EQ(seen.outcome.verdict, Verdict::kPassed) << seen.outcome.reason;
  EXPECT_TRUE(seen.differs);
  const Report remembered = report_of(marked, {.moves = MovePlan::kRoundTrip, .forgets = false});
  EXPECT_EQ(remembered.outcome.verdict, Verdict::kPassed) << remembered.outcome.reason;
  EXPECT_FALSE(remembered.differs);
  const Report unmarked = report_of(kTimeout, {.moves = MovePlan::kRoundTrip});
  EXPECT_EQ(unmarked.outcome.verdict, Verdict::kFailed);
  const Report wrong = report_of(std::string("forgotten: nothing\n") + kTalk, {.moves = MovePlan::kRoundTrip});
  EXPECT_EQ(wrong.outcome.verdict, Verdict::kFailed) << "the mark is to go";
}

TEST(Marks, EachPlanHasItsOwn) {
  const std::string marked = std::string("round-trip: differs (so)\n") + kTalk;
  EXPECT_EQ(report_of(marked, {.moves = MovePlan::kAfterHandshake}).outcome.verdict, Verdict::kPassed);
  EXPECT_EQ(report_of(marked, {.moves = MovePlan::kRoundTrip}).outcome.verdict, Verdict::kFailed);
  const std::string not_run = std::string("after-handshake: no (so)\n") + kTalk;
  EXPECT_EQ(report_of(not_run, {.moves = MovePlan::kAfterHandshake}).outcome.verdict, Verdict::kSkipped);
  EXPECT_EQ(report_of(not_run, {.moves = MovePlan::kNone}).outcome.verdict, Verdict::kPassed);
}

}  // namespace
}  // namespace twinstack::conformance
