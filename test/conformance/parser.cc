#include "parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "call_text.h"
#include "line.h"
#include "names.h"
#include "segment_text.h"

namespace twinstack::conformance {
namespace {

struct IcmpName {
  std::string_view name;
  IcmpKind kind;
};
constexpr IcmpName kIcmpNames[] = {{"net-unreachable", IcmpKind::kNetUnreachable},
                                   {"host-unreachable", IcmpKind::kHostUnreachable},
                                   {"protocol-unreachable", IcmpKind::kProtocolUnreachable},
                                   {"port-unreachable", IcmpKind::kPortUnreachable},
                                   {"fragmentation-needed", IcmpKind::kFragmentationNeeded},
                                   {"prohibited", IcmpKind::kProhibited},
                                   {"time-exceeded", IcmpKind::kTimeExceeded},
                                   {"parameter-problem", IcmpKind::kParameterProblem},
                                   {"source-quench", IcmpKind::kSourceQuench}};

// Fields whose value may be a word.
std::optional<int> value_of_word(std::string_view field, std::string_view word) noexcept {
  if (field == "state") return state_number(word);
  constexpr std::string_view kRecoveryStates[] = {"open", "disorder", "cwr", "recovery", "loss"};
  if (field != "ca_state") return std::nullopt;
  const auto* const found = std::ranges::find(kRecoveryStates, word);
  if (found == std::end(kRecoveryStates)) return std::nullopt;
  return static_cast<int>(found - std::begin(kRecoveryStates));
}

class Parser {
 public:
  explicit Parser(std::string_view name) {
    script_.name = name;
    script_.flows.emplace_back();
  }

  Result<> read_line(Line& line) {
    if (line.at_end()) return {};
    if (is_header(line.peek())) return read_header(line);
    Event event{.line = line.number()};
    TRY(read_timing(line, event.when));
    TRY(read_event(line, event));
    script_.events.push_back(std::move(event));
    return {};
  }

  Result<Script> finish() {
    const auto missing = [&](std::string_view what) {
      return error(ErrorCode::kInvalid, fmt::format("{}: {} is missing", script_.name, what));
    };
    if (script_.clause.empty()) return missing("the line 'rfc:'");
    if (script_.wants.empty()) return missing("the line 'wants:'");
    if (script_.events.empty()) return missing("every event");
    return std::move(script_);
  }

 private:
  static bool is_header(std::string_view word) noexcept {
    constexpr std::string_view kHeaders[] = {"rfc:",
                                             "wants:",
                                             "departs:",
                                             "core:",
                                             "linux:",
                                             "moves:",
                                             "peer:",
                                             "after-handshake:",
                                             "round-trip:",
                                             "forgotten:",
                                             "forgotten-there:",
                                             "forgotten-anywhere:",
                                             "numbers:",
                                             "set:",
                                             "flow:",
                                             "ip:"};
    return std::ranges::find(kHeaders, word) != std::end(kHeaders);
  }

  Result<> read_header(Line& line) {
    const std::string word(line.take());
    if (!script_.events.empty()) return line.fail("'" + word + "' is to stand before the first event");
    if (word == "rfc:") return read_sentence(line, script_.clause, "RFC ");
    if (word == "wants:") return read_sentence(line, script_.wants, "");
    if (word == "departs:") return read_sentence(line, script_.departs, "");
    if (word == "core:") return read_mark(line, script_.core);
    if (word == "linux:") return read_mark(line, script_.on_linux);
    if (word == "moves:") return read_mark(line, script_.moves);
    if (word == "after-handshake:") return read_mark(line, script_.after_handshake);
    if (word == "round-trip:") return read_mark(line, script_.round_trip);
    if (word == "forgotten:" || word == "forgotten-there:") {
      script_.forgotten_there_only = word == "forgotten-there:";
      return read_sentence(line, script_.forgotten, "");
    }
    if (word == "forgotten-anywhere:") return read_sentence(line, script_.forgotten_anywhere, "");
    if (word == "peer:") return read_peer(line);
    if (word == "ip:") return read_family(line);
    if (word == "numbers:") return read_numbers(line);
    return word == "set:" ? read_setting(line) : read_flow(line);
  }

  static Result<> read_sentence(Line& line, std::string& out, std::string_view begins) {
    const std::string text = line.take_rest();
    if (text.empty()) return line.fail("the line says nothing");
    out += (out.empty() ? std::string(begins) : " ") + text;
    return {};
  }

  // "no (reason)", "differs (reason)".
  static Result<> read_mark(Line& line, Mark& out) {
    const std::string word(line.take());
    if (word != "no" && word != "differs") return line.fail("a mark is to be 'no (reason)' or 'differs (reason)'");
    out.applies = word == "no" ? Applies::kNo : Applies::kDiffers;
    out.reason = line.take_rest();
    const bool parentheses = out.reason.size() > 2 && out.reason.front() == '(' && out.reason.back() == ')';
    if (!parentheses) return line.fail("a mark needs its reason in parentheses");
    out.reason = out.reason.substr(1, out.reason.size() - 2);
    return {};
  }

