// Mover: carries out moves, and keeps what a connection needs between them: the grace period before the kernel socket
// is parked, the drain before a return, retries, the close of connections whose program is gone. Maps the identifiers.
// The driver's thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "driver/flow_index.h"
#include "driver/grace_periods.h"
#include "driver/interface.h"
#include "driver/pause_stats.h"
#include "driver/session.h"
#include "kernel/late_packets.h"

namespace twinstack::driver {

struct MoverCounters {
  std::uint64_t offloads = 0;
  std::uint64_t uploads = 0;
  std::uint64_t offload_refused = 0;  // not eligible
  std::uint64_t offload_failed = 0;   // tried and undone
  std::uint64_t upload_failed = 0;    // tried and undone; tried again
  std::uint64_t drain_deadlines = 0;  // returned with unacknowledged data
  std::uint64_t held_frames = 0;      // packets that waited during an upload
  std::uint64_t held_dropped = 0;     // that waited and were none of their connection, or not whole
  std::uint64_t late_packets = 0;     // packets that the late filter caught
  std::uint64_t stray_frames = 0;     // packets at the wrong lane, or after their connection had left the engine
  std::uint64_t packets_dropped = 0;  // late and stray ones for which no stack had room; the peer sends them again
  std::uint64_t icmp_too_big = 0;     // path MTUs that routers have lowered
  std::uint64_t broken = 0;           // streams that could not be kept: reset
  std::uint64_t congestion_not_restored = 0;
};

// What a mover stands on: the kernel's in the service, the simulator's own there. All outlive it.
struct MoverGround {
  kernel::LatePackets& late_packets;
  GracePeriods& grace_periods;
  std::function<Time()> now;
  Duration call_deadline = handoff::kCallDeadline;
};

class Mover {
 public:
  // `closed(conn)`: a connection is finished and may be destroyed.
  Mover(MoverGround ground, std::function<void(ManagedConnection&)> closed);
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;

  void set_interfaces(std::vector<Interface*> interfaces) { interfaces_ = std::move(interfaces); }

  void add(ManagedConnection& conn);
  void remove(ManagedConnection& conn);

  void set_orphan_patience(Duration patience) noexcept { orphan_patience_ = patience; }
  // Called when a connection has come back to the kernel.
  void on_returned(std::function<void()> returned) { returned_ = std::move(returned); }

  // Moves it to the engine now. conn.reason keeps the refusal, unless asking again (why_not()) tells it.
  Result<> offload(ManagedConnection& conn);
  // Why a connection of the kernel may not move now; empty when the kernel has nothing against it.
  [[nodiscard]] std::string why_not(const ManagedConnection& conn);
  // Moves it to the kernel as soon as it is parked and, with `drain`, everything sent is acknowledged.
  void upload(ManagedConnection& conn, const std::string& why, bool drain = true);
  // The program has closed it: brings it to the kernel if need be and closes our descriptor as the program's would.
  void close(ManagedConnection& conn);

  // A connection that could not be returned before the service had to stop: it is reset.
  void give_up(ManagedConnection& conn, const Error& why);

  void on_late_packets();
  void on_engine_events(const std::function<void(std::uint32_t session_number, engine::Cause)>& bad_session);
  void on_route_events();
  void on_icmp_errors();
  // Grace periods that ended, drain deadlines that passed.
  void on_time(Time now);
  [[nodiscard]] Time next_deadline() const;

  [[nodiscard]] Result<ipc::HwConnState> query(const ManagedConnection& conn) const;
  [[nodiscard]] const std::unordered_map<std::uint64_t, ManagedConnection*>& by_cookie() const { return by_cookie_; }

  [[nodiscard]] const PauseStats& offload_pauses() const noexcept { return offload_pauses_; }
  [[nodiscard]] const PauseStats& upload_pauses() const noexcept { return upload_pauses_; }
  [[nodiscard]] const MoverCounters& counters() const noexcept { return counters_; }
  // Tests: for MoveTools::before_offload_step and before_upload_step.
  [[nodiscard]] handoff::MoveTools& tools() noexcept { return tools_; }

 private:
  Result<> find_way(ManagedConnection& conn);
  Result<> try_offload(ManagedConnection& conn);
  Result<handoff::MoveReport> check_and_move(ManagedConnection& conn);
  void start_upload(ManagedConnection& conn, bool drain);
  void finish_upload(ManagedConnection& conn);
  [[nodiscard]] Duration deadline_for(const ManagedConnection& conn) const;
  void note_timeout(ManagedConnection& conn, const Error& why) const;
  void wait_draining(const ManagedConnection& conn);
  void settle(Time now);
  void settle_later(const ManagedConnection& conn);
  void upload_failed(ManagedConnection& conn, const Error& why);
  void park(ManagedConnection& conn);
  static void reset_and_give_back(ManagedConnection& conn);
  void note_broken(ManagedConnection& conn, const Error& why);
  void left_engine(ManagedConnection& conn);
  void finish_close(ManagedConnection& conn);
  void deliver_late(const kernel::LatePacket& packet);
  void take_event(const engine::Event& event);
  void forward_stray(Interface& interface, const std::vector<std::byte>& frame);
  ManagedConnection* find_hw(std::uint64_t hw_conn_id);

  MoverGround ground_;
  std::function<void(ManagedConnection&)> closed_;
  std::function<void()> returned_;
  Duration orphan_patience_ = std::chrono::seconds(60);
  std::vector<Interface*> interfaces_;
  std::unique_ptr<std::byte[]> receive_room_;  // memory as it is touched
  std::unique_ptr<std::byte[]> send_room_;
  handoff::MoveTools tools_;
  std::unordered_map<std::uint64_t, ManagedConnection*> by_cookie_;
  std::unordered_map<std::uint64_t, ManagedConnection*> by_hw_;
  FlowIndex by_flow_;                    // of those in the engine
  std::vector<std::uint64_t> to_park_;   // cookies, in the order of their tickets
  std::vector<std::uint64_t> draining_;  // cookies
  struct Settling {
    std::uint64_t cookie;
    Time until;  // of a connection that expires
    Time look_at;
    Duration wait;  // to the next look
  };
  std::vector<Settling> settling_;  // KernelConn::settle() is to be asked
  Time settle_at_ = kNever;
  PauseStats offload_pauses_;
  PauseStats upload_pauses_;
  MoverCounters counters_;
};

}  // namespace twinstack::driver
