#include "handoff/upload.h"

#include <algorithm>
#include <cstring>

#include "handoff/held_packets.h"
#include "handoff/lesson.h"
#include "handoff/park.h"
#include "handoff/steps.h"

namespace twinstack::handoff {
namespace {

using engine::CommandOp;
using engine::Piece;
using ipc::Owner;

constexpr int kInjectRounds = 4;

struct Upload {
  Connection& conn;
  MoveTools& tools;
  engine::Reply extracted{};
  std::span<std::byte> send_queue{};  // in tools.send_room, kLessonBytes from its start
  std::size_t unacked_bytes = 0;
  bool can_be_taught = false;
  Time frozen_at{};
  MoveReport report{};

  Result<> before(UploadStep step) const {
    return tools.before_upload_step ? tools.before_upload_step(step) : Result<>{};
  }
};

Result<> own(Upload& move) {
  TRY(move.before(UploadStep::kOwn));
  if (!move.conn.program_gone) move.conn.gate().wait_idle(std::min(kIdleWait, move.tools.call_deadline));
  move.frozen_at = move.tools.now();
  if (move.conn.program_gone) {
    // It may have died in the middle of a call, which nobody will end.
    move.conn.gate().set_owner(Owner::kToKernel);
    return {};
  }
  if (move.conn.gate().begin_move(Owner::kEngine, Owner::kToKernel, move.tools.call_deadline)) return {};
  notify_owner_changed(move.conn);
  return error(ErrorCode::kTimeout, "a data call of the program did not end in time");
}

void undo_own(Upload& move) {
  move.conn.gate().set_owner(Owner::kEngine);
  notify_owner_changed(move.conn);
}

// Before anything is taken out: it may tell the engine more of what the kernel has sent and received.
Result<> ensure_parked(Upload& move) {
  TRY(move.before(UploadStep::kPark));
  if (move.conn.kernel->phase() != kernel::Phase::kFrozen) return {};
  return park(move.conn, move.tools);
}

Result<> hold(Upload& move) {
  TRY(move.before(UploadStep::kHold));
  TRY(move.conn.port->request({.op = CommandOp::kHold, .id = move.conn.hw}));
  return {};
}

void undo_hold(Upload& move) { (void)move.conn.port->call({.op = CommandOp::kActivate, .id = move.conn.hw}); }

// The send queue out of the chunks, [snd_una, write_seq); in front of it the byte that was acknowledged last, or 0.
Result<> copy_send_queue(Upload& move) {
  const Connection& conn = move.conn;
  const auto pieces = conn.port->pieces();
  const std::span<std::byte> room = move.tools.send_room.subspan(kLessonBytes);
  std::size_t used = 0;
  std::uint32_t skip = move.extracted.send_head_skip;
  move.tools.send_room[0] = std::byte{0};
  static_assert(kLessonBytes == 1);
  for (std::uint32_t at = move.extracted.send_head; at != engine::kNone; at = pieces[at].next) {
    const Piece& piece = pieces[at];
    const ByteView whole = conn.arena->chunk(piece.chunk).subspan(piece.offset, piece.bytes());
    if (skip > 0) move.tools.send_room[0] = whole[skip - 1];
    const ByteView bytes = whole.subspan(skip);
    skip = 0;
    if (used + bytes.size() > room.size())
      return error(ErrorCode::kNoResource, "the send queue exceeds what one move can carry");
    std::memcpy(room.data() + used, bytes.data(), bytes.size());
    used += bytes.size();
  }
  move.send_queue = room.first(used);
  return {};
}

Result<> extract(Upload& move) {
  TRY(move.before(UploadStep::kExtract));
  ASSIGN_OR_RETURN(move.extracted, move.conn.port->request({.op = CommandOp::kExtract, .id = move.conn.hw}));
  TRY(copy_send_queue(move));
  tcp::MinTcp& min = move.extracted.state.min;
  // What the program has not read stays in the shared chunks and is read from there first.
  min.copied_seq = min.rcv_nxt;
  move.unacked_bytes = min.snd_nxt - min.snd_una;
  move.report.unread_bytes = move.extracted.state.unread_bytes;
  move.report.unacked_bytes = static_cast<std::uint32_t>(move.unacked_bytes);
  move.report.unsent_bytes = static_cast<std::uint32_t>(move.send_queue.size() - move.unacked_bytes);
  return {};
}

Result<> restore(Upload& move) {
  TRY(move.before(UploadStep::kRestore));
  tcp::MinTcp min = move.extracted.state.min;
  kernel::RestoreQueues queues{.unread = {}, .unacked = move.send_queue.first(move.unacked_bytes)};
  move.can_be_taught = can_be_taught(min);
  if (move.can_be_taught) {
    min = before_lesson(min);
    queues.acked_bytes = kLessonBytes;
    queues.unacked = move.tools.send_room.first(kLessonBytes + move.unacked_bytes);
  }
  auto restored = move.conn.kernel->restore(min, queues);
  // Midway the socket is closed silently and can be restored again.
  if (!restored) restored = move.conn.kernel->restore(min, queues);
  if (!restored) return std::unexpected(std::move(restored.error()));
  move.report.congestion_restored = restored->congestion_restored;
  return {};
}

// Not undone: from here the connection is the kernel's.
Result<> release(Upload& move) {
  kernel::KernelConn& socket = *move.conn.kernel;
  const ByteView unsent = move.send_queue.subspan(move.unacked_bytes);
  auto released = [&]() -> Result<kernel::ReleaseReport> {
    TRY(move.before(UploadStep::kRelease));
    return socket.release(unsent);
  }();
  // Nothing has happened as long as the socket is held: once more. There is no way back to the engine.
  if (!released && socket.phase() == kernel::Phase::kRestored) released = socket.release(unsent);
  if (!released) return error(ErrorCode::kBroken, "the kernel did not let it go on: " + released.error().message());
  move.report.socket_error = released->socket_error;
  // An error of the connection is the program's to see; there is nobody to send the rest to.
  if (released->unsent_taken_bytes != unsent.size() && released->socket_error == 0)
    return error(ErrorCode::kBroken, "the kernel had no memory for the unsent bytes");
  return {};
}

void commit(Upload& move, bool teaches) {
  Connection& conn = move.conn;
  conn.engine_counters += ipc::counters_of(move.extracted.state);
  publish_counters(conn);
  conn.shared().hw_conn_id.store(0, std::memory_order_release);
  conn.shared().lesson_due.store(teaches ? 1 : 0, std::memory_order_relaxed);
  conn.gate().set_owner(Owner::kKernel);
}

// The program may be sending already, and the peer's packets still wait. Behind what the filter caught: that is older
// than the peer's clock. When it fails nothing is missed but what the lesson was for.
void give_lesson(Upload& move) {
  move.tools.deliver_late();
  const tcp::MinTcp& min = move.extracted.state.min;
  (void)teach(move.conn, min, !holds_older_packets(move.conn, move.extracted, min.ts_recent));
  move.conn.shared().lesson_due.store(0, std::memory_order_release);
}

// Packets that waited, then those that come: first into the kernel in order, then the entry goes, then the last ones.
// What cannot be injected now becomes stray when the engine lets go of the connection, and the driver tries again.
void hand_packets_over(Upload& move) {
  Connection& conn = move.conn;
  move.tools.deliver_late();
  // While a packet waits (a FIN, say) the engine takes newer ACKs.
  const tcp::MinTcp& min = move.extracted.state.min;
  const OvertakenAcks overtaken{.oldest = Seq(min.snd_una) - min.max_window,
                                .newest = Seq(min.snd_una),
                                .window = static_cast<std::uint16_t>(min.snd_wnd >> min.snd_wscale)};
  const auto first = inject_held(conn, kInjectRounds, overtaken);
  (void)conn.path->unsteer(conn.kernel->flow());
  const auto last = inject_held(conn, 1, overtaken);
  move.report.held_frames = first.value_or(0) + last.value_or(0);
}

// Unless a packet has come meanwhile. Refused: it takes the kernel's own time, no more.
void expire_if_silent(Upload& move) {
  if (move.extracted.gave_up == 0 || move.report.held_frames > 0) return;
  (void)move.conn.kernel->expire();
}

}  // namespace

Result<MoveReport> upload(Connection& conn, MoveTools& tools) {
  tools.moving = &conn;
  Upload move{.conn = conn, .tools = tools};
  UndoStack<Upload> undo(move);
  TRY(own(move));
  undo.push(undo_own);
  TRY(ensure_parked(move));
  TRY(hold(move));
  undo.push(undo_hold);
  TRY(extract(move));
  TRY(restore(move));
  undo.commit();
  Result<> released = release(move);
  // Before any call of the program comes to the socket: newer bytes would follow the gap.
  if (!released) conn.kernel->reset();
  const bool teaches = released && move.can_be_taught && move.report.socket_error == 0;
  commit(move, teaches);
  move.report.pause = tools.now() - move.frozen_at;
  if (teaches) give_lesson(move);
  hand_packets_over(move);
  if (released) {
    expire_if_silent(move);
    released = give_acknowledged_fin(conn, move.extracted.state.min);
    if (!released) conn.kernel->reset();
  }
  (void)conn.port->call({.op = CommandOp::kRelease, .id = conn.hw});
  conn.hw = engine::HwConnId();
  notify_owner_changed(conn);
  if (!released) return std::unexpected(released.error());
  return move.report;
}

}  // namespace twinstack::handoff
