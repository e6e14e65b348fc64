// Conversation: the two programs of one connection: what each writes and when, how it reads, how it ends; every byte is
// compared with what the other end wrote at that position. Knows nothing of moves. Virtual time; one thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/rng.h"
#include "sim/endpoint.h"

namespace twinstack::sim {

enum class Manner : std::uint8_t {
  kBulk,        // as much as goes
  kRequests,    // side 1 answers each request of side 0
  kSlowReader,  // bulk, and the reader takes its time
  kSmallWrites,
  kCorked,
  kIdle,  // a few bytes now and then
};
inline constexpr std::size_t kManners = 6;

enum class Ending : std::uint8_t {
  kClose,      // both close when all is read
  kHalfClose,  // side 0 shuts down early and reads on
  kUnread,     // side 0 closes with unread bytes: a reset
  kAbort,      // side 0 resets
};
inline constexpr std::size_t kEndings = 4;

struct Script {
  Manner manner = Manner::kBulk;
  Ending ending = Ending::kClose;
  std::array<std::uint64_t, 2> total_bytes{};  // that each side writes
  std::uint32_t piece_bytes = 16384;           // of one write
  std::uint32_t request_bytes = 64;
  std::uint32_t response_bytes = 64;
  std::uint32_t read_bytes = 65536;         // at most, of one read
  Duration pause{};                         // between writes (idle, small, requests) or reads (slow reader)
  Duration life = std::chrono::seconds(1);  // after it the end begins, whatever has been written
  bool no_delay = false;
};
// Makes what all processes of a run share; else the first conversation does.
void prepare_streams();
[[nodiscard]] Script make_script(std::uint64_t seed, Duration longest_life);
[[nodiscard]] std::string describe(const Script& script);

class Conversation {
 public:
  Conversation(std::uint32_t number, const Script& script, std::uint64_t seed, Time now);

  void set_endpoint(unsigned side, std::unique_ptr<Endpoint> endpoint) { sides_[side].endpoint = std::move(endpoint); }
  // The program of this side runs: does what it can without waiting.
  void run(unsigned side, Time now);
  // When it wants to run although nothing has become ready.
  [[nodiscard]] Time due(unsigned side) const noexcept { return is_open(side) ? sides_[side].wakes_at : kNever; }
  // The program of this side reads nothing until then.
  void stop_reading(unsigned side, Time until) { sides_[side].reads_again = until; }
  // The program of this side lets the other end first, then closes at once: without shutdown, with what it has sent
  // still queued.
  void close_quickly(unsigned side) noexcept { sides_[side].is_quick = true; }
  // The end begins now.
  void hurry(Time now);

  [[nodiscard]] bool is_open(unsigned side) const noexcept { return sides_[side].endpoint != nullptr; }
  // It never came about.
  void abandon();

  // The process of this side is gone: its endpoint must not be used any more.
  void side_died(unsigned side);
  // Something that ends a connection early was done to it: errors are no failure any more.
  void may_break() noexcept { may_break_ = true; }
  [[nodiscard]] bool breaks_allowed() const noexcept { return may_break_; }

  [[nodiscard]] bool is_over() const noexcept { return sides_[0].is_closed && sides_[1].is_closed; }
  [[nodiscard]] bool is_closed(unsigned side) const noexcept { return sides_[side].is_closed; }
  [[nodiscard]] bool has_ended(unsigned side) const noexcept { return sides_[side].shut || sides_[side].is_closed; }
  [[nodiscard]] std::uint64_t written(unsigned side) const noexcept { return sides_[side].written; }
  [[nodiscard]] std::uint64_t read(unsigned side) const noexcept { return sides_[side].read; }
  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }
  [[nodiscard]] const Script& script() const noexcept { return script_; }
  // Empty, or what went wrong.
  [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
  [[nodiscard]] std::string state() const;

 private:
  struct Side {
    std::unique_ptr<Endpoint> endpoint;
    std::uint64_t written = 0;
    std::uint64_t read = 0;
    bool flags_set = false;
    bool is_quick = false;
    bool shut = false;     // our end of the stream was sent
    bool got_end = false;  // the other's was read
    bool is_closed = false;
    bool is_dead = false;
    int error = 0;
    Time wakes_at{};
    Time next_write{};
    Time next_read{};
    Time reads_again{};
  };

  [[nodiscard]] bool read_some(unsigned side, Time now);
  [[nodiscard]] bool write_some(unsigned side, Time now);
  void end_if_due(unsigned side, Time now);
  [[nodiscard]] bool lets_other_end(unsigned side) const noexcept;
  void close(unsigned side);
  [[nodiscard]] std::uint64_t may_write(unsigned side, Time now) const;
  [[nodiscard]] bool is_ending(Time now) const noexcept { return now >= ends_at_; }
  void check(unsigned side, ByteView bytes);
  void on_error(unsigned side, int error_number, const char* call);
  void fail(std::string what);
  [[nodiscard]] std::uint32_t key(unsigned writer) const noexcept { return number_ * 2 + writer + 1; }

  std::uint32_t number_;
  Script script_;
  Rng rng_;
  Time ends_at_;
  std::array<Side, 2> sides_;
  bool may_break_ = false;
  std::string failure_;
};

}  // namespace twinstack::sim
