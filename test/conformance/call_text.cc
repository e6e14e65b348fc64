#include "call_text.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "names.h"

namespace twinstack::conformance {
namespace {

constexpr Match kSuccess{.low = 0, .high = Match{}.high};

struct Verb {
  std::string_view name;
  CallKind kind;
};
constexpr Verb kVerbs[] = {
    {"socket", CallKind::kSocket},        {"listen", CallKind::kListen}, {"accept", CallKind::kAccept},
    {"connect", CallKind::kConnect},      {"send", CallKind::kSend},     {"recv", CallKind::kReceive},
    {"shutdown", CallKind::kShutdown},    {"close", CallKind::kClose},   {"setsockopt", CallKind::kSetOption},
    {"getsockopt", CallKind::kGetOption}, {"poll", CallKind::kPoll}};

struct MessageFlag {
  std::string_view name;
  int flag;
};
constexpr MessageFlag kMessageFlags[] = {
    {"more", MSG_MORE}, {"oob", MSG_OOB}, {"eor", MSG_EOR}, {"peek", MSG_PEEK}, {"trunc", MSG_TRUNC}};

Result<> read_transfer(Line& line, Call& out) {
  ASSIGN_OR_RETURN(out.number, line.take_number("the number of bytes"));
  if (out.number < 0 || out.number > 64'000'000) return line.fail("from 0 to 64000000 bytes");
  out.result = Match::exactly(out.number);
  while (!line.at_end() && line.peek() != "->") {
    const std::string word(line.take());
    const auto* const known = std::ranges::find(kMessageFlags, word, &MessageFlag::name);
    if (known == std::end(kMessageFlags)) return line.fail("'" + word + "' is no flag of a message");
    out.flags |= known->flag;
  }
  return {};
}

Result<> read_shutdown(Line& line, Call& out) {
  const std::string how(line.take());
  if (how != "rd" && how != "wr" && how != "rdwr") return line.fail("shutdown is to be of rd, wr or rdwr");
  out.number = how == "rd" ? SHUT_RD : how == "wr" ? SHUT_WR : SHUT_RDWR;
  return {};
}

// A value is a number or a word, such as the name of a congestion control.
Result<> read_option(Line& line, Call& out) {
  out.option = line.take();
  if (out.option.empty()) return line.fail("the option's name is missing");
  if (out.kind == CallKind::kGetOption) return {};
  const std::string value(line.take());
  if (value.empty()) return line.fail("the option's value is missing");
  if (!read_number(value, out.number)) out.text = value;
  return {};
}

Result<> read_listen(Line& line, Call& out) {
  out.number = 16;
  if (line.at_end() || line.peek() == "->") return {};
  ASSIGN_OR_RETURN(out.number, line.take_number("the backlog"));
  return {};
}

Result<> read_connect(Line& line, Call& out) {
  out.result = Match::exactly(-EINPROGRESS);
  if (line.accept("to")) out.flow = line.take();
  return {};
}

Result<> read_arguments(Line& line, Call& out) {
  switch (out.kind) {
    case CallKind::kListen:
      return read_listen(line, out);
    case CallKind::kConnect:
      return read_connect(line, out);
    case CallKind::kSend:
    case CallKind::kReceive:
      return read_transfer(line, out);
    case CallKind::kShutdown:
      return read_shutdown(line, out);
    case CallKind::kSetOption:
    case CallKind::kGetOption:
      return read_option(line, out);
    case CallKind::kSocket:
    case CallKind::kAccept:
      out.result = kSuccess;
      return {};
    case CallKind::kClose:
    case CallKind::kPoll:
      return {};
  }
  return {};
}

Result<> read_result(Line& line, Call& out) {
  const std::string word(line.take());
  if (out.kind == CallKind::kPoll) {
    const auto events = poll_events(word);
    if (!events.has_value()) return line.fail("'" + word + "' is no set of events like in+out, or none");
    out.result = Match::exactly(*events);
    return {};
  }
  if (word == out.option || word.empty()) return line.fail("the result is missing");
  if (const auto number = errno_number(word)) {
    out.result = Match::exactly(-*number);
    return {};
  }
  if (!read_match(word, out.result)) return line.fail("'" + word + "' is no result: a number, a range or an error");
  return {};
}

bool makes_socket(CallKind kind) noexcept { return kind == CallKind::kSocket || kind == CallKind::kAccept; }

}  // namespace

Result<Call> read_call(Line& line, const std::string& made) {
  const std::string verb(line.take());
  const auto* const known = std::ranges::find(kVerbs, verb, &Verb::name);
  if (known == std::end(kVerbs)) return line.fail("'" + verb + "' is no event");
  Call out{.kind = known->kind, .made = made};
  if (out.kind != CallKind::kSocket) out.socket = line.take();
  TRY(read_arguments(line, out));
  const bool needs_result = out.kind == CallKind::kGetOption || out.kind == CallKind::kPoll;
  if (line.accept("->")) {
    TRY(read_result(line, out));
  } else if (needs_result) {
    return line.fail(verb + " needs a result: '-> ...'");
  }
  const bool fails = out.result.high < 0;
  if (!made.empty() && !makes_socket(out.kind))
    return line.fail(verb + " makes no socket that '" + made + "' could name");
  if (made.empty() && makes_socket(out.kind) && !fails)
    return line.fail(verb + " needs a name: 'c = " + verb + " ...'");
  TRY(line.expect_end());
  return out;
}

std::string to_text(const Call& call) {
  std::string text(std::ranges::find(kVerbs, call.kind, &Verb::kind)->name);
  if (!call.socket.empty()) text += " " + call.socket;
  return call.option.empty() ? text : text + " " + call.option;
}

std::string result_text(const Call& call, std::int64_t result) {
  return call.kind == CallKind::kPoll && result >= 0 ? poll_text(result) : result_text(result);
}

}  // namespace twinstack::conformance
