#include "handoff/offload.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "handoff/held_packets.h"
#include "handoff/steps.h"

namespace twinstack::handoff {
namespace {

using engine::Command;
using engine::CommandOp;
using ipc::Owner;

// Chunks reserved before the freeze; more are asked for when the queues are longer.
constexpr std::uint32_t kReservedChunks = 4;

struct Offload {
  Connection& conn;
  MoveTools& tools;
  Command command{};  // of the reservation, then of the install
  Command surplus{};  // chunks that the queues did not need: given back when the program goes on
  kernel::Snapshot snapshot{};
  Time frozen_at{};

  Result<> before(OffloadStep step) const {
    return tools.before_offload_step ? tools.before_offload_step(step) : Result<>{};
  }
};

std::uint32_t chunks_for(std::size_t bytes, std::uint32_t chunk_bytes) {
  return static_cast<std::uint32_t>((bytes + chunk_bytes - 1) / chunk_bytes);
}

Result<> reserve(Offload& move) {
  TRY(move.before(OffloadStep::kReserve));
  Connection& conn = move.conn;
  const std::uint32_t chunk_bytes = conn.arena->geometry().chunk_bytes;
  const kernel::QueueSizes queues = conn.kernel->checked_queues();
  ASSIGN_OR_RETURN(const engine::Reply reply,
                   conn.port->request({.op = CommandOp::kReserve,
                                       .session = conn.session,
                                       .slot = conn.slot,
                                       .tag = conn.tag,
                                       .ring = conn.ring,
                                       .kernel_cookie = conn.kernel->cookie(),
                                       .flow = conn.kernel->flow(),
                                       .expected_chunks = chunks_for(queues.unread_bytes, chunk_bytes) +
                                                          chunks_for(queues.send_bytes, chunk_bytes),
                                       .chunk_count = kReservedChunks}));
  conn.hw = reply.id;
  move.command.chunk_count = reply.chunk_count;
  move.command.chunks = reply.chunks;
  return {};
}

void give_back(const Connection& conn, Command& chunks) {
  if (chunks.chunk_count == 0) return;
  chunks.op = CommandOp::kPutChunks;
  chunks.session = conn.session;
  (void)conn.port->call(chunks);
  chunks.chunk_count = 0;
}

void undo_reserve(Offload& move) {
  Connection& conn = move.conn;
  give_back(conn, move.surplus);
  give_back(conn, move.command);
  (void)conn.port->call({.op = CommandOp::kRelease, .id = conn.hw});
  conn.hw = engine::HwConnId();
}

Result<> own(Offload& move) {
  TRY(move.before(OffloadStep::kOwn));
  move.conn.gate().wait_idle(std::min(kIdleWait, move.tools.call_deadline));
  move.frozen_at = move.tools.now();
  if (move.conn.gate().begin_move(Owner::kKernel, Owner::kToEngine, move.tools.call_deadline)) return {};
  notify_owner_changed(move.conn);
  return error(ErrorCode::kTimeout, "a data call of the program did not end in time");
}

void undo_own(Offload& move) {
  // Nobody may see a socket in this state: whoever asked for the move resets it first.
  if (!move.conn.kernel->is_untouched()) return;
  move.conn.gate().set_owner(Owner::kKernel);
  notify_owner_changed(move.conn);
}

// What has been read of the options is as old as check(). What the peer can change, the freeze reads anyway.
Result<> confirm_check(Offload& move) {
  TRY(move.before(OffloadStep::kCheck));
  if (move.conn.options_changed()) return error(ErrorCode::kNotEligible, "the program has just set an option");
  return {};
}

Result<> filter(Offload& move) {
  TRY(move.before(OffloadStep::kFilter));
  return move.conn.kernel->attach_late_filter();
}

// thaw() has taken the filter off when the freeze was undone.
void undo_filter(Offload& move) {
  (void)move.conn.kernel->detach_late_filter();
  move.tools.deliver_late();  // to the engine, which still holds the connection
  (void)inject_held(move.conn, 1);
}

Result<> steer(Offload& move) {
  TRY(move.before(OffloadStep::kSteer));
  return move.conn.path->steer(move.conn.kernel->flow(), move.conn.hw.generation());
}

// The packets that have come to the engine meanwhile are the kernel's, before those that come to it directly.
void undo_steer(Offload& move) {
  (void)move.conn.kernel->detach_late_filter();
  move.tools.deliver_late();
  (void)inject_held(move.conn, 2);
  (void)move.conn.path->unsteer(move.conn.kernel->flow());
  (void)inject_held(move.conn, 1);
}

Result<> freeze(Offload& move) {
  TRY(move.before(OffloadStep::kFreeze));
  ASSIGN_OR_RETURN(move.snapshot,
                   move.conn.kernel->freeze({.receive = move.tools.receive_room, .send = move.tools.send_room}));
  return {};
}

void undo_freeze(Offload& move) { (void)move.conn.kernel->thaw(); }

// Makes the command's chunk list `needed` long.
Result<> fit_chunks(Offload& move, std::uint32_t needed) {
  Command& command = move.command;
  if (needed > command.chunk_count) {
    ASSIGN_OR_RETURN(const engine::Reply more, move.conn.port->request({.op = CommandOp::kGetChunks,
                                                                        .session = move.conn.session,
                                                                        .chunk_count = needed - command.chunk_count}));
    std::copy_n(more.chunks.begin(), more.chunk_count, command.chunks.begin() + command.chunk_count);
    command.chunk_count = needed;
  } else if (needed < command.chunk_count) {
    move.surplus.chunk_count = command.chunk_count - needed;
    std::copy_n(command.chunks.begin() + needed, move.surplus.chunk_count, move.surplus.chunks.begin());
    command.chunk_count = needed;
  }
  return {};
}

// Copies `bytes` to the chunks from number `at` on; returns the number of the next unused one.
std::uint32_t copy_to_chunks(const Offload& move, std::uint32_t at, ByteView bytes) {
  while (!bytes.empty()) {
    const auto room = move.conn.arena->chunk(move.command.chunks[at++]);
    const std::size_t here = std::min(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), here);
    bytes = bytes.subspan(here);
  }
  return at;
}

ByteView take_front(ByteView& bytes, std::size_t most) {
  const ByteView front = bytes.first(std::min(most, bytes.size()));
  bytes = bytes.subspan(front.size());
  return front;
}

// Lays as much of the queues as one command carries out in its chunks, and takes it off them.
Result<> fill_command(Offload& move, ByteView& unread, ByteView& send) {
  const std::uint32_t chunk_bytes = move.conn.arena->geometry().chunk_bytes;
  const ByteView unread_here = take_front(unread, std::size_t{engine::kMaxCommandChunks} * chunk_bytes);
  const std::uint32_t unread_chunks = chunks_for(unread_here.size(), chunk_bytes);
  const ByteView send_here = take_front(send, std::size_t{engine::kMaxCommandChunks - unread_chunks} * chunk_bytes);
  TRY(fit_chunks(move, unread_chunks + chunks_for(send_here.size(), chunk_bytes)));
  copy_to_chunks(move, copy_to_chunks(move, 0, unread_here), send_here);
  move.command.unread_bytes = static_cast<std::uint32_t>(unread_here.size());
  move.command.send_bytes = static_cast<std::uint32_t>(send_here.size());
  return {};
}

// The engine's clock goes on from when it is installed, and long queues take their time until then.
void let_clock_go_on(tcp::MinTcp& min, Duration since) {
  if ((min.options & tcp::kOptTimestamps) == 0) return;
  const bool microseconds = (min.options & tcp::kOptTsMicroseconds) != 0;
  min.ts_val += static_cast<std::uint32_t>(microseconds ? std::chrono::ceil<std::chrono::microseconds>(since).count()
                                                        : std::chrono::ceil<std::chrono::milliseconds>(since).count());
}

Result<> install(Offload& move) {
  TRY(move.before(OffloadStep::kInstall));
  const kernel::Snapshot& snapshot = move.snapshot;
  ByteView unread = snapshot.unread;
  // Neighbours (Snapshot).
  ByteView send(snapshot.unacked.data(), snapshot.unacked.size() + snapshot.unsent.size());
  Command& command = move.command;
  command.id = move.conn.hw;
  command.hop_index = move.conn.hop_index;
  command.min = snapshot.min;
  do {
    TRY(fill_command(move, unread, send));
    command.op = unread.empty() && send.empty() ? CommandOp::kInstall : CommandOp::kLoad;
    if (command.op == CommandOp::kInstall) let_clock_go_on(command.min, move.tools.now() - snapshot.stamped_at);
    TRY(move.conn.port->request(command));
    command.chunk_count = 0;  // the chunks are the engine's now
  } while (command.op == CommandOp::kLoad);
  return {};
}

Result<> commit(Offload& move) {
  TRY(move.before(OffloadStep::kCommit));
  Connection& conn = move.conn;
  // The exchange of identifiers: the software side learns the hardware id; the hardware side learned slot, tag and
  // kernel cookie with the reservation.
  conn.shared().ring.store(conn.ring, std::memory_order_relaxed);
  conn.shared().hw_conn_id.store(conn.hw.raw(), std::memory_order_release);
  publish_counters(conn);
  conn.gate().set_owner(Owner::kEngine);
  return {};
}

}  // namespace

