// script: what a conformance script says, as values. docs/conformance-scripts.md describes the text, parser.h reads it,
// runner.h carries it out. Plain data; nothing here acts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "wire/segment.h"

namespace twinstack::conformance {

// What a number may be: everything from low to high. By default anything.
struct Match {
  std::int64_t low = std::numeric_limits<std::int64_t>::min();
  std::int64_t high = std::numeric_limits<std::int64_t>::max();

  [[nodiscard]] static constexpr Match exactly(std::int64_t value) noexcept { return {value, value}; }
  [[nodiscard]] constexpr bool is_exact() const noexcept { return low == high; }
  [[nodiscard]] constexpr bool accepts(std::int64_t value) const noexcept { return low <= value && value <= high; }

  friend bool operator==(const Match&, const Match&) = default;
};

// A number that counts from a base of the flow: sequence numbers from the initial one of their sender, timestamps from
// the sender's first. `raw`: as it lies in the header.
struct RelativeMatch {
  Match value;
  bool raw = false;

  friend bool operator==(const RelativeMatch&, const RelativeMatch&) = default;
};

// When an event is to be. By default at once: at the time of the event before it.
struct Timing {
  bool absolute = false;  // from the start of the script, else from the event before
  Duration earliest{};
  Duration latest{};
  bool strict = false;  // the tolerance was given; else the backend's own is allowed on both sides
};

// Bits of SegmentSpec::absent: options that must not be there.
enum OptionBit : std::uint8_t {
  kNoMss = 1 << 0,
  kNoWindowScale = 1 << 1,
  kNoSackPermitted = 1 << 2,
  kNoTimestamps = 1 << 3,
};

struct SackRange {
  std::int64_t left = 0;  // relative to the initial number of whoever receives the option
  std::int64_t right = 0;

  friend bool operator==(const SackRange&, const SackRange&) = default;
};

struct TimestampSpec {
  RelativeMatch value;
  RelativeMatch echo;
};

// A segment: one to inject (every number exact, the parser sees to that) or a pattern for one that is expected.
struct SegmentSpec {
  std::string flow{};      // empty: the script's first flow
  std::uint8_t flags = 0;  // PSH counts in a pattern only when it is set
  RelativeMatch seq{};
  Match bytes = Match::exactly(0);
  RelativeMatch ack{};  // meaningful with the ACK flag
  std::optional<Match> window{};
  std::optional<Match> urgent{};
  std::optional<Match> mss{};
  std::optional<Match> window_scale{};
  std::optional<TimestampSpec> timestamps{};
  std::vector<SackRange> sack{};
  std::optional<wire::Ecn> ecn{};
  std::optional<Match> ttl{};
  std::vector<std::uint8_t> raw_options{};  // inject: bytes behind the other options
  std::uint8_t absent = 0;                  // OptionBit
  bool sack_permitted = false;
  bool any_sack = false;       // pattern: the blocks do not matter
  bool corrupt = false;        // inject: a wrong checksum
  bool foreign_bytes = false;  // inject: payload that is not the peer's stream
  std::uint32_t repeat = 1;    // so many segments, each with the bytes that follow those of the one before ...
  std::uint32_t ack_step = 0;  // ... and an acknowledgement number so much higher
};

enum class IcmpKind : std::uint8_t {
  kNetUnreachable,
  kHostUnreachable,
  kProtocolUnreachable,
  kPortUnreachable,
  kFragmentationNeeded,  // packet too big, in IPv6
  kProhibited,
  kTimeExceeded,
  kParameterProblem,
  kSourceQuench,
};

// --- events ---

struct Inject {
  SegmentSpec segment;
};

// An ICMP error that quotes a segment of the host.
struct InjectIcmp {
  std::string flow{};
  IcmpKind kind = IcmpKind::kHostUnreachable;
  RelativeMatch quoted_seq{};
  std::uint32_t mtu_bytes = 0;
};

struct Expect {
  SegmentSpec segment;
  bool optional = false;  // may come before the next one that must
};

// No segment for so long.
struct ExpectNothing {
  Duration lasting{};
};

enum class CallKind : std::uint8_t {
  kSocket,
  kListen,
  kAccept,
  kConnect,
  kSend,
  kReceive,
  kShutdown,
  kClose,
  kSetOption,
  kGetOption,
  kPoll,
};

// A call of the program. `result` is what it returns; an error is a negative errno.
struct Call {
  CallKind kind = CallKind::kSocket;
  std::string socket{};
  std::string made{};  // name of the socket that it gives
  std::string flow{};  // connect: where to
  std::string option{};
  std::string text{};       // value of an option that is a word
  std::int64_t number = 0;  // bytes, backlog, value; shutdown: SHUT_*
  int flags = 0;            // MSG_*
  Match result = Match::exactly(0);
};

// A whole handshake, in which the peer behaves as `peer` says: socket, segments, accepted or connected.
struct Open {
  std::string made{};
  std::string flow{};
  bool active = false;
  Duration round_trip = std::chrono::milliseconds(20);
};

// Fields of the connection's tcp_info, by their names there without "tcpi_".
struct Check {
  std::string socket{};
  std::vector<std::pair<std::string, Match>> fields{};
};

struct Event {
  std::size_t line = 0;  // in the file, from 1
  Timing when{};
  std::variant<Inject, InjectIcmp, Expect, ExpectNothing, Call, Open, Check> what{};
};

// --- the script ---

// The peer whose segments are injected: what its SYN or SYN-ACK says, and what its segments carry when they do not say
// otherwise.
struct Peer {
  std::optional<std::uint16_t> mss = std::uint16_t{1000};
  std::optional<std::uint8_t> window_scale{};
  bool sack = true;
  bool timestamps = false;
  bool ecn = false;
  std::uint16_t window = 65535;
  std::uint32_t initial_seq = 100'000;
};

struct Flow {
  std::string name{};
  bool closed_port = false;  // to a port of the host on which nobody listens
};

// What is known of a backend and a script.
enum class Applies : std::uint8_t {
  kYes,
  kNo,       // cannot be tried there
  kDiffers,  // is known to fail there, and must
};

struct Mark {
  Applies applies = Applies::kYes;
  std::string reason{};
};

struct Script {
  std::string name{};    // path below the folder of scripts, without ending
  std::string clause{};  // "RFC 9293 3.10.7.4"
  std::string wants{};
  std::string departs{};  // how what is expected departs from the clause's letter, and why; mostly empty
  Mark core{};
  Mark on_linux{};
  Mark moves{};            // whatever the plan
  Mark after_handshake{};  // with this plan
  Mark round_trip{};       // with this one
  // What Linux cannot take back, where the script sees that of a connection that has come back. `there_only`: only when
  // it comes back by itself, having been moved to the engine.
  std::string forgotten{};
  bool forgotten_there_only = false;
  // ... where it lets a round trip at the worst of places damage the stream.
  std::string forgotten_anywhere{};
  bool numbers_apart = false;  // the initial numbers of its connections are far from each other
  int only_ip = 0;             // 4 or 6: says something about this family only
  Peer peer{};
  std::vector<std::pair<std::string, std::string>> settings{};
  std::vector<Flow> flows{};  // the first is unnamed
  std::vector<Event> events{};
};

}  // namespace twinstack::conformance
