#include "nic/trace_link.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "base/assert.h"
#include "wire/packet.h"

namespace twinstack::nic {
namespace {

std::string flag_letters(std::uint8_t flags) {
  constexpr std::array<std::pair<std::uint8_t, char>, 8> kLetters = {{{wire::kSyn, 'S'},
                                                                      {wire::kFin, 'F'},
                                                                      {wire::kRst, 'R'},
                                                                      {wire::kPsh, 'P'},
                                                                      {wire::kAck, 'A'},
                                                                      {wire::kUrg, 'U'},
                                                                      {wire::kEce, 'E'},
                                                                      {wire::kCwr, 'C'}}};
  std::string letters;
  for (const auto& [bit, letter] : kLetters) {
    if ((flags & bit) != 0) letters += letter;
  }
  return letters.empty() ? "-" : letters;
}

std::string with_port(const IpAddress& address, std::uint16_t port) {
  return fmt::format(fmt::runtime(address.is_v4() ? "{}:{}" : "[{}]:{}"), address.to_string(), port);
}

}  // namespace

std::string describe_frame(const RxFrame& frame) {
  wire::TcpPacket packet;
  // Partial checksums are no error here: sent and received frames of local peers have them.
  const auto verdict = wire::parse_frame(frame.parts, frame.length_bytes, ChecksumMode::kAcceptPartial, packet);
  if (verdict != wire::ParseVerdict::kOk) {
    return fmt::format("{} not TCP over IP ({})", frame.length_bytes, wire::name(verdict));
  }
  const wire::Segment& segment = packet.segment;
  return fmt::format("{} {} > {} {} seq {} ack {} win {} len {}", frame.length_bytes,
                     with_port(packet.flow.remote, packet.flow.remote_port),
                     with_port(packet.flow.local, packet.flow.local_port), flag_letters(segment.flags),
                     segment.seq.raw(), segment.ack.raw(), segment.window, packet.payload.size());
}

TraceLink::TraceLink(std::unique_ptr<Link> inner, Sink sink) : inner_(std::move(inner)), sink_(std::move(sink)) {
  ASSERT(inner_ != nullptr && sink_);
}

std::span<const RxFrame> TraceLink::receive(std::size_t max_frames) {
  const std::span<const RxFrame> frames = inner_->receive(max_frames);
  for (const RxFrame& frame : frames) tell("rx", frame);
  return frames;
}

void TraceLink::commit_tx(std::uint32_t length_bytes) {
  const ByteView bytes = std::exchange(room_, {}).first(length_bytes);
  tell("tx", {{&bytes, 1}, length_bytes});
  inner_->commit_tx(length_bytes);
}

void TraceLink::tell(std::string_view direction, const RxFrame& frame) {
  const std::int64_t nanoseconds = now_.time_since_epoch().count();
  sink_(fmt::format("{}.{:09} {} {}", nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000, direction,
                    describe_frame(frame)));
}

void TraceLink::advance(Time now) {
  now_ = now;
  inner_->advance(now);
}

}  // namespace twinstack::nic