  // A line 'peer:' says everything anew but MSS, window and initial number.
  Result<> read_peer(Line& line) {
    Peer& peer = script_.peer;
    peer.sack = peer.timestamps = peer.ecn = false;
    while (!line.at_end()) {
      const std::string word(line.take());
      if (word == "sack")
        peer.sack = true;
      else if (word == "ts")
        peer.timestamps = true;
      else if (word == "ecn")
        peer.ecn = true;
      else if (word == "no-mss")
        peer.mss.reset();
      else
        TRY(read_peer_number(line, word));
    }
    return {};
  }

  Result<> read_peer_number(Line& line, const std::string& word) {
    Peer& peer = script_.peer;
    const std::int64_t limit = word == "iss" ? 0xffffffff : word == "wscale" ? 255 : 65535;
    if (word != "mss" && word != "win" && word != "iss" && word != "wscale") {
      return line.fail("'" + word + "' says nothing about a peer");
    }
    ASSIGN_OR_RETURN(const std::int64_t number, line.take_number(word));
    if (number < 0 || number > limit) return line.fail(fmt::format("{} is to be from 0 to {}", word, limit));
    if (word == "mss") peer.mss = static_cast<std::uint16_t>(number);
    if (word == "win") peer.window = static_cast<std::uint16_t>(number);
    if (word == "iss") peer.initial_seq = static_cast<std::uint32_t>(number);
    if (word == "wscale") peer.window_scale = static_cast<std::uint8_t>(number);
    return {};
  }

  Result<> read_family(Line& line) {
    ASSIGN_OR_RETURN(const std::int64_t family, line.take_number("ip"));
    if (family != 4 && family != 6) return line.fail("ip is to be 4 or 6");
    script_.only_ip = static_cast<int>(family);
    return line.expect_end();
  }

  Result<> read_numbers(Line& line) {
    if (line.take() != "apart") return line.fail("numbers are to be 'apart'");
    script_.numbers_apart = true;
    return line.expect_end();
  }

  Result<> read_setting(Line& line) {
    const std::string name(line.take());
    const std::string value = line.take_rest();
    if (value.empty()) return line.fail("a setting is to be a name and a value");
    script_.settings.emplace_back(name, value);
    return {};
  }

  Result<> read_flow(Line& line) {
    Flow flow{.name = std::string(line.take())};
    if (flow.name.empty() || has_flow(flow.name)) return line.fail("a flow needs a name of its own");
    flow.closed_port = line.accept("closed-port");
    TRY(line.expect_end());
    script_.flows.push_back(std::move(flow));
    return {};
  }

  // --- events ---

  // "+20ms", "+20ms~5ms", "+20..30ms", "@1s" and so on; nothing: at once.
  static Result<> read_timing(Line& line, Timing& out) {
    const char first = line.peek().empty() ? ' ' : line.peek().front();
    if (first != '+' && first != '@') return {};
    const std::string word(line.take());
    const auto bad = line.fail("the time is to be like +20ms, +20ms~5ms, +20..30ms or @1.5s, not '" + word + "'");
    out.absolute = first == '@';
    const std::string_view text = std::string_view(word).substr(1);
    const std::size_t tilde = text.find('~');
    Match range;
    if (!read_match(text.substr(0, tilde), range) || range.high == Match{}.high || range.low < 0) return bad;
    if (text.find_first_of("us") == std::string_view::npos && range.high != 0) return bad;
    Duration tolerance{};
    if (tilde != std::string_view::npos && !read_duration(text.substr(tilde + 1), tolerance)) return bad;
    out.strict = tilde != std::string_view::npos || !range.is_exact();
    out.earliest = std::max(std::chrono::microseconds(range.low) - tolerance, Duration(0));
    out.latest = std::chrono::microseconds(range.high) + tolerance;
    return {};
  }

  Result<> read_event(Line& line, Event& event) {
    const std::string_view verb = line.peek();
    const bool waits = verb == "expect" || verb == "maybe";
    if (!waits && event.when.strict) return line.fail("only what is expected may have a range of times");
    if (line.accept("inject")) return read_inject(line, event);
    if (line.accept("expect")) return read_expect(line, event, false);
    if (line.accept("maybe")) return read_expect(line, event, true);
    if (line.accept("check")) return read_check(line, event);
    return read_program(line, event);
  }

  Result<> read_inject(Line& line, Event& event) {
    if (line.accept("icmp")) return read_icmp(line, event);
    ASSIGN_OR_RETURN(SegmentSpec segment, read_exact_segment(line));
    TRY(check_flow(line, segment.flow));
    event.what = Inject{std::move(segment)};
    return {};
  }

