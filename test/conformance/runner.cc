#include "runner.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>
#include <optional>
#include <type_traits>
#include <utility>

#include "call_text.h"
#include "epilogue.h"
#include "flow_state.h"
#include "info_check.h"
#include "move_check.h"
#include "names.h"
#include "packet.h"
#include "run_once.h"
#include "segment_text.h"

namespace twinstack::conformance {
namespace {

constexpr Duration kRetryStep = std::chrono::milliseconds(1);
constexpr int kListenBacklog = 16;
constexpr std::int64_t kEstablished = 1;
constexpr const char* kNearNumbers = "two connections begin with numbers no further apart than a clock's";
constexpr const char* kForeignBytes = "its bytes are not those of the stream";

std::string seconds_text(Duration since_start) {
  return fmt::format("{:.6f}", static_cast<double>(since_start.count()) / 1e9);
}

std::unexpected<Error> failed(const std::string& why) { return error(ErrorCode::kInvalid, why); }

// A segment that the host has sent and that no event has asked for yet.
struct Waiting {
  Time at;
  std::size_t flow;
  ReadPacket packet;
  std::string text;
};

// An ACK that went with a move: nobody has to expect it, but it may be what a later event does.
struct Told {
  Waiting ack;
  bool brings_news;  // it acknowledges what was not acknowledged before
};

class Run {
 public:
  Run(const Script& script, Endpoint& endpoint, const RunOptions& options, const Itinerary& itinerary)
      : script_(script), endpoint_(endpoint), options_(options), itinerary_(itinerary) {}

  RunResult carry_out() {
    if (const auto started = endpoint_.start(script_.settings); !started.has_value()) {
      const bool lacks = started.error().code == ErrorCode::kUnsupported;
      result_.outcome = {.verdict = lacks ? Verdict::kSkipped : Verdict::kFailed, .reason = started.error().message()};
      return std::move(result_);
    }
    make_flows();
    start_ = last_ = endpoint_.now();
    Outcome outcome = all_events();
    result_.ended_at = next_event_;
    if (options_.moves != MovePlan::kNone) result_.ending = carry_on();
    endpoint_.finish();
    outcome.trace = std::move(trace_);
    outcome.moves = result_.outcome.moves;
    outcome.damage = std::move(result_.outcome.damage);
    result_.outcome = std::move(outcome);
    return std::move(result_);
  }

 private:
  Outcome all_events() {
    const std::size_t end = std::min(script_.events.size(), itinerary_.end);
    for (next_event_ = 0; next_event_ < end; ++next_event_) {
      const Event& event = script_.events[next_event_];
      look_whether_drained();
      auto done = make_moves();
      if (done.has_value()) done = carry_out(event);
      if (done.has_value()) done = look_at_connecting();
      if (done.has_value() && !fault_.empty()) done = failed(fault_);
      if (!done.has_value() && done.error().code == ErrorCode::kUnsupported) {
        return {.verdict = Verdict::kSkipped, .line = event.line, .reason = done.error().what};
      }
      if (!done.has_value()) return {.verdict = Verdict::kFailed, .line = event.line, .reason = done.error().what};
    }
    if (const auto left = nothing_waits("at the end"); !left.has_value()) {
      return {.verdict = Verdict::kFailed, .line = script_.events.back().line, .reason = left.error().what};
    }
    return {};
  }

  void make_flows() {
    const Addresses where = endpoint_.addresses();
    for (std::size_t i = 0; i < script_.flows.size(); ++i) {
      const FlowKey key{.local = where.host,
                        .remote = where.peer,
                        .local_port = script_.flows[i].closed_port ? where.closed_port : where.host_port,
                        .remote_port = static_cast<std::uint16_t>(where.first_peer_port + i)};
      flows_.emplace_back(script_.peer, key);
    }
  }

  Result<> carry_out(const Event& event) {
    const bool waits = std::holds_alternative<Expect>(event.what);
    if (!waits) TRY(wait_for(event));
    return std::visit([&](const auto& what) { return perform(event, what); }, event.what);
  }

