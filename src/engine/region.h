// LaneRegion: the memory of one lane, laid out in bytes that somebody else provides (a memfd of the driver's that
// outlives the engine; plain memory in tests): connection tables, flow table, pieces, control queue. The driver uses
// the control queue's other end and reads the tables of connections that are held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/device.h"
#include "engine/flow_table.h"
#include "engine/hw_conn.h"
#include "ipc/ring.h"
#include "tcp/flight.h"
#include "tcp/out_of_order_memory.h"

namespace twinstack::engine {

struct LaneCapacity {
  std::uint32_t connections = 16384;
  std::uint32_t pieces = 262144;
  std::uint32_t events = 4096;  // in the ring, a power of two; what finds it full waits in the lane

  friend bool operator==(const LaneCapacity&, const LaneCapacity&) = default;
};

inline constexpr std::uint32_t kCommandEntries = 16;

class LaneRegion {
 public:
  // Bytes that a lane of this capacity needs.
  [[nodiscard]] static std::size_t bytes_needed(const LaneCapacity& capacity) noexcept;

  // Constructs everything anew in `memory`, which must be zeroed, 64-byte aligned, and of at least bytes_needed().
  // REQUIRES: `memory` outlives the region and everybody who uses it.
  LaneRegion(std::span<std::byte> memory, const LaneCapacity& capacity) noexcept;
  ~LaneRegion();
  LaneRegion(const LaneRegion&) = delete;
  LaneRegion& operator=(const LaneRegion&) = delete;

  [[nodiscard]] std::span<HwConn> conns() const noexcept { return conns_; }
  [[nodiscard]] std::span<HwConnRecord> records() const noexcept { return records_; }
  [[nodiscard]] std::span<HwConnKept> kept() const noexcept { return kept_; }
  [[nodiscard]] std::span<FlowTable::Cell> flow_cells() const noexcept { return flow_cells_; }
  [[nodiscard]] std::span<Waiting> waiting() const noexcept { return waiting_; }
  [[nodiscard]] std::span<Piece> pieces() const noexcept { return pieces_; }

  // Not in the memory, as the flights that the connections refer to are not: freed when they are over.
  [[nodiscard]] tcp::FlightPool& flights() noexcept { return flights_; }
  // Bounds what they hold out of order, which is memory of the service.
  [[nodiscard]] tcp::OutOfOrderMemory& out_of_order() noexcept { return out_of_order_; }

  [[nodiscard]] ipc::RingProducer<Command> command_producer() const noexcept;
  [[nodiscard]] ipc::RingConsumer<Command> command_consumer() const noexcept;
  [[nodiscard]] ipc::RingProducer<Reply> reply_producer() const noexcept;
  [[nodiscard]] ipc::RingConsumer<Reply> reply_consumer() const noexcept;
  [[nodiscard]] ipc::RingProducer<Event> event_producer() const noexcept;
  [[nodiscard]] ipc::RingConsumer<Event> event_consumer() const noexcept;

 private:
  struct Indices {
    ipc::RingIndex tail;
    ipc::RingIndex head;
    ipc::RingIndex need_wakeup;
  };
  struct Control {
    Indices command;
    Indices reply;
    Indices event;
  };

  std::span<HwConn> conns_;
  std::span<HwConnRecord> records_;
  std::span<HwConnKept> kept_;
  std::span<FlowTable::Cell> flow_cells_;
  std::span<Waiting> waiting_;
  std::span<Piece> pieces_;
  Control* control_;
  std::span<Command> commands_;
  std::span<Reply> replies_;
  std::span<Event> events_;
  tcp::FlightPool flights_;
  tcp::OutOfOrderMemory out_of_order_;
};

}  // namespace twinstack::engine
