#include "stack/byte_queue.h"

#include <gtest/gtest.h>

#include <deque>

#include "base/rng.h"

namespace twinstack::stack {
namespace {

TEST(ByteQueue, IsAQueueOfBytes) {
  Rng rng(3);
  ByteQueue queue;
  std::deque<std::byte> model;
  for (int round = 0; round < 20000; ++round) {
    if (rng.below(2) == 0) {
      std::vector<std::byte> bytes(rng.below(300));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.next());
      queue.append(ByteView(bytes));
      model.insert(model.end(), bytes.begin(), bytes.end());
    } else {
      const std::uint32_t count = rng.below(queue.size() + 1);
      queue.pop_front(count);
      model.erase(model.begin(), model.begin() + count);
    }
    ASSERT_EQ(queue.size(), model.size());
    const std::uint32_t offset = rng.below(queue.size() + 1);
    std::vector<std::byte> out(queue.size() - offset);
    queue.copy(offset, out);
    ASSERT_TRUE(std::equal(out.begin(), out.end(), model.begin() + offset));
  }
}

TEST(ByteQueue, TakesAPayloadOfSeveralParts) {
  const std::string_view a = "hello ";
  const std::string_view b = "world";
  const ByteView parts[] = {std::as_bytes(std::span(a)), std::as_bytes(std::span(b))};
  ByteQueue queue;
  queue.append(Payload(parts, 2, 7));
  std::string out(7, '\0');
  queue.copy(0, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(out, "llo wor");
}

}  // namespace
}  // namespace twinstack::stack
