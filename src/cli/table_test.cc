#include "cli/table.h"

#include <gtest/gtest.h>

#include "driver/filter.h"

namespace twinstack::cli {
namespace {

driver::ConnectionView moved() {
  driver::ConnectionView view;
  view.stack = "engine";
  view.state = "ESTAB";
  view.receive_queue_bytes = 5;
  view.send_queue_bytes = 1234;
  view.flow.local = *driver::parse_address("10.0.0.1");
  view.flow.local_port = 80;
  view.flow.remote = *driver::parse_address("10.0.0.2");
  view.flow.remote_port = 51000;
  view.program = "server";
  view.pid = 42;
  view.program_fd = 7;
  view.cookie = 0x1f;
  view.hw_conn_id = 0x100000002;
  view.rtt_us = 1500;
  view.cwnd_segments = 10;
  view.offloads = 3;
  view.uploads = 2;
  view.kernel_bytes_sent = 10;
  view.kernel_bytes_received = 2048;
  view.engine_bytes_sent = 3 * 1024 * 1024;
  return view;
}

driver::ConnectionView stays() {
  driver::ConnectionView view = moved();
  view.stack = "kernel";
  view.flow.local = *driver::parse_address("fd00::1");
  view.flow.remote = *driver::parse_address("fd00::2");
  view.hw_conn_id = 0;
  view.rtt_us = 0;
  view.reason = "urgent data";
  view.last_return = "by command";
  view.stays = true;
  return view;
}

TEST(ConnectionTable, IsLaidOutLikeSs) {
  EXPECT_EQ(
      connection_table({moved(), stays()}),
      "Stack   State  Recv-Q  Send-Q  Local Address:Port  Peer Address:Port  Program              Sk     Hw            "
      "RTT ms  Cwnd  Out/In  Kernel tx/rx  Engine tx/rx  Last return  Reason\n"
      "engine  ESTAB       5    1234         10.0.0.1:80     10.0.0.2:51000  server(pid=42,fd=7)  sk:1f  hw:100000002"
      "   1.500    10     3/2       10/2.0K        3.0M/0  -            -\n"
      "kernel  ESTAB       5    1234        [fd00::1]:80    [fd00::2]:51000  server(pid=42,fd=7)  sk:1f  -           "
      "       -    10     3/2       10/2.0K        3.0M/0  by command   urgent data (stays)\n");
}

TEST(ConnectionTable, HasAHeadWhenThereIsNothing) {
  const std::string text = connection_table({});
  EXPECT_EQ(text.find("Stack  State"), 0U);
  EXPECT_EQ(text.find('\n'), text.size() - 1);
}

TEST(ConnectionTable, StaysWithoutAReasonIsSaid) {
  driver::ConnectionView view = stays();
  view.reason.clear();
  EXPECT_NE(connection_table({view}).find("  stays in the kernel\n"), std::string::npos);
}

TEST(Printable, NothingReachesTheTerminalThatItObeys) {
  EXPECT_EQ(printable("a\x1b[31m\n\x7f"), "a?[31m??");
  EXPECT_EQ(printable("\xc2\x9b"
                      "x"),
            "??x");
  EXPECT_EQ(printable("gr\xc3\xbc\xc3\x9f"
                      "e"),
            "gr\xc3\xbc\xc3\x9f"
            "e");
  driver::ConnectionView view = moved();
  view.program = "\x1b]0;evil\x07";
  EXPECT_EQ(connection_table({view}).find('\x1b'), std::string::npos);
}

TEST(ShortBytes, KeepsThreeDigits) {
  EXPECT_EQ(short_bytes(0), "0");
  EXPECT_EQ(short_bytes(1023), "1023");
  EXPECT_EQ(short_bytes(1024), "1.0K");
  EXPECT_EQ(short_bytes(102400), "100K");
  EXPECT_EQ(short_bytes(999 * 1024), "999K");
  EXPECT_EQ(short_bytes(1023 * 1024), "1.0M");
  EXPECT_EQ(short_bytes(std::uint64_t{5} << 40), "5.0T");
  EXPECT_EQ(short_bytes(~std::uint64_t{0}), "16.0E");
}

TEST(StatsText, NamesWhatThereIs) {
  driver::ServiceStats stats;
  stats.connections = 2;
  stats.offload = {.count = 4, .p50_us = 5.25, .p99_us = 6.5, .max_us = 7.5};
  stats.counters = {{"late_packets", 3}, {"never_seen", 0}};
  stats.interfaces = {{.name = "eth0", .mode = "generic", .mode_reason = "asked for", .queues = 1}};
  const std::string text = stats_text(stats);
  EXPECT_NE(text.find("connections 2,"), std::string::npos);
  EXPECT_NE(text.find("4 moves   pause p50 5.2 us  p99 6.5 us  max 7.5 us"), std::string::npos) << text;
  EXPECT_NE(text.find("1 queue, XDP generic (asked for)"), std::string::npos);
  EXPECT_NE(text.find("late_packets"), std::string::npos);
  EXPECT_EQ(text.find("never_seen"), std::string::npos);
}

}  // namespace
}  // namespace twinstack::cli
