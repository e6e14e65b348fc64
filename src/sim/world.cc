// The loop: instant after instant, everything that has something to do does it.
#include "sim/world.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.h"
#include "sim/checker.h"

namespace twinstack::sim {

using std::chrono::microseconds;

namespace {

constexpr int kMostRounds = 20'000;  // at one instant: more is no progress
constexpr std::uint16_t kPort = 80;

std::uint8_t last_byte_of_destination(const Frame& frame) {
  const bool v4 = frame.size() > 13 && frame[12] == std::byte{0x08};
  const std::size_t at = v4 ? 33 : 53;
  return at < frame.size() ? std::to_integer<std::uint8_t>(frame[at]) : std::uint8_t{0};
}

}  // namespace

void Totals::add(const Totals& other) noexcept {
  moves_out += other.moves_out;
  moves_back += other.moves_back;
  refused += other.refused;
  failed += other.failed;
  broken += other.broken;
  frames += other.frames;
  bytes += other.bytes;
  connections += other.connections;
  instants += other.instants;
  spins += other.spins;
  checks += other.checks;
  told_kernel += other.told_kernel;
  told_engine += other.told_engine;
  pruned += other.pruned;
  for (std::size_t cause = 0; cause < kResetCauses; ++cause) resets[cause] += other.resets[cause];
  virtual_time += other.virtual_time;
}

World::World(const Options& options, Shape shape, std::vector<Event> events)
    : options_(options), shape_(std::move(shape)), events_(std::move(events)), step_rng_(options.seed * 77 + 5) {
  build();
}

World::~World() {
  ending_ = true;  // nothing that is closed now is sent, nobody is woken
  apps_.clear();
  bridge_.reset();
  driver_.reset();
}

void World::build() {
  if (!options_.trace.empty()) {
    auto writer = nic::PcapWriter::create(options_.trace);
    if (writer) pcap_.emplace(std::move(*writer));
  }
  build_hosts();
  interface_ =
      std::make_unique<SimInterface>([this](Frame frame) { stack_->receive(std::move(frame), host_now()); }, pool_);
  interface_->on_failed_inject = [this](const FlowKey& flow) {
    for (const auto& conn : conns_)
      if (conn->flow == flow && conn->driver_knows) hit(*conn, situation_now(*conn), EventKind::kFailInject);
  };
  build_lanes();
  driver_ = std::make_unique<SimDriver>(*interface_, *stack_, [this] { return host_now(); }, shape_.grace);
  driver_->on_closed = [this](std::uint32_t session, std::uint32_t slot) {
    for (auto& conn : conns_)
      if (conn->driver_knows && conn->app == session && conn->slot == slot) conn->driver_knows = false;
  };
  hook_moves();
  build_apps();
  checker_ = std::make_unique<Checker>(*this);
}

void World::build_hosts() {
  stack_ = std::make_unique<SoftHost>(
      shape_.hosts[0], pool_, [this](Frame frame) { from_moving_host(std::move(frame), false); }, options_.seed);
  stack_->on_ready = [this](SocketId socket) {
    if (ending_) return;
    if (const SimConn* conn = by_socket(socket); conn != nullptr) apps_[conn->app].woken = true;
  };
  stack_->on_late_bytes = [this](SocketId socket, std::size_t bytes) {
    SimConn* conn = by_socket(socket);
    if (conn != nullptr && checker_->may_lack_room(*conn, bytes)) conn->faults.reset_cause = ResetCause::kNoRoom;
  };
  stack_->on_congestion_forgotten = [this](SocketId socket) {
    if (SimConn* conn = by_socket(socket); conn != nullptr) conn->cwnd[0].forgotten();
  };
  stack_->on_driver_reset = [this](SocketId socket) {
    if (SimConn* conn = by_socket(socket); conn != nullptr) driver_resets(*conn);
  };
  for (const bool v6 : {false, true}) listeners_.push_back(stack_->listen(kPort, v6, now_));
  for (std::uint32_t i = 0; i < shape_.peers; ++i) {
    Peer peer{.stack = nullptr,
              .listeners = {},
              .to = std::make_unique<Pipe>(shape_.to_peer[i], pool_, options_.seed + i),
              .from = std::make_unique<Pipe>(shape_.from_peer[i], pool_, options_.seed + 1000 + i)};
    Pipe* from = peer.from.get();
    const auto send = [this, from](Frame frame) {
      watch_wire(frame, 1, false);
      from->send(std::move(frame), now_);
    };
    Pipe* to = peer.to.get();
    to->on_too_big = [this, from](const Frame& frame, const Refusal& how) { answer_too_big(*from, frame, how); };
    from->on_too_big = [this, to](const Frame& frame, const Refusal& how) { answer_too_big(*to, frame, how); };
    peer.stack = std::make_unique<SoftHost>(shape_.hosts[i + 1], pool_, send, options_.seed + 2000 + i);
    peer.stack->on_ready = [this, i](SocketId socket) {
      for (auto& conn : conns_)
        if (conn->peer == i && conn->peer_socket == socket) conn->peer_ready = true;
    };
    for (const bool v6 : {false, true}) peer.listeners.push_back(peer.stack->listen(kPort, v6, now_));
    peers_.push_back(std::move(peer));
  }
}

// Better a reset than wrong bytes; but only where something was done that leads there.
void World::driver_resets(SimConn& conn) {
  const ResetCause cause = conn.faults.reset_cause;
  ++outcome_.totals.resets[static_cast<std::size_t>(cause)];
  if (cause == ResetCause::kNone && !conn.talk->breaks_allowed())
    fail(fmt::format("connection {}: the driver resets it, and nothing was done that leads there\n  {}", conn.number,
                     checker_->describe(conn)));
  conn.talk->may_break();
}

void World::hook_moves() {
  auto& tools = driver_->mover().tools();
  tools.before_offload_step = [this](handoff::OffloadStep step) {
    const auto index = static_cast<std::size_t>(step);
    SimConn* conn = moving();
    const bool refuse = conn != nullptr && take(conn->faults.refuse_offload[index]);
    return before_step(static_cast<Situation>(static_cast<std::size_t>(Situation::kOutReserve) + index), refuse);
  };
  tools.before_upload_step = [this](handoff::UploadStep step) {
    const auto index = static_cast<std::size_t>(step);
    SimConn* conn = moving();
    const bool refuse = conn != nullptr && take(conn->faults.refuse_upload[index]);
    return before_step(static_cast<Situation>(static_cast<std::size_t>(Situation::kBackOwn) + index), refuse);
  };
}

void World::build_apps() {
  bridge_ = std::make_unique<LayerBridge>(*stack_, [this] { return host_now(); }, now_);
  for (std::uint32_t i = 0; i < shape_.programs; ++i) {
    std::vector<std::function<void()>> doorbells;
    Welcome welcome = driver_->open_session(i, shape_.arena);
    for (std::uint32_t ring = 0; ring < welcome.geometry.ring_count; ++ring)
      doorbells.emplace_back([this, i, lane = ring % shape_.lanes] { rung(i, lane); });
    apps_.push_back({.process = std::make_unique<AppProcess>(*bridge_, i, std::move(welcome), std::move(doorbells))});
    apps_.back().process->on_message = [this] {
      if (!ending_) driver_->messages_wait();
    };
  }
}

void World::build_lanes() {
  for (std::uint32_t i = 0; i < shape_.lanes; ++i) {
    auto nic =
        std::make_unique<LaneNic>(pool_, [this](Frame frame) { from_moving_host(std::move(frame), true); }, i, 1500);
    SimLaneHooks hooks{.now = [this] { return host_now(); },
                       .signal_driver =
                           [this] {
                             if (driver_) driver_->signal();
                           },
                       .wake_program =
                           [this](std::uint32_t session, std::uint32_t) {
                             if (is_sabotaged(Options::Sabotage::kForgetWakeup)) return;
                             if (session < apps_.size()) apps_[session].woken = true;
                           }};
    auto lane = std::make_unique<SimLane>(i, shape_.capacity, std::move(nic), std::move(hooks));
    lane->lane.set_host_settings({.tcp_mtu_probing = shape_.hosts[0].tcp_mtu_probing});
    interface_->add_lane(std::move(lane));
  }
}

void World::fail(std::string what) {
  if (!outcome_.failure.empty()) return;
  outcome_.failure = std::move(what);
  outcome_.failed_at = now_;
}

void World::every(Duration interval, std::function<void(Duration, const Totals&)> tell) {
  tell_interval_ = interval;
  tell_next_ = kBeginning + interval;
  tell_ = std::move(tell);
}

// ---- Wires

void World::from_moving_host(Frame frame, bool by_lane) {
  if (ending_) return;
  const std::uint32_t peer = static_cast<std::uint32_t>(last_byte_of_destination(frame)) - 1;
  watch_wire(frame, 0, by_lane);
  if (peer < peers_.size())
    peers_[peer].to->send(std::move(frame), now_);
  else
    pool_.give(std::move(frame));
}

bool World::deliver_frames() {
  bool worked = false;
  Frame frame;
  for (Peer& peer : peers_) {
    while (peer.to->receive(now_, frame)) {
      peer.stack->receive(std::move(frame), now_);
      worked = true;
    }
    while (peer.from->receive(now_, frame)) {
      trace(frame);
      interface_->demultiplex(std::move(frame));
      worked = true;
    }
  }
  return worked;
}

// ---- One instant

bool World::run_stacks() {
  bool worked = false;
  if (stack_->next_deadline() <= host_now()) {
    stack_->on_time(host_now());
    worked = true;
  }
  for (Peer& peer : peers_) {
    if (peer.stack->next_deadline() > now_) continue;
    peer.stack->on_time(now_);
    worked = true;
  }
  return worked;
}

bool World::run_lanes() {
  if (driver_->is_dead()) return false;
  bool worked = false;
  for (auto& lane : interface_->lanes()) {
    if (lane->due(host_now()) > host_now()) continue;
    lane->run(host_now());
    worked = true;
  }
  return worked;
}

bool World::run_driver() {
  if (driver_->is_busy()) return false;
  bool worked = false;
  while (!deferred_.empty() && !driver_->is_dead()) {
    const Event event = deferred_.front();
    deferred_.erase(deferred_.begin());
    apply(event);
    worked = true;
  }
  if (driver_->due(host_now()) > host_now()) return worked;
  driver_->run(host_now());
  return true;
}

// A program that rings again and again within one call spins until the lane has taken something: the world goes on.
void World::rung(std::uint32_t number, std::uint32_t lane) {
  interface_->lanes()[lane]->doorbell();
  App& app = apps_[number];
  constexpr std::uint32_t kPatient = 64;
  if (!app.is_running || ++app.rings < kPatient) return;
  ++outcome_.totals.spins;
  const bool driver_runs = !driver_->is_busy();
  go_to(std::min(next_instant(driver_runs), now_ + microseconds(10)));
  settle(driver_runs);
  if (now_ > kBeginning + options_.duration + 2 * kPatience) fail("a call of a program that may not wait never ends");
  if (!outcome_.ok()) app.process->abort_calls();
}

void World::run_app(std::uint32_t number) {
  App& app = apps_[number];
  app.woken = false;
  app.rings = 0;
  app.is_running = true;
  for (auto& conn : conns_)
    if (conn->app == number && conn->talk && !app.process->is_dead()) conn->talk->run(0, now_);
  app.is_running = false;
  if (!app.process->is_dead() && !app.process->may_sleep()) app.woken = true;
}

bool World::run_apps() {
  bool worked = false;
  for (std::uint32_t i = 0; i < apps_.size(); ++i) {
    App& app = apps_[i];
    if (app.process->is_dead() || app.is_running || app.stalled_until > now_) continue;
    const bool due = app.woken || std::ranges::any_of(conns_, [&](const auto& conn) {
                       return conn->app == i && conn->talk->due(0) <= now_;
                     });
    if (!due) continue;
    run_app(i);
    worked = true;
  }
  return worked;
}

bool World::run_peers() {
  bool worked = false;
  for (auto& conn : conns_) {
    if (!conn->peer_ready && conn->talk->due(1) > now_) continue;
    conn->peer_ready = false;
    if (conn->talk->is_closed(1)) continue;
    conn->talk->run(1, now_);
    worked = true;
  }
  return worked;
}

bool World::run_once(bool driver_runs) {
  bool worked = deliver_frames();
  worked = run_stacks() || worked;
  accept_all();
  worked = run_lanes() || worked;
  if (driver_runs) worked = run_driver() || worked;
  worked = run_apps() || worked;
  worked = run_peers() || worked;
  return worked;
}

void World::settle(bool driver_runs) {
  while (next_event_ < events_.size() && kBeginning + events_[next_event_].at <= now_) {
    const Event& event = events_[next_event_++];
    apply(event);
  }
  for (std::size_t i = 0; i < endings_.size();) {
    if (endings_[i].at > now_) {
      ++i;
      continue;
    }
    const auto end = std::move(endings_[i].end);
    endings_.erase(endings_.begin() + static_cast<std::ptrdiff_t>(i));
    end();
  }
  int rounds = 0;
  while (run_once(driver_runs) && outcome_.ok())
    if (++rounds > kMostRounds) fail("no end to what is done at one instant");
  ++outcome_.totals.instants;
}

Time World::on_world_clock(Time host_time) const noexcept {
  return host_time == kNever ? kNever : host_time - clock_offset_;
}

Time World::next_instant(bool driver_runs) const {
  Time next = next_event_ < events_.size() ? kBeginning + events_[next_event_].at : kNever;
  for (const Ending& ending : endings_) next = std::min(next, ending.at);
  next = std::min(next, on_world_clock(stack_->next_deadline()));
  for (const Peer& peer : peers_)
    next = std::min({next, peer.stack->next_deadline(), peer.to->next_arrival(), peer.from->next_arrival()});
  if (!driver_->is_dead()) {
    for (const auto& lane : interface_->lanes()) next = std::min(next, on_world_clock(lane->due(host_now())));
    if (driver_runs) next = std::min(next, on_world_clock(driver_->due(host_now())));
  }
  for (std::uint32_t i = 0; i < apps_.size(); ++i) {
    const App& app = apps_[i];
    if (app.process->is_dead() || app.is_running) continue;
    Time due = app.woken ? now_ : kNever;
    for (const auto& conn : conns_)
      if (conn->app == i) due = std::min(due, conn->talk->due(0));
    next = std::min(next, due == kNever ? kNever : std::max(due, app.stalled_until));
  }
  for (const auto& conn : conns_) next = std::min(next, conn->talk->due(1));
  return next;
}

void World::go_to(Time when) {
  now_ = std::max(now_ + Duration(1), when);
  if (clock_ != nullptr) *clock_ = now_;
  while (tell_ && now_ >= tell_next_) {
    update_totals();
    tell_(tell_next_ - kBeginning, outcome_.totals);
    tell_next_ += tell_interval_;
  }
}

// The driver is in the midst of a move and the rest of the world does not wait for it.
void World::pass(Duration span) {
  const Time end = now_ + span;
  for (;;) {
    settle(false);
    checker_->check();
    const Time next = next_instant(false);
    if (next > end || !outcome_.ok() || driver_->is_dead()) break;
    go_to(next);
  }
  now_ = std::max(now_, end);
}

// ---- The whole

bool World::is_everything_over() const {
  return std::ranges::all_of(conns_, [this](const auto& conn) {
    // A reset is sent once. When it is lost, and the other end has nothing to send, it waits for ever, as it would.
    const bool reset = conn->talk->breaks_allowed() && conn->talk->is_closed(0) &&
                       stack_->view(conn->socket).cb == nullptr &&
                       (conn->peer_socket == SimConn::kNone ||
                        peers_[conn->peer].stack->view(conn->peer_socket).send_queue_bytes == 0);
    const bool there = conn->talk->is_closed(1) || conn->may_hang || reset;
    return conn->talk->is_closed(0) && there && (driver_->is_dead() || !conn->driver_knows);
  });
}

// A listener whose clock jumps gives up what is half open when the last ACK of the handshake was lost (Linux
// tcp_synack_retries): whoever has opened it, and waits to be talked to, waits for ever, as it would.
bool World::only_unheard_are_left() const {
  return std::ranges::all_of(conns_, [](const auto& conn) {
    const unsigned listener = conn->from_peer ? 0 : 1;
    const bool unheard =
        !conn->is_connecting && !conn->talk->is_open(listener) && conn->talk->written(1 - listener) == 0;
    return conn->talk->is_over() || (unheard && !conn->driver_knows);
  });
}

std::string World::what_hangs() const {
  std::string text = fmt::format("not over {} s after faults have stopped:", kPatience / std::chrono::seconds(1));
  for (const auto& conn : conns_)
    if (!conn->talk->is_over() || conn->driver_knows) text += "\n  " + checker_->describe(*conn);
  return text;
}

void World::update_totals() {
  Totals& totals = outcome_.totals;
  const driver::MoverCounters& moves = driver_->mover().counters();
  totals.moves_out = moves.offloads;
  totals.moves_back = moves.uploads;
  totals.refused = moves.offload_refused;
  totals.failed = moves.offload_failed + moves.upload_failed;
  totals.broken = moves.broken;
  totals.told_engine = moves.icmp_too_big;
  totals.told_kernel = stack_->errors_believed();
  for (const Peer& peer : peers_) totals.told_kernel += peer.stack->errors_believed();
  totals.pruned = 0;
  for (const auto& lane : interface_->lanes()) totals.pruned += lane->region.out_of_order().pruned();
  totals.connections = conns_.size();
  totals.virtual_time = now_ - kBeginning;
  totals.frames = 0;
  for (const Peer& peer : peers_) totals.frames += peer.to->counters().frames + peer.from->counters().frames;
  totals.bytes = 0;
  for (const auto& conn : conns_) totals.bytes += conn->talk->read(0) + conn->talk->read(1);
}

Outcome World::run() {
  const Time quiet = kBeginning + options_.duration;
  bool stopped = false;
  while (outcome_.ok()) {
    settle(true);
    checker_->check();
    if (!stopped && now_ >= quiet && next_event_ >= events_.size()) {
      end_faults();
      stopped = true;
      continue;
    }
    if (stopped && is_everything_over()) break;
    if (stopped && now_ > quiet + kPatience) fail(what_hangs());
    Time next = next_instant(true);
    if (!stopped) next = std::min(next, std::max(quiet, now_ + Duration(1)));
    if (next == kNever) {
      if (stopped && only_unheard_are_left()) break;
      fail("nothing is ever to happen again; " + what_hangs());
      break;
    }
    go_to(next);
  }
  if (outcome_.ok()) {
    // Returns of chunks that were not urgent wait in the rings until a lane runs.
    for (auto& lane : interface_->lanes()) lane->doorbell();
    settle(true);
    checker_->check_end();
  }
  update_totals();
  if (pcap_) (void)pcap_->flush_file();
  return outcome_;
}

}  // namespace twinstack::sim
