// Test bench of the software stack: two namespaces, a connection between them, a peer that is a stranger (an ordinary
// socket served by a thread of its own), and the side under test. Both streams carry a known pattern, so every byte is
// checked as it arrives.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "kernel/late_filter.h"
#include "kernel/linux_kernel_conn.h"
#include "netns/netns_fixture.h"

struct hold_bpf;
struct ring_buffer;

namespace twinstack::kernel::testing {

using twinstack::testing::NetnsPair;
using twinstack::testing::Side;

enum class Family { kV4, kV6, kV6LinkLocal, kV4OnV6Socket };

// The byte at `offset` of stream `stream`.
[[nodiscard]] std::byte pattern(std::uint64_t offset, unsigned stream) noexcept;

// One end of a connection that writes and checks the pattern, never blocking.
class PatternEnd {
 public:
  PatternEnd(int fd, unsigned writes, unsigned reads) : fd_(fd), writes_(writes), reads_(reads) {}

  // Up to `bytes` of the pattern; returns how many the socket took, -errno on an error other than EAGAIN.
  long write_some(std::size_t bytes);
  // Reads and checks up to `bytes`; returns how many, -errno on an error other than EAGAIN. At the end of stream 0
  // and `ended()`.
  long read_some(std::size_t bytes);
  // Writes until the socket takes no more.
  void fill() {
    while (write_some(256U << 10) > 0) {
    }
  }
  // Bytes that left the pattern by another way (written by release()).
  void skip_written(std::uint64_t bytes) { written_ += bytes; }

  [[nodiscard]] std::uint64_t written() const { return written_; }
  [[nodiscard]] std::uint64_t read() const { return read_; }
  [[nodiscard]] std::uint64_t wrong() const { return wrong_; }
  [[nodiscard]] bool ended() const { return ended_; }

 private:
  int fd_;
  unsigned writes_;
  unsigned reads_;
  std::uint64_t written_ = 0;
  std::uint64_t read_ = 0;
  std::uint64_t wrong_ = 0;
  bool ended_ = false;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(256U << 10);
};

// The stranger: a thread that reads and writes as fast as the socket allows until told to stop.
class Peer {
 public:
  // `write_limit`: bytes to write in all; `read_pause`: read only this much per turn (small: fills the other's queues).
  Peer(UniqueFd socket, std::uint64_t write_limit, std::size_t read_bytes_per_turn);
  ~Peer();

  // No more writing; returns when `expected` bytes were read, or false after 30 s or on a socket error.
  bool finish(std::uint64_t expected);
  [[nodiscard]] std::uint64_t written() const { return written_.load(); }
  [[nodiscard]] std::uint64_t read() const { return read_.load(); }
  [[nodiscard]] std::uint64_t wrong() const { return wrong_.load(); }
  [[nodiscard]] int error() const { return error_.load(); }

 private:
  void run();

  UniqueFd socket_;
  UniqueFd wake_;
  std::uint64_t write_limit_;
  std::size_t read_bytes_per_turn_;
  PatternEnd end_;
  std::atomic<bool> stop_writing_ = false;
  std::atomic<bool> stop_ = false;
  std::atomic<std::uint64_t> written_ = 0;
  std::atomic<std::uint64_t> read_ = 0;
  std::atomic<std::uint64_t> wrong_ = 0;
  std::atomic<int> error_ = 0;
  std::thread thread_;
};

struct Connection {
  UniqueFd ours;    // in namespace a, non-blocking
  UniqueFd theirs;  // in namespace b, non-blocking
};

// Gives late packets to the kernel of `a` again: sent onto the wire at `b`'s end, whole (GSO as well).
class WireInjector {
 public:
  static Result<std::unique_ptr<WireInjector>> open(const NetnsPair& pair);
  Result<> inject(const LatePacket& packet);
  // A whole frame, whose checksum field may hold the pseudo-header sum only.
  Result<> inject_frame(std::span<const std::byte> frame);

 private:
  UniqueFd socket_;
  std::array<std::uint8_t, 6> source_mac_{};
  std::array<std::uint8_t, 6> destination_mac_{};
};

// Keeps what arrives at `a` from the kernel while on, as the steering map does in the service (F3: a packet that
// reached the 4-tuple while the socket is closed would be answered by a RST).
class IngressHold {
 public:
  static Result<std::unique_ptr<IngressHold>> attach(const NetnsPair& pair);
  IngressHold(const IngressHold&) = delete;
  IngressHold& operator=(const IngressHold&) = delete;
  ~IngressHold();

  void set(bool on);
  // Gives what was held to the kernel, in order; returns how many frames.
  Result<std::size_t> inject(WireInjector& injector);
  // Frames for which the ring had no room.
  [[nodiscard]] std::uint64_t lost() const noexcept;

 private:
  IngressHold() = default;
  static int on_frame(void* context, void* data, std::size_t size_bytes);

  hold_bpf* skeleton_ = nullptr;
  ring_buffer* ring_ = nullptr;
  WireInjector* injector_ = nullptr;
};

class Bench {
 public:
  static Result<std::unique_ptr<Bench>> create(const twinstack::testing::NetnsOptions& options = {});

  // `passive`: the side under test accepted the connection.
  Result<Connection> connect(Family family, bool passive);
  Result<std::unique_ptr<LinuxKernelConn>> take(int socket);

  [[nodiscard]] const NetnsPair& pair() const { return *pair_; }
  LinuxShared shared;
  // Counter of /proc/net/snmp or netstat ("Tcp", "OutRsts"), of one namespace.
  [[nodiscard]] std::uint64_t counter(Side side, const std::string& group, const std::string& name) const;

 private:
  std::unique_ptr<NetnsPair> pair_;
  std::unique_ptr<LateFilter> late_filter_;
  std::unique_ptr<CongestionHook> congestion_;
  std::unique_ptr<SockDiag> diag_;
};

// Durations of one operation; prints "freeze: median 4.1 us, p99 9.0 us, max 20.1 us (1000)".
class Costs {
 public:
  template <typename Fn>
  auto time(const std::string& name, Fn&& fn) {
    const std::int64_t before = now_ns();
    auto result = fn();
    samples_[name].push_back(now_ns() - before);
    return result;
  }
  void print(const std::string& title);
  [[nodiscard]] double median_us(const std::string& name);

 private:
  static std::int64_t now_ns();
  std::map<std::string, std::vector<std::int64_t>> samples_;
};

}  // namespace twinstack::kernel::testing