  // icmp KIND [mtu N] seq N [flow F]
  Result<> read_icmp(Line& line, Event& event) {
    const std::string name(line.take());
    const auto* const known = std::ranges::find(kIcmpNames, name, &IcmpName::name);
    if (known == std::end(kIcmpNames)) return line.fail("'" + name + "' is no ICMP error");
    InjectIcmp icmp{.kind = known->kind};
    if (line.accept("mtu")) {
      ASSIGN_OR_RETURN(const std::int64_t mtu, line.take_number("mtu"));
      icmp.mtu_bytes = static_cast<std::uint32_t>(mtu);
    }
    if (!line.accept("seq")) return line.fail("an ICMP error quotes a segment: 'seq N'");
    ASSIGN_OR_RETURN(const std::int64_t seq, line.take_number("seq"));
    icmp.quoted_seq.value = Match::exactly(seq);
    if (line.accept("flow")) icmp.flow = line.take();
    TRY(check_flow(line, icmp.flow));
    event.what = std::move(icmp);
    return line.expect_end();
  }

  Result<> read_expect(Line& line, Event& event, bool optional) {
    if (!optional && line.accept("nothing")) return read_nothing(line, event);
    ASSIGN_OR_RETURN(SegmentSpec segment, read_segment(line));
    TRY(check_flow(line, segment.flow));
    event.what = Expect{std::move(segment), optional};
    return {};
  }

  static Result<> read_nothing(Line& line, Event& event) {
    if (!line.accept("for")) return line.fail("expect nothing 'for' how long");
    ExpectNothing nothing;
    ASSIGN_OR_RETURN(nothing.lasting, line.take_duration("how long"));
    event.what = nothing;
    return line.expect_end();
  }

  Result<> read_check(Line& line, Event& event) {
    Check check{.socket = std::string(line.take()), .fields = {}};
    TRY(check_socket(line, check.socket));
    while (!line.at_end()) {
      const std::string field(line.take());
      const auto value = value_of_word(field, line.peek());
      if (value.has_value()) {
        line.take();
        check.fields.emplace_back(field, Match::exactly(*value));
        continue;
      }
      ASSIGN_OR_RETURN(const Match match, line.take_match(field));
      check.fields.emplace_back(field, match);
    }
    if (check.fields.empty()) return line.fail("nothing to check");
    event.what = std::move(check);
    return {};
  }

  // "[NAME =] CALL ...", "NAME = accepted|connected ...".
  Result<> read_program(Line& line, Event& event) {
    Line ahead = line;
    std::string made(ahead.take());
    if (ahead.accept("=")) {
      line = ahead;
    } else {
      made.clear();
    }
    if (!made.empty() && (line.peek() == "accepted" || line.peek() == "connected")) return read_open(line, made, event);
    ASSIGN_OR_RETURN(Call call, read_call(line, made));
    if (call.kind != CallKind::kSocket) TRY(check_socket(line, call.socket));
    TRY(check_flow(line, call.flow));
    if (!made.empty()) sockets_.insert(made);
    event.what = std::move(call);
    return {};
  }

  Result<> read_open(Line& line, const std::string& made, Event& event) {
    Open open{.made = made};
    open.active = line.take() == "connected";
    while (!line.at_end()) {
      if (line.accept("rtt")) {
        ASSIGN_OR_RETURN(open.round_trip, line.take_duration("rtt"));
      } else if (line.accept("flow")) {
        open.flow = line.take();
      } else {
        return line.expect_end();
      }
    }
    TRY(check_flow(line, open.flow));
    sockets_.insert(made);
    if (!open.active) sockets_.insert("listener");
    event.what = std::move(open);
    return {};
  }

  [[nodiscard]] bool has_flow(std::string_view name) const {
    return std::ranges::find(script_.flows, name, &Flow::name) != script_.flows.end();
  }
  [[nodiscard]] Result<> check_flow(const Line& line, const std::string& name) const {
    if (has_flow(name)) return {};
    return line.fail("no flow is called '" + name + "' (line 'flow:')");
  }
  [[nodiscard]] Result<> check_socket(const Line& line, const std::string& name) const {
    if (sockets_.contains(name)) return {};
    return line.fail("no socket is called '" + name + "' yet");
  }

  Script script_;
  std::set<std::string> sockets_;
};

}  // namespace

Result<Script> parse_script(std::string_view name, std::string_view text) {
  Parser parser(name);
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    Line line(name, number, text.substr(0, length));
    TRY(parser.read_line(line));
    text.remove_prefix(std::min(length + 1, text.size()));
  }
  return parser.finish();
}

}  // namespace twinstack::conformance
