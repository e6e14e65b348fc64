// The whole machine behind its calls: a host of the portable stack with a listener and sockets that open, programs that
// call anything at any time, and a peer that sends any segment (handshakes of all kinds among them), ICMP errors and
// bare bytes. The stack's invariants hold after each; what nobody has asked for is answered by one packet at most, and
// by no more bytes than it had itself, but for the SYN,ACK's options (no amplification).
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <vector>

#include "base/assert.h"
#include "input.h"
#include "stack/stack.h"
#include "wire/build.h"
#include "wire/icmp.h"

namespace twinstack {
namespace {

using stack::SocketId;

constexpr std::uint16_t kPort = 80;
constexpr std::size_t kMostSockets = 12;
constexpr std::size_t kHandshakeOptions = 40;

class Wire final : public stack::Outlet {
 public:
  void transmit(ByteView packet) override {
    ++packets;
    bytes += packet.size();
    wire::TcpPacket parsed;
    const auto length = static_cast<std::uint32_t>(packet.size());
    ASSERT(wire::parse_ip_packet({&packet, 1}, length, wire::ChecksumMode::kVerify, parsed) == wire::ParseVerdict::kOk);
    last = parsed.segment;
  }

  std::size_t packets = 0;
  std::size_t bytes = 0;
  wire::Segment last;
};

class FuzzedStack {
 public:
  explicit FuzzedStack(fuzz::Input& input) : input_(input), config_(config(input)), stack_(config_, wire_) {
    const SocketId listener = stack_.socket(stack::Family::kV4);
    ASSERT(stack_.bind(listener, {stack::any_v4(), kPort}) == 0);
    ASSERT(stack_.listen(listener, static_cast<std::uint32_t>(1 + input_.below(3)), now_) == 0);
    sockets_.push_back(listener);
  }

  void run() {
    for (int i = 0; i < 300 && !input_.empty(); ++i) {
      step();
      const char* const wrong = stack_.broken_invariant();
      ASSERT(wrong == nullptr);
    }
    end();
  }

 private:
  static stack::Config config(fuzz::Input& input) {
    stack::Config out;
    out.addresses = {IpAddress::from_v4({10, 0, 0, 1})};
    const std::uint32_t bits = input.take<std::uint8_t>();
    out.tcp_timestamps = (bits & 1U) != 0;
    out.tcp_sack = (bits & 2U) != 0;
    out.tcp_window_scaling = (bits & 4U) != 0;
    out.tcp_ecn = static_cast<std::uint8_t>(bits >> 3 & 1U);
    constexpr std::array kControls = {"cubic", "reno", "bbr", "dctcp"};
    out.tcp_congestion_control = kControls[bits >> 4 & 3U];
    out.tcp_fastopen = (bits & 0x40U) != 0 ? 0x603 : 0;
    out.tcp_max_syn_backlog = 4;
    return out;
  }

