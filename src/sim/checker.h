// Checker: what must hold of the world between two instants, and at its end. Looks at everything, changes nothing.
#pragma once

#include <cstdint>
#include <string>

#include "engine/hw_conn.h"
#include "ipc/layout.h"

namespace twinstack::driver {
struct ManagedConnection;
}

namespace twinstack::sim {

class World;
class SimLane;
struct SimConn;

class Checker {
 public:
  explicit Checker(World& world) : world_(world) {}

  // After every instant: what is cheap; now and then everything.
  void check();
  // When everything is over.
  void check_end();
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
  void check_counts();
  void check_hosts();
  void check_send_queue(const SimConn& conn, const SimLane& lane, const engine::HwConn& hw);
  void fail(const SimConn& conn, const std::string& what);

  World& world_;
  std::uint64_t instants_ = 0;
};

}  // namespace twinstack::sim
