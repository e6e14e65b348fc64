#include "engine/lane.h"

#include <algorithm>

#include "base/assert.h"
#include "engine/conn_host.h"

namespace twinstack::engine {
namespace {

// After so many timeouts in a row the kernel goes on with it: it hears of a smaller path MTU (the ICMP error comes to
// it, RFC 1191) and of unreachable hosts, and comes to the end that it always would. The engine sends on until then.
constexpr std::uint8_t kRetriesHere = 4;
// When it has just begun to try smaller segments (RFC 4821 7.7), which Linux does not by itself: two sizes.
constexpr std::uint8_t kRetriesInSearch = 6;
constexpr Duration kOfferEventsAgain = std::chrono::milliseconds(1);
// Retransmission timers as a rule, which are void when the ACK has come; what is further away is some other timer.
constexpr Duration kLookNoFurther = std::chrono::seconds(1);

}  // namespace

Lane::Lane(std::uint32_t index, LaneRegion& region, nic::Link& link, Waker& waker, std::uint64_t secret, Time now)
    : index_(index),
      region_(region),
      link_(link),
      waker_(waker),
      conns_(region.conns()),
      records_(region.records()),
      kept_(region.kept()),
      pieces_(region.pieces()),
      waiting_(region.waiting()),
      flows_(region.records(), region.flow_cells(), secret),
      timers_(region.conns(), now),
      commands_(region.command_consumer()),
      replies_(region.reply_producer()),
      events_(region.event_producer()) {
  for (auto i = static_cast<std::uint32_t>(conns_.size()); i > 0; --i) free_slot(i - 1);
  post_list_.reserve(256);
}

void Lane::free_slot(std::uint32_t index) noexcept {
  conns_[index].timer_next = free_head_;
  free_head_ = index;
}

void Lane::open_session(std::uint32_t session, const ipc::Arena& arena) {
  ASSERT(session <= UINT16_MAX);
  const auto [at, inserted] = sessions_.try_emplace(session, session, arena, index_);
  ASSERT(inserted);
  if (session_of_.size() <= session) session_of_.resize(session + 1, nullptr);
  session_of_[session] = &at->second;
}

void Lane::close_session(std::uint32_t session) {
  LaneSession* found = this->session(session);
  if (found == nullptr) return;
  ASSERT(found->connections == 0);
  session_of_[session] = nullptr;
  sessions_.erase(session);
}

bool Lane::poll(Time now) {
  ++counters_.polls;
  tx_frame_ = {};
  if (sleeping_) cancel_sleep();
  link_.advance(now);
  bool worked = false;
  if (!commands_.is_empty()) {
    process_commands(now);
    worked = true;
  }
  worked |= receive_frames(now);
  worked |= drain_submissions(now);
  run_timers(now);
  transmit(now);
  post_all();
  publish_completions();
  offer_events(now);
  link_.flush();
  return worked || has_work();
}

void Lane::process_commands(Time now) {
  tx_frame_ = {};
  Command command;
  bool any = false;
  while (commands_.pop(command) == ipc::RingConsumer<Command>::Pop::kEntry) {
    any = true;
    const Reply reply = carry_out(command, now);
    ASSERT(replies_.room() > 0);  // the driver has at most kCommandEntries outstanding
    replies_.push(reply);
  }
  if (!any) return;
  commands_.release();
  transmit(now);
  post_all();
  publish_completions();
  offer_events(now);
  link_.flush();
  replies_.publish();
}

void Lane::run_timers(Time now) {
  timers_.advance(now, [&](std::uint32_t index) { fire_timer(index, now); });
  // Deadlines and flags, one line, are all that most looks need.
  const auto ahead = [&](std::uint32_t index) { __builtin_prefetch(&conns_[index].flags, 1); };
  looks_.advance(now, ahead, [&](std::uint32_t index) { look(index, now); });
}

// What is still armed waits on, or goes into the wheel when it is due soon or not for long.
void Lane::look(std::uint32_t index, Time now) {
  HwConn& conn = conns_[index];
  const Time deadline = conn.state == ConnState::kActive ? tcp::next_deadline(conn.tcb, now) : kNever;
  if (deadline >= now + LookList::kLookAfter && deadline < now + kLookNoFurther) {
    looks_.add(index, now);
    return;
  }
  conn.flags &= static_cast<std::uint8_t>(~kLookDue);
  timers_.schedule(index, deadline);
}

// A deadline may have been set, or moved.
void Lane::schedule(std::uint32_t index, Time now) {
  HwConn& conn = conns_[index];
  // As most are: it is looked at in time anyway.
  if ((conn.flags & kLookDue) != 0 && !tcp::deadline_before(conn.tcb, now + LookList::kLookAfter)) return;
  const Time deadline = tcp::next_deadline(conn.tcb, now);
  if (deadline == kNever) return;
  if (deadline < now + LookList::kLookAfter) {
    timers_.schedule(index, deadline);
  } else if ((conn.flags & kLookDue) == 0 && !timers_.fires_by(index, deadline)) {
    conn.flags |= kLookDue;
    looks_.add(index, now);
  }
}

void Lane::fire_timer(std::uint32_t index, Time now) {
  HwConn& conn = conns_[index];
  if (conn.state != ConnState::kActive) return;
  ConnHost host(*this, index);
  const tcp::TimerVerdict verdict = tcp::on_timer(conn.tcb, host, now);
  if (verdict == tcp::TimerVerdict::kToSoftware) {
    raise_to_software(index, Cause::kTimeout);
    return;
  }
  if (verdict == tcp::TimerVerdict::kNothing) {  // void by now, or moved
    timers_.schedule(index, tcp::next_deadline(conn.tcb, now));
    return;
  }
  // A user timeout's clock begins anew in the kernel: such a connection goes there only when its time is over.
  const std::uint8_t most = tcp::is_searching_path(conn.tcb) ? kRetriesInSearch : kRetriesHere;
  if (conn.tcb.retries >= most && conn.tcb.user_timeout_ms == 0) raise_to_software(index, Cause::kTimeout);
  want_transmit(index);  // schedules the next deadline as well
}

Time Lane::next_deadline() const noexcept {
  const Time retry = transmit_head_ != kNone ? retry_at_ : kNever;
  return std::min({timers_.next(), looks_.next(), link_.next_event(), retry, offer_events_at_});
}

bool Lane::has_work() const noexcept { return transmit_head_ != kNone && blocked_rounds_ < kBlockedRounds; }

bool Lane::prepare_sleep() noexcept {
  sleeping_ = true;
  bool idle = commands_.is_empty() && !has_work();
  for (auto& [number, session] : sessions_) {
    if (session.broken) continue;
    // One that waits for pieces: what frees them (an ACK, a command) has the lane polled.
    for (auto& ring : session.rings()) idle &= ring.waiting || ring.submit.prepare_sleep();
  }
  return idle;
}

void Lane::cancel_sleep() noexcept {
  sleeping_ = false;
  for (auto& [number, session] : sessions_) {
    for (auto& ring : session.rings()) ring.submit.cancel_sleep();
  }
}

std::vector<std::byte> Lane::take_stray() {
  if (strays_.empty()) return {};
  std::vector<std::byte> frame = std::move(strays_.front());
  strays_.erase(strays_.begin());
  return frame;
}

void Lane::push_event(const Event& event) {
  signal_ = true;
  if (events_waiting_.empty() && events_.room() > 0) {
    events_.push(event);
    events_.publish();
    return;
  }
  // Every connection can have one kToSoftware and one kDrained outstanding, every session one kBadSession.
  const std::size_t most = 2 * conns_.size() + 1024;
  if (events_waiting_.size() >= most) std::erase_if(events_waiting_, [this](const Event& e) { return is_stale(e); });
  ASSERT(events_waiting_.size() < most);
  events_waiting_.push_back(event);
}

// The connection, or the session, is gone: nobody waits for this.
bool Lane::is_stale(const Event& event) const noexcept {
  if (event.type != EventType::kBadSession) return resolve(event.id) == kNone;
  return event.session >= session_of_.size() || session_of_[event.session] == nullptr;
}

// Of those that wait, as many as there is room for by now. The driver does not tell when it has made room.
void Lane::offer_events(Time now) {
  if (events_waiting_.empty()) return;
  auto next = events_waiting_.begin();
  for (; next != events_waiting_.end() && events_.room() > 0; ++next) {
    if (!is_stale(*next)) events_.push(*next);
  }
  signal_ |= next != events_waiting_.begin();
  events_.publish();
  events_waiting_.erase(events_waiting_.begin(), next);
  offer_events_at_ = events_waiting_.empty() ? kNever : now + kOfferEventsAgain;
}

void Lane::raise_to_software(std::uint32_t index, Cause cause) {
  HwConn& conn = conns_[index];
  if ((conn.flags & kLeaving) != 0) return;
  conn.flags |= kLeaving;
  const HwConnRecord& record = records_[index];
  push_event(Event{.type = EventType::kToSoftware,
                   .cause = cause,
                   .id = id_of(index),
                   .session = conn.session,
                   .slot = record.slot,
                   .tag = record.tag});
}

const char* to_string(Status status) noexcept {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kNoSlot:
      return "the engine's connection table is full";
    case Status::kNoChunk:
      return "too few of the application's chunks are left";
    case Status::kNoPiece:
      return "the lane's memory for pieces of data is used up";
    case Status::kRingFull:
      return "the application does not read what the engine has for it";
    case Status::kStaleId:
      return "no such hardware connection";
    case Status::kBadState:
      return "the hardware connection is in another state";
    case Status::kBadArgument:
      return "bad argument";
    case Status::kUnsupported:
      return "the engine does not do what the connection negotiated";
  }
  return "unknown status";
}

const char* to_string(Cause cause) noexcept {
  switch (cause) {
    case Cause::kNothing:
      return "none";
    case Cause::kPeerFin:
      return "peer-fin";
    case Cause::kPeerReset:
      return "peer-reset";
    case Cause::kPeerSyn:
      return "peer-syn";
    case Cause::kUrgent:
      return "urgent-data";
    case Cause::kTimeout:
      return "timeout";
    case Cause::kBadRingId:
      return "ring: bad connection id";
    case Cause::kBadRingChunk:
      return "ring: bad chunk, offset or length";
    case Cause::kBadRingOp:
      return "ring: unknown operation";
    case Cause::kBadRingIndex:
      return "ring: impossible index";
    case Cause::kRingOverrun:
      return "ring: too many bytes queued";
  }
  return "unknown cause";
}

}  // namespace twinstack::engine
