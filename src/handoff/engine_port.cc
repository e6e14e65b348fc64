#include "handoff/engine_port.h"

#include <sched.h>

#include "base/assert.h"

namespace twinstack::handoff {

EnginePort::EnginePort(std::uint32_t lane, engine::LaneRegion& region, LaneDoorbell& doorbell)
    : lane_(lane),
      region_(region),
      doorbell_(doorbell),
      commands_(region.command_producer()),
      replies_(region.reply_consumer()),
      events_(region.event_consumer()) {}

engine::Reply EnginePort::call(const engine::Command& command) {
  using Pop = ipc::RingConsumer<engine::Reply>::Pop;
  ASSERT(commands_.room() > 0);  // one command at a time
  commands_.push(command);
  commands_.publish();
  doorbell_.ring();
  engine::Reply reply;
  for (;;) {
    const Pop pop = replies_.pop(reply);
    ASSERT(pop != Pop::kCorrupt);
    if (pop == Pop::kEntry) break;
    ::sched_yield();
    doorbell_.ring();
  }
  replies_.release();
  return reply;
}

Result<engine::Reply> EnginePort::request(const engine::Command& command) {
  const engine::Reply reply = call(command);
  if (reply.status == engine::Status::kOk) return reply;
  using engine::Status;
  const bool resource = reply.status == Status::kNoSlot || reply.status == Status::kNoChunk ||
                        reply.status == Status::kNoPiece || reply.status == Status::kRingFull;
  return error(resource ? ErrorCode::kNoResource : ErrorCode::kInvalid, engine::to_string(reply.status));
}

bool EnginePort::take_event(engine::Event& event) {
  const auto pop = events_.pop(event);
  ASSERT(pop != ipc::RingConsumer<engine::Event>::Pop::kCorrupt);
  if (pop == ipc::RingConsumer<engine::Event>::Pop::kEmpty) return false;
  events_.release();
  return true;
}

}  // namespace twinstack::handoff
