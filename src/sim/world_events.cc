// What the events of a scenario do.
#include <algorithm>

#include "base/assert.h"
#include "sim/checker.h"
#include "sim/router.h"
#include "sim/world.h"

namespace twinstack::sim {

using std::chrono::microseconds;

namespace {

constexpr std::uint32_t kHogSession = 60;  // of nobody: holds slots of the lanes' tables
constexpr std::uint16_t kServerPort = 80;
constexpr std::uint16_t kFirstClientPort = 20'000;

// Each connection has ports of its own, so that it is known by its flow.
FlowKey flow_of(std::uint32_t number, std::uint32_t peer, bool v6, bool from_peer) {
  const auto client = static_cast<std::uint16_t>(kFirstClientPort + number);
  return {.local = address_of_mover(v6),
          .remote = address_of_peer(peer, v6),
          .local_port = from_peer ? kServerPort : client,
          .remote_port = from_peer ? client : kServerPort};
}

}  // namespace

SimConn* World::by_socket(SocketId socket) {
  for (auto at = conns_.rbegin(); at != conns_.rend(); ++at)
    if ((*at)->socket == socket) return at->get();
  return nullptr;
}

SimConn* World::moving() {
  const handoff::Connection* of = driver_->mover().tools().moving;
  if (of == nullptr) return nullptr;
  for (auto at = conns_.rbegin(); at != conns_.rend(); ++at)
    if ((*at)->driver_knows && (*at)->app == of->session && (*at)->slot == of->slot) return at->get();
  return nullptr;
}

void World::apply(const Event& event) {
  const bool for_driver =
      event.kind == EventKind::kMoveOut || event.kind == EventKind::kMoveBack || event.kind == EventKind::kOpen;
  if (for_driver && driver_->is_busy()) {
    deferred_.push_back(event);
    return;
  }
  switch (event.kind) {
    case EventKind::kOpen:
      open_connection(event);
      return;
    case EventKind::kMoveOut:
    case EventKind::kMoveBack:
      move(event);
      return;
    default:
      begin_fault(event);
      return;
  }
}

void World::open_connection(const Event& event) {
  Rng rng(event.seed);
  auto conn = std::make_unique<SimConn>();
  conn->number = event.target;
  conn->app = rng.below(shape_.programs);
  conn->peer = rng.below(shape_.peers);
  conn->from_peer = rng.below(2) == 0;
  conn->ring_hint = rng.below(2);
  conn->flow = flow_of(event.target, conn->peer, rng.below(3) == 0, conn->from_peer);
  if (apps_[conn->app].process->is_dead()) return;
  const Duration left = std::min<Duration>(options_.duration - (now_ - kBeginning), kLife);
  const Duration longest = std::max<Duration>(left, microseconds(1000));
  conn->talk = std::make_unique<Conversation>(conn->number, make_script(rng.next(), longest), rng.next(), now_);
  // Known before its SYN passes the wire, where the checkers learn the first sequence number.
  SimConn& opened = *conns_.emplace_back(std::move(conn));
  opened.faults.on_met = [this, &opened](EventKind kind) { hit(opened, situation_now(opened), kind); };
  if (opened.from_peer)
    opened.peer_socket = peers_[opened.peer].stack->connect(reversed(opened.flow), now_);
  else
    opened.socket = stack_->connect(opened.flow, host_now());
  apps_[opened.app].woken = true;
}

void World::accept_all() {
  if (stack_->take_accept_ready())
    for (const SocketId listener : listeners_) accept_from(*stack_, listener, 0);
  for (Peer& peer : peers_)
    if (peer.stack->take_accept_ready())
      for (const SocketId listener : peer.listeners) accept_from(*peer.stack, listener, 1);
  for (auto& conn : conns_)
    if (conn->is_connecting) look_at_connecting(*conn);
}

void World::accept_from(SoftHost& host, SocketId listener, unsigned side) {
  const Time now = side == 0 ? host_now() : now_;
  FlowKey flow;
  for (SocketId socket = host.accept(listener, flow, now); socket >= 0; socket = host.accept(listener, flow, now)) {
    const FlowKey ours = side == 0 ? flow : reversed(flow);
    const auto found = std::ranges::find_if(conns_, [&](const auto& conn) {
      return conn->flow == ours && !conn->talk->is_open(side) && !conn->talk->is_closed(side);
    });
    if (found == conns_.end())
      host.close(socket, now);  // its program has died, or its client has given up
    else
      attach(**found, side, socket);
  }
}

void World::look_at_connecting(SimConn& conn) {
  const unsigned side = conn.from_peer ? 1 : 0;
  SoftHost& host = side == 0 ? *stack_ : *peers_[conn.peer].stack;
  const SocketId socket = side == 0 ? conn.socket : conn.peer_socket;
  const int done = host.connected(socket, side == 0 ? host_now() : now_);
  if (done == -EAGAIN) return;
  conn.is_connecting = false;
  if (done == 0 && !conn.talk->is_closed(side)) {
    attach(conn, side, socket);
    return;
  }
  host.close(socket, side == 0 ? host_now() : now_);
  conn.talk->abandon();
}

void World::attach(SimConn& conn, unsigned side, SocketId socket) {
  if (side == 1) {
    conn.peer_socket = socket;
    conn.peer_ready = true;
    conn.talk->set_endpoint(1, std::make_unique<StackEndpoint>(*peers_[conn.peer].stack, socket, now_));
    return;
  }
  conn.socket = socket;
  attach_to_app(conn);
}

void World::attach_to_app(SimConn& conn) {
  App& app = apps_[conn.app];
  auto endpoint = app.process->open(conn.socket, conn.ring_hint);
  ASSERT(endpoint != nullptr);
  conn.slot = app.process->last_slot();
  conn.tag = app.process->last_tag();
  conn.talk->set_endpoint(0, std::move(endpoint));
  app.woken = true;
  if (driver_->is_dead()) return;
  driver_->register_connection(conn.app, conn.slot, conn.tag, conn.socket, conn.faults);
  conn.driver_knows = true;
}

void World::move(const Event& event) {
  const auto conn = std::ranges::find_if(conns_, [&](const auto& of) { return of->number == event.target; });
  if (conn == conns_.end() || !(*conn)->driver_knows || driver_->is_dead()) return;
  driver::ManagedConnection* managed = driver_->find((*conn)->app, (*conn)->slot);
  if (managed == nullptr || managed->move.tag != (*conn)->tag) return;
  if (event.kind == EventKind::kMoveOut)
    (void)driver_->offload(*managed);
  else
    driver_->upload(*managed);
}

// ---- Faults

void World::until(Duration span, std::function<void()> end) {
  endings_.push_back({.at = now_ + span, .end = std::move(end)});
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
    case Target::kConnection:  // the thread that stands inside goes with its program
      return event.target == conn.number &&
             !(event.kind == EventKind::kCallInside && apps_[conn.app].process->is_dead());
    case Target::kProgram:
      return event.target == conn.app && !(event.kind == EventKind::kProgramDeath && conn.talk->is_closed(0));
    case Target::kLink:
      return event.target == conn.peer;
    case Target::kLane:
      break;
  }
  const driver::ManagedConnection* managed = driver_->find(conn.app, conn.slot);
  const bool there = managed != nullptr && managed->move.hw;
  return event.target == (there ? managed->move.hw.lane() : interface_->lane_of(conn.flow));
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
    case EventKind::kStallProgram:
      apps_[event.target].stalled_until = now_ + event.span;
      return;
    case EventKind::kNoRead:
      stop_reading(event);
      return;
    case EventKind::kMapFull:
      interface_->map_is_full = true;
      until(event.span, [this] { interface_->map_is_full = false; });
      return;
    case EventKind::kNoChunks:
      take_chunks(event);
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
    case EventKind::kCallInside:
      stand_inside(event);
      return;
    case EventKind::kNoHook:
      stack_->set_congestion_hook(false);
      until(event.span, [this] { stack_->set_congestion_hook(true); });
      return;
    case EventKind::kQuickClose:
      close_quickly(event);
      return;
    case EventKind::kAtStep:
      at_step_.push_back(&event);
      return;
    case EventKind::kProgramDeath:
      kill_program(event.target);
      return;
    case EventKind::kDriverDeath:
      kill_driver();
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
  const auto found = std::ranges::find_if(conns_, [&](const auto& conn) { return conn->number == event.target; });
  if (found != conns_.end()) arm((*found)->faults, event);
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
  const auto found = std::ranges::find_if(conns_, [&](const auto& conn) { return conn->number == event.target; });
  if (found == conns_.end()) return;
  const SimConn& conn = **found;
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
  const auto found = std::ranges::find_if(conns_, [&](const auto& conn) { return conn->number == event.target; });
  if (found == conns_.end()) return;
  (*found)->talk->stop_reading(event.detail, now_ + event.span);
  until(event.span, [this, conn = found->get(), side = event.detail] {
    apps_[conn->app].woken = apps_[conn->app].woken || side == 0;
    conn->peer_ready = conn->peer_ready || side == 1;
  });
}

void World::close_quickly(const Event& event) {
  const auto found = std::ranges::find_if(conns_, [&](const auto& conn) { return conn->number == event.target; });
  if (found != conns_.end()) (*found)->talk->close_quickly(event.detail);
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
  const auto found = std::ranges::find_if(conns_, [&](const auto& conn) { return conn->number == event.target; });
  if (found == conns_.end() || apps_[(*found)->app].process->is_dead() || (*found)->talk->is_closed(0)) return;
  const SimConn& conn = **found;
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

// ---- Within a move

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
