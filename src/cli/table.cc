#include "cli/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "driver/view_json.h"

namespace twinstack::cli {
namespace {

using Row = std::vector<std::string>;

std::string endpoint(const IpAddress& address, std::uint16_t port) {
  return address.is_v4() ? fmt::format("{}:{}", address.to_string(), port)
                         : fmt::format("[{}]:{}", address.to_string(), port);
}

std::string milliseconds_text(std::uint32_t us) { return us == 0 ? "-" : fmt::format("{:.3f}", us / 1000.0); }

std::string identifier(const char* kind, std::uint64_t id) { return id == 0 ? "-" : kind + driver::hex(id); }

std::string sent_and_received(std::uint64_t sent, std::uint64_t received) {
  return short_bytes(sent) + '/' + short_bytes(received);
}

std::string reason(const driver::ConnectionView& view) {
  const std::string text = printable(view.reason);
  if (!view.stays) return text.empty() ? "-" : text;
  return text.empty() ? "stays in the kernel" : text + " (stays)";
}

Row row_of(const driver::ConnectionView& view) {
  return {view.stack,
          printable(view.state),
          fmt::format("{}", view.receive_queue_bytes),
          fmt::format("{}", view.send_queue_bytes),
          endpoint(view.flow.local, view.flow.local_port),
          endpoint(view.flow.remote, view.flow.remote_port),
          fmt::format("{}(pid={},fd={})", printable(view.program), view.pid, view.program_fd),
          identifier("sk:", view.cookie),
          identifier("hw:", view.hw_conn_id),
          milliseconds_text(view.rtt_us),
          fmt::format("{}", view.cwnd_segments),
          fmt::format("{}/{}", view.offloads, view.uploads),
          sent_and_received(view.kernel_bytes_sent, view.kernel_bytes_received),
          sent_and_received(view.engine_bytes_sent, view.engine_bytes_received),
          view.last_return.empty() ? "-" : printable(view.last_return),
          reason(view)};
}

std::string pause_line(const char* name, const driver::PauseSummary& pause) {
  return fmt::format("  {:<8} {:>9} moves   pause p50 {:.1f} us  p99 {:.1f} us  max {:.1f} us\n", name, pause.count,
                     pause.p50_us, pause.p99_us, pause.max_us);
}

}  // namespace

std::string short_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{}", bytes);
  constexpr std::array<char, 6> kUnits = {'K', 'M', 'G', 'T', 'P', 'E'};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1000 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return value < 99.95 ? fmt::format("{:.1f}{}", value, kUnits[unit]) : fmt::format("{:.0f}{}", value, kUnits[unit]);
}

std::string printable(std::string_view text) {
  std::string out(text);
  // The C1 controls (80..9f) arrive as UTF-8 pairs c2 80..9f; a lone lead byte is harmless.
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<unsigned char>(out[i]);
    const bool c1 = i > 0 && static_cast<unsigned char>(out[i - 1]) == 0xc2 && byte >= 0x80 && byte <= 0x9f;
    if (byte < 0x20 || byte == 0x7f || c1) out[i] = '?';
    if (c1) out[i - 1] = '?';
  }
  return out;
}

std::string lay_out(const std::vector<Row>& rows, const std::vector<bool>& right_aligned) {
  std::vector<std::size_t> widths(right_aligned.size(), 0);
  for (const Row& row : rows) {
    ASSERT(row.size() == widths.size());
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool last = i + 1 == row.size();
      out += right_aligned[i] ? fmt::format("{:>{}}", row[i], widths[i])
                              : fmt::format("{:<{}}", row[i], last ? 0 : widths[i]);
      out += last ? "\n" : "  ";
    }
  }
  return out;
}

std::string connection_table(const std::vector<driver::ConnectionView>& connections) {
  std::vector<Row> rows = {{"Stack", "State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port", "Program",
                            "Sk", "Hw", "RTT ms", "Cwnd", "Out/In", "Kernel tx/rx", "Engine tx/rx", "Last return",
                            "Reason"}};
  for (const driver::ConnectionView& view : connections) rows.push_back(row_of(view));
  return lay_out(
      rows, {false, false, true, true, true, true, false, false, false, true, true, true, true, true, false, false});
}

std::string stats_text(const driver::ServiceStats& stats) {
  std::string out = fmt::format("sessions {}, connections {}, of them in the engine {}\n", stats.sessions,
                                stats.connections, stats.engine_connections);
  out += "moves\n" + pause_line("offload", stats.offload) + pause_line("upload", stats.upload);
  out += "interfaces\n";
  for (const auto& one : stats.interfaces) {
    out += fmt::format("  {:<16} {} queue{}, XDP {} ({})\n", one.name, one.queues, one.queues == 1 ? "" : "s", one.mode,
                       one.mode_reason);
  }
  out += "counters (those that are not 0; -j has all)\n";
  for (const auto& [name, value] : stats.counters) {
    if (value != 0) out += fmt::format("  {:<40} {:>15}\n", name, value);
  }
  return out;
}

}  // namespace twinstack::cli
