// LinuxEndpoint: the kernel of this machine as the host under test, in real time. It lives in a namespace at one end of
// a veth pair. The other end has no address: segments are put into it and taken from it by a packet socket, and what
// the host sends to any address of the peer's network goes there by a static neighbour entry. Each script has a peer
// address and ports of its own, so that nothing of the script before is remembered. Needs root. One thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "endpoint.h"
#include "netns/netns_fixture.h"
#include "wire/packet.h"

namespace twinstack::conformance {

using wire::MacAddress;

class LinuxEndpoint final : public Endpoint {
 public:
  // Why there can be none here, empty when there can.
  [[nodiscard]] static std::string why_unavailable();
  static Result<std::unique_ptr<LinuxEndpoint>> create(bool v6);

  Result<> start(std::span<const std::pair<std::string, std::string>> settings) override;
  void finish() override;
  [[nodiscard]] Addresses addresses() const override;
  [[nodiscard]] Tolerance tolerance() const override;
  [[nodiscard]] Duration patience() const override { return std::chrono::milliseconds(30); }

  [[nodiscard]] Time now() override;
  void advance(Time until) override;
  [[nodiscard]] std::optional<SentPacket> take_sent() override;
  void inject(ByteView packet) override;

  CallResult socket() override;
  CallResult listen(SocketId socket, int backlog) override;
  CallResult accept(SocketId socket) override;
  CallResult connect(SocketId socket, std::uint16_t peer_port) override;
  CallResult send(SocketId socket, ByteView bytes, int flags) override;
  CallResult receive(SocketId socket, std::span<std::byte> room, int flags) override;
  CallResult shutdown(SocketId socket, int how) override;
  CallResult close(SocketId socket) override;
  CallResult set_option(SocketId socket, std::string_view name, std::int64_t value, const std::string& text) override;
  CallResult get_option(SocketId socket, std::string_view name) override;
  int poll(SocketId socket) override;
  Result<Info> info(SocketId socket) override;

 private:
  struct Socket {
    UniqueFd fd;
    FlowKey flow;  // once it has one: for what happens after close()
  };

  explicit LinuxEndpoint(bool v6) noexcept : v6_(v6) {}
  Result<> set_up();
  Result<> open_wire();
  Result<> apply(const std::string& name, const std::string& value);
  [[nodiscard]] std::optional<SentPacket> take_any();
  Result<> apply_mtu(const std::string& value);
  Socket& at(SocketId socket) { return sockets_.at(static_cast<std::size_t>(socket)); }
  SocketId keep(UniqueFd fd);
  void learn_flow(Socket& socket) const;
  [[nodiscard]] std::int64_t state_in_table(const FlowKey& flow) const;

  bool v6_;
  std::unique_ptr<testing::NetnsPair> bench_;
  UniqueFd wire_;
  MacAddress host_mac_{};
  int wire_interface_ = 0;
  std::vector<Socket> sockets_;
  std::vector<std::pair<std::string, std::string>> to_restore_;  // sysctls
  unsigned script_ = 0;                                          // how many have been started
  bool mtu_changed_ = false;
};

}  // namespace twinstack::conformance
