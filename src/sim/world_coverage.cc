// Where a connection stands when a fault meets it: what is counted, and what happens at a step of a move.
#include <algorithm>

#include "base/assert.h"
#include "sim/world.h"

namespace twinstack::sim {

using std::chrono::microseconds;

void World::count_begin(const Event& event) {
  for (const auto& conn : conns_) {
    if (!concerns(event, *conn)) continue;
    // Nothing begins within a move but before its steps.
    const bool is_moved = driver_->is_busy() && moving() == conn.get();
    hit(*conn, is_moved ? step_ : situation_of(*conn), event.kind);
  }
  if (event.span == Duration::zero()) return;
  active_.push_back(&event);
  until(event.span, [this, at = &event] { std::erase(active_, at); });
}

bool World::concerns(const Event& event, const SimConn& conn) {
  if (!conn.driver_knows || driver_->is_dead()) return false;
  switch (target_of(event.kind)) {
    case Target::kAll:
      return true;
    case Target::kConnection:  // the thread that stands inside goes with its program; no memory is not for orphans
      return event.target == conn.number &&
             (event.kind != EventKind::kCallInside || !apps_[conn.app].process->is_dead()) &&
             (event.kind != EventKind::kNoMemory || !conn.talk->is_closed(0));
    case Target::kProgram:
      return event.target == conn.app && (event.kind != EventKind::kProgramDeath || !conn.talk->is_closed(0));
    case Target::kLink:
      return event.target == conn.peer;
    case Target::kLane:
      break;
  }
  const driver::ManagedConnection* managed = driver_->find(conn.app, conn.slot);
  const bool there = managed != nullptr && managed->move.hw;
  return event.target == (there ? managed->move.hw.lane() : interface_->lane_of(conn.flow));
}

Situation World::situation_of(const SimConn& conn) {
  if (conn.talk->has_ended(0)) return Situation::kClosing;
  const driver::ManagedConnection* managed = driver_->find(conn.app, conn.slot);
  if (managed == nullptr || !managed->in_engine()) return Situation::kInKernel;
  if (managed->stack == driver::ManagedConnection::Stack::kDraining) return Situation::kDraining;
  return managed->parked ? Situation::kParked : Situation::kUnparked;
}

// Within a call of the driver.
Situation World::situation_now(const SimConn& conn) {
  const driver::ManagedConnection* managed = driver_->find(conn.app, conn.slot);
  if (managed == nullptr) return situation_of(conn);
  const ipc::Owner owner = managed->move.gate().owner();
  // The end of a move back comes after the commit.
  const bool moves = owner == ipc::Owner::kToEngine || owner == ipc::Owner::kToKernel ||
                     (owner == ipc::Owner::kKernel && managed->in_engine());
  return moves ? step_ : situation_of(conn);
}

TcpState World::tcp_state_of(const SimConn& conn) {
  const driver::ManagedConnection* managed = driver_->find(conn.app, conn.slot);
  const bool away = managed != nullptr && managed->in_engine() && managed->move.hw;
  const engine::HwConnId id = away ? managed->move.hw : engine::HwConnId();
  const tcp::ControlBlock* cb =
      away ? &interface_->lanes()[id.lane()]->region.conns()[id.index()].tcb : stack_->view(conn.socket).cb;
  if (cb == nullptr) return TcpState::kGone;
  const bool sent = cb->has(tcp::kFinQueued);
  const bool received = cb->has(tcp::kFinReceived);
  if (sent || received) return !received ? TcpState::kFinSent : !sent ? TcpState::kFinReceived : TcpState::kFinBoth;
  return static_cast<TcpState>(cb->recovery);
}

void World::hit(const SimConn& conn, Situation situation, EventKind kind) {
  outcome_.coverage.hit(situation, tcp_state_of(conn), kind);
}

void World::cover(const SimConn& conn, Situation situation) {
  for (const Event* event : active_)
    if (concerns(*event, conn)) hit(conn, situation, event->kind);
}

bool World::is_sabotaged(Options::Sabotage how) {
  if (options_.sabotage != how) return false;
  const driver::MoverCounters& moves = driver_->mover().counters();
  return moves.offloads + moves.uploads >= options_.sabotage_after_moves;
}

void World::sabotage(Situation situation, SimConn& conn) {
  using Sabotage = Options::Sabotage;
  if (situation == Situation::kOutFreeze && is_sabotaged(Sabotage::kTurnByte)) conn.faults.turn_byte = 1;
  if (situation == Situation::kOutFreeze && is_sabotaged(Sabotage::kLoseReceived)) conn.faults.lose_received = 1;
  if (situation == Situation::kOutFreeze && is_sabotaged(Sabotage::kGrowWindow)) conn.faults.grow_window = 1;
  if (situation == Situation::kOutFreeze && is_sabotaged(Sabotage::kHidePurge)) conn.faults.hide_purge = 1;
  if (situation == Situation::kBackRelease && is_sabotaged(Sabotage::kLoseByte)) conn.faults.lose_byte = 1;
  if (situation == Situation::kBackRelease && is_sabotaged(Sabotage::kResetMove)) conn.faults.no_release = 2;
  if (situation == Situation::kBackRelease) interface_->keeps_flows = is_sabotaged(Sabotage::kKeepFlow);
  ASSERT(!is_sabotaged(Sabotage::kAbort));
  if (situation == Situation::kBackRelease && is_sabotaged(Sabotage::kLeakChunk))
    (void)driver_->mover().tools().moving->port->call(
        {.op = engine::CommandOp::kGetChunks, .session = conn.app, .chunk_count = 1});
}

Result<> World::before_step(Situation situation, bool refuse) {
  SimConn* conn = moving();
  step_ = situation;
  if (conn != nullptr) {
    if (options_.sabotage != Options::Sabotage::kNone) sabotage(situation, *conn);
    cover(*conn, situation);
    const bool looked_at = situation == Situation::kOutReserve || situation == Situation::kOutOwn;
    if (looked_at && take(conn->faults.option_set)) {
      hit(*conn, situation, EventKind::kOptionSet);
      driver_->mover().tools().moving->shared().option_changes.fetch_add(1);
    }
    const bool out = situation <= Situation::kOutCommit;
    begin_at_step(*conn, situation);
    if (refuse) hit(*conn, situation, out ? EventKind::kRefuseOffload : EventKind::kRefuseUpload);
  }
  if (step_rng_.below(2) == 0) pass(microseconds(step_rng_.below(40)));
  if (driver_->is_dead()) throw ServiceDied{};
  if (refuse && conn != nullptr && situation == Situation::kBackRelease) refuse_release(conn->faults);
  if (refuse) return error(ErrorCode::kSystem, "injected: refused");
  return {};
}

}  // namespace twinstack::sim
