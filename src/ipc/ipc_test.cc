#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/monotonic.h"
#include "ipc/arena.h"
#include "ipc/channel.h"
#include "ipc/messages.h"
#include "ipc/owner_gate.h"
#include "ipc/ring.h"

namespace twinstack::ipc {
namespace {

using namespace std::chrono_literals;

const ArenaConfig kSmall{.slot_count = 8,
                         .rings_per_lane = 2,
                         .lane_count = 2,
                         .sq_entries = 8,
                         .cq_entries = 16,
                         .tx_chunk_count = 4,
                         .rx_chunk_count = 6,
                         .chunk_bytes = 4096};

UniqueFd duplicate(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

// --- Geometry and arena ---

TEST(Geometry, OfADefaultConfigurationIsValidAndWithoutOverlap) {
  for (const ArenaConfig& config : {ArenaConfig{}, kSmall}) {
    const ArenaGeometry g = make_geometry(config);
    EXPECT_TRUE(is_valid_geometry(g, g.total_bytes));
    EXPECT_FALSE(is_valid_geometry(g, g.total_bytes - 1));
    EXPECT_GE(g.slots_offset, sizeof(ArenaHeader));
    EXPECT_GE(g.rings_offset, g.slots_offset + g.slot_count * sizeof(ConnSlot));
    EXPECT_GE(g.ring_stride_bytes,
              sizeof(RingHeader) + g.sq_entries * sizeof(SubmitEntry) + g.cq_entries * sizeof(CompleteEntry));
    EXPECT_GE(g.chunks_offset, g.rings_offset + g.ring_count * g.ring_stride_bytes);
    EXPECT_EQ(g.total_bytes, g.chunks_offset + std::uint64_t{g.chunk_count} * g.chunk_bytes);
    EXPECT_EQ(g.ring_count, config.lane_count * config.rings_per_lane);
  }
}

TEST(Geometry, EveryFieldThatAnotherProcessMightForgeIsChecked) {
  const ArenaGeometry good = make_geometry(kSmall);
  const std::vector<void (*)(ArenaGeometry&)> forgeries{
      [](ArenaGeometry& g) { g.slots_offset += 64; },    [](ArenaGeometry& g) { g.rings_offset = 0; },
      [](ArenaGeometry& g) { g.ring_stride_bytes = 0; }, [](ArenaGeometry& g) { g.chunks_offset -= 4096; },
      [](ArenaGeometry& g) { g.total_bytes += 4096; },   [](ArenaGeometry& g) { g.slot_count = 0; },
      [](ArenaGeometry& g) { g.slot_count = ~0U; },      [](ArenaGeometry& g) { g.ring_count = kMaxRings + 1; },
      [](ArenaGeometry& g) { g.lane_count = 0; },        [](ArenaGeometry& g) { g.sq_entries = 7; },
      [](ArenaGeometry& g) { g.cq_entries = 0; },        [](ArenaGeometry& g) { g.tx_chunk_count = g.chunk_count + 1; },
      [](ArenaGeometry& g) { g.chunk_count = ~0U; },     [](ArenaGeometry& g) { g.chunk_bytes = 100; },
  };
  for (std::size_t i = 0; i < forgeries.size(); ++i) {
    ArenaGeometry g = good;
    forgeries[i](g);
    EXPECT_FALSE(is_valid_geometry(g, ~std::uint64_t{0})) << "forgery " << i;
  }
}

TEST(Arena, BothSidesSeeTheSameMemory) {
  auto service = Arena::create(kSmall, 42);
  ASSERT_TRUE(service.has_value()) << service.error().message();
  auto application = Arena::map(duplicate(service->fd()), service->geometry());
  ASSERT_TRUE(application.has_value()) << application.error().message();
  EXPECT_EQ(application->header().session_id, 42U);
  EXPECT_EQ(application->header().service_state.load(), ServiceState::kRunning);
  application->slot(7).tag.store(99);
  EXPECT_EQ(service->slot(7).tag.load(), 99U);
  service->ring(3).cq_tail.value.store(5);
  EXPECT_EQ(application->ring(3).cq_tail.value.load(), 5U);
  ASSERT_EQ(service->chunk(9).size(), 4096U);
  std::memset(service->chunk(9).data(), 0x5a, 4096);
  EXPECT_EQ(application->chunk(9)[4095], std::byte{0x5a});
  EXPECT_EQ(OwnerGate(application->slot(0)).owner(), Owner::kFree);
}

TEST(Arena, TheParts) {
  auto arena = Arena::create(kSmall, 1);
  ASSERT_TRUE(arena.has_value());
  const auto* end_of_ring = reinterpret_cast<const std::byte*>(&arena->ring(0)) + arena->geometry().ring_stride_bytes;
  EXPECT_LE(reinterpret_cast<const std::byte*>(arena->cq(0) + kSmall.cq_entries), end_of_ring);
  EXPECT_EQ(reinterpret_cast<const void*>(arena->cq(0)),
            reinterpret_cast<const void*>(arena->sq(0) + kSmall.sq_entries));
  EXPECT_EQ(end_of_ring, reinterpret_cast<const std::byte*>(&arena->ring(1)));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena->chunk(0).data()) % 4096, 0U);
}

TEST(Arena, CannotBeShrunkByTheApplication) {
  auto arena = Arena::create(kSmall, 1);
  ASSERT_TRUE(arena.has_value());
  EXPECT_EQ(::ftruncate(arena->fd(), 4096), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::ftruncate(arena->fd(), 1 << 30), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST(Arena, RefusesWhatIsNotOne) {
  EXPECT_EQ(Arena::create(ArenaConfig{.sq_entries = 3}, 1).error().code, ErrorCode::kInvalid);
  auto arena = Arena::create(kSmall, 1);
  ASSERT_TRUE(arena.has_value());
  ArenaGeometry larger = make_geometry(ArenaConfig{});
  EXPECT_EQ(Arena::map(duplicate(arena->fd()), larger).error().code, ErrorCode::kProtocol);
  arena->header().version = kLayoutVersion + 1;
  EXPECT_EQ(Arena::map(duplicate(arena->fd()), arena->geometry()).error().code, ErrorCode::kProtocol);
  arena->header().version = kLayoutVersion;
  arena->header().magic = 0;
  EXPECT_EQ(Arena::map(duplicate(arena->fd()), arena->geometry()).error().code, ErrorCode::kProtocol);
  EXPECT_EQ(Arena::map(UniqueFd(-1), arena->geometry()).error().system_errno, EBADF);
}

TEST(Arena, MovesWithItsMapping) {
  auto made = Arena::create(kSmall, 1);
  ASSERT_TRUE(made.has_value());
  Arena first(std::move(*made));
  first.slot(0).tag.store(3);
  auto other = Arena::create(kSmall, 2);
  ASSERT_TRUE(other.has_value());
  *other = std::move(first);
  EXPECT_EQ(other->slot(0).tag.load(), 3U);
  EXPECT_EQ(other->header().session_id, 1U);
}

// --- Rings ---

class Ring : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kCount = 8;
  static SubmitEntry entry(std::uint32_t number) {
    return {.op = SubmitOp::kSend,
            .flags = 0,
            .reserved0 = 0,
            .slot = number,
            .hw_conn_id = number,
            .chunk = 0,
            .offset = 0,
            .length = number,
            .reserved1 = 0};
  }
  SubmitProducer producer() { return {tail_, head_, need_, entries_.data(), kCount}; }
  SubmitConsumer consumer() { return {tail_, head_, need_, entries_.data(), kCount}; }

  RingIndex tail_{};
  RingIndex head_{};
  RingIndex need_{};
  std::array<SubmitEntry, kCount> entries_{};
};

using Pop = SubmitConsumer::Pop;

TEST_F(Ring, GivesInOrderWhatWasPublished) {
  auto in = producer();
  auto out = consumer();
  SubmitEntry got{};
  EXPECT_EQ(out.pop(got), Pop::kEmpty);
  in.push(entry(1));
  EXPECT_EQ(out.pop(got), Pop::kEmpty) << "not published yet";
  in.push(entry(2));
  in.publish();
  EXPECT_EQ(out.pop(got), Pop::kEntry);
  EXPECT_EQ(got.slot, 1U);
  EXPECT_EQ(out.pop(got), Pop::kEntry);
  EXPECT_EQ(got.slot, 2U);
  EXPECT_EQ(out.pop(got), Pop::kEmpty);
}

TEST_F(Ring, RoomComesBackWithRelease) {
  auto in = producer();
  auto out = consumer();
  for (std::uint32_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(in.room(), kCount - i);
    in.push(entry(i));
  }
  in.publish();
  EXPECT_EQ(in.room(), 0U);
  EXPECT_FALSE(in.is_empty());
  SubmitEntry got{};
  for (std::uint32_t i = 0; i < 3; ++i) EXPECT_EQ(out.pop(got), Pop::kEntry);
  EXPECT_EQ(in.room(), 0U) << "popped, but not released";
  out.release();
  EXPECT_EQ(in.room(), 3U);
}

TEST_F(Ring, IndicesWrapAround) {
  tail_.value.store(0xfffffffd);
  head_.value.store(0xfffffffd);
  auto in = producer();
  auto out = consumer();
  SubmitEntry got{};
  for (std::uint32_t i = 0; i < 100; ++i) {
    in.push(entry(i));
    in.publish();
    ASSERT_EQ(out.pop(got), Pop::kEntry);
    EXPECT_EQ(got.slot, i);
    out.release();
    EXPECT_EQ(in.room(), kCount);
  }
}

TEST_F(Ring, AnImpossibleIndexIsReportedAndNotFollowed) {
  auto out = consumer();
  tail_.value.store(kCount + 1);
  SubmitEntry got{};
  EXPECT_EQ(out.pop(got), Pop::kCorrupt);
  auto in = producer();
  head_.value.store(12345);
  EXPECT_EQ(in.room(), 0U) << "a corrupted head counts as a full ring";
}

TEST_F(Ring, ASleeperIsWokenOnce) {
  auto in = producer();
  auto out = consumer();
  in.push(entry(0));
  in.publish();
  EXPECT_FALSE(in.take_wakeup()) << "nobody sleeps";
  EXPECT_FALSE(out.prepare_sleep()) << "there is work";
  EXPECT_FALSE(in.take_wakeup());
  SubmitEntry got{};
  EXPECT_EQ(out.pop(got), Pop::kEntry);
  EXPECT_TRUE(out.prepare_sleep());
  in.push(entry(1));
  in.publish();
  EXPECT_TRUE(in.take_wakeup());
  EXPECT_FALSE(in.take_wakeup());
  EXPECT_EQ(out.pop(got), Pop::kEntry);
  EXPECT_TRUE(out.prepare_sleep());
  out.cancel_sleep();
  EXPECT_FALSE(in.take_wakeup());
}

TEST_F(Ring, BothEndsCanBeTakenUpAgain) {
  auto in = producer();
  auto out = consumer();
  for (std::uint32_t i = 0; i < 5; ++i) in.push(entry(i));
  in.publish();
  SubmitEntry got{};
  EXPECT_EQ(out.pop(got), Pop::kEntry);
  EXPECT_EQ(out.pop(got), Pop::kEntry);
  out.release();
  auto later = consumer();
  EXPECT_EQ(later.pop(got), Pop::kEntry);
  EXPECT_EQ(got.slot, 2U) << "from the released head on";
  auto again = producer();
  again.push(entry(5));
  again.publish();
  for (std::uint32_t i = 3; i < 6; ++i) {
    EXPECT_EQ(later.pop(got), Pop::kEntry);
    EXPECT_EQ(got.slot, i);
  }
}

TEST_F(Ring, TwoThreadsWithSleepLoseNothing) {
  constexpr std::uint32_t kTotal = 20'000;
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC));
  std::thread sender([&] {
    auto in = producer();
    for (std::uint32_t i = 0; i < kTotal;) {
      if (in.room() == 0) {
        std::this_thread::yield();
        continue;
      }
      in.push(entry(i++));
      in.publish();
      if (in.take_wakeup()) {
        const std::uint64_t one = 1;
        ASSERT_EQ(::write(event.get(), &one, sizeof(one)), 8);
      }
    }
  });
  auto out = consumer();
  for (std::uint32_t i = 0; i < kTotal;) {
    SubmitEntry got{};
    if (out.pop(got) == Pop::kEntry) {
      ASSERT_EQ(got.slot, i++);
      out.release();
    } else if (out.prepare_sleep()) {
      pollfd entry_fd{.fd = event.get(), .events = POLLIN, .revents = 0};
      ASSERT_EQ(::poll(&entry_fd, 1, 20'000), 1) << "a wake-up was lost at " << i;
      std::uint64_t count = 0;
      ASSERT_EQ(::read(event.get(), &count, sizeof(count)), 8);
    }
  }
  sender.join();
}

// --- The owner record ---

class Gate : public ::testing::Test {
 protected:
  Gate() { gate_.set_owner(Owner::kKernel); }

  ConnSlot slot_{};
  OwnerGate gate_{slot_};
};

TEST_F(Gate, CallsEnterWhoeverOwns) {
  Owner owner = Owner::kFree;
  for (const Owner stable : {Owner::kKernel, Owner::kEngine}) {
    gate_.set_owner(stable);
    EXPECT_TRUE(gate_.enter(owner));
    EXPECT_EQ(owner, stable);
    gate_.leave();
  }
  for (const Owner closed : {Owner::kFree, Owner::kToEngine, Owner::kToKernel}) {
    gate_.set_owner(closed);
    EXPECT_FALSE(gate_.enter(owner));
    EXPECT_EQ(owner, closed);
  }
  EXPECT_EQ(slot_.calls_inside.load(), 0U);
}

TEST_F(Gate, TheGenerationMovesOnWithEveryChange) {
  const std::uint32_t before = slot_.owner.load();
  gate_.set_owner(Owner::kEngine);
  gate_.set_owner(Owner::kKernel);
  EXPECT_NE(slot_.owner.load(), before);
  EXPECT_EQ(OwnerGate::owner_of(slot_.owner.load()), Owner::kKernel);
}

TEST_F(Gate, AMoveWaitsForTheCallsInside) {
  Owner owner{};
  ASSERT_TRUE(gate_.enter(owner));
  EXPECT_FALSE(gate_.begin_move(Owner::kKernel, Owner::kToEngine, 1ms)) << "a call is inside";
  EXPECT_EQ(gate_.owner(), Owner::kKernel) << "undone";
  std::thread mover([this] { EXPECT_TRUE(gate_.begin_move(Owner::kKernel, Owner::kToEngine, 20s)); });
  while (gate_.owner() != Owner::kToEngine) std::this_thread::yield();
  Owner late{};
  EXPECT_FALSE(gate_.enter(late)) << "no new call while one is waited for";
  gate_.leave();
  mover.join();
  EXPECT_EQ(gate_.owner(), Owner::kToEngine);
}

TEST_F(Gate, WaitingForAnIdleMomentHoldsNobody) {
  EXPECT_TRUE(gate_.wait_idle(1ms));
  Owner owner{};
  ASSERT_TRUE(gate_.enter(owner));
  EXPECT_FALSE(gate_.wait_idle(1ms)) << "a call is inside";
  std::thread mover([this] { EXPECT_TRUE(gate_.wait_idle(20s)); });
  while (slot_.mover_waits.load() == 0) std::this_thread::yield();
  Owner other{};
  EXPECT_TRUE(gate_.enter(other)) << "the gate is open";
  gate_.leave();
  gate_.leave();
  mover.join();
  EXPECT_EQ(gate_.owner(), Owner::kKernel);
}

TEST_F(Gate, AMoveBeginsOnlyFromTheOwnerThatItThinksOf) {
  EXPECT_FALSE(gate_.begin_move(Owner::kEngine, Owner::kToKernel, 1ms));
  EXPECT_EQ(gate_.owner(), Owner::kKernel);
}

TEST_F(Gate, WaitersAreWokenWhenTheMoveEnds) {
  ASSERT_TRUE(gate_.begin_move(Owner::kKernel, Owner::kToEngine, 1s));
  EXPECT_FALSE(gate_.wait_stable(1ms)) << "the time is over first";
  std::thread waiter([this] { EXPECT_TRUE(gate_.wait_stable(20s)); });
  std::thread other([this] { EXPECT_TRUE(gate_.wait_owner(Owner::kKernel, 20s)); });
  while (slot_.sleepers.load() < 2) std::this_thread::yield();
  gate_.set_owner(Owner::kEngine);
  waiter.join();
  gate_.set_owner(Owner::kKernel);
  other.join();
  EXPECT_EQ(slot_.sleepers.load(), 0U);
  EXPECT_FALSE(gate_.wait_owner(Owner::kEngine, 1ms));
  gate_.set_owner(Owner::kFree);
  EXPECT_TRUE(gate_.wait_owner(Owner::kEngine, 1ms)) << "a connection that is gone is waited for by nobody";
}

// The invariant: between enter() and leave() the owner does not change, and a mover is alone.
TEST_F(Gate, ReadersAndTheMoverExcludeEachOther) {
  std::atomic<bool> over = false;
  std::atomic<std::uint32_t> movers = 0;
  std::atomic<std::uint64_t> calls = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i)
    readers.emplace_back([&] {
      OwnerGate gate(slot_);
      while (!over) {
        Owner owner{};
        if (!gate.enter(owner)) {
          gate.wait_stable(10ms);
          continue;
        }
        // A mover may announce itself and wait, but it does nothing while we are inside.
        for (int spin = 0; spin < 50; ++spin) {
          const Owner now = gate.owner();
          ASSERT_TRUE(now == owner || now == Owner::kToEngine || now == Owner::kToKernel);
          ASSERT_EQ(movers.load(), 0U);
        }
        calls.fetch_add(1, std::memory_order_relaxed);
        gate.leave();
      }
    });
  std::uint32_t moves = 0;
  const Time end = monotonic_now() + 20s;
  while ((moves < 500 || calls.load() == 0) && monotonic_now() < end) {
    const Owner from = gate_.owner();
    const bool away = from == Owner::kKernel;
    if (!gate_.begin_move(from, away ? Owner::kToEngine : Owner::kToKernel, 100ms)) continue;
    movers = 1;
    std::this_thread::yield();
    movers = 0;
    gate_.set_owner(away ? Owner::kEngine : Owner::kKernel);
    ++moves;
  }
  over = true;
  for (auto& reader : readers) reader.join();
  EXPECT_GE(moves, 50U) << "three readers on few cores leave the mover little, but some";
  EXPECT_GT(calls.load(), 0U);
  EXPECT_EQ(slot_.calls_inside.load(), 0U);
}

TEST(GateAcrossMappings, WaitsThroughSharedMemory) {
  auto service = Arena::create(kSmall, 1);
  ASSERT_TRUE(service.has_value());
  auto application = Arena::map(duplicate(service->fd()), service->geometry());
  ASSERT_TRUE(application.has_value());
  OwnerGate driver(service->slot(3));
  driver.set_owner(Owner::kToEngine);
  std::thread waiter([&] { EXPECT_TRUE(OwnerGate(application->slot(3)).wait_stable(20s)); });
  while (service->slot(3).sleepers.load() == 0) std::this_thread::yield();
  driver.set_owner(Owner::kEngine);
  waiter.join();
}

// --- Messages with descriptors ---

class Channel : public ::testing::Test {
 protected:
  Channel() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    left_.reset(ends[0]);
    right_.reset(ends[1]);
  }

