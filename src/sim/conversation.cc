#include "sim/conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace twinstack::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr std::size_t kBufferBytes = 65536;
constexpr int kTurns = 64;  // calls of one kind in a row

// What programs write: all of them the same noise of a prime period, each from another place, so that bytes that are
// lost, doubled, late or another's do not fit.
constexpr std::size_t kPeriodBytes = 1'000'003;

const std::byte* noise() {
  static const std::vector<std::byte> bytes = [] {
    std::vector<std::byte> made(kPeriodBytes + kBufferBytes);
    Rng rng(4711);
    for (std::size_t i = 0; i < kPeriodBytes; ++i) made[i] = static_cast<std::byte>(rng.next() >> 56);
    std::copy_n(made.begin(), kBufferBytes, made.begin() + kPeriodBytes);
    return made;
  }();
  return bytes.data();
}

// `count` bytes, at most kBufferBytes, of the stream with `key` from byte `position` on.
ByteView stream(std::uint32_t key, std::uint64_t position, std::size_t count) {
  return {noise() + (position + std::uint64_t{key} * 7'919'123) % kPeriodBytes, count};
}

constexpr std::array<const char*, kManners> kMannerNames = {"bulk",         "requests", "slow reader",
                                                            "small writes", "corked",   "idle"};
constexpr std::array<const char*, kEndings> kEndingNames = {"close", "half-close", "close with unread bytes", "abort"};