  void step() {
    switch (input_.below(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        segment();
        break;
      case 4:
        stack_.on_timer(now_ += time());
        break;
      case 5:
        open();
        break;
      case 6:
        accept();
        break;
      case 7:
        transfer();
        break;
      case 8:
        finish();
        break;
      case 9:
        option();
        break;
      case 10:
        icmp();
        break;
      default:
        bytes();
        break;
    }
  }

  SocketId any() { return sockets_.empty() ? 0 : sockets_[input_.below(static_cast<std::uint32_t>(sockets_.size()))]; }
  Duration time() { return std::chrono::milliseconds(input_.below(256) * (1U + input_.below(64))); }
  FlowKey flow() {
    return {.local = IpAddress::from_v4({10, 0, 0, 1}),
            .remote = IpAddress::from_v4({10, 0, 0, 2}),
            .local_port = local_ports_[input_.below(static_cast<std::uint32_t>(local_ports_.size()))],
            .remote_port = static_cast<std::uint16_t>(5000 + input_.below(3))};
  }

  // Near what the host has last said, so that it gets past the first checks.
  void segment() {
    const FlowKey to = flow();
    const stack::State before = stack_.state(to);
    wire::Segment in;
    constexpr std::array<std::uint8_t, 8> kFlags = {wire::kSyn,
                                                    wire::kAck,
                                                    wire::kSyn | wire::kAck,
                                                    wire::kFin | wire::kAck,
                                                    wire::kRst,
                                                    wire::kAck | wire::kPsh,
                                                    wire::kSyn | wire::kEce | wire::kCwr,
                                                    wire::kRst | wire::kAck};
    in.flags = input_.below(4) == 0 ? input_.take<std::uint8_t>() : kFlags[input_.below(8)];
    in.seq = wire_.last.ack + static_cast<std::uint32_t>(input_.take<std::int8_t>());
    in.ack = wire_.last.seq + static_cast<std::uint32_t>(input_.take<std::int8_t>());
    in.window = input_.take<std::uint16_t>();
    options(in.options);
    const std::uint32_t length = input_.below(4) == 0 ? input_.below(256) * 5 : 0;
    const FlowKey from{
        .local = to.remote, .remote = to.local, .local_port = to.remote_port, .remote_port = to.local_port};
    std::vector<std::byte> packet(wire::ip_packet_header_bytes(from, in) + length);
    wire::write_ip_headers(packet, {}, from, in, length);
    wire::fill_ip_checksum(packet);
    const std::size_t packets = wire_.packets;
    const std::size_t bytes = wire_.bytes;
    stack_.on_ip_packet(packet, now_);
    if (before != stack::State::kClosed) return;  // somebody may have had something to say
    ASSERT(wire_.packets - packets <= 1);
    ASSERT(wire_.bytes - bytes <= packet.size() + kHandshakeOptions);
  }

  void options(wire::TcpOptions& out) {
    const std::uint32_t bits = input_.take<std::uint8_t>();
    out.has_mss = (bits & 1U) != 0;
    out.mss = input_.take<std::uint16_t>();
    out.has_window_scale = (bits & 2U) != 0;
    out.window_scale = static_cast<std::uint8_t>(bits >> 4);
    out.sack_permitted = (bits & 4U) != 0;
    out.has_timestamps = (bits & 8U) != 0;
    out.ts_val = ts_ += bits >> 6;
    out.ts_ecr = wire_.last.options.ts_val;
  }

  void open() {
    if (sockets_.size() == kMostSockets) return;
    const SocketId id = stack_.socket(stack::Family::kV4);
    if (id < 0) return;
    sockets_.push_back(id);
    static_cast<void>(stack_.connect(
        id, {IpAddress::from_v4({10, 0, 0, 2}), static_cast<std::uint16_t>(5000 + input_.below(3))}, now_));
    stack::Address local;
    if (stack_.local_address(id, local) == 0 && local.port != 0) local_ports_.push_back(local.port);
  }
  void accept() {
    if (sockets_.size() == kMostSockets) return;
    const SocketId id = stack_.accept(sockets_.front(), nullptr, now_);
    if (id >= 0) sockets_.push_back(id);
  }
  void transfer() {
    const SocketId id = any();
    if (input_.below(2) == 0) {
      const std::vector<std::byte> text(input_.below(256) * 64);
      constexpr std::array<int, 4> kFlags = {0, MSG_MORE, MSG_EOR, MSG_OOB};
      static_cast<void>(stack_.send(id, text, kFlags[input_.below(4)], now_));
    } else {
      std::vector<std::byte> room(input_.below(256) * 64);
      constexpr std::array<int, 4> kFlags = {0, MSG_PEEK, MSG_TRUNC, MSG_OOB};
      static_cast<void>(stack_.recv(id, room, kFlags[input_.below(4)], now_));
    }
    static_cast<void>(stack_.poll(id));
    stack::TcpInfo info;
    static_cast<void>(stack_.info(id, info, now_));
  }
  void finish() {
    const SocketId id = any();
    if (input_.below(3) != 0 || id == sockets_.front()) {
      static_cast<void>(stack_.shutdown(id, static_cast<int>(input_.below(4)), now_));
      return;
    }
    static_cast<void>(stack_.close(id, now_));
    std::erase(sockets_, id);
  }
  void option() {
    const int level = input_.below(2) == 0 ? SOL_SOCKET : IPPROTO_TCP;
    const int name = static_cast<int>(input_.below(64));
    const auto value = static_cast<int>(input_.take<std::int16_t>());
    static_cast<void>(stack_.set_option(any(), level, name, value, now_));
    int read = 0;
    static_cast<void>(stack_.get_option(any(), level, name, &read, now_));
  }
  void icmp() {
    wire::Segment quoted;
    quoted.seq = wire_.last.seq + static_cast<std::uint32_t>(input_.take<std::int8_t>());
    const FlowKey about = flow();
    std::vector<std::byte> packet(wire::ip_packet_header_bytes(about, quoted));
    wire::write_ip_headers(packet, {}, about, quoted, 0);
    wire::IcmpError error;
    error.kind = static_cast<wire::IcmpKind>(input_.below(4));
    error.code = static_cast<std::uint8_t>(input_.below(16));
    error.mtu = input_.take<std::uint16_t>();
    stack_.on_ip_packet(wire::make_icmp_error(error, IpAddress::from_v4({10, 0, 0, 9}), packet), now_);
  }
  void bytes() {
    std::vector<std::byte> packet(input_.below(100));
    for (std::byte& byte : packet) byte = input_.take<std::byte>();
    stack_.on_ip_packet(packet, now_);
  }

  // Everything closed, and a day later nothing is left.
  void end() {
    for (const SocketId id : sockets_) static_cast<void>(stack_.close(id, now_));
    for (int i = 0; i < 100'000 && stack_.next_deadline() != kNever; ++i) {
      now_ = std::max(now_, stack_.next_deadline());
      stack_.on_timer(now_);
    }
    ASSERT(stack_.socket_count() == 0 && stack_.time_wait_count() == 0 && stack_.half_open_count() == 0);
  }

  fuzz::Input& input_;
  stack::Config config_;
  Wire wire_;
  stack::SoftStack stack_;
  Time now_ = Time(std::chrono::hours(1));
  std::vector<SocketId> sockets_;
  std::vector<std::uint16_t> local_ports_{kPort};
  std::uint32_t ts_ = 1;
};

}  // namespace
}  // namespace twinstack

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  twinstack::fuzz::Input input(data, size);
  twinstack::FuzzedStack(input).run();
  return 0;
}