  UniqueFd left_;
  UniqueFd right_;
  std::array<std::byte, 1024> buffer_{};
};

TEST_F(Channel, CarriesAMessageAndItsDescriptors) {
  Close message{.head = {.type = MessageType::kClose, .size_bytes = sizeof(Close)}, .slot = 3, .tag = 4};
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::array<int, 2> fds{file.get(), left_.get()};
  ASSERT_TRUE(send_message(left_.get(), std::as_bytes(std::span(&message, 1)), fds).has_value());
  auto received = receive_message(right_.get(), buffer_, 0);
  ASSERT_TRUE(received.has_value()) << received.error().message();
  ASSERT_EQ(received->size_bytes, sizeof(message));
  EXPECT_EQ(std::memcmp(buffer_.data(), &message, sizeof(message)), 0);
  ASSERT_EQ(received->fds.size(), 2U);
  struct stat sent{};
  struct stat got{};
  ASSERT_EQ(::fstat(file.get(), &sent), 0);
  ASSERT_EQ(::fstat(received->fds[0].get(), &got), 0);
  EXPECT_EQ(sent.st_rdev, got.st_rdev);
  EXPECT_NE(::fcntl(received->fds[0].get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(Channel, KeepsTheBoundsOfMessages) {
  const std::array<std::byte, 10> bytes{};
  for (std::size_t size = 1; size <= bytes.size(); ++size)
    ASSERT_TRUE(send_message(left_.get(), std::span(bytes).first(size), {}).has_value());
  for (std::size_t size = 1; size <= bytes.size(); ++size) {
    auto received = receive_message(right_.get(), buffer_, MSG_DONTWAIT);
    ASSERT_TRUE(received.has_value());
    EXPECT_EQ(received->size_bytes, size);
    EXPECT_TRUE(received->fds.empty());
  }
  EXPECT_EQ(receive_message(right_.get(), buffer_, MSG_DONTWAIT).error().system_errno, EAGAIN);
}

TEST_F(Channel, TheEndIsASizeOfZero) {
  left_.reset();
  auto received = receive_message(right_.get(), buffer_, 0);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->size_bytes, 0U);
}

TEST_F(Channel, SendingToNobodyIsAnErrorAndNoSignal) {
  right_.reset();
  const std::array<std::byte, 4> bytes{};
  EXPECT_EQ(send_message(left_.get(), bytes, {}).error().system_errno, EPIPE);
}

TEST_F(Channel, AMessageThatIsTooLongIsMarkedAndItsDescriptorsHandedOver) {
  const std::array<std::byte, 64> bytes{};
  const std::array<int, 1> fds{left_.get()};
  ASSERT_TRUE(send_message(left_.get(), bytes, fds).has_value());
  const auto received = receive_message(right_.get(), std::span(buffer_).first(8), 0);
  ASSERT_TRUE(received.has_value());
  EXPECT_TRUE(received->is_cut);
  EXPECT_EQ(received->size_bytes, 8U);
  EXPECT_EQ(received->fds.size(), 1U);
}

TEST_F(Channel, TheMostDescriptorsThatTheKernelCarriesAllArrive) {
  const std::array<int, 253> fds = [&] {
    std::array<int, 253> all{};
    all.fill(left_.get());
    return all;
  }();
  std::byte byte{};
  iovec part{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(fds))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  *CMSG_FIRSTHDR(&header) = {.cmsg_len = CMSG_LEN(sizeof(fds)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  std::memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)), fds.data(), sizeof(fds));
  ASSERT_EQ(::sendmsg(left_.get(), &header, 0), 1);
  const auto received = receive_message(right_.get(), buffer_, 0);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->fds.size(), fds.size());
  EXPECT_FALSE(received->has_lost_fds);
}