  // --- time ---

  void note(const std::string& text) { trace_.push_back(seconds_text(endpoint_.now() - start_) + "  " + text); }
  void note_at(Time at, const std::string& text) { trace_.push_back(seconds_text(at - start_) + "  " + text); }

  // When the event may happen at the earliest and at the latest, without tolerance.
  [[nodiscard]] std::pair<Time, Time> span_of(const Event& event) const {
    const Time base = event.when.absolute ? start_ : last_;
    return {base + event.when.earliest, base + event.when.latest};
  }

  // Goes on to the time of an event that the runner makes. What the host sent on the way had to be expected.
  Result<> wait_for(const Event& event) {
    const Time target = span_of(event).first;
    const bool passes = target > endpoint_.now();
    while (endpoint_.now() < target) {
      endpoint_.advance(target);
      collect();
    }
    if (passes) TRY(nothing_waits("before this event"));
    last_ = endpoint_.now();
    return {};
  }

  // --- the wire ---

  void collect() {
    take_moves();
    while (auto sent = endpoint_.take_sent()) {
      auto read = read_packet(sent->bytes);
      if (!read.has_value()) {
        note_at(sent->at, "host  sent what is no TCP segment: " + read.error().what);
        continue;
      }
      take_in(*sent, std::move(*read));
    }
  }

  void take_in(const SentPacket& sent, ReadPacket packet) {
    const auto flow = std::ranges::find_if(flows_, [&](const FlowState& f) { return f.carries(packet.head.flow); });
    if (flow == flows_.end()) return;
    const auto without_echo = static_cast<std::uint8_t>(packet.head.segment.flags & ~(wire::kEce | wire::kCwr));
    const bool tells = sent.cause != SendCause::kUsual && packet.payload.empty() && without_echo == wire::kAck;
    const bool brings_news = flow->acknowledges_more(packet);
    if (tells) note_broken(flow->taken_back_by(packet));
    flow->on_sent(packet);
    const auto near = [&](const FlowState& f) { return f.begins_near(*flow); };
    if (script_.numbers_apart && std::ranges::any_of(flows_, near)) fault_ = kNearNumbers;
    const auto index = static_cast<std::size_t>(flow - flows_.begin());
    if (packet.head.segment.has(wire::kRst) && is_unexpected_reset(index)) note_broken("the host has reset it");
    if (options_.moves != MovePlan::kNone && !packet.payload.empty() && !flow->is_host_stream(packet)) {
      note_broken(kForeignBytes);
    }
    std::string text =
        flow_prefix(index) +
        to_text(packet.head.segment, static_cast<std::uint32_t>(packet.payload.size()), flow->host_base());
    note_at(sent.at, (tells ? "moved " : "host  ") + text);
    Waiting segment{.at = sent.at, .flow = index, .packet = std::move(packet), .text = std::move(text)};
    if (!tells) {
      waiting_.push_back(std::move(segment));
    } else if (brings_news || sent.cause == SendCause::kRepeated) {
      told_.push_back({std::move(segment), brings_news});
    }
  }

  [[nodiscard]] std::string flow_prefix(std::size_t flow) const {
    return script_.flows[flow].name.empty() ? "" : script_.flows[flow].name + ": ";
  }

  [[nodiscard]] std::size_t flow_index(const std::string& name) const {
    return static_cast<std::size_t>(std::ranges::find(script_.flows, name, &Flow::name) - script_.flows.begin());
  }

  // Segments that an event has marked as optional are let pass.
  Result<> nothing_waits(std::string_view when) {
    if (!damage().empty()) return failed("a move has broken the connection: " + damage());
    while (!waiting_.empty() && is_optional(waiting_.front())) waiting_.pop_front();
    if (waiting_.empty()) return {};
    return failed(fmt::format("the host sent '{}' at {} s, which is not expected {}", waiting_.front().text,
                              seconds_text(waiting_.front().at - start_), when));
  }

