#include "moving/send_room.h"

#include <gtest/gtest.h>

#include <vector>

namespace twinstack::moving {
namespace {

constexpr std::uint32_t kMss = 1000;
constexpr std::uint32_t kChunk = 65 * kMss;  // the most that one packet of GSO holds

struct Filled {
  Filled() {
    cb.mss = kMss;
    cb.max_window = 1U << 20;
    room.begin(cb);
    const std::vector<std::byte> bytes(room.take(cb, cb.snd_nxt, limits, 2 * kChunk));
    room.added(bytes, false);
    cb.write_seq += static_cast<std::uint32_t>(bytes.size());
  }

  tcp::ControlBlock cb;
  SendLimits limits{.buffer_bytes = 60'000};
  SendRoom room;
};

TEST(SendRoom, AChunkMayExceedTheBuffer) {
  Filled f;
  EXPECT_EQ(f.cb.write_seq - f.cb.snd_una, kChunk);
  EXPECT_EQ(f.room.take(f.cb, f.cb.snd_una, f.limits, 1), 0U);
}

// As Linux, whose first packet of the chunk has left: the next bytes join what is left of it.
TEST(SendRoom, TheRestOfAChunkIsFilledUp) {
  Filled f;
  f.cb.snd_nxt = f.cb.write_seq;
  EXPECT_EQ(f.room.take(f.cb, f.cb.snd_una + 20 * kMss, f.limits, kChunk), 20 * kMss);
  EXPECT_EQ(f.room.take(f.cb, f.cb.snd_nxt, f.limits, kChunk), 0U) << "nothing is left of it";
}

}  // namespace
}  // namespace twinstack::moving
