// StreamConnection: one connection of stream_peer. Sends its own pattern and checks the other side's, each direction
// ended by shutdown/end of file. Knows what to read and write next, not when: a loop (stream_loop.h) or two threads
// (stream_threads.h) drive it.
//
// Threads: `Sender` and `Receiver` may live in one thread each; what they share is in `Shared`, atomics only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/unique_fd.h"
#include "pattern.h"
#include "stream_options.h"

namespace twinstack::peers {

enum class Role : std::uint8_t { kClient, kServer };

// What a step found.
enum class Step : std::uint8_t {
  kProgress,  // did something; may go on
  kBlocked,   // EAGAIN: wait until the socket is ready
  kPaused,    // of its own will, until `resume_at_ns`
  kNoCredit,  // may not send before more was received
  kDone,      // this direction has ended in order
  kFailed,    // `failure` says how
};

// Read by one side, written by the other.
struct Shared {
  std::atomic<std::uint64_t> received_bytes{0};  // payload, without header
  std::atomic<bool> receive_ended{false};
  std::atomic<bool> failed{false};
};

struct DirectionStats {
  std::uint64_t bytes = 0;
  StreamDigest digest;
};

class Sender {
 public:
  Sender(Role role, const StreamHeader& header, const StreamBehaviour& behaviour, std::uint64_t stop_at_ns);

  // One write at most. REQUIRES: fd is connected.
  Step step(int fd, const Shared& shared, std::uint64_t now_ns);

  std::uint64_t resume_at_ns = 0;
  DirectionStats stats;
  std::string failure;

 private:
  [[nodiscard]] std::uint64_t limit(const Shared& shared, std::uint64_t now_ns) const;
  [[nodiscard]] bool all_sent(const Shared& shared, std::uint64_t now_ns) const;
  Step write_bytes(int fd, std::span<const std::byte> bytes, bool is_header);
  Step send_header(int fd);
  Step finish(int fd);
  void plan_pause(std::uint64_t now_ns);
  Step fail(const char* what);

  Role role_;
  StreamHeader header_;
  StreamBehaviour behaviour_;
  Pattern pattern_;
  Rng rng_;
  std::uint64_t stop_at_ns_;  // 0 = by bytes
  std::uint64_t started_ns_ = 0;
  std::size_t header_sent_ = 0;
  std::uint32_t next_write_bytes_ = 0;
  std::vector<std::byte> buffer_;
};

class Receiver {
 public:
  Receiver(Role role, const StreamHeader& header, const StreamBehaviour& behaviour);

  // One read at most.
  Step step(int fd, Shared& shared, std::uint64_t now_ns);

  std::uint64_t resume_at_ns = 0;
  std::uint64_t last_progress_ns = 0;
  std::uint64_t longest_stall_ns = 0;
  DirectionStats stats;
  std::string failure;

 private:
  Step check(std::span<const std::byte> bytes, Shared& shared);
  Step end_of_file(Shared& shared);
  Step fail(std::string what, Shared& shared);

  std::uint64_t expected_bytes_;
  Pattern pattern_;
  StreamBehaviour behaviour_;
  Rng rng_;
  std::vector<std::byte> buffer_;
};

// Reads the header of a new connection on the server's side, in as many pieces as it comes.
class HeaderReader {
 public:
  Step step(int fd);
  [[nodiscard]] const StreamHeader& header() const noexcept { return header_; }
  std::string failure;

 private:
  StreamHeader header_;
  std::size_t have_bytes_ = 0;
};

}  // namespace twinstack::peers
