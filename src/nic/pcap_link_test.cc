#include "nic/pcap_link.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "nic/memory_link.h"
#include "nic/test_frames.h"

namespace twinstack::nic {
namespace {

using namespace std::chrono_literals;

struct Record {
  std::uint32_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  std::string bytes;
};

std::uint32_t word(const std::string& file, std::size_t at) {
  std::uint32_t value = 0;
  std::memcpy(&value, file.data() + at, sizeof value);
  return value;
}

class PcapLinkTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path); }

  [[nodiscard]] std::vector<Record> read_file() const {
    std::ifstream in(path, std::ios::binary);
    const std::string file{std::istreambuf_iterator<char>(in), {}};
    EXPECT_GE(file.size(), 24U);
    EXPECT_EQ(word(file, 0), 0xa1b23c4dU);
    EXPECT_EQ(word(file, 20), 1U);
    std::vector<Record> records;
    for (std::size_t at = 24; at + 16 <= file.size();) {
      const std::uint32_t length = word(file, at + 8);
      EXPECT_EQ(length, word(file, at + 12));
      records.push_back({word(file, at), word(file, at + 4), file.substr(at + 16, length)});
      at += 16 + length;
    }
    return records;
  }

  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("ts-nic-pcap-" + std::to_string(::getpid()) + ".pcap");
};

TEST_F(PcapLinkTest, BothDirectionsAreRecordedWithTheirTime) {
  auto wire = MemoryWire::make({.part_bytes = 128});
  {
    auto writer = PcapWriter::create(path, 1000s);
    ASSERT_TRUE(writer.has_value()) << writer.error().message();
    PcapLink link(std::move(wire.a), std::move(*writer));
    link.advance(Time(2s + 5ns));
    ASSERT_TRUE(commit(link, bytes_of("sent")));
    link.flush();
    EXPECT_EQ(receive_all(*wire.b).size(), 1U);
    ASSERT_TRUE(commit(*wire.b, Bytes(300, std::byte{'r'})));
    wire.b->flush();
    link.advance(Time(3s));
    EXPECT_EQ(receive_all(link).size(), 1U);
    EXPECT_FALSE(link.writer().failure().has_value());
  }
  const auto records = read_file();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].seconds, 1002U);
  EXPECT_EQ(records[0].nanoseconds, 5U);
  EXPECT_EQ(records[0].bytes, "sent");
  EXPECT_EQ(records[1].seconds, 1003U);
  EXPECT_EQ(records[1].bytes, std::string(300, 'r'));
}

TEST_F(PcapLinkTest, CompleteAfterFlushFile) {
  auto wire = MemoryWire::make();
  auto writer = PcapWriter::create(path);
  ASSERT_TRUE(writer.has_value());
  PcapLink link(std::move(wire.a), std::move(*writer));
  ASSERT_TRUE(commit(link, bytes_of("now")));
  ASSERT_TRUE(link.writer().flush_file().has_value());
  EXPECT_EQ(read_file().size(), 1U);
}

TEST_F(PcapLinkTest, AFileThatCannotBeMadeIsAnError) {
  const auto writer = PcapWriter::create("/nonexistent-folder/x.pcap");
  ASSERT_FALSE(writer.has_value());
  EXPECT_NE(writer.error().message().find("/nonexistent-folder/x.pcap"), std::string::npos);
}

// The limit on file size stands for a full disk.
TEST_F(PcapLinkTest, AFullDiskEndsTheRecordingNotTheTraffic) {
  auto wire = MemoryWire::make();
  auto writer = PcapWriter::create(path);
  ASSERT_TRUE(writer.has_value());
  PcapLink link(std::move(wire.a), std::move(*writer));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(commit(link, Bytes(1500)));
  const auto flushed = link.writer().flush_file();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_FALSE(flushed.has_value());
  EXPECT_TRUE(link.writer().failure().has_value());
  link.flush();
  EXPECT_EQ(receive_all(*wire.b).size(), 20U);
}

}  // namespace
}  // namespace twinstack::nic
