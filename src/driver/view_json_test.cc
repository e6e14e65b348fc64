#include "driver/view_json.h"

#include <gtest/gtest.h>

#include "driver/filter.h"

namespace twinstack::driver {
namespace {

ConnectionView full_view() {
  ConnectionView view;
  view.session = 3;
  view.slot = 7;
  view.tag = 9;
  view.cookie = 0xfedcba9876543210;
  view.hw_conn_id = 0x100000002;
  view.pid = 4711;
  view.uid = 33;
  view.program = "server";
  view.program_fd = 12;
  view.flow.local = *parse_address("10.0.0.1");
  view.flow.local_port = 80;
  view.flow.remote = *parse_address("fd00::2");
  view.flow.remote_port = 65535;
  view.interface = "eth0";
  view.stack = "engine";
  view.state = "ESTAB";
  view.reason = "because";
  view.last_return = "by command";
  view.stays = true;
  view.rtt_us = 1;
  view.rttvar_us = 2;
  view.rto_us = 3;
  view.cwnd_segments = 4;
  view.ssthresh_segments = 5;
  view.mss = 6;
  view.receive_queue_bytes = 7;
  view.send_queue_bytes = 8;
  view.retransmits = 9;
  view.offloads = 10;
  view.uploads = 11;
  view.kernel_bytes_sent = 12;
  view.kernel_bytes_received = 13;
  view.engine_bytes_sent = 14;
  view.engine_bytes_received = 15;
  return view;
}

// Every field has a value of its own, so that a field that is lost or swapped shows in the second JSON text.
TEST(ViewJson, ConnectionComesBackWhole) {
  const std::string text = to_line(to_json(full_view()));
  const Result<ConnectionView> back = connection_from_json(Json::parse(text));
  ASSERT_TRUE(back.has_value()) << back.error().message();
  EXPECT_EQ(to_line(to_json(*back)), text);
  EXPECT_EQ(back->cookie, 0xfedcba9876543210U);
  EXPECT_EQ(back->flow, full_view().flow);
  EXPECT_EQ(back->program_fd, 12);
  EXPECT_EQ(back->engine_bytes_received, 15U);
}

TEST(ViewJson, IdentifiersAreHexadecimalTextAsFiltersTakeThem) {
  const Json json = to_json(full_view());
  EXPECT_EQ(json["sk"], "fedcba9876543210");
  const auto filter = parse_filter("sk:" + json["sk"].get<std::string>() + " hw:" + json["hw"].get<std::string>());
  ASSERT_TRUE(filter.has_value());
  EXPECT_TRUE((*filter)(full_view()));
}

TEST(ViewJson, MissingOrMalformedFieldsAreNamed) {
  const Json whole = to_json(full_view());
  for (const auto& [name, value] : whole.items()) {
    Json json = whole;
    json.erase(name);
    EXPECT_EQ(connection_from_json(json).error().code, ErrorCode::kProtocol) << name;
    json[name] = Json::array();
    const auto wrong = connection_from_json(json);
    ASSERT_FALSE(wrong.has_value()) << name;
    EXPECT_EQ(wrong.error().what, "'" + name + "' is missing in the service's answer or malformed");
  }
  Json json = whole;
  json["local_port"] = 65536;
  EXPECT_FALSE(connection_from_json(json).has_value());
  json["local_port"] = -1;
  EXPECT_FALSE(connection_from_json(json).has_value());
  EXPECT_FALSE(connection_from_json(Json::array()).has_value());
}

TEST(ViewJson, BytesThatAreNoUtf8DoNotStopTheReply) {
  ConnectionView view = full_view();
  view.program = "a\xff\n";
  EXPECT_NE(to_line(to_json(view)).find("\"a\xef\xbf\xbd\\n\""), std::string::npos);
}

TEST(ViewJson, OutcomeComesBackWhole) {
  const MoveOutcome outcome{.matched = 5, .moved = 2, .already = 1, .refused = {{0x10, "no slot"}, {0x11, "urgent"}}};
  const Result<MoveOutcome> back = outcome_from_json(to_json(outcome));
  ASSERT_TRUE(back.has_value()) << back.error().message();
  EXPECT_EQ(back->matched, 5U);
  EXPECT_EQ(back->moved, 2U);
  EXPECT_EQ(back->already, 1U);
  EXPECT_EQ(back->refused, outcome.refused);
  EXPECT_FALSE(outcome_from_json(Json::parse(R"({"matched":1,"moved":1,"already":0,"refused":[{"sk":"1"}]})")));
}

TEST(ViewJson, StatsComeBackWholeAndInOrder) {
  ServiceStats stats;
  stats.sessions = 1;
  stats.connections = 2;
  stats.engine_connections = 3;
  stats.offload = {.count = 4, .p50_us = 5.5, .p99_us = 6.5, .max_us = 7.5};
  stats.upload = {.count = 8, .p50_us = 9.5, .p99_us = 10, .max_us = 11};
  stats.counters = {{"zebra", 1}, {"ant", 2}};
  stats.interfaces = {{.name = "eth0", .mode = "generic", .mode_reason = "veth", .queues = 2}};
  const std::string text = to_line(to_json(stats));
  const Result<ServiceStats> back = stats_from_json(Json::parse(text));
  ASSERT_TRUE(back.has_value()) << back.error().message();
  EXPECT_EQ(to_line(to_json(*back)), text);
  EXPECT_EQ(back->counters, stats.counters);
  Json broken = Json::parse(text);
  broken["counters"]["ant"] = "many";
  EXPECT_FALSE(stats_from_json(broken).has_value());
  broken = Json::parse(text);
  broken["upload"].erase("p99_us");
  EXPECT_FALSE(stats_from_json(broken).has_value());
}

}  // namespace
}  // namespace twinstack::driver