  bool is_optional(const Waiting& segment) {
    const auto match =
        std::ranges::find_if(optional_, [&](const SegmentSpec& spec) { return difference_of(spec, segment).empty(); });
    if (match == optional_.end()) return false;
    optional_.erase(match);
    return true;
  }

  [[nodiscard]] std::string difference_of(const SegmentSpec& wanted, const Waiting& segment) const {
    if (flow_index(wanted.flow) != segment.flow) return "it is of another flow";
    const FlowState& flow = flows_[segment.flow];
    std::string found =
        difference(wanted, segment.packet.head.segment, static_cast<std::uint32_t>(segment.packet.payload.size()),
                   segment.packet.head.ttl, flow.host_base());
    const bool compare_bytes = found.empty() && !segment.packet.payload.empty();
    return compare_bytes && !flow.is_host_stream(segment.packet) ? kForeignBytes : found;
  }

  void inject(const SegmentSpec& spec) {
    const std::size_t index = flow_index(spec.flow);
    FlowState& flow = flows_[index];
    const wire::Segment segment = flow.make(spec, endpoint_.now());
    const auto payload = FlowState::payload(spec);
    const auto ttl = static_cast<std::uint8_t>(spec.ttl.value_or(Match::exactly(64)).low);
    const auto packet = make_packet(reversed(flow.key()), segment, payload,
                                    {.raw_options = spec.raw_options, .corrupt = spec.corrupt, .ttl = ttl});
    urgent_seen_ = urgent_seen_ || segment.has(wire::kUrg);
    const bool ends_handshake = flow.is_known() && (segment.flags & (wire::kSyn | wire::kAck)) == wire::kAck;
    if (ends_handshake && !first_acknowledged_.has_value()) first_acknowledged_ = index;
    note("peer  " + flow_prefix(index) +
         to_text(segment, static_cast<std::uint32_t>(payload.size()), flow.peer_base()));
    endpoint_.inject(packet);
    collect();
  }

  // --- events ---

  Result<> perform(const Event&, const Inject& what) {
    for (std::uint32_t n = 0; n < what.segment.repeat; ++n) inject(repetition(what.segment, n));
    return {};
  }

  Result<> perform(const Event&, const InjectIcmp& what) {
    const FlowState& flow = flows_[flow_index(what.flow)];
    note(fmt::format("peer  ICMP error for {}", what.quoted_seq.value.low));
    endpoint_.inject(make_icmp(flow.key(), what.kind, flow.host_seq(what.quoted_seq), what.mtu_bytes));
    collect();
    return {};
  }

  Result<> perform(const Event& event, const Expect& what) {
    if (what.optional) {
      for (std::uint32_t n = 0; n < what.segment.repeat; ++n) optional_.push_back(repetition(what.segment, n));
      return {};
    }
    auto [earliest, latest] = span_of(event);
    // A range from 0 on says when at the latest; the segment may have come before what the runner did last.
    if (event.when.strict && !event.when.absolute && event.when.earliest == Duration(0)) earliest = start_;
    for (std::uint32_t n = 0; n < what.segment.repeat; ++n) {
      TRY(expect(repetition(what.segment, n), earliest, latest, event.when.strict));
    }
    optional_.clear();
    return {};
  }

  Result<> perform(const Event&, const ExpectNothing& what) {
    const Time until = last_ + what.lasting;
    while (endpoint_.now() < until) {
      endpoint_.advance(until);
      collect();
      TRY(nothing_waits("now"));
    }
    last_ = endpoint_.now();
    return {};
  }

  Result<> expect(const SegmentSpec& wanted, Time earliest, Time latest, bool strict) {
    const Tolerance tolerance = endpoint_.tolerance();
    if (!strict) {
      earliest -= tolerance.early;
      latest += tolerance.late + (latest - last_) * tolerance.late_percent / 100;
    }
    while (true) {
      if (was_told(wanted, /*news_only=*/true)) return {};
      const Waiting* const next = next_segment(latest);
      if (next == nullptr && was_told(wanted, false)) return {};
      if (next == nullptr) return failed(fmt::format("no segment came until {} s", seconds_text(latest - start_)));
      if (const std::string found = difference_of(wanted, *next); !found.empty()) {
        if (was_told(wanted, false)) return {};
        if (!is_optional(*next)) return failed(fmt::format("the host sent '{}': {}", next->text, found));
        waiting_.pop_front();
        continue;
      }
      if (next->at < earliest || next->at > latest) return wrong_time(*next, earliest, latest);
      last_ = next->at;
      waiting_.pop_front();
      return {};
    }
  }

