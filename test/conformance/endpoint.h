// Endpoint: the host under test, as the runner sees it: a program's socket calls on one side, the wire on the other,
// and time. Each backend implements it: the portable stack in virtual time (core_endpoint.h), the kernel of this
// machine (linux_endpoint.h). One thread at a time; no call blocks but advance() where time is real.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "wire/flow.h"
#include "wire/payload.h"

namespace twinstack::conformance {

// Fields of tcp_info, by their names there without "tcpi_"; times in microseconds or as tcp_info has them.
using Info = std::map<std::string, std::int64_t, std::less<>>;

// What a call returned; an error is a negative errno.
using CallResult = std::int64_t;
using SocketId = int;

// Why a host with two stacks has sent something.
enum class SendCause : std::uint8_t {
  kUsual,
  kMove,      // a connection moved; nobody has asked
  kRepeated,  // the answer to a packet that a move has given to the other stack
};

struct SentPacket {
  Time at;
  std::vector<std::byte> bytes{};  // from the IP header on
  SendCause cause = SendCause::kUsual;
};

// Where the script's segments go. Backends that outlive a script give other ports to each.
struct Addresses {
  IpAddress host;
  IpAddress peer;
  std::uint16_t host_port = 0;        // where `accepted` listens
  std::uint16_t closed_port = 0;      // nobody listens there
  std::uint16_t first_peer_port = 0;  // of the first flow; the others follow
  std::uint16_t peer_ports = 16;
};

// Who serves a connection, for backends that can move it.
enum class Stack : std::uint8_t { kKernel, kEngine };

// How far what is expected at one time may stand from it: `early` before, `late` and `late_percent` of the wait after.
struct Tolerance {
  Duration early{};
  Duration late{};
  int late_percent = 0;
};

class Endpoint {
 public:
  Endpoint() = default;
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;
  virtual ~Endpoint() = default;

  // Makes ready for one script. `settings`: names of sysctls below net.ipv4, and "mtu". kUnsupported when the backend
  // lacks one: the script is skipped.
  virtual Result<> start(std::span<const std::pair<std::string, std::string>> settings) = 0;
  // The script is over: every socket and connection goes, silently as far as can be.
  virtual void finish() = 0;
  [[nodiscard]] virtual Addresses addresses() const = 0;
  [[nodiscard]] virtual Tolerance tolerance() const = 0;
  // How long a call or a field may take to show what a segment has just changed. 0 in virtual time.
  [[nodiscard]] virtual Duration patience() const = 0;

  [[nodiscard]] virtual Time now() = 0;
  // Goes on to `until`, or to the first packet that the host sends.
  virtual void advance(Time until) = 0;
  [[nodiscard]] virtual std::optional<SentPacket> take_sent() = 0;
  // A packet of the peer, from the IP header on.
  virtual void inject(ByteView packet) = 0;

  // Socket calls, none of which blocks. socket() gives a stream socket of the addresses' family.
  virtual CallResult socket() = 0;
  virtual CallResult listen(SocketId socket, int backlog) = 0;  // on addresses().host_port
  virtual CallResult accept(SocketId socket) = 0;
  virtual CallResult connect(SocketId socket, std::uint16_t peer_port) = 0;
  virtual CallResult send(SocketId socket, ByteView bytes, int flags) = 0;
  virtual CallResult receive(SocketId socket, std::span<std::byte> room, int flags) = 0;
  virtual CallResult shutdown(SocketId socket, int how) = 0;
  virtual CallResult close(SocketId socket) = 0;
  // By names as in <linux/tcp.h>: TCP_NODELAY, SO_RCVBUF. `text`: value of options that are words.
  virtual CallResult set_option(SocketId socket, std::string_view name, std::int64_t value,
                                const std::string& text) = 0;
  // The value, or a negative errno.
  virtual CallResult get_option(SocketId socket, std::string_view name) = 0;
  virtual int poll(SocketId socket) = 0;  // POLL*
  virtual Result<Info> info(SocketId socket) = 0;

  // Moves the socket's connection. kUnsupported where there is one stack only; kNotEligible: it stays where it is.
  virtual Result<> move(SocketId socket, Stack to);
  // Moves that the host has made by itself since the last call, in words. An error: one has broken its connection.
  virtual Result<std::vector<std::string>> take_moves() { return {}; }
};

}  // namespace twinstack::conformance
