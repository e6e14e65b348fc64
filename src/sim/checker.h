// Checker: what must hold of the world between two instants, and at its end. Looks at everything, changes nothing.
#pragma once

#include <cstdint>
#include <string>

#include "engine/hw_conn.h"
#include "ipc/layout.h"
#include "sim/cwnd_watch.h"
#include "wire/seq.h"

namespace twinstack::driver {
struct ManagedConnection;
}

namespace twinstack::sim {

class World;
class SimLane;
struct SimConn;

// What the owner of a connection has received of the peer's stream.
struct ManagedStream {
  Seq rcv_nxt;               // without the FIN
  std::uint64_t unread = 0;  // of it, with the owner: neither in the program nor posted to it
};

class Checker {
 public:
  explicit Checker(World& world) : world_(world) {}

  // After every instant: what is cheap; now and then everything.
  void check();
  // When everything is over.
  void check_end();
  // Whether so many bytes may be more than the engine has memory or room in the ring for.
  [[nodiscard]] bool may_lack_room(const SimConn& conn, std::size_t bytes) const;
  // For a report: all that is known of a connection.
  [[nodiscard]] std::string describe(const SimConn& conn) const;

 private:
  void check_streams();
  void check_resets(const SimConn& conn);
  void check_all();
  void check_connection(const SimConn& conn);
  void check_owner(const SimConn& conn, driver::ManagedConnection& managed);
  void check_engine(const SimConn& conn, const driver::ManagedConnection& managed);
  void check_kernel(const SimConn& conn, const driver::ManagedConnection& managed);
  void check_received(const SimConn& conn, ManagedStream stream);
  void check_sent(const SimConn& conn, const SimLane& lane, const engine::HwConn& hw);
  void check_cwnd(const SimConn& conn, const tcp::ControlBlock& cb, CwndWatch::Holder holder);
  void check_peer(const SimConn& conn);
  void check_wakeups();
  void check_counts();
  void check_out_of_order();
  void check_hosts();
  void end_excuse(SimConn& conn);
  void check_send_queue(const SimConn& conn, const SimLane& lane, const engine::HwConn& hw);
  void fail(const SimConn& conn, const std::string& what);

  World& world_;
  std::uint64_t instants_ = 0;
};

}  // namespace twinstack::sim
