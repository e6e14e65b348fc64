// What stream_peer was asked to do, and the header by which the client tells the server what its streams look like.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

namespace twinstack::peers {

enum class LoopKind : std::uint8_t { kLevel, kEdge, kPoll, kThreads };
enum class IoKind : std::uint8_t { kReadWrite, kSendRecv, kVector, kMessage };

// How this side behaves; each side has its own.
struct StreamBehaviour {
  std::uint32_t write_min_bytes = 1;
  std::uint32_t write_max_bytes = 32768;
  std::uint32_t read_max_bytes = 65536;
  std::uint32_t pause_permille = 0;  // chance of a pause after a write
  std::uint32_t pause_max_us = 2000;
  std::uint32_t slow_reader_us = 0;    // pause after every read
  std::uint64_t rate_bytes_per_s = 0;  // of each connection's writes; 0 = none
  IoKind io = IoKind::kReadWrite;
};

struct StreamOptions {
  std::string host = "0.0.0.0";
  std::uint16_t port = 0;
  LoopKind loop = LoopKind::kLevel;
  StreamBehaviour behaviour;
  int buffer_bytes = 0;       // SO_RCVBUF and SO_SNDBUF; 0 = the system's way
  double stall_limit_s = 30;  // no progress on a connection for so long is an error
  // client
  std::uint32_t connections = 1;
  std::uint64_t total_connections = 0;  // open a new one for each that ends, until so many; 0 = `connections`
  std::uint64_t bytes_up = 1 << 20;     // client -> server; 0 with --duration
  std::uint64_t bytes_down = 1 << 20;   // server -> client; 0 with --duration: until the client's end of file
  double duration_s = 0;                // send for so long instead of so many bytes
  std::uint32_t request_bytes = 0;      // request/response pattern: so many up ...
  std::uint32_t response_bytes = 0;     // ... then so many down
  std::uint64_t seed = 1;
  // server
  std::uint64_t exit_after_connections = 0;  // 0 = at SIGTERM
};

// First bytes of a connection, client -> server; little endian.
struct StreamHeader {
  std::uint64_t magic = 0x31304d5254535354U;  // "TSSTRM01"
  std::uint64_t seed_up = 0;
  std::uint64_t seed_down = 0;
  std::uint64_t bytes_up = 0;       // kUntilEnd: until end of file
  std::uint64_t bytes_down = 0;     // kUntilEnd: until the other direction has ended
  std::uint32_t request_bytes = 0;  // 0: both directions flow freely
  std::uint32_t response_bytes = 0;
};
static_assert(sizeof(StreamHeader) == 48 && std::is_trivially_copyable_v<StreamHeader>);

inline constexpr std::uint64_t kUntilEnd = ~std::uint64_t{0};

}  // namespace twinstack::peers