  // An ACK that was owed, say, has gone with a move instead of later.
  bool was_told(const SegmentSpec& wanted, bool news_only) {
    const auto found = std::ranges::find_if(told_, [&](const Told& told) {
      return (told.brings_news || !news_only) && difference_of(wanted, told.ack).empty();
    });
    if (found == told_.end()) return false;
    told_.erase(found);
    return true;
  }

  [[nodiscard]] std::unexpected<Error> wrong_time(const Waiting& segment, Time earliest, Time latest) const {
    return failed(fmt::format("the host sent '{}' at {} s, not from {} to {} s", segment.text,
                              seconds_text(segment.at - start_), seconds_text(earliest - start_),
                              seconds_text(latest - start_)));
  }

  const Waiting* next_segment(Time latest) {
    collect();
    while (waiting_.empty() && endpoint_.now() < latest) {
      endpoint_.advance(latest);
      collect();
    }
    return waiting_.empty() ? nullptr : &waiting_.front();
  }

  // --- the program ---

  // Asks until the answer is accepted, or until a change that is under way would have shown.
  template <typename Ask, typename Accept>
  auto ask(Ask ask_once, Accept accepts) {
    const Time deadline = endpoint_.now() + endpoint_.patience();
    auto answer = ask_once();
    while (!accepts(answer) && endpoint_.now() < deadline) {
      endpoint_.advance(std::min(deadline, endpoint_.now() + kRetryStep));
      collect();
      answer = ask_once();
    }
    return answer;
  }

  Result<> perform(const Event&, const Call& what) {
    // A transfer that moved bytes is not asked again.
    const bool may_repeat = what.kind != CallKind::kSend && what.kind != CallKind::kClose;
    bool wrong_bytes = false;
    const auto once = [&] { return call(what, wrong_bytes); };
    const CallResult result = ask(once, [&](CallResult got) {
      return what.result.accepts(got) ||
             !(may_repeat && (got < 0 || what.kind == CallKind::kPoll || what.kind == CallKind::kGetOption));
    });
    collect();
    note(fmt::format("call  {} -> {}", to_text(what), result_text(what, result)));
    if (result == -ENOSYS) return error(ErrorCode::kUnsupported, to_text(what) + " is not there on this backend");
    if (!what.result.accepts(result))
      return failed(fmt::format("{} gave {}", to_text(what), result_text(what, result)));
    if (wrong_bytes) return failed("what was received is not the peer's stream");
    if (what.kind == CallKind::kAccept && result >= 0)
      TRY(handshake_is_over(what.made, first_acknowledged_.value_or(0)));
    last_ = endpoint_.now();
    return {};
  }

  CallResult call(const Call& what, bool& wrong_bytes) {
    Socket& socket = sockets_[what.socket];
    switch (what.kind) {
      case CallKind::kSocket:
        return made(what.made, endpoint_.socket());
      case CallKind::kListen:
        return endpoint_.listen(socket.id, static_cast<int>(what.number));
      case CallKind::kAccept:
        return made(what.made, endpoint_.accept(socket.id));
      case CallKind::kConnect:
        connecting_ = {what.socket, flow_index(what.flow)};
        return connect(socket.id, what.flow);
      case CallKind::kSend:
        return send(socket, what);
      case CallKind::kReceive:
        return receive(socket, what, wrong_bytes);
      case CallKind::kShutdown:
        socket.ended = socket.ended || what.number != SHUT_RD;
        return endpoint_.shutdown(socket.id, static_cast<int>(what.number));
      case CallKind::kClose:
        socket.ended = socket.closed = true;
        return endpoint_.close(socket.id);
      case CallKind::kSetOption:
        return endpoint_.set_option(socket.id, what.option, what.number, what.text);
      case CallKind::kGetOption:
        return endpoint_.get_option(socket.id, what.option);
      case CallKind::kPoll:
        return endpoint_.poll(socket.id);
    }
    return -EINVAL;
  }

