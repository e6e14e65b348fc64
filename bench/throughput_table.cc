// Goodput of one bulk transfer of the portable stack, which is our TCP core, over a simulated link: loss, round trip,
// bandwidth and congestion control. Virtual time and one seed for each row: the same sources give the same table, so
// that a slow-down shows as a difference from bench/throughput.txt.
//
//   throughput_table                 prints the table
//   throughput_table --check FILE    exit code 1 and the rows that differ when FILE is not what would be printed
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "stack/test_support.h"

namespace twinstack::stack::test {
namespace {

struct Row {
  std::string congestion;
  std::uint32_t rate_mbit = 0;
  std::uint32_t rtt_ms = 0;
  std::uint32_t loss_ppm = 0;
};

struct Result {
  double goodput_mbit = 0;
  double repeated_percent = 0;  // segments
  std::uint64_t timeouts = 0;
  double queue_ms = 0;  // srtt at the end, less the path's
};

constexpr std::uint32_t kMtu = 1500;

// A buffer of one bandwidth-delay product, 20 full packets at least.
std::uint32_t queue_bytes(const Row& row) {
  const std::uint64_t product = std::uint64_t{row.rate_mbit} * 125'000 * row.rtt_ms / 1000;
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(product, 20ULL * kMtu));
}

bool marks(const Row& row) { return row.congestion == "dctcp"; }

// Alizadeh et al. (SIGCOMM 2010) mark from 20 packets on at 1 Gbit/s; where the path is longer, a quarter of the queue.
std::uint32_t mark_bytes(const Row& row) {
  return std::min(std::max(queue_bytes(row) / 4, 20U * kMtu), queue_bytes(row) / 2);
}

// Long enough for a steady state, short enough for a table of many rows.
Duration length_of(const Row& row) { return row.rate_mbit >= 1000 ? seconds(4) : seconds(10); }

Config config_for(std::uint8_t last, const Row& row) {
  Config config = host_config(last);
  config.tcp_congestion_control = row.congestion;
  if (marks(row)) config.tcp_ecn = 1;
  config.tcp_rmem.max_bytes = config.tcp_wmem.max_bytes = 64U << 20;  // the window is not to be the limit
  return config;
}

Result measure(const Row& row) {
  TwoHosts net(1, config_for(1, row), config_for(2, row));
  net.keep = false;
  net.check_interval = 1024;
  net.faults.rate_bytes_s = std::uint64_t{row.rate_mbit} * 125'000;
  net.faults.delay = milliseconds(row.rtt_ms) / 2;
  net.faults.queue_bytes = queue_bytes(row);
  if (marks(row)) net.faults.mark_bytes = mark_bytes(row);
  const auto pair = net.connect(net.listen());
  net.faults.loss_ppm = row.loss_ppm;
  const Bytes text(256U << 10);
  Bytes room(1U << 20);
  std::uint64_t received = 0;
  const Time begin = net.now;
  const Time end = begin + length_of(row);
  while (net.now < end) {
    while (net.client().send(pair.client, text, 0, net.now) > 0) {
    }
    for (std::int64_t got = 0; (got = net.server().recv(pair.server, room, 0, net.now)) > 0;)
      received += static_cast<std::uint64_t>(got);
    if (!net.step(end)) break;
  }
  TcpInfo info;
  static_cast<void>(net.client().info(pair.client, info, net.now));
  const double took = std::chrono::duration<double>(end - begin).count();
  return {.goodput_mbit = static_cast<double>(received) * 8e-6 / took,
          .repeated_percent = 100.0 * info.total_retrans / std::max(info.segs_out, 1U),
          .timeouts = info.total_rto,
          .queue_ms = std::max(info.rtt_us / 1000.0 - row.rtt_ms, 0.0)};
}

void add_rows(std::vector<Row>& all, const char* congestion, const std::vector<std::uint32_t>& round_trips_ms) {
  for (const std::uint32_t rate_mbit : {10U, 100U, 1000U})
    for (const std::uint32_t rtt_ms : round_trips_ms)
      for (const std::uint32_t loss_ppm : {0U, 100U, 1000U, 10'000U, 30'000U})
        all.push_back({congestion, rate_mbit, rtt_ms, loss_ppm});
}

std::vector<Row> rows() {
  std::vector<Row> all;
  for (const char* congestion : {"cubic", "reno", "bbr"}) add_rows(all, congestion, {1, 10, 50, 200});
  add_rows(all, "dctcp", {1, 10});  // of a data centre
  return all;
}

std::string table() {
  std::string out =
      "# bench/throughput_table: one transfer, a queue of one bandwidth-delay product, loss each way; dctcp: marks\n";
  out += fmt::format("{:<8}{:>8}{:>8}{:>8}{:>12}{:>10}{:>10}{:>10}\n", "control", "Mbit/s", "rtt ms", "loss %",
                     "goodput", "again %", "timeouts", "queue ms");
  for (const Row& row : rows()) {
    const Result got = measure(row);
    out += fmt::format("{:<8}{:>8}{:>8}{:>8}{:>12.2f}{:>10.2f}{:>10}{:>10.1f}\n", row.congestion, row.rate_mbit,
                       row.rtt_ms, row.loss_ppm / 10'000.0, got.goodput_mbit, got.repeated_percent, got.timeouts,
                       got.queue_ms);
  }
  return out;
}

int check(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    fmt::print(stderr, "throughput_table: {} cannot be read\n", path);
    return 2;
  }
  std::istringstream now(table());
  bool same = true;
  std::string was, is;
  while (true) {
    const bool more_was = static_cast<bool>(std::getline(file, was));
    const bool more_is = static_cast<bool>(std::getline(now, is));
    if (!more_was && !more_is) break;
    if (more_was && more_is && was == is) continue;
    same = false;
    if (more_was) fmt::print("- {}\n", was);
    if (more_is) fmt::print("+ {}\n", is);
  }
  if (!same) fmt::print("If that is meant: build/release/bin/throughput_table > {}\n", path);
  return same ? 0 : 1;
}

}  // namespace
}  // namespace twinstack::stack::test

int main(int argc, char** argv) {
  CLI::App app{"Goodput of the TCP core over simulated links"};
  std::string checked;
  app.add_option("--check", checked, "compare with this file");
  CLI11_PARSE(app, argc, argv);
  if (!checked.empty()) return twinstack::stack::test::check(checked);
  fmt::print("{}", twinstack::stack::test::table());
  return 0;
}
