// The bench of the behaviours: two namespaces, a service on side B, an application without the socket layer, and
// connections whose streams are checked byte by byte at both ends. Every test has namespaces and a service of its own,
// so that counters start from nothing. The test's thread alone; waits are polls with a deadline.
#pragma once

#include <gtest/gtest.h>
#include <linux/tcp.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "behaviour/link_pair.h"
#include "behaviour/raw_application.h"
#include "behaviour/service_process.h"

namespace twinstack::testing {

// Calls `step` until `done`; false when `deadline` passed first. Sleeps a millisecond between two tries.
[[nodiscard]] bool eventually(const std::function<bool()>& done, const std::function<void()>& step = {},
                              std::chrono::milliseconds deadline = std::chrono::seconds(15));

[[nodiscard]] tcp_info info_of(int fd);

// What a read found.
enum class Seen : std::uint8_t { kNothing, kBytes, kEnd, kReset, kOtherError };
[[nodiscard]] Seen look(int fd);  // takes the bytes, if any

// One connection: `peer` on side A, `served` on side B in the hands of an application, and a stream in each direction
// with a seed of its own. A wrong byte, an early end or an error is a failure of the test.
class Talk {
 public:
  Talk(RawApplication& application, std::unique_ptr<RawConnection> connection, UniqueFd other, std::uint64_t seed)
      : served(std::move(connection)), peer(std::move(other)), application_(application), seed_(seed) {}

  // Each moves what can be moved now; returns bytes.
  std::size_t peer_sends(std::size_t bytes);
  std::size_t served_sends(std::size_t bytes);
  std::size_t peer_reads();
  std::size_t served_reads(std::size_t at_most = 65536);
  // A round of traffic in both directions.
  void step(std::size_t bytes = 4000);
  // Sends `bytes` each way, whole, and waits until everything sent was read.
  void exchange(std::size_t bytes);
  // Waits until everything sent was read.
  void settle();
  // All bytes that were sent have been read.
  [[nodiscard]] bool is_settled() const { return to_served_sent == to_served_read && to_peer_sent == to_peer_read; }
  void expect_owner(ipc::Owner owner, bool with_traffic = false);
  [[nodiscard]] std::uint64_t seed_to_served() const noexcept { return seed_; }

  std::unique_ptr<RawConnection> served;
  UniqueFd peer;
  std::uint64_t to_served_sent = 0;
  std::uint64_t to_served_read = 0;
  std::uint64_t to_peer_sent = 0;
  std::uint64_t to_peer_read = 0;

 private:
  RawApplication& application_;
  std::uint64_t seed_;
};

class Behaviour : public ::testing::Test {
 protected:
  void SetUp() override;
  // What the service is started with.
  [[nodiscard]] virtual driver::ServiceOptions options() const { return {}; }
  // The namespaces that it is tried in.
  [[nodiscard]] virtual NetnsOptions netns() const { return {}; }
  // A connection, registered by `application` (the fixture's own when nullptr). Ends the test's use on failure.
  std::unique_ptr<Talk> open(bool v6 = false, Opening opening = Opening::kPassive,
                             RawApplication* application = nullptr);
  // A registered connection around sockets that the test made.
  std::unique_ptr<Talk> adopt(SocketPair sockets, RawApplication* application = nullptr);
  void start_service(driver::Policy policy);

  // Orders a move of this connection and waits for it.
  void to_engine(Talk& talk, bool with_traffic = false);
  void to_kernel(Talk& talk, bool with_traffic = false);
  // Of a connection in the engine that has received something before: its socket is a shell, which knows nothing of it.
  // While it becomes one it is closed for an instant, and only the steering keeps packets from it.
  static void wait_until_parked(const Talk& talk);
  [[nodiscard]] static std::string sk(const Talk& talk);
  [[nodiscard]] driver::Json line(const Talk& talk);  // of `ls -j`; waits until the service knows the connection
  [[nodiscard]] ipc::HwConnState hardware(const Talk& talk);  // fails the test when the engine does not own it
  [[nodiscard]] bool is_in_engine(const Talk& talk);
  [[nodiscard]] std::uint64_t counter(Side side, const std::string& name) const {
    return net_counter(*pair_, side, name);
  }
  // No RST was sent by either side, or seen by the peer.
  void expect_no_reset() const;
  // The service knows no connection any more, the engine serves none and steers none.
  void expect_nothing_left();
  // Ids of the BPF maps that the service holds.
  [[nodiscard]] std::set<int> held_maps() const;
  // Flows in the steering map of this service.
  [[nodiscard]] std::size_t steered_flows() const;
  std::string shell(Side side, const std::string& command) const;

  std::unique_ptr<NetnsPair> pair_;
  std::unique_ptr<ServiceProcess> service_;
  std::unique_ptr<RawApplication> application_;
  std::uint64_t next_seed_ = 1;
};

}  // namespace twinstack::testing