// The count first: a change that is not in it has happened after the check read that option, or was seen by it.
Result<> check(Connection& conn, const MoveTools& tools) {
  conn.checked_option_changes = conn.shared().option_changes.load(std::memory_order_acquire);
  return conn.kernel->check_eligible(tools.limits);
}

Result<MoveReport> offload(Connection& conn, MoveTools& tools) {
  tools.moving = &conn;
  Offload move{.conn = conn, .tools = tools};
  UndoStack<Offload> undo(move);
  TRY(reserve(move));
  undo.push(undo_reserve);
  TRY(own(move));
  undo.push(undo_own);
  TRY(confirm_check(move));
  TRY(filter(move));
  undo.push(undo_filter);
  TRY(steer(move));
  undo.push(undo_steer);
  TRY(freeze(move));
  undo.push(undo_freeze);
  TRY(install(move));
  TRY(commit(move));
  undo.commit();
  MoveReport report;
  report.unread_bytes = static_cast<std::uint32_t>(move.snapshot.unread.size());
  report.unacked_bytes = static_cast<std::uint32_t>(move.snapshot.unacked.size());
  report.unsent_bytes = static_cast<std::uint32_t>(move.snapshot.unsent.size());
  give_back(conn, move.surplus);
  // Packets that waited: those of the filter are older than those of AF_XDP, and the engine takes them first.
  tools.deliver_late();
  (void)conn.port->call({.op = CommandOp::kActivate, .id = conn.hw});
  report.pause = tools.now() - move.frozen_at;  // a write is served since the commit, a read now
  notify_owner_changed(conn);
  return report;
}

}  // namespace twinstack::handoff
