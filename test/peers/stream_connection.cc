// See stream_connection.h.
#include "stream_connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sockets.h"
#include "stream_io.h"

namespace twinstack::peers {
namespace {

constexpr std::uint64_t kNsPerUs = 1000;

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

}  // namespace

Sender::Sender(Role role, const StreamHeader& header, const StreamBehaviour& behaviour, std::uint64_t stop_at_ns)
    : role_(role),
      header_(header),
      behaviour_(behaviour),
      pattern_(role == Role::kClient ? header.seed_up : header.seed_down),
      rng_(header.seed_up ^ (role == Role::kClient ? 0xc11e47U : 0x5e4fe4U)),
      stop_at_ns_(stop_at_ns),
      header_sent_(role == Role::kClient ? 0 : sizeof header),
      buffer_(std::max(behaviour.write_max_bytes, behaviour.write_min_bytes)) {}

Step Sender::fail(const char* what) {
  failure = std::string(what) + ": " + std::strerror(errno);
  return Step::kFailed;
}

// How many bytes may be out by now: all, or what the request/response pattern allows.
std::uint64_t Sender::limit(const Shared& shared, std::uint64_t now_ns) const {
  std::uint64_t total = role_ == Role::kClient ? header_.bytes_up : header_.bytes_down;
  if (stop_at_ns_ != 0 && now_ns >= stop_at_ns_) total = stats.bytes;
  if (header_.request_bytes == 0) return total;
  const std::uint64_t received = shared.received_bytes.load(std::memory_order_acquire);
  std::uint64_t credit = 0;
  if (role_ == Role::kClient) {
    credit = (received / header_.response_bytes + 1) * header_.request_bytes;
  } else {
    credit = received / header_.request_bytes * header_.response_bytes;
  }
  return std::min(total, credit);
}

bool Sender::all_sent(const Shared& shared, std::uint64_t now_ns) const {
  if (role_ == Role::kServer && header_.bytes_down == kUntilEnd) {
    return shared.receive_ended.load(std::memory_order_acquire) &&
           (header_.request_bytes == 0 || stats.bytes >= limit(shared, now_ns));
  }
  if (stop_at_ns_ != 0 && now_ns >= stop_at_ns_) return true;
  return stats.bytes >= (role_ == Role::kClient ? header_.bytes_up : header_.bytes_down);
}

Step Sender::write_bytes(int fd, std::span<const std::byte> bytes, bool is_header) {
  const ssize_t sent = send_some(fd, bytes, behaviour_.io);
  if (sent < 0 && errno == EINTR) return Step::kProgress;
  if (sent < 0 && would_block(errno)) return Step::kBlocked;
  if (sent < 0) return fail("write");
  const auto taken = bytes.first(static_cast<std::size_t>(sent));
  if (is_header) {
    header_sent_ += taken.size();
  } else {
    stats.digest.update(taken);
    stats.bytes += taken.size();
  }
  return Step::kProgress;
}

Step Sender::send_header(int fd) {
  const auto bytes = std::as_bytes(std::span(&header_, 1));
  return write_bytes(fd, bytes.subspan(header_sent_), true);
}

Step Sender::finish(int fd) {
  if (shutdown(fd, SHUT_WR) != 0) return fail("shutdown");
  return Step::kDone;
}

void Sender::plan_pause(std::uint64_t now_ns) {
  if (behaviour_.pause_permille != 0 && rng_.below(1000) < behaviour_.pause_permille) {
    resume_at_ns = now_ns + std::uint64_t{rng_.below(behaviour_.pause_max_us + 1)} * kNsPerUs;
  }
  if (behaviour_.rate_bytes_per_s != 0) {
    const double due_s = static_cast<double>(stats.bytes) / static_cast<double>(behaviour_.rate_bytes_per_s);
    resume_at_ns = std::max(resume_at_ns, started_ns_ + static_cast<std::uint64_t>(due_s * 1e9));
  }
}

Step Sender::step(int fd, const Shared& shared, std::uint64_t now_ns) {
  if (started_ns_ == 0) started_ns_ = now_ns;
  if (header_sent_ < sizeof header_) return send_header(fd);
  if (all_sent(shared, now_ns)) return finish(fd);
  if (resume_at_ns > now_ns) return Step::kPaused;
  const std::uint64_t may_send = limit(shared, now_ns) - std::min(limit(shared, now_ns), stats.bytes);
  if (may_send == 0) return Step::kNoCredit;
  if (next_write_bytes_ == 0) {
    const std::uint32_t spread = static_cast<std::uint32_t>(buffer_.size()) - behaviour_.write_min_bytes + 1;
    next_write_bytes_ = behaviour_.write_min_bytes + rng_.below(spread);
  }
  const std::span<std::byte> piece(buffer_.data(), std::min<std::uint64_t>(next_write_bytes_, may_send));
  pattern_.fill(stats.bytes, piece);
  const Step result = write_bytes(fd, piece, false);
  if (result == Step::kProgress) {
    next_write_bytes_ = 0;
    plan_pause(now_ns);
  }
  return result;
}

Receiver::Receiver(Role role, const StreamHeader& header, const StreamBehaviour& behaviour)
    : expected_bytes_(role == Role::kClient ? header.bytes_down : header.bytes_up),
      pattern_(role == Role::kClient ? header.seed_down : header.seed_up),
      behaviour_(behaviour),
      rng_(header.seed_down ^ 0x7ead),
      buffer_(behaviour.read_max_bytes) {}

Step Receiver::fail(std::string what, Shared& shared) {
  failure = std::move(what);
  shared.failed.store(true, std::memory_order_release);
  return Step::kFailed;
}

Step Receiver::check(std::span<const std::byte> bytes, Shared& shared) {
  if (const auto wrong = pattern_.first_mismatch(stats.bytes, bytes)) {
    return fail("wrong byte at " + std::to_string(*wrong), shared);
  }
  stats.digest.update(bytes);
  stats.bytes += bytes.size();
  if (expected_bytes_ != kUntilEnd && stats.bytes > expected_bytes_) return fail("more bytes than announced", shared);
  shared.received_bytes.store(stats.bytes, std::memory_order_release);
  return Step::kProgress;
}

Step Receiver::end_of_file(Shared& shared) {
  if (expected_bytes_ != kUntilEnd && stats.bytes != expected_bytes_) {
    return fail(
        "end of file after " + std::to_string(stats.bytes) + " of " + std::to_string(expected_bytes_) + " bytes",
        shared);
  }
  shared.receive_ended.store(true, std::memory_order_release);
  return Step::kDone;
}

Step Receiver::step(int fd, Shared& shared, std::uint64_t now_ns) {
  if (last_progress_ns == 0) last_progress_ns = now_ns;
  if (resume_at_ns > now_ns) return Step::kPaused;
  const std::size_t wanted = 1 + rng_.below(static_cast<std::uint32_t>(buffer_.size()));
  const std::span<std::byte> into(buffer_.data(), std::max<std::size_t>(wanted, buffer_.size() / 2));
  const ssize_t got = receive_some(fd, into, behaviour_.io);
  if (got < 0 && errno == EINTR) return Step::kProgress;
  if (got < 0 && would_block(errno)) return Step::kBlocked;
  if (got < 0) return fail(std::string("read: ") + std::strerror(errno), shared);
  // The clock is read again: a blocking read may have slept.
  now_ns = peers::now_ns();
  longest_stall_ns = std::max(longest_stall_ns, now_ns - last_progress_ns);
  last_progress_ns = now_ns;
  if (got == 0) return end_of_file(shared);
  if (behaviour_.slow_reader_us != 0) resume_at_ns = now_ns + behaviour_.slow_reader_us * kNsPerUs;
  return check(into.first(static_cast<std::size_t>(got)), shared);
}

Step HeaderReader::step(int fd) {
  auto* bytes = reinterpret_cast<std::byte*>(&header_);  // trivially copyable, filled from the network
  const ssize_t got = read(fd, bytes + have_bytes_, sizeof header_ - have_bytes_);
  if (got < 0 && errno == EINTR) return Step::kProgress;
  if (got < 0 && would_block(errno)) return Step::kBlocked;
  if (got <= 0) {
    failure = got == 0 ? "end of file in the header" : std::string("read header: ") + std::strerror(errno);
    return Step::kFailed;
  }
  have_bytes_ += static_cast<std::size_t>(got);
  if (have_bytes_ < sizeof header_) return Step::kProgress;
  const bool half_pattern = (header_.request_bytes == 0) != (header_.response_bytes == 0);
  if (header_.magic == StreamHeader{}.magic && !half_pattern) return Step::kDone;
  failure = "not a stream_peer client";
  return Step::kFailed;
}

}  // namespace twinstack::peers
