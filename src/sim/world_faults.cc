// The faults of a scenario: how each begins, and ends.
#include <algorithm>

#include "sim/router.h"
#include "sim/world.h"

namespace twinstack::sim {

namespace {

constexpr std::uint32_t kHogSession = 60;  // of nobody: holds slots of the lanes' tables

}  // namespace

void World::until(Duration span, std::function<void()> end) {
  endings_.push_back({.at = now_ + span, .end = std::move(end)});
}

// nullptr: it is not open yet.
SimConn* World::connection_of(const Event& event) const noexcept {
  const auto found = std::ranges::find_if(conns_, [&](const auto& conn) { return conn->number == event.target; });
  return found == conns_.end() ? nullptr : found->get();
}

void World::begin_fault(const Event& event) {
  // Those of moves have begun when a move meets them, a call inside when it stands there.
  const bool later = is_move_fault(event.kind) || event.kind == EventKind::kCallInside;
  if (!later && event.kind != EventKind::kAtStep) count_begin(event);
  if (is_link_fault(event.kind)) {
    Peer& peer = peers_[event.target];
    (event.detail == 0 ? peer.to : peer.from)->begin(event, now_);
  } else if (is_move_fault(event.kind)) {
    fault_of_moves(event);
  } else {
    fault_of_host(event);
  }
}

void World::fault_of_host(const Event& event) {
  switch (event.kind) {
    case EventKind::kClockJump:
      clock_offset_ += event.span;
      return;
    case EventKind::kStallLane:
      interface_->lanes()[event.target]->stall_until(host_now() + event.span);
      return;
    case EventKind::kStallDriver:
      driver_->stall_until(host_now() + event.span);
      return;
    case EventKind::kMapFull:
      interface_->map_is_full = true;
      until(event.span, [this] { interface_->map_is_full = false; });
      return;
    case EventKind::kNoSlots:
      take_slots(event);
      return;
    case EventKind::kLateFull:
      stack_->set_late_ring_full(true);
      until(event.span, [this] { stack_->set_late_ring_full(false); });
      return;
    case EventKind::kNicFull: {
      LaneNic& nic = interface_->lanes()[event.target]->nic();
      nic.set_full(true);
      until(event.span, [&nic] { nic.set_full(false); });
      return;
    }
    case EventKind::kOtherQueue:
      ++interface_->queue_offset;
      return;
    case EventKind::kForgedTooBig:
      forge_too_big(event);
      return;
    case EventKind::kPrune:
      prune(event);
      return;
    case EventKind::kStorm:
      storm();
      return;
    case EventKind::kNoHook:
      stack_->set_congestion_hook(false);
      until(event.span, [this] { stack_->set_congestion_hook(true); });
      return;
    case EventKind::kAtStep:
      at_step_.push_back(&event);
      return;
    case EventKind::kDriverDeath:
      kill_driver();
      return;
    default:
      return fault_of_programs(event);
  }
}

void World::fault_of_programs(const Event& event) {
  switch (event.kind) {
    case EventKind::kStallProgram:
      apps_[event.target].stalled_until = now_ + event.span;
      return;
    case EventKind::kNoRead:
      stop_reading(event);
      return;
    case EventKind::kNoChunks:
      take_chunks(event);
      return;
    case EventKind::kCallInside:
      stand_inside(event);
      return;
    case EventKind::kQuickClose:
      close_quickly(event);
      return;
    case EventKind::kProgramDeath:
      kill_program(event.target);
      return;
    case EventKind::kNoMemory:
      take_memory(event);
      return;
    default:
      return;
  }
}

void World::fault_of_moves(const Event& event) {
  if (event.kind == EventKind::kFailInject) {
    interface_->fail_inject += event.amount;
    return;
  }
  if (SimConn* const conn = connection_of(event); conn != nullptr) arm(conn->faults, event);
}

void World::arm(MoveFaults& faults, const Event& event) {
  const auto times = static_cast<std::uint8_t>(event.amount);
  switch (event.kind) {
    case EventKind::kRefuseOffload:
      faults.refuse_offload[event.detail] = times;
      return;
    case EventKind::kRefuseUpload:
      faults.refuse_upload[event.detail] = times;
      return;
    case EventKind::kFailCheck:
      faults.check = times;
      return;
    case EventKind::kFailAttach:
      faults.attach = times;
      return;
    case EventKind::kFailFreeze:
      faults.freeze = times;
      return;
    case EventKind::kFailPark:
      faults.park = times;
      return;
    case EventKind::kFailParkGap:
      faults.park_gap = 1;
      return;
    case EventKind::kFailRestore:
      faults.restore = static_cast<std::uint8_t>(times * 2);  // it is tried twice
      return;
    case EventKind::kFailRelease:
      faults.release = times;
      return;
    case EventKind::kOptionSet:
      faults.option_set = times;
      return;
    case EventKind::kPurge:
      faults.purge = times;
      if (event.detail == 1) faults.park = 1;
      return;
    case EventKind::kLoseAck:
      faults.lose_ack = times;
      return;
    case EventKind::kPartRelease:
      faults.part_release = times;
      return;
    case EventKind::kFailThaw:
      faults.thaw = times;
      faults.refuse_offload[event.detail] = 1;
      return;
    case EventKind::kFailDetach:
      faults.detach = times;
      faults.refuse_offload[event.detail] = 1;
      return;
    default:
      return;
  }
}

// By the other direction of the link, where it may meet faults itself.
void World::answer_too_big(Pipe& back, const Frame& frame, const Refusal& how) {
  Frame answer = too_big_answer(frame, how.mtu_bytes, how.tells, pool_);
  if (how.later == Duration::zero())
    back.send(std::move(answer), now_);
  else
    until(how.later, [this, &back, answer = std::move(answer)] { back.send(pool_.copy(answer), now_); });
}

// Who knows the ports guesses the number: within what is out, or anything.
void World::forge_too_big(const Event& event) {
  const SimConn* const found = connection_of(event);
  if (found == nullptr) return;
  const SimConn& conn = *found;
  Rng rng(event.seed);
  const Seq seq = rng.below(4) == 0 ? Seq(static_cast<std::uint32_t>(rng.next()))
                                    : conn.wire[1 - event.detail].highest_ack + rng.below(3000);
  const FlowKey flow = event.detail == 0 ? conn.flow : reversed(conn.flow);
  Peer& peer = peers_[conn.peer];
  (event.detail == 0 ? peer.from : peer.to)->send(forged_too_big(flow, seq, event.amount, pool_), now_);
}

void World::prune(const Event& event) {
  engine::Lane& lane = interface_->lanes()[event.target]->lane;
  lane.set_out_of_order_limit(event.amount);
  until(event.span, [&lane] { lane.set_out_of_order_limit(tcp::OutOfOrderMemory::kDefaultLimit); });
}

void World::stop_reading(const Event& event) {
  SimConn* const found = connection_of(event);
  if (found == nullptr) return;
  found->talk->stop_reading(event.detail, now_ + event.span);
  until(event.span, [this, conn = found, side = event.detail] {
    apps_[conn->app].woken = apps_[conn->app].woken || side == 0;
    conn->peer_ready = conn->peer_ready || side == 1;
  });
}

// Of one end only: where both do it, neither may believe the other's ACKs any more (docs/kernel-facts.md R24). Not
// where an orphan waits for its data to be taken: it would give up, as it would on Linux (tcp_orphan_retries).
void World::take_memory(const Event& event) {
  SimConn* const conn = connection_of(event);
  if (conn == nullptr || conn->peer_socket == SimConn::kNone || conn->talk->is_closed(0)) return;
  conn->peer_shrinks = true;
  peers_[conn->peer].stack->run_out_of_memory(conn->peer_socket, now_);
}

void World::close_quickly(const Event& event) {
  if (SimConn* const conn = connection_of(event); conn != nullptr) conn->talk->close_quickly(event.detail);
}

// Before this step of a move of `conn`: what waits for it, one at a time.
void World::begin_at_step(const SimConn& conn, Situation step) {
  const auto found = std::ranges::find_if(
      at_step_, [step](const Event* event) { return static_cast<Situation>(event->detail) == step; });
  if (found == at_step_.end()) return;
  const Event& waited = **found;
  at_step_.erase(found);
  hit(conn, step, EventKind::kAtStep);
  Rng rng(waited.seed);
  Event event{.at = now_ - kBeginning, .kind = static_cast<EventKind>(waited.amount), .seed = rng.next()};
  if (event.kind == EventKind::kProgramDeath) event.target = conn.app;
  if (event.kind == EventKind::kClockJump) event.span = std::chrono::milliseconds(1 + rng.below(10));
  if (target_of(event.kind) == Target::kConnection) event.target = conn.number;
  event.detail = static_cast<std::uint8_t>(rng.below(2));
  if (event.kind == EventKind::kForgedTooBig) event.amount = 500 + rng.below(1000);
  begin_fault(begun_at_step_.emplace_back(event));
}

// The orders come one behind the other, and the moves with their grace periods and drains overlap.
void World::storm() {
  for (const auto& conn : conns_) {
    if (!conn->driver_knows) continue;
    const driver::ManagedConnection* managed = driver_->find(conn->app, conn->slot);
    const bool out = managed != nullptr && !managed->in_engine();
    apply({.at = now_ - kBeginning, .kind = out ? EventKind::kMoveOut : EventKind::kMoveBack, .target = conn->number});
  }
}

// All but a few of the chunks that the lanes could lend a session, and of its own for what it sends.
void World::take_chunks(const Event& event) {
  if (driver_->is_dead() || !driver_->sessions().contains(event.target)) return;
  Rng rng(event.seed);
  if (rng.below(2) == 0) take_program_chunks(event, rng.below(6));
  for (auto& lane : interface_->lanes()) {
    const std::uint32_t free = lane->lane.free_chunks(event.target);
    std::uint32_t left = free - std::min(free, rng.below(6));
    while (left > 0) {
      engine::Command command{.op = engine::CommandOp::kGetChunks,
                              .session = event.target,
                              .chunk_count = std::min(left, engine::kMaxCommandChunks)};
      const engine::Reply got = lane->port.call(command);
      if (got.status != engine::Status::kOk) break;
      left -= got.chunk_count;
      command.op = engine::CommandOp::kPutChunks;
      command.chunks = got.chunks;
      until(event.span, [this, at = lane.get(), command] {
        if (!driver_->is_dead() && driver_->sessions().contains(command.session)) (void)at->port.call(command);
      });
    }
  }
}

void World::take_program_chunks(const Event& event, std::uint32_t left) {
  App& app = apps_[event.target];
  if (app.process->is_dead()) return;
  sockets::Session& session = app.process->session();
  std::vector<std::uint32_t> taken;
  for (std::uint32_t free = session.tx_chunks().available(); free > left; --free)
    taken.push_back(session.tx_chunks().take());
  until(event.span, [&app, &session, taken] {
    if (app.process->is_dead()) return;
    for (const std::uint32_t chunk : taken) session.tx_chunks().give(chunk);
    session.on_tx_chunk_freed();
    app.woken = true;
  });
}

void World::take_slots(const Event& event) {
  if (driver_->is_dead()) return;
  if (!driver_->sessions().contains(kHogSession)) {
    ipc::ArenaConfig arena = shape_.arena;
    arena.tx_chunk_count = arena.rx_chunk_count = 1;
    hog_ = driver_->open_session(kHogSession, arena);  // with its socket closed it would end
  }
  SimLane& lane = *interface_->lanes()[event.target];
  for (std::uint32_t i = 0; i < shape_.capacity.connections; ++i) {
    FlowKey flow = flow_of(i, 200, false, true);
    flow.local_port = static_cast<std::uint16_t>(event.number);
    const engine::Reply got = lane.port.call({.op = engine::CommandOp::kReserve, .session = kHogSession, .flow = flow});
    if (got.status != engine::Status::kOk) break;
    until(event.span, [this, &lane, id = got.id] {
      if (!driver_->is_dead()) (void)lane.port.call({.op = engine::CommandOp::kRelease, .id = id});
    });
  }
}

// A thread of the program was preempted inside of a data call.
void World::stand_inside(const Event& event) {
  const SimConn* const found = connection_of(event);
  if (found == nullptr || apps_[found->app].process->is_dead() || found->talk->is_closed(0)) return;
  const SimConn& conn = *found;
  sockets::Session& session = apps_[conn.app].process->session();
  sockets::Sonode& sonode = session.sonode(conn.slot);
  ipc::Owner owner{};
  if (sonode.is_closing() || !sonode.gate().enter(owner)) return;
  count_begin(event);
  sonode.refs.fetch_add(1);
  until(event.span, [this, app = conn.app, &session, &sonode] {
    if (apps_[app].process->is_dead()) return;
    sonode.gate().leave();
    session.unref(sonode);
  });
}

void World::kill_program(std::uint32_t number) {
  App& app = apps_[number];
  if (app.process->is_dead()) return;
  for (auto& conn : conns_) {
    if (conn->app != number || conn->talk->is_closed(0)) continue;
    if (!conn->from_peer && conn->is_connecting) stack_->close(conn->socket, host_now());
    conn->is_connecting = conn->is_connecting && conn->from_peer;
    conn->talk->side_died(0);
  }
  app.process->die();
}

// What the engine served, and what was on its way, is lost.
void World::kill_driver() {
  if (driver_->is_dead()) return;
  update_totals();
  for (auto& conn : conns_) {
    if (!conn->driver_knows) continue;
    driver::ManagedConnection* managed = driver_->find(conn->app, conn->slot);
    const bool is_the_kernels = managed != nullptr && managed->move.gate().owner() == ipc::Owner::kKernel;
    if (is_the_kernels) continue;
    conn->talk->may_break();
    conn->may_hang = true;
  }
  driver_->die();
  for (App& app : apps_) app.woken = true;
  for (auto& app : apps_)
    if (!app.process->is_dead()) (void)app.process->session().check_alive();
}

void World::end_faults() {
  for (Peer& peer : peers_) {
    peer.to->end_faults();
    peer.from->end_faults();
  }
  for (Ending& ending : std::exchange(endings_, {})) ending.end();
  for (auto& conn : conns_) {
    conn->faults.end();
    conn->talk->hurry(now_);
    conn->peer_ready = true;
  }
  interface_->fail_inject = 0;
  at_step_.clear();
  for (App& app : apps_) {
    app.woken = true;
    app.stalled_until = Time::min();
  }
  for (auto& lane : interface_->lanes()) lane->stall_until(Time::min());
  driver_->stall_until(Time::min());
}

}  // namespace twinstack::sim