void shape(Script& script, Rng& rng) {
  const auto between = [&rng](std::uint32_t low, std::uint32_t high) { return low + rng.below(high - low + 1); };
  switch (script.manner) {
    case Manner::kBulk:
      script.piece_bytes = between(1, 65536);
      break;
    case Manner::kRequests:
      script.request_bytes = between(1, 4000);
      script.response_bytes = between(1, 20'000);
      script.pause = microseconds(rng.below(4) == 0 ? rng.below(5000) : 0);
      break;
    case Manner::kSlowReader:
      script.piece_bytes = between(1000, 65536);
      script.read_bytes = between(1, 20'000);
      script.pause = microseconds(between(100, 20'000));
      break;
    case Manner::kSmallWrites:
      script.piece_bytes = between(1, 200);
      script.pause = microseconds(between(0, 300));
      break;
    case Manner::kCorked:
      script.piece_bytes = between(10, 3000);
      script.pause = microseconds(between(10, 2000));
      break;
    case Manner::kIdle:
      script.piece_bytes = between(1, 500);
      script.pause = milliseconds(between(1, 50));
      break;
  }
}

}  // namespace

void prepare_streams() { static_cast<void>(noise()); }

Script make_script(std::uint64_t seed, Duration longest_life) {
  Rng rng(seed);
  Script script;
  script.manner = static_cast<Manner>(rng.below(kManners));
  script.ending = rng.below(2) == 0 ? Ending::kClose : static_cast<Ending>(rng.below(kEndings));
  for (std::uint64_t& total : script.total_bytes) total = rng.below(4) == 0 ? 0 : 1 + rng.below(4'000'000);
  if (script.manner == Manner::kRequests) script.total_bytes = {UINT32_MAX, UINT32_MAX};
  script.no_delay = rng.below(2) == 0;
  const auto longest_us = static_cast<std::uint32_t>(std::chrono::duration_cast<microseconds>(longest_life).count());
  script.life = microseconds(longest_us / 4 + rng.below(longest_us * 3 / 4 + 1));
  shape(script, rng);
  return script;
}

std::string describe(const Script& script) {
  return fmt::format("{}, {}", kMannerNames[static_cast<std::size_t>(script.manner)],
                     kEndingNames[static_cast<std::size_t>(script.ending)]);
}

Conversation::Conversation(std::uint32_t number, const Script& script, std::uint64_t seed, Time now)
    : number_(number), script_(script), rng_(seed), ends_at_(now + script.life) {
  for (Side& side : sides_) side.wakes_at = side.next_write = side.next_read = now;
}

void Conversation::hurry(Time now) {
  ends_at_ = std::min(ends_at_, now);
  for (Side& side : sides_) side.reads_again = now;
}

void Conversation::side_died(unsigned side) {
  may_break();
  sides_[side].endpoint.reset();
  sides_[side].is_dead = true;
  sides_[side].is_closed = true;
}

void Conversation::abandon() {
  may_break();
  for (unsigned side = 0; side < 2; ++side) {
    if (sides_[side].endpoint != nullptr) close(side);
    sides_[side].is_closed = true;
    sides_[side].wakes_at = kNever;
  }
}

void Conversation::fail(std::string what) {
  if (failure_.empty()) failure_ = fmt::format("connection {} ({}): {}", number_, describe(script_), what);
}

// The other side may have been told to end it; else nobody asked for an error.
void Conversation::on_error(unsigned side, int error_number, const char* call) {
  sides_[side].error = error_number;
  if (!may_break_)
    fail(fmt::format("side {}: {} says {} after {} bytes written, {} read", side, call, std::strerror(error_number),
                     sides_[side].written, sides_[side].read));
  close(side);
}

void Conversation::close(unsigned side) {
  Side& of = sides_[side];
  if (of.is_closed) return;
  of.is_closed = true;
  of.wakes_at = kNever;
  of.endpoint->close();
}

void Conversation::check(unsigned side, ByteView bytes) {
  const ByteView expected = stream(key(1 - side), sides_[side].read, bytes.size());
  if (std::memcmp(expected.data(), bytes.data(), bytes.size()) == 0) return;
  const auto wrong = std::ranges::mismatch(bytes, expected).in1 - bytes.begin();
  fail(fmt::format("side {} read a wrong byte at position {}", side,
                   sides_[side].read + static_cast<std::uint64_t>(wrong)));
}

// False: it has stopped although there may be more.
bool Conversation::read_some(unsigned side, Time now) {
  Side& of = sides_[side];
  const bool is_slow = script_.manner == Manner::kSlowReader && !is_ending(now);
  static std::array<std::byte, kBufferBytes> read_room;
  if (now < of.reads_again) return true;
  for (int turn = 0; turn < kTurns && !of.got_end && !of.is_closed; ++turn) {
    if (is_slow && now < of.next_read) return true;
    const std::span room = std::span(read_room).first(std::min<std::size_t>(script_.read_bytes, kBufferBytes));
    const Moved got = of.endpoint->receive(room);
    if (got == -EAGAIN) return true;
    if (got < 0) {
      on_error(side, static_cast<int>(-got), "recv");
      return true;
    }
    of.got_end = got == 0;
    check(side, ByteView(room).first(static_cast<std::size_t>(got)));
    of.read += static_cast<std::uint64_t>(got);
    if (is_slow) of.next_read = now + script_.pause;
    if (of.read > sides_[1 - side].written) fail(fmt::format("side {} read more than was written", side));
    if (of.got_end && !may_break_ && of.read != sides_[1 - side].written)
      fail(
          fmt::format("side {} read the end of the stream at {} of {} bytes", side, of.read, sides_[1 - side].written));
    if (of.got_end && !may_break_ && !has_ended(1 - side))
      fail(fmt::format("side {} read an end of the stream that nobody sent", side));
  }
  return of.got_end || of.is_closed;
}

// Up to which position this side may write now.
std::uint64_t Conversation::may_write(unsigned side, Time now) const {
  const Side& of = sides_[side];
  if (is_ending(now) && script_.manner != Manner::kRequests) return of.written;
  if (script_.manner != Manner::kRequests) return script_.total_bytes[side];
  if (side == 1) return of.read / script_.request_bytes * script_.response_bytes;
  const std::uint64_t answered = of.read / script_.response_bytes;
  if (is_ending(now) && of.written % script_.request_bytes == 0) return of.written;
  return (answered + 1) * script_.request_bytes;
}

bool Conversation::write_some(unsigned side, Time now) {
  Side& of = sides_[side];
  const bool in_pieces = script_.manner != Manner::kBulk && script_.manner != Manner::kSlowReader;
  for (int turn = 0; turn < kTurns && !of.shut && !of.is_closed; ++turn) {
    if (in_pieces && now < of.next_write) return true;
    const std::uint64_t limit = may_write(side, now);
    if (of.written >= limit) return true;
    const bool whole = script_.manner == Manner::kRequests;
    const std::uint64_t most =
        whole ? limit - of.written : std::min<std::uint64_t>(limit - of.written, script_.piece_bytes);
    const ByteView bytes = stream(key(side), of.written, std::min<std::size_t>(most, kBufferBytes));
    const bool more = script_.manner == Manner::kCorked && rng_.below(4) != 0;
    const Moved done = of.endpoint->send(bytes, more);
    if (done == -EAGAIN) return true;
    if (done < 0) {
      on_error(side, static_cast<int>(-done), "send");
      return true;
    }
    of.written += static_cast<std::uint64_t>(done);
    if (in_pieces) of.next_write = now + script_.pause;
  }
  return of.shut || of.is_closed;
}

// Not where the other waits for it as well.
bool Conversation::lets_other_end(unsigned side) const noexcept {
  const bool leads = side == 0 && script_.manner == Manner::kRequests;
  return sides_[side].is_quick && !sides_[1 - side].is_quick && !leads;
}

void Conversation::end_if_due(unsigned side, Time now) {
  Side& of = sides_[side];
  if (of.is_closed) return;
  const bool first = side == 0;
  if (is_ending(now) && first && script_.ending == Ending::kAbort) {
    may_break();
    of.endpoint->set_abortive();
    close(side);
    return;
  }
  if (is_ending(now) && first && script_.ending == Ending::kUnread) {
    may_break();
    close(side);
    return;
  }
  // Requests end between two of them; side 1 when side 0 has.
  const bool done = is_ending(now) && of.written >= may_write(side, now) &&
                    (script_.manner != Manner::kRequests || first || of.got_end || sides_[0].is_closed);
  const bool early = first && script_.ending == Ending::kHalfClose && of.written >= script_.total_bytes[0] &&
                     script_.manner != Manner::kRequests;
  if (!of.shut && done && !early && lets_other_end(side)) {
    if (of.got_end) close(side);
    return;
  }
  if (!of.shut && (done || early)) {
    const Moved shut = of.endpoint->shutdown_send();
    if (shut == -EAGAIN) return;
    if (shut < 0) {
      on_error(side, static_cast<int>(-shut), "shutdown");
      return;
    }
    of.shut = true;
  }
  if (of.shut && of.got_end) close(side);
}

void Conversation::run(unsigned side, Time now) {
  Side& of = sides_[side];
  if (of.is_closed || of.endpoint == nullptr) return;
  if (!of.flags_set && script_.no_delay) of.flags_set = of.endpoint->set_flags(1 /* kFlagNoDelay */) == 0;
  const bool has_read = read_some(side, now);
  const bool has_written = write_some(side, now);
  end_if_due(side, now);
  if (of.is_closed) return;
  of.wakes_at = has_read && has_written ? kNever : now + microseconds(1);  // others have their turn
  if (now < ends_at_) of.wakes_at = std::min(of.wakes_at, ends_at_);
  if (const Time again = of.endpoint->asks_again(); again > now) of.wakes_at = std::min(of.wakes_at, again);
  if (of.next_write > now) of.wakes_at = std::min(of.wakes_at, of.next_write);
  if (of.next_read > now) of.wakes_at = std::min(of.wakes_at, of.next_read);
}

std::string Conversation::state() const {
  std::string text = fmt::format("connection {} ({}):", number_, describe(script_));
  for (unsigned side = 0; side < 2; ++side) {
    const Side& of = sides_[side];
    text += fmt::format(" side {} wrote {} read {}{}{}{}{}{}", side, of.written, of.read, of.shut ? " shut" : "",
                        of.got_end ? " got-end" : "", of.is_closed ? " closed" : "", of.is_dead ? " dead" : "",
                        of.error != 0 ? fmt::format(" error {}", of.error) : "");
  }
  return text;
}

}  // namespace twinstack::sim