TEST_F(Channel, ADescriptorThatFindsNoRoomIsNoErrorOfTheMessage) {
  const std::array<std::byte, 16> bytes{std::byte{7}};
  const std::array<int, 1> fds{left_.get()};
  ASSERT_TRUE(send_message(left_.get(), bytes, fds).has_value());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto received = receive_message(right_.get(), buffer_, 0);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(received.has_value()) << received.error().message();
  EXPECT_EQ(received->size_bytes, bytes.size());
  EXPECT_EQ(buffer_[0], std::byte{7});
  EXPECT_TRUE(received->has_lost_fds);
  EXPECT_TRUE(received->fds.empty());
}

TEST_F(Channel, AFullSocketSaysSoWhenItMayNotBlock) {
  ASSERT_EQ(::fcntl(left_.get(), F_SETFL, O_NONBLOCK), 0);
  const std::array<std::byte, 1024> bytes{};
  Result<> sent;
  for (int i = 0; i < 100'000 && sent.has_value(); ++i) sent = send_message(left_.get(), bytes, {});
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().system_errno, EAGAIN);
}

TEST_F(Channel, ACountOfDescriptorsBeyondTheMaximumIsRefused) {
  const std::vector<int> many(kMaxMessageFds + 1, 0);
  const std::array<std::byte, 4> bytes{};
  EXPECT_EQ(send_message(left_.get(), bytes, many).error().code, ErrorCode::kInvalid);
}

