#include "sim/plan.h"

#include <algorithm>

#include "base/assert.h"
#include "base/rng.h"
#include "sim/coverage.h"
#include "sim/faulty_conn.h"
#include "sim/soft_host.h"

namespace twinstack::sim {
namespace {

// Equal times keep their order. (std::stable_sort() of libstdc++ 12 calls what C++23 has deprecated.)
void sort_by_time(std::vector<Event>& events) {
  for (std::uint32_t i = 0; i < events.size(); ++i) events[i].number = i;
  std::ranges::sort(events, {}, [](const Event& event) { return std::pair(event.at, event.number); });
}

using std::chrono::microseconds;
using std::chrono::milliseconds;

// Of all jumps of the clock together. With more an orphan would reach its 102 s (tcp_orphan_retries) and be dropped, as
// it would be on Linux.
constexpr Duration kMostJumps = std::chrono::seconds(40);

// Streams of chance that do not disturb each other.
enum Stream : std::uint64_t {
  kShapeStream = 1,
  kOpenStream,
  kMoveStream,
  kFaultStream,
  kKindStream,
  kLaterFaultStream,
  kLaterKindStream,
  kSettingStream,
  kCongestionStream,
  kLatestFaultStream,
  kLatestKindStream,
  kNewestFaultStream,
  kNewestKindStream
};

Rng rng_for(const Options& options, Stream stream) { return Rng(options.seed * 0x9e3779b97f4a7c15U + stream); }

std::uint32_t between(Rng& rng, std::uint32_t low, std::uint32_t high) { return low + rng.below(high - low + 1); }

template <typename T, std::size_t N>
T one_of(Rng& rng, const std::array<T, N>& choices) {
  return choices[rng.below(N)];
}

// So many moves fit only into a world of short ways and grace periods.
bool is_fast(const Options& options) { return options.moves_per_s >= 5000; }

PipeShape make_pipe(Rng& rng, bool fast) {
  PipeShape pipe;
  pipe.delay = microseconds(one_of(rng, std::array{20U, 100U, 100U, 500U, 2000U, 10'000U}));
  if (fast) pipe.delay = std::min<Duration>(pipe.delay, microseconds(200));
  pipe.bits_per_second = one_of(rng, std::array<std::uint64_t, 4>{20'000'000, 100'000'000, 400'000'000, 1'000'000'000});
  pipe.queue_frames = one_of(rng, std::array{32U, 128U, 256U, 1024U});
  pipe.mark_frames = rng.below(2) == 0 ? pipe.queue_frames / 2 : 0;
  if (rng.below(3) == 0) pipe.jitter = microseconds(between(rng, 1, 200));
  return pipe;
}

Duration random_time(Rng& rng, Duration most) {
  const auto count = std::max<std::int64_t>(1, std::chrono::duration_cast<microseconds>(most).count());
  return microseconds(static_cast<std::int64_t>(rng.next() % static_cast<std::uint64_t>(count))) +
         Duration(rng.below(1000));
}

// As many as are wanted at first, and as many again in each second that follows: they live for about one.
std::vector<Duration> add_opens(std::vector<Event>& events, const Options& options) {
  Rng rng = rng_for(options, kOpenStream);
  const auto more_s = std::max<std::int64_t>(0, options.duration / std::chrono::seconds(1) - 1);
  const auto count = options.connections * static_cast<std::uint32_t>(1 + more_s);
  std::vector<Duration> times;
  for (std::uint32_t i = 0; i < count; ++i) {
    Duration at = rng.below(2) == 0 ? Duration(0) : random_time(rng, std::min<Duration>(options.duration, kLife) / 2);
    if (i >= options.connections) at = random_time(rng, options.duration);
    times.push_back(at);
    events.push_back({.at = at, .kind = EventKind::kOpen, .target = i, .seed = rng.next()});
  }
  return times;
}

// One of those that are probably there.
std::uint32_t pick_connection(Rng& rng, const std::vector<Duration>& opened, Duration at) {
  const auto count = static_cast<std::uint32_t>(opened.size());
  std::uint32_t number = rng.below(count);
  for (int tries = 0; tries < 20 && (opened[number] > at || opened[number] + kLife < at); ++tries)
    number = rng.below(count);
  return number;
}

void add_moves(std::vector<Event>& events, const Options& options, const std::vector<Duration>& opened) {
  Rng rng = rng_for(options, kMoveStream);
  const auto count =
      static_cast<std::uint64_t>(std::chrono::duration<double>(options.duration).count() * options.moves_per_s);
  std::vector<Event> moves;
  for (std::uint64_t i = 0; i < count; ++i) {
    const Duration at = random_time(rng, options.duration);
    moves.push_back({.at = at, .target = pick_connection(rng, opened, at)});
  }
  sort_by_time(moves);
  // There and back in turn; a few orders for what is there already.
  std::vector<bool> is_out(opened.size());
  for (Event& move : moves) {
    if (rng.below(20) != 0) is_out[move.target] = !is_out[move.target];
    move.kind = is_out[move.target] ? EventKind::kMoveOut : EventKind::kMoveBack;
  }
  events.insert(events.end(), moves.begin(), moves.end());
}

void shape_link_fault(Event& event, Rng& rng, const Shape& shape) {
  event.target = rng.below(shape.peers);
  event.detail = static_cast<std::uint8_t>(rng.below(2));
  event.span = milliseconds(between(rng, 1, 200));
  switch (event.kind) {
    case EventKind::kJitter:
      event.amount = between(rng, 10, 3000);
      break;
    case EventKind::kBlackHole:
      event.amount = between(rng, 300, 1300);
      break;
    case EventKind::kLinkDown:
      event.span = milliseconds(rng.below(4) == 0 ? between(rng, 200, 2000) : between(rng, 1, 50));
      break;
    case EventKind::kSlow:
      event.amount = between(rng, 200, 10'000);
      break;
    case EventKind::kShortQueue:
      event.amount = between(rng, 1, 16);
      break;
    case EventKind::kBurst:
      event.amount = between(rng, 1000, 50'000);
      break;
    default:
      event.amount = rng.below(4) == 0 ? between(rng, 100'000, 500'000) : between(rng, 1000, 100'000);
      break;
  }
}

void shape_host_fault(Event& event, Rng& rng, const Shape& shape, const std::vector<Duration>& opened) {
  event.target = pick_connection(rng, opened, event.at);
  event.span = microseconds(rng.below(4) == 0 ? between(rng, 1000, 200'000) : between(rng, 10, 5000));
  switch (event.kind) {
    case EventKind::kClockJump:
      event.span = milliseconds(rng.below(8) == 0 ? between(rng, 1000, 20'000) : between(rng, 1, 500));
      break;
    case EventKind::kStallLane:
    case EventKind::kNoSlots:
    case EventKind::kNicFull:
      event.target = rng.below(shape.lanes);
      break;
    case EventKind::kStallProgram:
    case EventKind::kNoChunks:
    case EventKind::kProgramDeath:
      event.target = rng.below(shape.programs);
      break;
    case EventKind::kNoRead:
      event.detail = static_cast<std::uint8_t>(rng.below(2));
      event.span = milliseconds(between(rng, 1, 300));
      break;
    case EventKind::kStorm:
      event.span = Duration(0);
      break;
    case EventKind::kRefuseOffload:
      event.detail = static_cast<std::uint8_t>(rng.below(kOffloadSteps));
      break;
    case EventKind::kRefuseUpload:
      event.detail = static_cast<std::uint8_t>(rng.below(kUploadSteps));
      break;
    default:
      break;
  }
  event.amount =
      event.kind >= EventKind::kRefuseOffload && event.kind <= EventKind::kOptionSet ? between(rng, 1, 2) : 0;
}

// Each run has some kinds of faults, so that those that hide others are not always there.
std::vector<EventKind> kinds_of_run(const Options& options, Stream stream, unsigned of) {
  Rng rng = rng_for(options, stream);
  const std::uint32_t parts = between(rng, 1, 4);
  std::vector<EventKind> kinds;
  for (std::size_t number = kFirstFault; number < kEventKinds; ++number) {
    const auto kind = static_cast<EventKind>(number);
    if (generation(kind) == of && options.faults.has(kind) && rng.below(4) < parts) kinds.push_back(kind);
  }
  return kinds;
}

bool is_death(EventKind kind) { return kind == EventKind::kProgramDeath || kind == EventKind::kDriverDeath; }

void add_faults(std::vector<Event>& events, const Options& options, const Shape& shape,
                const std::vector<Duration>& opened) {
  Rng rng = rng_for(options, kFaultStream);
  const std::vector<EventKind> kinds = kinds_of_run(options, kKindStream, 0);
  if (kinds.empty()) return;
  const auto per_s = one_of(rng, std::array{20U, 100U, 300U});
  const auto count = static_cast<std::uint64_t>(std::chrono::duration<double>(options.duration).count() * per_s);
  Duration jumped{};
  for (std::uint64_t i = 0; i < count; ++i) {
    Event event{.at = random_time(rng, options.duration),
                .kind = kinds[rng.below(static_cast<std::uint32_t>(kinds.size()))]};
    const bool rarely = is_death(event.kind) && rng.below(count < 100 ? 2 : 20) != 0;
    event.seed = rng.next();
    if (is_link_fault(event.kind))
      shape_link_fault(event, rng, shape);
    else
      shape_host_fault(event, rng, shape, opened);
    if (event.kind == EventKind::kClockJump && jumped + event.span > kMostJumps) continue;
    if (event.kind == EventKind::kClockJump) jumped += event.span;
    if (!rarely) events.push_back(event);
  }
}

// Smaller and smaller as time goes on, or whoever was told once would hear nothing new.
std::uint32_t mtu_of_router(Rng& rng, const Options& options, Duration at) {
  const std::uint32_t any = rng.below(8) == 0 ? between(rng, 200, 600) : between(rng, 600, 1499);
  const auto most = 1499 - static_cast<std::uint32_t>(800 * at / options.duration);
  const std::uint32_t next = between(rng, most - 150, most);
  return rng.below(16) == 0 ? any : next;
}

void shape_later_fault(Event& event, Rng& rng, const Options& options, const Shape& shape,
                       const std::vector<Duration>& opened) {
  event.detail = static_cast<std::uint8_t>(rng.below(2));
  event.span = milliseconds(rng.below(4) == 0 ? between(rng, 200, 1000) : between(rng, 1, 200));
  switch (event.kind) {
    case EventKind::kTooBig:
      event.target = rng.below(shape.peers);
      event.amount = mtu_of_router(rng, options, event.at);
      return;
    case EventKind::kForgedTooBig:
      event.target = pick_connection(rng, opened, event.at);
      event.amount = one_of(rng, std::array{0U, 68U, 552U, 576U, 1000U, 1279U, 1280U, 1400U, 1500U, 65535U});
      event.span = Duration(0);
      return;
    default:
      event.target = rng.below(shape.lanes);
      event.amount = rng.below(4) == 0 ? between(rng, 1, 3000) : between(rng, 3000, 60'000);
      return;
  }
}

// What begins at a step of a move rather than at an instant: what is over at once would hardly ever meet one. Deaths
// late and seldom, as nothing is moved after them.
EventKind kind_at_step(Rng& rng, const Options& options, Duration at) {
  std::vector<EventKind> kinds;
  for (const EventKind kind : {EventKind::kStorm, EventKind::kOtherQueue, EventKind::kForgedTooBig,
                               EventKind::kClockJump, EventKind::kQuickClose})
    if (options.faults.has(kind)) kinds.push_back(kind);
  const EventKind death = rng.below(3) == 0 ? EventKind::kDriverDeath : EventKind::kProgramDeath;
  const bool dies = at > options.duration / 2 && rng.below(6) == 0 && options.faults.has(death);
  if (dies) return death;
  return kinds.empty() ? EventKind::kOpen : kinds[rng.below(static_cast<std::uint32_t>(kinds.size()))];
}

Situation any_step(Rng& rng) {
  const std::uint32_t step = rng.below(kOffloadSteps + kUploadSteps);
  const auto first = static_cast<std::uint32_t>(step < kOffloadSteps ? Situation::kOutReserve : Situation::kBackOwn);
  return static_cast<Situation>(first + (step < kOffloadSteps ? step : step - kOffloadSteps));
}

void shape_latest_fault(Event& event, Rng& rng, const Options& options, const std::vector<Duration>& opened) {
  event.target = pick_connection(rng, opened, event.at);
  event.amount = 1;
  switch (event.kind) {
    case EventKind::kPurge:  // by the park or, when that fails, by the upload
      event.detail = static_cast<std::uint8_t>(rng.below(2));
      return;
    case EventKind::kFailThaw:
      event.detail = static_cast<std::uint8_t>(between(rng, 6, 7));  // it is frozen by then
      return;
    case EventKind::kFailDetach:
      event.detail = static_cast<std::uint8_t>(between(rng, 4, 7));
      event.amount = between(rng, 1, 3);
      return;
    case EventKind::kNoHook:
      event.target = 0;
      event.span = milliseconds(between(rng, 1, 200));
      return;
    case EventKind::kQuickClose:
      event.detail = static_cast<std::uint8_t>(rng.below(2));
      return;
    case EventKind::kAtStep:
      event.target = 0;
      event.detail = static_cast<std::uint8_t>(any_step(rng));
      event.amount = static_cast<std::uint32_t>(kind_at_step(rng, options, event.at));
      return;
    default:
      return;
  }
}

bool leads_to_reset(const Event& event) {
  // As often as undoing a move takes the filter off.
  const std::uint32_t detaches = std::clamp<std::uint32_t>(event.detail, 4U, 6U) - 3;
  return event.kind == EventKind::kFailThaw || event.kind == EventKind::kPartRelease ||
         (event.kind == EventKind::kFailDetach && event.amount >= detaches);
}

// What the simulator has learned since seeds were noted has chance of its own: without these kinds a seed means what it
// meant before.
void add_later_faults(std::vector<Event>& events, const Options& options, const Shape& shape,
                      const std::vector<Duration>& opened, unsigned of) {
  constexpr std::array kFaultStreams{kFaultStream, kLaterFaultStream, kLatestFaultStream, kNewestFaultStream};
  constexpr std::array kKindStreams{kKindStream, kLaterKindStream, kLatestKindStream, kNewestKindStream};
  Rng rng = rng_for(options, kFaultStreams[of]);
  const std::vector<EventKind> kinds = kinds_of_run(options, kKindStreams[of], of);
  if (kinds.empty()) return;
  const auto per_s = one_of(rng, std::array{20U, 100U, 300U});
  const auto count = static_cast<std::uint64_t>(std::chrono::duration<double>(options.duration).count() * per_s);
  for (std::uint64_t i = 0; i < count; ++i) {
    Event event{.at = random_time(rng, options.duration),
                .kind = kinds[rng.below(static_cast<std::uint32_t>(kinds.size()))]};
    event.seed = rng.next();
    if (of == 1)
      shape_later_fault(event, rng, options, shape, opened);
    else if (of == 3)
      event.target = pick_connection(rng, opened, event.at);
    else
      shape_latest_fault(event, rng, options, opened);
    // What ends a connection comes seldom, or little else would be met.
    const bool resets = leads_to_reset(event);
    const bool is_nothing = event.kind == EventKind::kAtStep && !is_fault(static_cast<EventKind>(event.amount));
    if (!is_nothing && (!resets || rng.below(8) == 0)) events.push_back(event);
  }
}

// How a host looks for the size that its paths carry. Where routers are heard there is a choice.
void choose_mtu_probing(Shape& shape, const Options& options) {
  if (!options.faults.has(EventKind::kTooBig)) return;
  Rng rng = rng_for(options, kSettingStream);
  for (stack::Config& host : shape.hosts) host.tcp_mtu_probing = static_cast<std::uint8_t>(rng.below(3));
}

void choose_congestion_controls(Shape& shape, const Options& options) {
  const auto count = static_cast<std::uint32_t>(options.congestion_controls.size());
  if (count == 0) return;
  Rng rng = rng_for(options, kCongestionStream);
  for (stack::Config& host : shape.hosts) host.tcp_congestion_control = options.congestion_controls[rng.below(count)];
}

stack::Config make_host(Rng& rng, std::uint32_t number) {
  stack::Config config;
  for (const bool v6 : {false, true})
    config.addresses.push_back(number == 0 ? address_of_mover(v6) : address_of_peer(number - 1, v6));
  config.seed = rng.next();
  config.tcp_ecn = static_cast<std::uint8_t>(rng.below(3));
  config.tcp_timestamps = rng.below(8) != 0;
  config.tcp_sack = rng.below(8) != 0;
  config.tcp_window_scaling = rng.below(16) != 0;
  config.tcp_rmem.default_bytes = one_of(rng, std::array{16U << 10, 64U << 10, 131072U, 256U << 10});
  config.tcp_rmem.max_bytes = config.tcp_rmem.default_bytes << rng.below(5);
  config.tcp_wmem.default_bytes = one_of(rng, std::array{16U << 10, 64U << 10, 256U << 10});
  config.tcp_wmem.max_bytes = config.tcp_wmem.default_bytes << rng.below(5);
  config.tcp_congestion_control = rng.below(2) == 0 ? "cubic" : "reno";
  return config;
}

}  // namespace

IpAddress address_of_mover(bool v6) {
  IpAddress address = IpAddress::from_v4({10, 0, 0, 100});
  if (v6) address.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100};
  return address;
}

IpAddress address_of_peer(std::uint32_t number, bool v6) {
  const auto last = static_cast<std::uint8_t>(number + 1);
  IpAddress address = IpAddress::from_v4({10, 0, 1, last});
  if (v6) address.bytes = {0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, last};
  return address;
}

Shape make_shape(const Options& options) {
  Rng rng = rng_for(options, kShapeStream);
  Shape shape;
  shape.peers = between(rng, 1, 3);
  shape.lanes = between(rng, 1, 2);
  shape.programs = between(rng, 1, 3);
  for (std::uint32_t i = 0; i < shape.peers; ++i) {
    shape.to_peer.push_back(make_pipe(rng, is_fast(options)));
    shape.from_peer.push_back(make_pipe(rng, is_fast(options)));
  }
  const bool scarce = rng.below(3) == 0;
  shape.arena = {.slot_count = 4 * options.connections + 16,
                 .rings_per_lane = between(rng, 1, 2),
                 .lane_count = shape.lanes,
                 .sq_entries = one_of(rng, std::array{64U, 256U, 1024U}),
                 .cq_entries = one_of(rng, std::array{128U, 512U, 2048U}),
                 .tx_chunk_count = scarce ? between(rng, 8, 40) : 128,
                 .rx_chunk_count = (scarce ? between(rng, 8, 40) : 128) * 2,  // the same for each lane
                 .chunk_bytes = one_of(rng, std::array{2048U, 4096U, 16384U})};
  shape.capacity = {.connections = rng.below(4) == 0 ? std::max(2U, options.connections / 2) : options.connections + 2,
                    .pieces = scarce ? between(rng, 200, 1000) : 4096};
  shape.grace = microseconds(one_of(rng, std::array{200U, 200U, 1000U, 8000U, 20'000U}));
  if (is_fast(options)) shape.grace = std::min<Duration>(shape.grace, microseconds(200));
  ASSERT(shape.grace > kLongestSoftirq);  // what it is there for
  for (std::uint32_t i = 0; i <= shape.peers; ++i) shape.hosts.push_back(make_host(rng, i));
  choose_mtu_probing(shape, options);
  choose_congestion_controls(shape, options);
  return shape;
}

std::vector<Event> make_events(const Options& options, const Shape& shape) {
  std::vector<Event> events;
  const std::vector<Duration> opened = add_opens(events, options);
  add_moves(events, options, opened);
  add_faults(events, options, shape, opened);
  for (const unsigned of : {1U, 2U, 3U}) add_later_faults(events, options, shape, opened, of);
  sort_by_time(events);
  for (std::uint32_t i = 0; i < events.size(); ++i) events[i].number = i;
  if (options.only) std::erase_if(events, [&](const Event& event) { return !options.only->contains(event.number); });
  return events;
}

FlowKey flow_of(std::uint32_t number, std::uint32_t peer, bool v6, bool from_peer) {
  constexpr std::uint16_t kServerPort = 80;
  constexpr std::uint16_t kFirstClientPort = 20'000;
  const auto client = static_cast<std::uint16_t>(kFirstClientPort + number);
  return {.local = address_of_mover(v6),
          .remote = address_of_peer(peer, v6),
          .local_port = from_peer ? kServerPort : client,
          .remote_port = from_peer ? client : kServerPort};
}

}  // namespace twinstack::sim
