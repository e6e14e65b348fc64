#include "stack/test_support.h"

#include <algorithm>

#include "wire/build.h"

namespace twinstack::stack::test {

IpAddress v6(std::uint8_t last) {
  IpAddress out;
  out.bytes[0] = 0xfd;
  out.bytes[15] = last;
  return out;
}

Config host_config(std::uint8_t last) {
  Config config;
  config.addresses = {v4(last), v6(last)};
  config.seed = last;
  return config;
}

std::byte stream_byte(std::uint64_t key, std::uint64_t position) {
  return static_cast<std::byte>((position * 0x9e3779b97f4a7c15U + key * 0x632be59bd9b4e019U) >> 56);
}

Bytes stream_bytes(std::uint64_t key, std::uint64_t position, std::size_t count) {
  Bytes out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = stream_byte(key, position + i);
  return out;
}

Seen take_apart(const Bytes& packet, Time at) {
  wire::TcpPacket parsed;
  const ByteView part(packet);
  const auto verdict =
      wire::parse_ip_packet({&part, 1}, static_cast<std::uint32_t>(packet.size()), wire::ChecksumMode::kVerify, parsed);
  EXPECT_EQ(verdict, wire::ParseVerdict::kOk);
  Seen seen{
      .flow = parsed.flow, .segment = parsed.segment, .payload = std::string(parsed.payload.size(), '\0'), .at = at};
  parsed.payload.copy_to(std::as_writable_bytes(std::span(seen.payload)));
  return seen;
}

std::string flags_of(const wire::Segment& segment) {
  std::string out;
  if (segment.has(wire::kFin)) out += 'F';
  if (segment.has(wire::kSyn)) out += 'S';
  if (segment.has(wire::kRst)) out += 'R';
  if (segment.has(wire::kPsh)) out += 'P';
  if (segment.has(wire::kAck)) out += '.';
  return out;
}

// ---- TwoHosts

TwoHosts::TwoHosts(std::uint64_t seed) : TwoHosts(seed, host_config(1), host_config(2)) {}

TwoHosts::TwoHosts(std::uint64_t seed, const Config& client, const Config& server)
    : configs{client, server}, rng(seed), now(at_ms(0)) {
  for (int i = 0; i < 2; ++i) {
    ends_[i].net = this;
    ends_[i].index = i;
    configs[i].seed += seed << 8;
    stacks_[i] = std::make_unique<SoftStack>(configs[i], ends_[i], &ends_[i]);
    link_free_[i] = now;
  }
}

// When the packet has left the link; `lost`: its queue was full.
Time TwoHosts::pass_link(int from, std::span<std::byte> packet, bool& lost) {
  if (faults.rate_bytes_s == 0) return now;
  const Time begin = std::max(now, link_free_[from]);
  const auto per_byte = 1e9 / static_cast<double>(faults.rate_bytes_s);
  const auto queued = static_cast<double>((begin - now).count()) / per_byte;
  lost = queued > static_cast<double>(faults.queue_bytes);
  if (!lost)
    link_free_[from] = begin + Duration(static_cast<std::int64_t>(static_cast<double>(packet.size()) * per_byte));
  if (queued > static_cast<double>(faults.mark_bytes) && wire::is_ecn_capable(packet)) wire::mark_congestion(packet);
  return link_free_[from];
}

void TwoHosts::carry(int from, ByteView packet) {
  Bytes bytes(packet.begin(), packet.end());
  if (keep || drop) {
    Seen seen = take_apart(bytes, now);
    const bool lost = drop && drop(from, seen);
    if (keep) sent[from].push_back(std::move(seen));
    if (lost) return;
  }
  ASSERT_LE(bytes.size(), configs[from].mtu);
  if (bytes.size() > faults.path_mtu) {
    const wire::IcmpError error{
        .flow = {}, .seq = {}, .mtu = faults.path_mtu, .kind = wire::IcmpKind::kTooBig, .code = 0};
    const IpAddress router = take_apart(bytes).flow.is_v4() ? v4(254) : v6(254);
    in_flight_.emplace(now + faults.delay / 2, Packet{from, wire::make_icmp_error(error, router, bytes)});
    return;
  }
  bool lost = false;
  const Time out = pass_link(from, bytes, lost);
  if (lost || rng.chance_ppm(faults.loss_ppm)) return;
  const int copies = rng.chance_ppm(faults.duplicate_ppm) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    Duration delay = faults.delay;
    if (rng.chance_ppm(faults.reorder_ppm)) {
      delay += std::chrono::microseconds(
          rng.below(static_cast<std::uint32_t>(faults.reorder_delay / std::chrono::microseconds(1)) + 1));
    }
    in_flight_.emplace(out + delay, Packet{1 - from, bytes});
  }
}

