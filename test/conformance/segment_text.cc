#include "segment_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace twinstack::conformance {
namespace {

struct FlagLetter {
  char letter;
  std::uint8_t bit;
};
constexpr FlagLetter kFlagLetters[] = {{'S', wire::kSyn}, {'F', wire::kFin}, {'R', wire::kRst}, {'P', wire::kPsh},
                                       {'A', wire::kAck}, {'U', wire::kUrg}, {'E', wire::kEce}, {'C', wire::kCwr}};

struct EcnName {
  std::string_view name;
  wire::Ecn ecn;
};
constexpr EcnName kEcnNames[] = {
    {"not-ect", wire::Ecn::kNotEct}, {"ect0", wire::Ecn::kEct0}, {"ect1", wire::Ecn::kEct1}, {"ce", wire::Ecn::kCe}};

struct AbsentName {
  std::string_view name;
  std::uint8_t bit;
};
constexpr AbsentName kAbsentNames[] = {
    {"no-mss", kNoMss}, {"no-wscale", kNoWindowScale}, {"no-sackok", kNoSackPermitted}, {"no-ts", kNoTimestamps}};

bool read_flags(std::string_view word, std::uint8_t& out) noexcept {
  out = 0;
  if (word == "-") return true;
  for (const char letter : word) {
    const auto* const known = std::ranges::find(kFlagLetters, letter, &FlagLetter::letter);
    if (known == std::end(kFlagLetters)) return false;
    out = static_cast<std::uint8_t>(out | known->bit);
  }
  return !word.empty();
}

bool read_relative(std::string_view word, RelativeMatch& out) noexcept {
  out.raw = word.starts_with('=');
  return read_match(word.substr(out.raw ? 1 : 0), out.value);
}

Result<> read_seq(Line& line, SegmentSpec& out) {
  const std::string_view word = line.take();
  const std::size_t plus = word.find('+');
  bool ok = read_relative(word.substr(0, plus), out.seq);
  if (plus != std::string_view::npos) ok = ok && read_match(word.substr(plus + 1), out.bytes);
  if (ok) return {};
  return line.fail(fmt::format("sequence number and length are to be like 1, 1+1000 or =0, not '{}'", word));
}

Result<> read_ack(Line& line, SegmentSpec& out) {
  const std::string_view word = line.take();
  if (!read_relative(word, out.ack)) return line.fail(fmt::format("ack is to be a number, not '{}'", word));
  return {};
}

Result<> read_timestamps(Line& line, SegmentSpec& out) {
  const std::string_view word = line.take();
  const std::size_t slash = word.find('/');
  TimestampSpec spec;
  if (slash == std::string_view::npos || !read_relative(word.substr(0, slash), spec.value) ||
      !read_relative(word.substr(slash + 1), spec.echo)) {
    return line.fail(fmt::format("timestamps are to be like 100/20, */20 or */*, not '{}'", word));
  }
  out.timestamps = spec;
  return {};
}

bool read_block(std::string_view text, SackRange& out) noexcept {
  const std::size_t dash = text.find('-');
  return dash != std::string_view::npos && read_number(text.substr(0, dash), out.left) &&
         read_number(text.substr(dash + 1), out.right);
}

// "2001-3001,4001-5001" or "*".
Result<> read_sack(Line& line, SegmentSpec& out) {
  std::string_view word = line.take();
  out.any_sack = word == "*";
  if (out.any_sack) return {};
  while (true) {
    const std::size_t comma = word.find(',');
    SackRange range;
    if (!read_block(word.substr(0, comma), range)) {
      return line.fail(fmt::format("SACK blocks are to be like 2001-3001,4001-5001 or *, not '{}'", word));
    }
    out.sack.push_back(range);
    if (comma == std::string_view::npos) return {};
    word.remove_prefix(comma + 1);
  }
}

// "fd00aabb": pairs of hexadecimal digits.
Result<> read_raw_options(Line& line, SegmentSpec& out) {
  const std::string word(line.take());
  const bool hex = word.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (word.empty() || !hex || word.size() % 8 != 0) {
    return line.fail("option is to be bytes in hexadecimal, a multiple of four of them, not '" + word + "'");
  }
  for (std::size_t at = 0; at < word.size(); at += 2) {
    out.raw_options.push_back(static_cast<std::uint8_t>(std::stoul(word.substr(at, 2), nullptr, 16)));
  }
  return {};
}

Result<> read_count(Line& line, std::string_view what, std::uint32_t& out) {
  ASSIGN_OR_RETURN(const std::int64_t number, line.take_number(what));
  if (number < 1 || number > 1'000'000) return line.fail(fmt::format("{} is to be from 1 to 1000000", what));
  out = static_cast<std::uint32_t>(number);
  return {};
}

// Words that stand alone. False when `word` is none of them.
bool read_bare_word(std::string_view word, SegmentSpec& out) noexcept {
  if (const auto* ecn = std::ranges::find(kEcnNames, word, &EcnName::name); ecn != std::end(kEcnNames)) {
    out.ecn = ecn->ecn;
    return true;
  }
  if (const auto* no = std::ranges::find(kAbsentNames, word, &AbsentName::name); no != std::end(kAbsentNames)) {
    out.absent = static_cast<std::uint8_t>(out.absent | no->bit);
    return true;
  }
  out.sack_permitted = out.sack_permitted || word == "sackok";
  out.corrupt = out.corrupt || word == "corrupt";
  out.foreign_bytes = out.foreign_bytes || word == "foreign";
  return word == "sackok" || word == "corrupt" || word == "foreign";
}

std::optional<Match> SegmentSpec::* numeric_field(std::string_view word) noexcept {
  if (word == "win") return &SegmentSpec::window;
  if (word == "urgent") return &SegmentSpec::urgent;
  if (word == "mss") return &SegmentSpec::mss;
  if (word == "wscale") return &SegmentSpec::window_scale;
  if (word == "ttl") return &SegmentSpec::ttl;
  return nullptr;
}

// "x10" or "x 10"; "each 1000".
Result<bool> read_repetition(Line& line, std::string_view word, SegmentSpec& out) {
  if (word == "each") {
    TRY(read_count(line, word, out.ack_step));
    return true;
  }
  std::int64_t times = 0;
  if (!word.starts_with('x') || !read_number(word.substr(1), times)) return false;
  if (times < 1 || times > 1000) return line.fail("a segment is repeated from 1 to 1000 times");
  out.repeat = static_cast<std::uint32_t>(times);
  return true;
}

Result<> read_field(Line& line, SegmentSpec& out) {
  const std::string word(line.take());
  if (word == "ack") return read_ack(line, out);
  if (word == "ts") return read_timestamps(line, out);
  if (word == "sack") return read_sack(line, out);
  if (word == "option") return read_raw_options(line, out);
  if (const auto field = numeric_field(word); field != nullptr) {
    ASSIGN_OR_RETURN(out.*field, line.take_match(word));
    return {};
  }
  ASSIGN_OR_RETURN(const bool repeated, read_repetition(line, word, out));
  if (repeated || read_bare_word(word, out)) return {};
  return line.fail(fmt::format("'{}' is no field of a segment", word));
}

bool exact(const std::optional<Match>& match) noexcept { return !match.has_value() || match->is_exact(); }

// --- to text ---

std::string flags_text(std::uint8_t flags) {
  std::string text;
  for (const FlagLetter& known : kFlagLetters) {
    if ((flags & known.bit) != 0) text += known.letter;
  }
  return text.empty() ? "-" : text;
}

std::string ecn_text(wire::Ecn ecn) { return std::string(std::ranges::find(kEcnNames, ecn, &EcnName::ecn)->name); }

std::int64_t relative(std::uint32_t value, std::uint32_t base) { return static_cast<std::int32_t>(value - base); }

std::string options_text(const wire::TcpOptions& options, const FlowBase& base) {
  std::string text;
  if (options.has_mss) text += fmt::format(" mss {}", options.mss);
  if (options.has_window_scale) text += fmt::format(" wscale {}", options.window_scale);
  if (options.sack_permitted) text += " sackok";
  if (options.has_timestamps) {
    text += fmt::format(" ts {}/{}", relative(options.ts_val, base.sender_first_ts),
                        relative(options.ts_ecr, base.receiver_first_ts));
  }
  for (std::size_t i = 0; i < options.sack_count; ++i) {
    text += fmt::format("{}{}-{}", i == 0 ? " sack " : ",", options.sack[i].left - base.receiver_initial,
                        options.sack[i].right - base.receiver_initial);
  }
  return text;
}

// --- comparison ---

std::string wanted_text(const Match& match) {
  if (match.is_exact()) return fmt::format("{}", match.low);
  if (match.low == Match{}.low) return fmt::format("at most {}", match.high);
  if (match.high == Match{}.high) return fmt::format("at least {}", match.low);
  return fmt::format("{} to {}", match.low, match.high);
}

std::string number_difference(std::string_view name, const std::optional<Match>& wanted, std::int64_t got) {
  if (!wanted.has_value() || wanted->accepts(got)) return {};
  return fmt::format("{} is {}, not {}", name, got, wanted_text(*wanted));
}

std::string relative_difference(std::string_view name, const RelativeMatch& wanted, std::uint32_t got,
                                std::uint32_t base) {
  return number_difference(name, wanted.value, wanted.raw ? std::int64_t{got} : relative(got, base));
}

// An option with a number: `there` and its value.
std::string option_difference(std::string_view name, const std::optional<Match>& wanted, bool forbidden, bool there,
                              std::int64_t got) {
  if (forbidden && there) return fmt::format("option {} is there", name);
  if (!wanted.has_value()) return {};
  return there ? number_difference(name, wanted, got) : fmt::format("option {} is not there", name);
}

std::string timestamp_difference(const SegmentSpec& wanted, const wire::TcpOptions& options, const FlowBase& base) {
  if ((wanted.absent & kNoTimestamps) != 0 && options.has_timestamps) return "option ts is there";
  if (!wanted.timestamps.has_value()) return {};
  if (!options.has_timestamps) return "option ts is not there";
  std::string found = relative_difference("TSval", wanted.timestamps->value, options.ts_val, base.sender_first_ts);
  if (!found.empty()) return found;
  return relative_difference("TSecr", wanted.timestamps->echo, options.ts_ecr, base.receiver_first_ts);
}

bool same_blocks(const SegmentSpec& wanted, const wire::TcpOptions& options, Seq base) {
  if (wanted.sack.size() != options.sack_count) return false;
  for (std::size_t i = 0; i < wanted.sack.size(); ++i) {
    const SackRange got{options.sack[i].left - base, options.sack[i].right - base};
    if (got != wanted.sack[i]) return false;
  }
  return true;
}

std::string options_difference(const SegmentSpec& wanted, const wire::TcpOptions& options, const FlowBase& base) {
  std::string found = option_difference("mss", wanted.mss, (wanted.absent & kNoMss) != 0, options.has_mss, options.mss);
  if (found.empty()) {
    found = option_difference("wscale", wanted.window_scale, (wanted.absent & kNoWindowScale) != 0,
                              options.has_window_scale, options.window_scale);
  }
  if (found.empty()) found = timestamp_difference(wanted, options, base);
  if (!found.empty()) return found;
  if (wanted.sack_permitted && !options.sack_permitted) return "option sackok is not there";
  if ((wanted.absent & kNoSackPermitted) != 0 && options.sack_permitted) return "option sackok is there";
  if (!wanted.any_sack && !same_blocks(wanted, options, base.receiver_initial)) return "the SACK blocks differ";
  return {};
}

std::string flags_difference(const SegmentSpec& wanted, std::uint8_t got) {
  const auto ignored = static_cast<std::uint8_t>((wanted.flags & wire::kPsh) != 0 ? 0 : wire::kPsh);
  if ((got & ~ignored) == wanted.flags) return {};
  return fmt::format("flags are {}, not {}", flags_text(got), flags_text(wanted.flags));
}

}  // namespace

