#include "behaviour/raw_application.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ipc/channel.h"

namespace twinstack::testing {

using ipc::Owner;

ipc::ConnSlot& RawConnection::slot() const { return application_.arena().slot(slot_); }

std::uint64_t RawConnection::cookie() const {
  std::uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  ::getsockopt(fd(), SOL_SOCKET, SO_COOKIE, &cookie, &length);
  return cookie;
}

Result<std::size_t> RawConnection::send(std::span<const std::byte> bytes) {
  ipc::OwnerGate gate(slot());
  Owner owner{};
  if (!gate.enter(owner)) return std::size_t{0};
  Result<std::size_t> taken = 0U;
  if (owner == Owner::kEngine) {
    taken = send_engine(bytes);
  } else {
    const ssize_t sent = ::send(fd(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0)
      taken = static_cast<std::size_t>(sent);
    else if (errno != EAGAIN)
      taken = system_error("send");
  }
  gate.leave();
  return taken;
}

void RawConnection::reclaim() {
  const std::uint64_t acked = slot().tx_acked_bytes.load(std::memory_order_acquire);
  while (!sent_.empty() && sent_.front().end <= acked) {
    application_.free_chunks_.push_back(sent_.front().chunk);
    sent_.pop_front();
  }
}

Result<std::size_t> RawConnection::send_engine(std::span<const std::byte> bytes) {
  reclaim();
  ipc::ConnSlot& shared = slot();
  const std::uint64_t submitted = shared.tx_submitted_bytes.load(std::memory_order_relaxed);
  const std::uint64_t ahead = submitted - shared.tx_acked_bytes.load(std::memory_order_acquire);
  const std::uint64_t limit = shared.tx_limit_bytes.load(std::memory_order_relaxed);
  const std::uint32_t ring = shared.ring.load(std::memory_order_relaxed);
  auto& producer = application_.submit_[ring];
  if (ahead >= limit || application_.free_chunks_.empty() || producer.room() == 0) return std::size_t{0};
  const std::uint32_t chunk = application_.free_chunks_.back();
  application_.free_chunks_.pop_back();
  const auto room = application_.arena().chunk(chunk);
  const std::size_t here = std::min(bytes.size(), room.size());
  std::memcpy(room.data(), bytes.data(), here);
  ipc::SubmitEntry entry{};
  entry.op = ipc::SubmitOp::kSend;
  entry.slot = slot_;
  entry.hw_conn_id = shared.hw_conn_id.load(std::memory_order_acquire);
  entry.chunk = chunk;
  entry.length = static_cast<std::uint32_t>(here);
  shared.tx_submitted_bytes.store(submitted + here, std::memory_order_release);
  sent_.push_back({.chunk = chunk, .end = submitted + here});
  application_.submit(ring, entry);
  return here;
}

std::size_t RawConnection::take_received(std::span<std::byte> room) {
  std::size_t done = 0;
  ipc::ConnSlot& shared = slot();
  const std::uint32_t ring = shared.ring.load(std::memory_order_relaxed);
  while (done < room.size() && !received_.empty()) {
    Piece& piece = received_.front();
    const auto here = static_cast<std::uint32_t>(std::min<std::size_t>(piece.length, room.size() - done));
    std::memcpy(room.data() + done, application_.arena().chunk(piece.chunk).data() + piece.offset, here);
    done += here;
    shared.rx_read_bytes.fetch_add(here, std::memory_order_release);
    ipc::SubmitEntry entry{};
    entry.op = ipc::SubmitOp::kReturn;
    entry.slot = slot_;
    entry.hw_conn_id = shared.hw_conn_id.load(std::memory_order_acquire);
    entry.chunk = piece.chunk;
    entry.length = here;
    application_.submit(ring, entry);
    piece.offset += here;
    piece.length -= here;
    if (piece.length == 0) received_.pop_front();
  }
  return done;
}

Result<std::optional<std::size_t>> RawConnection::receive(std::span<std::byte> room) {
  ipc::OwnerGate gate(slot());
  Owner owner{};
  if (!gate.enter(owner)) return std::optional<std::size_t>();
  application_.drain();
  Result<std::optional<std::size_t>> out = std::optional<std::size_t>();
  if (!received_.empty()) {
    out = std::optional(take_received(room));
  } else if (owner == Owner::kKernel) {
    const ssize_t got = ::recv(fd(), room.data(), room.size(), MSG_DONTWAIT);
    if (got >= 0)
      out = std::optional(static_cast<std::size_t>(got));
    else if (errno != EAGAIN)
      out = system_error("recv");
  }
  gate.leave();
  return out;
}

Result<> RawConnection::request_upload(const std::string& reason, bool stay) {
  ipc::Upload message{.head = {.type = ipc::MessageType::kUpload, .size_bytes = sizeof(message)},
                      .slot = slot_,
                      .tag = tag_,
                      .stay = stay ? 1U : 0U,
                      .reserved = 0,
                      .reason = {}};
  std::copy_n(reason.begin(), std::min<std::size_t>(reason.size(), 31), message.reason.begin());
  return application_.post(message);
}

Result<> RawConnection::close() {
  const ipc::Close message{
      .head = {.type = ipc::MessageType::kClose, .size_bytes = sizeof(message)}, .slot = slot_, .tag = tag_};
  const auto posted = application_.post(message);
  socket_.reset();
  return posted;
}

Result<std::unique_ptr<RawApplication>> RawApplication::connect(const std::string& path, const std::string& name) {
  std::unique_ptr<RawApplication> self(new RawApplication);
  ASSIGN_OR_RETURN(self->socket_, ipc::connect_to(path));
  ipc::Hello hello{.head = {.type = ipc::MessageType::kHello, .size_bytes = sizeof(hello)},
                   .version = ipc::kLayoutVersion,
                   .reserved = 0,
                   .program = {}};
  std::copy_n(name.begin(), std::min<std::size_t>(name.size(), 31), hello.program.begin());
  TRY(self->post(hello));
  alignas(8) std::array<std::byte, 1024> buffer;
  ASSIGN_OR_RETURN(ipc::Received received, ipc::receive_message(self->socket_.get(), buffer, 0));
  ipc::Welcome welcome;
  if (received.size_bytes != sizeof(welcome)) return error(ErrorCode::kProtocol, "no welcome");
  std::memcpy(&welcome, buffer.data(), sizeof(welcome));
  const auto& g = welcome.geometry;
  if (received.fds.size() != 1 + g.lane_count + g.ring_count) return error(ErrorCode::kProtocol, "wrong descriptors");
  ASSIGN_OR_RETURN(ipc::Arena arena, ipc::Arena::map(std::move(received.fds[0]), g));
  self->arena_.emplace(std::move(arena));
  for (std::uint32_t i = 0; i < g.lane_count; ++i) self->doorbells_.push_back(std::move(received.fds[1 + i]));
  for (std::uint32_t i = 0; i < g.ring_count; ++i) {
    self->ring_events_.push_back(std::move(received.fds[1 + g.lane_count + i]));
    auto& ring = self->arena_->ring(i);
    self->submit_.emplace_back(ring.sq_tail, ring.sq_head, ring.sq_need_wakeup, self->arena_->sq(i), g.sq_entries);
    self->complete_.emplace_back(ring.cq_tail, ring.cq_head, ring.cq_need_wakeup, self->arena_->cq(i), g.cq_entries);
  }
  for (std::uint32_t i = 0; i < g.tx_chunk_count; ++i) self->free_chunks_.push_back(i);
  self->by_slot_.resize(g.slot_count);
  return self;
}

Result<> RawApplication::post_bytes(std::span<const std::byte> message, std::span<const int> fds) {
  return ipc::send_message(socket_.get(), message, fds);
}

Result<std::unique_ptr<RawConnection>> RawApplication::adopt(UniqueFd socket) {
  const std::uint32_t slot = next_slot_++;
  ipc::ConnSlot& shared = arena_->slot(slot);
  const std::uint32_t tag = shared.tag.fetch_add(1) + 1;
  ipc::OwnerGate(shared).set_owner(Owner::kKernel);
  const ipc::Register message{.head = {.type = ipc::MessageType::kRegister, .size_bytes = sizeof(message)},
                              .slot = slot,
                              .tag = tag,
                              .program_fd = socket.get(),
                              .reserved = 0};
  const int fd = socket.get();
  TRY(post(message, {&fd, 1}));
  auto connection = std::make_unique<RawConnection>(*this, std::move(socket), slot, tag);
  by_slot_[slot] = connection.get();
  return connection;
}

Result<std::optional<ipc::HwConnState>> RawApplication::query(const RawConnection& connection) {
  const ipc::Query message{.head = {.type = ipc::MessageType::kQuery, .size_bytes = sizeof(message)},
                           .slot = connection.slot_index(),
                           .tag = connection.tag(),
                           .request = next_request_++,
                           .reserved = 0};
  TRY(post(message));
  alignas(8) std::array<std::byte, 1024> buffer;
  ASSIGN_OR_RETURN(const ipc::Received received, ipc::receive_message(socket_.get(), buffer, 0));
  ipc::QueryReply reply;
  if (received.size_bytes != sizeof(reply)) return error(ErrorCode::kProtocol, "no reply to a query");
  std::memcpy(&reply, buffer.data(), sizeof(reply));
  if (reply.request != message.request) return error(ErrorCode::kProtocol, "reply to another query");
  return reply.found != 0 ? std::optional(reply.state) : std::nullopt;
}

void RawApplication::submit(std::uint32_t ring, const ipc::SubmitEntry& entry) {
  auto& producer = submit_[ring];
  producer.push(entry);
  producer.publish();
  if (!producer.take_wakeup()) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written =
      ::write(doorbells_[ring % arena_->geometry().lane_count].get(), &one, sizeof(one));
}

void RawApplication::drain() {
  for (auto& consumer : complete_) {
    ipc::CompleteEntry entry;
    while (consumer.pop(entry) == ipc::CompleteConsumer::Pop::kEntry) {
      RawConnection* connection = entry.slot < by_slot_.size() ? by_slot_[entry.slot] : nullptr;
      if (entry.op == ipc::CompleteOp::kOwnerChanged) ++owner_changes_;
      if (connection == nullptr || entry.tag != connection->tag_) continue;
      if (entry.op == ipc::CompleteOp::kReceived)
        connection->received_.push_back({.chunk = entry.chunk, .offset = entry.offset, .length = entry.length});
      else if (entry.op == ipc::CompleteOp::kSent)
        connection->reclaim();
    }
    consumer.release();
  }
}

bool RawApplication::is_ended() const {
  pollfd fd{.fd = socket_.get(), .events = POLLIN, .revents = 0};
  return ::poll(&fd, 1, 0) == 1 && (fd.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace twinstack::testing
