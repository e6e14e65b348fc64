#include "driver/view_json.h"

#include <fmt/format.h>

#include <charconv>
#include <type_traits>
#include <utility>

#include "driver/filter.h"

namespace twinstack::driver {
namespace {

// Reads fields out of one JSON object; remembers the first that is missing or of a wrong type.
class Reader {
 public:
  explicit Reader(const Json& json) : json_(json) {
    if (!json.is_object()) fail("an object");
  }

  void read(const char* name, std::string& out) {
    const Json* field = find(name);
    if (field == nullptr) return;
    if (!field->is_string()) return fail(name);
    out = field->get_ref<const std::string&>();
  }

  void read(const char* name, bool& out) {
    const Json* field = find(name);
    if (field == nullptr) return;
    if (!field->is_boolean()) return fail(name);
    out = field->get<bool>();
  }

  void read(const char* name, double& out) {
    const Json* field = find(name);
    if (field == nullptr) return;
    if (!field->is_number()) return fail(name);
    out = field->get<double>();
  }

  template <typename T>
    requires std::is_integral_v<T>
  void read(const char* name, T& out) {
    const Json* field = find(name);
    if (field == nullptr) return;
    if (field->is_number_unsigned() && std::in_range<T>(field->get<std::uint64_t>())) {
      out = static_cast<T>(field->get<std::uint64_t>());
    } else if (field->is_number_integer() && std::in_range<T>(field->get<std::int64_t>())) {
      out = static_cast<T>(field->get<std::int64_t>());
    } else {
      fail(name);
    }
  }

  void read_hex(const char* name, std::uint64_t& out) {
    std::string digits;
    read(name, digits);
    if (!ok()) return;
    const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), out, 16);
    if (failure != std::errc{} || end != digits.data() + digits.size()) fail(name);
  }

  void read(const char* name, IpAddress& out) {
    std::string text;
    read(name, text);
    if (!ok()) return;
    const Result<IpAddress> address = parse_address(text);
    if (!address.has_value()) return fail(name);
    out = *address;
  }

  const Json* array(const char* name) {
    const Json* field = find(name);
    if (field != nullptr && field->is_array()) return field;
    fail(name);
    return nullptr;
  }

  const Json* object(const char* name) {
    const Json* field = find(name);
    if (field != nullptr && field->is_object()) return field;
    fail(name);
    return nullptr;
  }

  void fail(const char* name) {
    if (wrong_ == nullptr) wrong_ = name;
  }
  [[nodiscard]] bool ok() const { return wrong_ == nullptr; }
  [[nodiscard]] Result<> outcome() const {
    if (ok()) return {};
    return error(ErrorCode::kProtocol, fmt::format("'{}' is missing in the service's answer or malformed", wrong_));
  }

 private:
  const Json* find(const char* name) {
    if (!ok()) return nullptr;
    const auto found = json_.find(name);
    if (found != json_.end()) return &*found;
    fail(name);
    return nullptr;
  }

  const Json& json_;
  const char* wrong_ = nullptr;
};

Json pause_json(const PauseSummary& pause) {
  return {{"count", pause.count}, {"p50_us", pause.p50_us}, {"p99_us", pause.p99_us}, {"max_us", pause.max_us}};
}

Result<> read_pause(const Json* json, PauseSummary& pause) {
  if (json == nullptr) return {};  // the caller's reader has the error
  Reader reader(*json);
  reader.read("count", pause.count);
  reader.read("p50_us", pause.p50_us);
  reader.read("p99_us", pause.p99_us);
  reader.read("max_us", pause.max_us);
  return reader.outcome();
}

void read_identities(Reader& reader, ConnectionView& view) {
  reader.read("session", view.session);
  reader.read("slot", view.slot);
  reader.read("tag", view.tag);
  reader.read_hex("sk", view.cookie);
  reader.read_hex("hw", view.hw_conn_id);
  reader.read("pid", view.pid);
  reader.read("uid", view.uid);
  reader.read("program", view.program);
  reader.read("fd", view.program_fd);
  reader.read("local_address", view.flow.local);
  reader.read("local_port", view.flow.local_port);
  reader.read("peer_address", view.flow.remote);
  reader.read("peer_port", view.flow.remote_port);
  reader.read("interface", view.interface);
}

void read_tcp(Reader& reader, ConnectionView& view) {
  reader.read("rtt_us", view.rtt_us);
  reader.read("rttvar_us", view.rttvar_us);
  reader.read("rto_us", view.rto_us);
  reader.read("cwnd", view.cwnd_segments);
  reader.read("ssthresh", view.ssthresh_segments);
  reader.read("mss", view.mss);
  reader.read("recv_q", view.receive_queue_bytes);
  reader.read("send_q", view.send_queue_bytes);
  reader.read("retransmits", view.retransmits);
}

Result<ServiceStats::Interface> interface_from_json(const Json& json) {
  ServiceStats::Interface interface;
  Reader reader(json);
  reader.read("name", interface.name);
  reader.read("mode", interface.mode);
  reader.read("mode_reason", interface.mode_reason);
  reader.read("queues", interface.queues);
  TRY(reader.outcome());
  return interface;
}

}  // namespace