Result<SegmentSpec> read_segment(Line& line) {
  SegmentSpec out;
  if (line.peek().ends_with(':')) {
    out.flow = line.take();
    out.flow.pop_back();
  }
  const std::string flags(line.take());
  if (!read_flags(flags, out.flags)) {
    return line.fail(fmt::format("flags are to be letters of SFRPAUEC or -, not '{}'", flags));
  }
  TRY(read_seq(line, out));
  while (!line.at_end()) TRY(read_field(line, out));
  return out;
}

Result<SegmentSpec> read_exact_segment(Line& line) {
  ASSIGN_OR_RETURN(SegmentSpec out, read_segment(line));
  const bool acknowledges = (out.flags & wire::kAck) != 0;
  const bool numbers = exact(out.window) && exact(out.urgent) && exact(out.mss) && exact(out.window_scale) &&
                       exact(out.ttl) && out.seq.value.is_exact() && out.bytes.is_exact();
  if (!numbers || out.any_sack) return line.fail("a segment to inject needs exact numbers");
  if (acknowledges != out.ack.value.is_exact()) return line.fail("'ack' goes with the flag A, and needs a number");
  if (out.bytes.low < 0 || out.bytes.low > 65'000) return line.fail("a segment has from 0 to 65000 bytes");
  return out;
}

std::string to_text(const wire::Segment& segment, std::uint32_t payload_bytes, const FlowBase& base) {
  std::string text = flags_text(segment.flags) + fmt::format(" {}", segment.seq - base.sender_initial);
  if (payload_bytes > 0) text += fmt::format("+{}", payload_bytes);
  if (segment.has(wire::kAck)) text += fmt::format(" ack {}", segment.ack - base.receiver_initial);
  text += fmt::format(" win {}", segment.window);
  if (segment.has(wire::kUrg)) text += fmt::format(" urgent {}", segment.urgent);
  text += options_text(segment.options, base);
  if (segment.ecn != wire::Ecn::kNotEct) text += " " + ecn_text(segment.ecn);
  return text;
}

std::string difference(const SegmentSpec& wanted, const wire::Segment& segment, std::uint32_t payload_bytes,
                       std::uint8_t ttl, const FlowBase& base) {
  std::string found = flags_difference(wanted, segment.flags);
  if (found.empty()) {
    found = relative_difference("sequence number", wanted.seq, segment.seq.raw(), base.sender_initial.raw());
  }
  if (found.empty()) found = number_difference("length", wanted.bytes, payload_bytes);
  if (found.empty() && segment.has(wire::kAck)) {
    found = relative_difference("ack", wanted.ack, segment.ack.raw(), base.receiver_initial.raw());
  }
  if (found.empty()) found = number_difference("win", wanted.window, segment.window);
  if (found.empty()) found = number_difference("urgent", wanted.urgent, segment.urgent);
  if (found.empty()) found = number_difference("ttl", wanted.ttl, ttl);
  if (found.empty()) found = options_difference(wanted, segment.options, base);
  if (found.empty() && wanted.ecn.has_value() && *wanted.ecn != segment.ecn) found = "ECN is " + ecn_text(segment.ecn);
  return found;
}

SegmentSpec repetition(const SegmentSpec& spec, std::uint32_t n) {
  SegmentSpec out = spec;
  const auto shift = [&](Match& match, std::int64_t by) {
    if (match.low != Match{}.low) match.low += by;
    if (match.high != Match{}.high) match.high += by;
  };
  shift(out.seq.value, std::int64_t{n} * (spec.bytes.is_exact() ? spec.bytes.low : 0));
  shift(out.ack.value, std::int64_t{n} * spec.ack_step);
  return out;
}

}  // namespace twinstack::conformance