TEST_F(Channel, AWelcomeForTheLargestSessionFitsIntoOneMessage) {
  // The arena, the doorbells of all lanes, the WakeEvents of all rings.
  static_assert(1 + kMaxLanes + kMaxRings <= kMaxMessageFds);
  const std::vector<int> fds(1 + kMaxLanes + kMaxRings, left_.get());
  Welcome welcome{};
  ASSERT_TRUE(send_message(left_.get(), std::as_bytes(std::span(&welcome, 1)), fds).has_value());
  auto received = receive_message(right_.get(), buffer_, 0);
  ASSERT_TRUE(received.has_value()) << received.error().message();
  EXPECT_EQ(received->fds.size(), fds.size());
}

TEST(ChannelPath, ListensAndConnects) {
  const std::string path = "/tmp/ts-ipc-test-" + std::to_string(::getpid()) + ".sock";
  ::unlink(path.c_str());
  auto listener = listen_on(path, SOCK_SEQPACKET);
  ASSERT_TRUE(listener.has_value()) << listener.error().message();
  auto client = connect_to(path);
  ASSERT_TRUE(client.has_value()) << client.error().message();
  EXPECT_EQ(listen_on(path, SOCK_SEQPACKET).error().system_errno, EADDRINUSE);
  ::unlink(path.c_str());
  EXPECT_EQ(connect_to(path).error().system_errno, ENOENT);
}

TEST(ChannelPath, APathThatDoesNotFitIsExplained) {
  EXPECT_EQ(connect_to(std::string(200U, 'x')).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(connect_to("").error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace twinstack::ipc