std::string hex(std::uint64_t value) { return fmt::format("{:x}", value); }

std::string to_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json to_json(const ConnectionView& view) {
  return {{"stack", view.stack},
          {"state", view.state},
          {"local_address", view.flow.local.to_string()},
          {"local_port", view.flow.local_port},
          {"peer_address", view.flow.remote.to_string()},
          {"peer_port", view.flow.remote_port},
          {"interface", view.interface},
          {"program", view.program},
          {"pid", view.pid},
          {"uid", view.uid},
          {"fd", view.program_fd},
          {"sk", hex(view.cookie)},
          {"hw", hex(view.hw_conn_id)},
          {"session", view.session},
          {"slot", view.slot},
          {"tag", view.tag},
          {"recv_q", view.receive_queue_bytes},
          {"send_q", view.send_queue_bytes},
          {"rtt_us", view.rtt_us},
          {"rttvar_us", view.rttvar_us},
          {"rto_us", view.rto_us},
          {"cwnd", view.cwnd_segments},
          {"ssthresh", view.ssthresh_segments},
          {"mss", view.mss},
          {"retransmits", view.retransmits},
          {"offloads", view.offloads},
          {"uploads", view.uploads},
          {"kernel_bytes_sent", view.kernel_bytes_sent},
          {"kernel_bytes_received", view.kernel_bytes_received},
          {"engine_bytes_sent", view.engine_bytes_sent},
          {"engine_bytes_received", view.engine_bytes_received},
          {"reason", view.reason},
          {"last_return", view.last_return},
          {"stays", view.stays}};
}

Json to_json(const MoveOutcome& outcome) {
  Json refused = Json::array();
  for (const auto& [cookie, reason] : outcome.refused) refused.push_back({{"sk", hex(cookie)}, {"reason", reason}});
  return {{"matched", outcome.matched},
          {"moved", outcome.moved},
          {"already", outcome.already},
          {"refused", std::move(refused)}};
}

Json to_json(const ServiceStats& stats) {
  Json counters = Json::object();
  for (const auto& [name, value] : stats.counters) counters[name] = value;
  Json interfaces = Json::array();
  for (const ServiceStats::Interface& one : stats.interfaces) {
    interfaces.push_back(
        {{"name", one.name}, {"mode", one.mode}, {"mode_reason", one.mode_reason}, {"queues", one.queues}});
  }
  return {{"sessions", stats.sessions},
          {"connections", stats.connections},
          {"engine_connections", stats.engine_connections},
          {"offload", pause_json(stats.offload)},
          {"upload", pause_json(stats.upload)},
          {"counters", std::move(counters)},
          {"interfaces", std::move(interfaces)}};
}

Result<ConnectionView> connection_from_json(const Json& json) {
  ConnectionView view;
  Reader reader(json);
  read_identities(reader, view);
  read_tcp(reader, view);
  reader.read("stack", view.stack);
  reader.read("state", view.state);
  reader.read("reason", view.reason);
  reader.read("last_return", view.last_return);
  reader.read("stays", view.stays);
  reader.read("offloads", view.offloads);
  reader.read("uploads", view.uploads);
  reader.read("kernel_bytes_sent", view.kernel_bytes_sent);
  reader.read("kernel_bytes_received", view.kernel_bytes_received);
  reader.read("engine_bytes_sent", view.engine_bytes_sent);
  reader.read("engine_bytes_received", view.engine_bytes_received);
  TRY(reader.outcome());
  return view;
}

Result<MoveOutcome> outcome_from_json(const Json& json) {
  MoveOutcome outcome;
  Reader reader(json);
  reader.read("matched", outcome.matched);
  reader.read("moved", outcome.moved);
  reader.read("already", outcome.already);
  const Json* refused = reader.array("refused");
  TRY(reader.outcome());
  for (const Json& one : *refused) {
    auto& [cookie, reason] = outcome.refused.emplace_back();
    Reader entry(one);
    entry.read_hex("sk", cookie);
    entry.read("reason", reason);
    TRY(entry.outcome());
  }
  return outcome;
}

Result<ServiceStats> stats_from_json(const Json& json) {
  ServiceStats stats;
  Reader reader(json);
  reader.read("sessions", stats.sessions);
  reader.read("connections", stats.connections);
  reader.read("engine_connections", stats.engine_connections);
  TRY(read_pause(reader.object("offload"), stats.offload));
  TRY(read_pause(reader.object("upload"), stats.upload));
  const Json* counters = reader.object("counters");
  const Json* interfaces = reader.array("interfaces");
  TRY(reader.outcome());
  Reader counter(*counters);
  for (const auto& [name, value] : counters->items())
    counter.read(name.c_str(), stats.counters.emplace_back(name, 0).second);
  TRY(counter.outcome());
  for (const Json& one : *interfaces) {
    ASSIGN_OR_RETURN(ServiceStats::Interface interface, interface_from_json(one));
    stats.interfaces.push_back(std::move(interface));
  }
  return stats;
}

}  // namespace twinstack::driver
