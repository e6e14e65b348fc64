#include "base/huge_pages.h"

#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <fstream>
#include <string>

#include "base/unique_fd.h"

namespace twinstack {
namespace {

constexpr std::size_t kSomeBytes = 3 * kHugePageBytes + 5000;  // not even whole pages

UniqueFd memory_file(std::size_t bytes) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_memfd_create, "huge-pages-test", MFD_CLOEXEC)));
  EXPECT_TRUE(fd);
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  return fd;
}

// Of the mapping that begins at `base`, in bytes: what the kernel has mapped in huge pages.
std::size_t in_huge_pages(const std::byte* base) {
  std::ifstream smaps("/proc/self/smaps");
  bool found = false;
  for (std::string line; std::getline(smaps, line);) {
    const auto dash = line.find('-');
    if (dash != std::string::npos && dash < line.find(' '))
      found = std::stoull(line, nullptr, 16) == std::bit_cast<std::uintptr_t>(base);
    constexpr std::string_view kField = "ShmemPmdMapped:";
    if (found && line.starts_with(kField)) return std::stoull(line.substr(kField.size())) * 1024;
  }
  return 0;
}

TEST(HugePages, AMappingThatIsLargeBeginsAtABoundary) {
  const UniqueFd fd = memory_file(kSomeBytes);
  const auto one = map_shared(fd.get(), kSomeBytes);
  const auto other = map_shared(fd.get(), kSomeBytes);
  ASSERT_TRUE(one.has_value() && other.has_value());
  EXPECT_EQ(std::bit_cast<std::uintptr_t>(*one) % kHugePageBytes, 0U);
  EXPECT_EQ(std::bit_cast<std::uintptr_t>(*other) % kHugePageBytes, 0U);
  (*one)[kSomeBytes - 1] = std::byte{7};
  EXPECT_EQ((*other)[kSomeBytes - 1], std::byte{7});
  EXPECT_EQ(::munmap(*one, kSomeBytes), 0);
  EXPECT_EQ(::munmap(*other, kSomeBytes), 0);
}

TEST(HugePages, ASmallMappingIsAsAny) {
  const UniqueFd fd = memory_file(5000);
  const auto memory = map_shared(fd.get(), 5000);
  ASSERT_TRUE(memory.has_value());
  EXPECT_FALSE(use_huge_pages({*memory, 5000}));
  (*memory)[4999] = std::byte{1};
  EXPECT_EQ(::munmap(*memory, 5000), 0);
}

TEST(HugePages, WhatCannotBeMappedIsTold) {
  const auto refused = map_shared(-1, kSomeBytes);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message().find("mmap"), std::string::npos);
}

TEST(HugePages, TheMemoryIsTheSameInHugePages) {
  const UniqueFd fd = memory_file(kSomeBytes);
  const auto mapped = map_shared(fd.get(), kSomeBytes);
  ASSERT_TRUE(mapped.has_value());
  const std::span<std::byte> memory(*mapped, kSomeBytes);
  memory[0] = std::byte{1};
  memory[kHugePageBytes] = std::byte{2};
  memory[kSomeBytes - 1] = std::byte{3};
  if (use_huge_pages(memory)) {
    EXPECT_EQ(in_huge_pages(memory.data()), 3 * kHugePageBytes);
  }
  EXPECT_EQ(memory[0], std::byte{1});
  EXPECT_EQ(memory[kHugePageBytes], std::byte{2});
  EXPECT_EQ(memory[kSomeBytes - 1], std::byte{3});
  EXPECT_EQ(std::ranges::count(memory, std::byte{0}), static_cast<std::ptrdiff_t>(kSomeBytes) - 3);
  EXPECT_EQ(::munmap(memory.data(), memory.size()), 0);
}

}  // namespace
}  // namespace twinstack