  CallResult made(const std::string& name, CallResult result) {
    if (result >= 0) sockets_[name] = {.id = static_cast<SocketId>(result)};
    return result;
  }

  CallResult connect(SocketId socket, const std::string& flow_name) {
    FlowState& flow = flows_[flow_index(flow_name)];
    const FlowState before = flow;
    flow = FlowState(script_.peer, {.local = flow.key().local,
                                    .remote = flow.key().remote,
                                    .local_port = 0,
                                    .remote_port = flow.key().remote_port});
    const CallResult result = endpoint_.connect(socket, flow.key().remote_port);
    if (result != -EINPROGRESS) flow = before;  // the connection is there, or none will be
    return result;
  }

  CallResult send(Socket& socket, const Call& what) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(what.number));
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = host_stream_byte(socket.sent + i);
    const CallResult result = endpoint_.send(socket.id, bytes, what.flags);
    if (result > 0) socket.sent += static_cast<std::uint64_t>(result);
    return result;
  }

  CallResult receive(Socket& socket, const Call& what, bool& wrong_bytes) {
    std::vector<std::byte> room(static_cast<std::size_t>(what.number));
    CallResult result = endpoint_.receive(socket.id, room, what.flags);
    // What each stack has received comes by a call of its own.
    const bool in_pieces = options_.moves != MovePlan::kNone && (what.flags & MSG_PEEK) == 0;
    while (in_pieces && result > 0 && static_cast<std::size_t>(result) < room.size()) {
      const CallResult more =
          endpoint_.receive(socket.id, std::span(room).subspan(static_cast<std::size_t>(result)), what.flags);
      if (more <= 0) break;
      result += more;
    }
    for (std::size_t i = 0; result > 0 && i < static_cast<std::size_t>(result); ++i) {
      wrong_bytes = wrong_bytes || (!urgent_seen_ && room[i] != peer_stream_byte(socket.received + i));
    }
    if (wrong_bytes) note_broken("what was received is not the peer's stream");
    if (result > 0 && (what.flags & MSG_PEEK) == 0) socket.received += static_cast<std::uint64_t>(result);
    return result;
  }

  Result<> perform(const Event&, const Check& what) {
    std::string found;
    const auto once = [&] {
      const auto info = endpoint_.info(sockets_[what.socket].id);
      found = info.has_value() ? difference(what, *info) : info.error().message();
      return found.empty();
    };
    const bool fits = ask(once, [](bool same) { return same; });
    last_ = endpoint_.now();
    if (fits) return {};
    note("check " + found);
    return failed(found);
  }

  // --- handshakes ---

  Result<> perform(const Event&, const Open& what) { return what.active ? open_actively(what) : open_passively(what); }

  Result<> open_passively(const Open& what) {
    if (!sockets_.contains("listener")) {
      TRY(succeeds("socket", made("listener", endpoint_.socket())));
      TRY(succeeds("listen", endpoint_.listen(sockets_["listener"].id, kListenBacklog)));
    }
    SegmentSpec segment{.flow = what.flow, .flags = wire::kSyn, .seq = {.value = Match::exactly(0)}};
    if (script_.peer.ecn) segment.flags |= wire::kEce | wire::kCwr;
    inject(segment);
    TRY(take_host_syn(what.flow, wire::kSyn | wire::kAck));
    go_on_for(what.round_trip);
    inject({.flow = what.flow, .flags = wire::kAck, .seq = at(1), .ack = at(1)});
    const CallResult result = ask([&] { return made(what.made, endpoint_.accept(sockets_["listener"].id)); },
                                  [](CallResult got) { return got >= 0; });
    TRY(succeeds("accept", result));
    return opened(what);
  }

