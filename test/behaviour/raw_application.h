// RawApplication: an application that speaks the session protocol and the rings by itself, without the socket layer: so
// that a test has every step in its own hands, also the wrong ones. One thread; non-blocking calls with deadlines.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "ipc/arena.h"
#include "ipc/messages.h"
#include "ipc/owner_gate.h"
#include "ipc/ring.h"

namespace twinstack::testing {

class RawApplication;

// One registered connection of the application.
class RawConnection {
 public:
  RawConnection(RawApplication& application, UniqueFd socket, std::uint32_t slot, std::uint32_t tag)
      : application_(application), socket_(std::move(socket)), slot_(slot), tag_(tag) {}

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  [[nodiscard]] std::uint32_t slot_index() const noexcept { return slot_; }
  [[nodiscard]] std::uint32_t tag() const noexcept { return tag_; }
  [[nodiscard]] ipc::ConnSlot& slot() const;
  [[nodiscard]] ipc::Owner owner() const { return ipc::OwnerGate(slot()).owner(); }
  [[nodiscard]] std::uint64_t cookie() const;

  // Bytes taken now, through whoever owns the connection; 0: no room now. Error: the connection's own.
  Result<std::size_t> send(std::span<const std::byte> bytes);
  // Bytes read now; nullopt: nothing there; 0 bytes: the peer has closed.
  Result<std::optional<std::size_t>> receive(std::span<std::byte> room);

  Result<> request_upload(const std::string& reason, bool stay);
  // As the socket layer closes: tells the driver, then closes the descriptor.
  Result<> close();

 private:
  friend class RawApplication;
  struct Piece {
    std::uint32_t chunk;
    std::uint32_t offset;
    std::uint32_t length;
  };
  struct Sent {
    std::uint32_t chunk;
    std::uint64_t end;  // tx_submitted_bytes when it is acknowledged whole
  };

  Result<std::size_t> send_engine(std::span<const std::byte> bytes);
  std::size_t take_received(std::span<std::byte> room);
  void reclaim();

  RawApplication& application_;
  UniqueFd socket_;
  std::uint32_t slot_;
  std::uint32_t tag_;
  std::deque<Piece> received_;
  std::deque<Sent> sent_;
};

class RawApplication {
 public:
  static Result<std::unique_ptr<RawApplication>> connect(const std::string& path, const std::string& name = "raw");
  RawApplication(const RawApplication&) = delete;
  RawApplication& operator=(const RawApplication&) = delete;

  // Registers a connected socket.
  Result<std::unique_ptr<RawConnection>> adopt(UniqueFd socket);
  // The hardware state of a connection, nullopt when the engine does not own it.
  Result<std::optional<ipc::HwConnState>> query(const RawConnection& connection);

  // Takes completions in; to be called often.
  void drain();
  [[nodiscard]] std::uint64_t owner_changes() const noexcept { return owner_changes_; }
  // The service has ended the session.
  [[nodiscard]] bool is_ended() const;

  // For hostile tests: any entry at all.
  void submit(std::uint32_t ring, const ipc::SubmitEntry& entry);
  [[nodiscard]] const ipc::Arena& arena() const noexcept { return *arena_; }
  [[nodiscard]] int socket() const noexcept { return socket_.get(); }
  [[nodiscard]] const std::vector<UniqueFd>& ring_events() const noexcept { return ring_events_; }
  template <typename Message>
  Result<> post(const Message& message, std::span<const int> fds = {}) {
    return post_bytes(std::as_bytes(std::span(&message, 1)), fds);
  }

 private:
  friend class RawConnection;
  RawApplication() = default;
  Result<> post_bytes(std::span<const std::byte> message, std::span<const int> fds);

  UniqueFd socket_;
  std::optional<ipc::Arena> arena_;
  std::vector<UniqueFd> doorbells_;
  std::vector<UniqueFd> ring_events_;
  std::vector<ipc::SubmitProducer> submit_;
  std::vector<ipc::CompleteConsumer> complete_;
  std::vector<std::uint32_t> free_chunks_;
  std::vector<RawConnection*> by_slot_;
  std::uint32_t next_slot_ = 0;
  std::uint32_t next_request_ = 1;
  std::uint64_t owner_changes_ = 0;
};

}  // namespace twinstack::testing
