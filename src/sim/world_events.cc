// What the events of a scenario do, but for faults.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <ranges>

#include "base/assert.h"
#include "sim/world.h"

namespace twinstack::sim {

using std::chrono::microseconds;

SimConn* World::by_socket(SocketId socket) {
  for (const auto& conn : std::views::reverse(conns_))
    if (conn->socket == socket) return conn.get();
  return nullptr;
}

SimConn* World::moving() {
  const handoff::Connection* of = driver_->mover().tools().moving;
  if (of == nullptr) return nullptr;
  for (const auto& conn : std::views::reverse(conns_))
    if (conn->driver_knows && conn->app == of->session && conn->slot == of->slot) return conn.get();
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
  if (done != 0 && std::ranges::none_of(options_.faults.on, std::identity{}))
    fail(fmt::format("connection {}: its handshake fails ({}), and nothing was done to it", conn.number, done));
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
  const SimConn* const conn = connection_of(event);
  if (conn == nullptr || !conn->driver_knows || driver_->is_dead()) return;
  driver::ManagedConnection* managed = driver_->find(conn->app, conn->slot);
  if (managed == nullptr || managed->move.tag != conn->tag) return;
  if (event.kind == EventKind::kMoveOut)
    (void)driver_->offload(*managed);
  else
    driver_->upload(*managed);
}

}  // namespace twinstack::sim