  Result<> open_actively(const Open& what) {
    if (!sockets_.contains(what.made)) TRY(succeeds("socket", made(what.made, endpoint_.socket())));
    const CallResult result = connect(sockets_[what.made].id, what.flow);
    if (result != -EINPROGRESS && result != 0) return failed("connect gave " + result_text(result));
    TRY(take_host_syn(what.flow, wire::kSyn));
    go_on_for(what.round_trip);
    SegmentSpec segment{.flow = what.flow, .flags = wire::kSyn | wire::kAck, .seq = at(0), .ack = at(1)};
    if (script_.peer.ecn) segment.flags |= wire::kEce;
    inject(segment);
    const Time now = endpoint_.now();
    TRY(expect({.flow = what.flow, .flags = wire::kAck, .seq = at(1), .ack = at(1)}, now, now, false));
    return opened(what);
  }

  Result<> opened(const Open& what) {
    last_ = endpoint_.now();
    return handshake_is_over(what.made, flow_index(what.flow));
  }

  static RelativeMatch at(std::int64_t number) { return {.value = Match::exactly(number)}; }

  static Result<> succeeds(std::string_view call, CallResult result) {
    if (result >= 0) return {};
    return failed(fmt::format("{} gave {}", call, result_text(result)));
  }

  // The host's SYN or SYN-ACK, whatever it says of options and ECN.
  Result<> take_host_syn(const std::string& flow, std::uint8_t flags) {
    const Waiting* const next = next_segment(endpoint_.now() + endpoint_.tolerance().late);
    if (next == nullptr) return failed("the host sent no SYN");
    const auto without_ecn = static_cast<std::uint8_t>(next->packet.head.segment.flags & ~(wire::kEce | wire::kCwr));
    if (next->flow != flow_index(flow) || without_ecn != flags) return failed("the host sent '" + next->text + "'");
    waiting_.pop_front();
    return {};
  }

  void go_on_for(Duration time) {
    const Time until = endpoint_.now() + time;
    do {
      endpoint_.advance(until);
      collect();
    } while (endpoint_.now() < until);
  }

  // --- moves ---

  // The program has the connection. The first of a script moves.
  Result<> handshake_is_over(const std::string& name, std::size_t flow) {
    if (options_.moves == MovePlan::kNone || !mover_.empty()) return {};
    mover_ = name;
    mover_flow_ = flow;
    result_.first_event = next_event_ + 1;
    return itinerary_.there.has_value() ? Result<>{} : move(Stack::kEngine);
  }

  // A connect() that the script itself leads to its end.
  Result<> look_at_connecting() {
    auto& [name, flow] = connecting_;
    if (options_.moves == MovePlan::kNone || name.empty() || !mover_.empty()) return {};
    const auto info = endpoint_.info(sockets_[name].id);
    if (!info.has_value() || info->at("state") != kEstablished) return {};
    return handshake_is_over(std::exchange(name, {}), flow);
  }

  void look_whether_drained() {
    if (mover_.empty()) return;
    const auto info = endpoint_.info(sockets_[mover_].id);
    const bool drained =
        info.has_value() && info->contains("unacked") && info->at("unacked") == 0 && info->at("notsent_bytes") == 0;
    if (drained) result_.drained_events.push_back(next_event_);
  }

  Result<> make_moves() {
    if (mover_.empty()) return {};
    if (next_event_ == itinerary_.there) TRY(move(Stack::kEngine));
    if (next_event_ != itinerary_.back) return {};
    returned_ = true;
    return move(Stack::kKernel);
  }

  // A connection that may not move stays where it is.
  Result<> move(Stack to) {
    const SocketId socket = sockets_[mover_].id;
    const auto before = endpoint_.info(socket);
    const auto moved = endpoint_.move(socket, to);
    note("move  " + mover_ + (to == Stack::kEngine ? " to the engine" : " to the kernel") +
         (moved.has_value() ? "" : ": " + moved.error().message()));
    if (!moved.has_value() && moved.error().code != ErrorCode::kNotEligible) {
      if (moved.error().code != ErrorCode::kUnsupported) note_broken(moved.error().message());
      return moved;
    }
    if (moved.has_value()) ++result_.outcome.moves;
    const auto after = endpoint_.info(socket);
    if (before.has_value() && after.has_value()) note_broken(changed_by_move(*before, *after, to));
    collect();
    return {};
  }

