#include "sim/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "sim/world.h"
#include "tcp/cold_state.h"
#include "tcp/flight.h"
#include "tcp/invariants.h"
#include "tcp/window.h"

namespace twinstack::sim {

using driver::ManagedConnection;
using engine::ConnState;
using ipc::Owner;
using kernel::Phase;

namespace {

const char* owner_name(Owner owner) {
  constexpr std::array<const char*, 5> kNames = {"free", "kernel", "to-engine", "engine", "to-kernel"};
  const auto index = static_cast<std::size_t>(owner);
  return index < kNames.size() ? kNames[index] : "?";
}

const char* phase_name(Phase phase) {
  constexpr std::array<const char*, 5> kNames = {"running", "frozen", "parked", "gap", "restored"};
  return kNames[static_cast<std::size_t>(phase)];
}

const char* holder_name(CwndWatch::Holder holder) {
  constexpr std::array<const char*, 4> kNames = {"nobody", "the kernel", "the engine", "the peer"};
  return kNames[static_cast<std::size_t>(holder)];
}

// How many there are. A chunk of a closed connection comes back when its slot is collected, a few with each miss.
std::uint32_t take_all_tx_chunks(sockets::Session& session) {
  std::uint32_t taken = 0;
  for (std::uint32_t misses = 0; misses <= session.slot_count();)
    ++(session.take_tx_chunk() == sockets::kNoChunk ? misses : taken);
  return taken;
}

std::string describe_block(const tcp::ControlBlock& cb) {
  return fmt::format(
      "una {} nxt {} write {} wnd {} rcv_nxt {} rcv_wup {} rcv_wnd {} cwnd {} recovery {} timer {} state {:#x}",
      cb.snd_una.raw(), cb.snd_nxt.raw(), cb.write_seq.raw(), cb.snd_wnd, cb.rcv_nxt.raw(), cb.rcv_wup.raw(),
      cb.rcv_wnd, cb.cwnd, static_cast<int>(cb.recovery), static_cast<int>(cb.sender_timer), cb.state);
}

}  // namespace

void Checker::fail(const SimConn& conn, const std::string& what) {
  world_.fail(fmt::format("connection {}: {}\n  {}", conn.number, what, describe(conn)));
}

std::string Checker::describe(const SimConn& conn) const {
  std::string text = conn.talk->state();
  const auto& link = conn.flow.to_string();
  text += fmt::format("\n    {} program {} slot {}", link, conn.app, conn.slot);
  if (ManagedConnection* managed = world_.driver_->find(conn.app, conn.slot);
      managed != nullptr && managed->move.kernel && managed->move.tag == conn.tag) {
    text += fmt::format(
        "\n    driver: owner {} phase {} stack {} parked {} wanted {} stays {} closing {} hw {:#x} failed {} ({})",
        owner_name(managed->move.gate().owner()), phase_name(managed->move.kernel->phase()),
        static_cast<int>(managed->stack), managed->parked, managed->upload_wanted, managed->stays, managed->closing,
        managed->move.hw.raw(), managed->failed_uploads, managed->upload_failure);
    if (managed->move.hw) {
      const auto& lane = *world_.interface_->lanes()[managed->move.hw.lane()];
      text += "\n    engine: " + describe_block(lane.region.conns()[managed->move.hw.index()].tcb);
    }
  }
  const SocketView ours = conn.socket == SimConn::kNone ? SocketView{} : world_.stack_->view(conn.socket);
  if (ours.cb != nullptr)
    text += fmt::format("\n    kernel: {} unread {} queued {}", describe_block(*ours.cb), ours.unread_bytes,
                        ours.send_queue_bytes);
  const SocketView theirs =
      conn.peer_socket == SimConn::kNone ? SocketView{} : world_.peers_[conn.peer].stack->view(conn.peer_socket);
  if (theirs.cb != nullptr)
    text += fmt::format("\n    peer:   {} unread {} queued {}", describe_block(*theirs.cb), theirs.unread_bytes,
                        theirs.send_queue_bytes);
  return text;
}

void Checker::check() {
  check_streams();
  if (++instants_ % world_.options_.check_every == 0) check_all();
}

void Checker::check_streams() {
  for (const auto& conn : world_.conns_) {
    if (!conn->talk->failure().empty()) {
      world_.fail(conn->talk->failure() + "\n  " + describe(*conn));
      return;
    }
    if (conn->wire[0].resets + conn->wire[1].resets > 0) check_resets(*conn);
  }
}

void Checker::check_resets(const SimConn& conn) {
  if (!conn.talk->breaks_allowed()) fail(conn, "a reset that nobody asked for");
}

void Checker::check_all() {
  ++world_.outcome_.totals.checks;
  check_hosts();
  for (const auto& conn : world_.conns_) {
    end_excuse(*conn);
    if (conn->talk->breaks_allowed()) continue;
    check_connection(*conn);
    check_peer(*conn);
  }
  if (world_.driver_->is_dead()) return;  // what it posted last, nobody is woken for
  check_wakeups();
  check_counts();
  check_out_of_order();
}

void Checker::check_hosts() {
  if (const char* wrong = world_.stack_->broken_invariant())
    world_.fail(fmt::format("software stack of the moving host: {}", wrong));
  for (const auto& peer : world_.peers_)
    if (const char* wrong = peer.stack->broken_invariant()) world_.fail(fmt::format("software stack: {}", wrong));
  for (const auto& lane : world_.interface_->lanes())
    for (const engine::HwConn& hw : lane->region.conns())
      if (hw.state == ConnState::kActive)
        if (const char* wrong = tcp::broken_invariant(hw.tcb)) world_.fail(fmt::format("engine: {}", wrong));
}

// The engine has found room for what the kernel took in late: a later reset is none for want of it.
void Checker::end_excuse(SimConn& conn) {
  if (conn.faults.reset_cause != ResetCause::kNoRoom || !conn.driver_knows || world_.driver_->is_dead()) return;
  const ManagedConnection* managed = world_.driver_->find(conn.app, conn.slot);
  const bool is_over = managed != nullptr && managed->move.tag == conn.tag && managed->move.kernel && managed->parked &&
                       managed->move.kernel->phase() == Phase::kParked;
  if (is_over) conn.faults.reset_cause = ResetCause::kNone;
}

void Checker::check_connection(const SimConn& conn) {
  if (!conn.driver_knows || world_.driver_->is_dead()) return;
  ManagedConnection* managed = world_.driver_->find(conn.app, conn.slot);
  if (managed == nullptr || managed->move.tag != conn.tag) {
    fail(conn, "the driver does not know it");
    return;
  }
  if (!conn.wire[0].has_start || !conn.wire[1].has_start) fail(conn, "the checkers have not seen its SYNs");
  const bool moves = world_.driver_->is_busy() && world_.moving() == &conn;
  if (!moves) check_owner(conn, *managed);
}

// One owner, and all three parties agree who.
void Checker::check_owner(const SimConn& conn, ManagedConnection& managed) {
  const Owner owner = managed.move.gate().owner();
  if (owner == Owner::kKernel && !managed.in_engine())
    check_kernel(conn, managed);
  else if (owner == Owner::kEngine && managed.in_engine())
    check_engine(conn, managed);
  else
    fail(conn, fmt::format("owner record {} and the driver's word differ", owner_name(owner)));
}

void Checker::check_kernel(const SimConn& conn, const ManagedConnection& managed) {
  if (managed.move.hw || managed.move.shared().hw_conn_id.load() != 0)
    fail(conn, "the kernel's, and has a hardware id");
  if (managed.move.kernel->phase() != Phase::kRunning) fail(conn, "the kernel's, and its socket does not run");
  if (!managed.move.kernel->is_untouched()) fail(conn, "the kernel's, and a filter is on");
  if (world_.interface_->steers(conn.flow)) fail(conn, "the kernel's, and its flow is steered to the engine");
  const SocketView view = world_.stack_->view(conn.socket);
  if (view.cb == nullptr) return;
  check_cwnd(conn, *view.cb, CwndWatch::Holder::kKernel);
  check_received(
      conn, {.rcv_nxt = view.cb->rcv_nxt - (view.cb->has(tcp::kFinReceived) ? 1 : 0), .unread = view.unread_bytes});
  const Seq end = view.cb->write_seq - (view.cb->has(tcp::kFinQueued) ? 1 : 0);
  const SimConn::Direction& ours = conn.wire[0];
  if (ours.has_start && end != ours.start + static_cast<std::uint32_t>(conn.talk->written(0)))
    fail(conn,
         fmt::format("kernel: {} bytes written, {} by sequence numbers", conn.talk->written(0), end - ours.start));
}

void Checker::check_engine(const SimConn& conn, const ManagedConnection& managed) {
  const engine::HwConnId id = managed.move.hw;
  if (!id || managed.move.shared().hw_conn_id.load() != id.raw()) {
    fail(conn, "the engine's, and slot and driver know different ids");
    return;
  }
  if (!world_.interface_->steers(conn.flow)) fail(conn, "the engine's, and its flow goes to the kernel");
  SimLane& lane = *world_.interface_->lanes()[id.lane()];
  const engine::HwConn& hw = lane.region.conns()[id.index()];
  const engine::HwConnRecord& record = lane.region.records()[id.index()];
  if (hw.generation != id.generation() || hw.state != ConnState::kActive) fail(conn, "the engine does not serve it");
  if (record.flow != conn.flow || hw.session != conn.app || record.slot != conn.slot || record.tag != conn.tag ||
      record.kernel_cookie != managed.move.kernel->cookie())
    fail(conn, "the engine's references lead elsewhere");
  if (const char* wrong = tcp::broken_invariant(hw.tcb)) fail(conn, std::string("engine: ") + wrong);
  check_cwnd(conn, hw.tcb, CwndWatch::Holder::kEngine);
  check_send_queue(conn, lane, hw);
  check_sent(conn, lane, hw);
  check_received(conn, {.rcv_nxt = hw.tcb.rcv_nxt, .unread = hw.rx_fill - hw.rx_posted});
}

// The queue is what the sequence numbers say.
void Checker::check_send_queue(const SimConn& conn, const SimLane& lane, const engine::HwConn& hw) {
  std::uint64_t bytes = 0;
  const auto pieces = lane.region.pieces();
  for (std::uint32_t at = hw.send_queue.head; at != engine::kNone; at = pieces[at].next) bytes += pieces[at].bytes();
  bytes -= hw.send_head_skip;
  if (hw.tcb.write_seq != hw.tcb.snd_una + static_cast<std::uint32_t>(bytes))
    fail(conn, fmt::format("engine: {} bytes in the queue, {} by sequence numbers", bytes,
                           hw.tcb.write_seq - hw.tcb.snd_una));
}

// Nothing that was acknowledged can be lost any more: the program has read it, or will.
void Checker::check_received(const SimConn& conn, ManagedStream stream) {
  const SimConn::Direction& theirs = conn.wire[1];
  if (!theirs.has_start || world_.apps_[conn.app].is_running) return;
  const ManagedConnection* managed = world_.driver_->find(conn.app, conn.slot);
  const ipc::ConnSlot& slot = managed->move.shared();
  const std::uint64_t in_chunks = slot.rx_posted_bytes.load() - slot.rx_read_bytes.load();
  const std::uint64_t safe = conn.talk->read(0) + in_chunks + stream.unread;
  const auto received = static_cast<std::uint32_t>(stream.rcv_nxt - theirs.start);
  if (received != static_cast<std::uint32_t>(safe))
    fail(conn, fmt::format("{} bytes were received, and {} are read or can be", received, safe));
  // What the frozen socket takes in, past the filter, the engine learns when it is parked; which may fail and be left
  // to the upload.
  if (managed->in_engine() && managed->move.kernel->phase() == Phase::kFrozen) return;
  const SimConn::Direction& ours = conn.wire[0];
  if (ours.has_ack && ours.highest_ack > stream.rcv_nxt + 1)
    fail(conn, fmt::format("{} bytes were acknowledged that the program can lose", ours.highest_ack - stream.rcv_nxt));
}

// What the program has written is in the queue, or still in the ring.
void Checker::check_sent(const SimConn& conn, const SimLane& lane, const engine::HwConn& hw) {
  const SimConn::Direction& ours = conn.wire[0];
  if (!ours.has_start || world_.apps_[conn.app].is_running) return;
  const auto queued = static_cast<std::uint32_t>(hw.tcb.write_seq - ours.start);
  const auto written = static_cast<std::uint32_t>(conn.talk->written(0));
  const auto in_ring = static_cast<std::int32_t>(written - queued);
  const ManagedConnection* managed = world_.driver_->find(conn.app, conn.slot);
  const ipc::RingHeader& ring = managed->move.arena->ring(managed->move.ring);
  const bool is_empty = ring.sq_head.value.load() == ring.sq_tail.value.load() && !lane.lane.has_waiting_rings();
  if (in_ring < 0 || (is_empty && in_ring != 0))
    fail(conn, fmt::format("engine: {} bytes written, {} by sequence numbers", written, queued));
}

void Checker::check_cwnd(const SimConn& conn, const tcp::ControlBlock& cb, CwndWatch::Holder holder) {
  const unsigned side = holder == CwndWatch::Holder::kPeer ? 1 : 0;
  const std::string wrong =
      conn.cwnd[side].look(cb, holder, world_.outcome_.totals.checks, conn.wire[side].data_segments);
  if (!wrong.empty()) fail(conn, fmt::format("the congestion window of {} {}", holder_name(holder), wrong));
}

// The other end, which is never moved, holds the same.
void Checker::check_peer(const SimConn& conn) {
  if (conn.peer_socket == SimConn::kNone || !conn.talk->is_open(1) || conn.talk->is_closed(1)) return;
  const SocketView view = world_.peers_[conn.peer].stack->view(conn.peer_socket);
  if (view.cb == nullptr || !conn.wire[0].has_start) return;
  check_cwnd(conn, *view.cb, CwndWatch::Holder::kPeer);
  const Seq nxt = view.cb->rcv_nxt - (view.cb->has(tcp::kFinReceived) ? 1 : 0);
  const auto received = static_cast<std::uint32_t>(nxt - conn.wire[0].start);
  if (received != static_cast<std::uint32_t>(conn.talk->read(1) + view.unread_bytes))
    fail(conn, fmt::format("peer: {} bytes were received, {} read, {} unread", received, conn.talk->read(1),
                           view.unread_bytes));
}

// A program that sleeps has taken in all that was posted, or was woken for it.
void Checker::check_wakeups() {
  for (const auto& app : world_.apps_) {
    if (app.process->is_dead() || app.woken || app.is_running) continue;
    for (const sockets::RingPort& ring : app.process->session().rings())
      if (!ring.looks_empty())
        world_.fail(fmt::format("program {} sleeps, and something was posted to it", app.process->number()));
  }
}

void Checker::check_counts() {
  // That which moves counts or does not, as the step is.
  const std::size_t moving = world_.driver_->is_busy() ? 1 : 0;
  std::size_t in_engine = 0;
  for (const auto& [number, session] : world_.driver_->sessions())
    for (const auto& [slot, conn] : session->connections) in_engine += conn->in_engine() ? 1 : 0;
  const auto differs = [&](std::size_t count) { return count > in_engine + moving || count + moving < in_engine; };
  if (differs(world_.interface_->steered_flows()))
    world_.fail(fmt::format("{} flows are steered, {} connections are in the engine",
                            world_.interface_->steered_flows(), in_engine));
  if (differs(world_.interface_->hop_users()))
    world_.fail(
        fmt::format("{} users of next hops, {} connections in the engine", world_.interface_->hop_users(), in_engine));
}

// They come in a frame in chunks, into chunks of their own, a completion for each.
bool Checker::may_lack_room(const SimConn& conn, std::size_t bytes) const {
  const ManagedConnection* managed = world_.driver_->find(conn.app, conn.slot);
  if (managed == nullptr || !managed->move.hw) return true;
  const SimLane& lane = *world_.interface_->lanes()[managed->move.hw.lane()];
  const engine::HwConn& hw = lane.region.conns()[managed->move.hw.index()];
  const std::size_t chunks = bytes / world_.shape_.arena.chunk_bytes + 2;
  const ipc::RingHeader& ring = managed->move.arena->ring(managed->move.ring);
  const std::uint32_t used = ring.cq_tail.value.load() - ring.cq_head.value.load();
  const bool ring_is_full = world_.shape_.arena.cq_entries - used < world_.shape_.arena.cq_entries / 2 + chunks;
  return lane.lane.free_chunks(conn.app) < 2 * chunks || ring_is_full ||
         hw.unread_bytes + bytes > tcp::most_unread(hw.tcb, hw.rcv_buf_bytes);
}

// What a lane counts is what its connections hold.
void Checker::check_out_of_order() {
  for (const auto& lane : world_.interface_->lanes()) {
    std::uint64_t held = 0;
    for (const engine::HwConn& hw : lane->region.conns())
      if (hw.tcb.cold && hw.tcb.cold->share.memory != nullptr) held += hw.tcb.cold->share.bytes;
    const std::uint64_t counted = lane->region.out_of_order().used();
    if (held != counted)
      world_.fail(fmt::format("{} bytes count as held out of order, connections hold {}", counted, held));
  }
}

// Everything has ended: nothing is left.
void Checker::check_end() {
  check_all();
  if (world_.driver_->is_dead()) return;
  for (const auto& lane : world_.interface_->lanes()) {
    if (lane->lane.active_connections() != 0) world_.fail("a connection is left in a lane");
    if (lane->region.out_of_order().used() != 0) world_.fail("something is left out of order");
    if (lane->lane.free_pieces() != world_.shape_.capacity.pieces)
      world_.fail(fmt::format("{} pieces are lost", world_.shape_.capacity.pieces - lane->lane.free_pieces()));
  }
  for (auto& app : world_.apps_) {
    if (app.process->is_dead()) continue;
    const std::uint32_t number = app.process->number();
    std::uint32_t free = 0;
    for (const auto& lane : world_.interface_->lanes()) free += lane->lane.free_chunks(number);
    if (free != world_.shape_.arena.rx_chunk_count)
      world_.fail(fmt::format("program {}: {} of {} chunks of the engine are left", number, free,
                              world_.shape_.arena.rx_chunk_count));
    const std::uint32_t tx = take_all_tx_chunks(app.process->session());
    if (tx != world_.shape_.arena.tx_chunk_count)
      world_.fail(fmt::format("program {}: {} of {} chunks for sending are left", number, tx,
                              world_.shape_.arena.tx_chunk_count));
  }
  if (world_.stack_->late_packets_wait()) world_.fail("late packets wait for ever");
}

}  // namespace twinstack::sim