bool TwoHosts::step(Time limit) {
  Time next = in_flight_.empty() ? kNever : in_flight_.begin()->first;
  for (const auto& stack : stacks_) next = std::min(next, stack->next_deadline());
  if (next > limit) {
    now = std::max(now, limit);
    return false;
  }
  now = std::max(now, next);
  while (!in_flight_.empty() && in_flight_.begin()->first <= now) {
    const Packet packet = std::move(in_flight_.begin()->second);
    in_flight_.erase(in_flight_.begin());
    stacks_[packet.to]->on_ip_packet(packet.bytes, now);
  }
  for (const auto& stack : stacks_) stack->on_timer(now);
  check();
  return true;
}

void TwoHosts::run_until(Time limit) {
  while (now < limit && step(limit) && !::testing::Test::HasFatalFailure()) continue;
}

bool TwoHosts::run_until_done(const std::function<bool()>& done, Duration limit) {
  const Time end = now + limit;
  while (!done()) {
    if (now >= end || !step(end) || ::testing::Test::HasFailure()) return done();
  }
  return true;
}

void TwoHosts::check() {
  if (++steps_ % check_interval != 0) return;
  for (const auto& stack : stacks_) {
    const char* wrong = stack->broken_invariant();
    ASSERT_EQ(wrong, nullptr) << wrong;
  }
}

SocketId TwoHosts::listen(std::uint16_t port, std::uint32_t backlog, Family family) {
  const SocketId id = server().socket(family);
  EXPECT_EQ(server().bind(id, {family == Family::kV4 ? any_v4() : any_v6(), port}), 0);
  EXPECT_EQ(server().listen(id, backlog, now), 0);
  return id;
}

TwoHosts::Pair TwoHosts::connect(SocketId listener, std::uint16_t port, Family family) {
  Pair pair;
  pair.client = client().socket(family);
  const IpAddress peer = family == Family::kV4 ? v4(2) : v6(2);
  EXPECT_EQ(client().connect(pair.client, {peer, port}, now), -EINPROGRESS);
  run_until_done([&] {
    if (pair.server < 0) pair.server = server().accept(listener, nullptr, now);
    return pair.server >= 0;
  });
  EXPECT_GE(pair.server, 0);
  EXPECT_EQ(client().connect(pair.client, {peer, port}, now), 0);
  return pair;
}

// ---- OneHost

OneHost::OneHost(const Config& wanted) : config(wanted) {
  end_.host = this;
  stack = std::make_unique<SoftStack>(config, end_, &end_);
}

void OneHost::End::transmit(ByteView packet) {
  host->seen_.push_back(take_apart(Bytes(packet.begin(), packet.end()), host->now));
}

void OneHost::inject(wire::Segment segment, std::string_view payload, std::uint16_t local_port,
                     std::uint16_t peer_port) {
  inject_from({v4(2), v4(1), peer_port, local_port}, segment, payload);
}

void OneHost::inject_from(const FlowKey& flow, const wire::Segment& segment, std::string_view payload) {
  Bytes packet(wire::ip_packet_header_bytes(flow, segment) + payload.size());
  const auto head = wire::write_ip_headers(packet, {}, flow, segment, static_cast<std::uint32_t>(payload.size()));
  std::ranges::copy(std::as_bytes(std::span(payload)), packet.begin() + head);
  wire::fill_ip_checksum(packet);
  stack->on_ip_packet(packet, now);
  const char* wrong = stack->broken_invariant();
  EXPECT_EQ(wrong, nullptr) << wrong;
}

std::vector<Seen> OneHost::take() { return std::exchange(seen_, {}); }

Seen OneHost::take_one() {
  auto all = take();
  EXPECT_EQ(all.size(), 1U);
  return all.empty() ? Seen{} : all.front();
}

void OneHost::advance(Duration span) {
  const Time end = now + span;
  for (Time next = stack->next_deadline(); next <= end; next = stack->next_deadline()) {
    now = std::max(now, next);
    stack->on_timer(now);
  }
  now = end;
}

wire::Segment OneHost::segment(std::uint8_t flags, std::uint32_t seq, std::uint32_t ack) {
  wire::Segment out;
  out.flags = flags;
  out.seq = Seq(seq);
  out.ack = Seq(ack);
  out.window = 60000;
  if ((flags & wire::kSyn) != 0) {
    out.options.has_mss = true;
    out.options.mss = 1460;
  }
  return out;
}

SocketId OneHost::establish() {
  if (listener == kNoSocket) {
    listener = stack->socket(Family::kV4);
    EXPECT_EQ(stack->bind(listener, {any_v4(), 80}), 0);
    EXPECT_EQ(stack->listen(listener, 8, now), 0);
  }
  inject(segment(wire::kSyn, 1000));
  iss = take_one().segment.seq.raw();
  inject(segment(wire::kAck, 1001, iss + 1));
  const SocketId id = stack->accept(listener, nullptr, now);
  EXPECT_GE(id, 0);
  take();
  return id;
}

}  // namespace twinstack::stack::test