  void note_broken(const std::string& why) {
    if (damage().empty()) result_.outcome.damage = why;
  }

  [[nodiscard]] const std::string& damage() const { return result_.outcome.damage; }

  // A RST that no event from here on asks for.
  [[nodiscard]] bool is_unexpected_reset(std::size_t flow) const {
    if (mover_.empty() || flow != mover_flow_ || script_is_over_) return false;
    return std::none_of(script_.events.begin() + static_cast<std::ptrdiff_t>(next_event_), script_.events.end(),
                        [&](const Event& event) {
                          const auto* const wanted = std::get_if<Expect>(&event.what);
                          return wanted != nullptr && (wanted->segment.flags & wire::kRst) != 0 &&
                                 flow_index(wanted->segment.flow) == flow;
                        });
  }

  void take_moves() {
    const auto moves = endpoint_.take_moves();
    if (!moves.has_value()) return note_broken(moves.error().message());
    for (const std::string& text : *moves) note("move  " + text);
  }

  // --- behind the script ---

  std::optional<Ending> carry_on() {
    script_is_over_ = true;
    if (mover_.empty() || !flows_[mover_flow_].is_known()) return std::nullopt;
    note("end   all is to be acknowledged and read");
    if (itinerary_.back != kNoEvent && !returned_) (void)move(Stack::kKernel);
    Socket& socket = sockets_[mover_];
    bool wrong_bytes = false;
    Epilogue epilogue({.flow = flows_[mover_flow_],
                       .inject = [&](SegmentSpec spec) { inject_on(mover_flow_, std::move(spec)); },
                       .pass = [&](Duration time) { go_on_for(time); },
                       .write = [&](std::int64_t bytes) { return send(socket, {.number = bytes}); },
                       .read = [&](std::int64_t bytes) { return receive(socket, {.number = bytes}, wrong_bytes); },
                       .info = [&] { return endpoint_.info(socket.id); },
                       .now = [&] { return endpoint_.now(); }});
    Ending ending = epilogue.carry_out(socket, !urgent_seen_);
    if (!ending.is_whole()) note("end   " + ending.text());
    return ending;
  }

  void inject_on(std::size_t flow, SegmentSpec spec) {
    spec.flow = script_.flows[flow].name;
    inject(spec);
  }

  const Script& script_;
  Endpoint& endpoint_;
  const RunOptions options_;
  std::vector<FlowState> flows_;
  std::map<std::string, Socket> sockets_;
  std::deque<Waiting> waiting_;
  std::deque<Told> told_;
  std::vector<SegmentSpec> optional_;
  std::vector<std::string> trace_;
  std::size_t next_event_ = 0;
  std::pair<std::string, std::size_t> connecting_;  // the socket of the last connect(), and its flow
  std::optional<std::size_t> first_acknowledged_;   // the flow whose handshake was over first
  std::string mover_;                               // the connection that moves ...
  std::size_t mover_flow_ = 0;                      // ... and its flow
  bool returned_ = false;
  bool script_is_over_ = false;
  const Itinerary itinerary_;
  RunResult result_;
  Time start_{};
  Time last_{};  // when the event before was
  bool urgent_seen_ = false;
  std::string fault_;  // of the host's, whatever the script expects
};

}  // namespace

Result<> Endpoint::move(SocketId, Stack) { return error(ErrorCode::kUnsupported, "this backend has one stack only"); }

RunResult run_once(const Script& script, Endpoint& endpoint, const RunOptions& options, const Itinerary& itinerary) {
  return Run(script, endpoint, options, itinerary).carry_out();
}

}  // namespace twinstack::conformance
