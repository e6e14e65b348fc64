#include "nic/pcap_link.h"

#include <cerrno>
#include <utility>

#include "base/assert.h"

namespace twinstack::nic {
namespace {

// The file format as in draft-ietf-opsawg-pcap, in the byte order of this host.
struct FileHeader {
  std::uint32_t magic = 0xa1b23c4d;  // times are in nanoseconds
  std::uint16_t major = 2;
  std::uint16_t minor = 4;
  std::uint32_t reserved[2] = {};
  std::uint32_t snap_length = 262144;
  std::uint32_t link_type = 1;  // Ethernet
};
static_assert(sizeof(FileHeader) == 24);

struct RecordHeader {
  std::uint32_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  std::uint32_t captured_bytes = 0;
  std::uint32_t original_bytes = 0;
};
static_assert(sizeof(RecordHeader) == 16);

}  // namespace

Result<PcapWriter> PcapWriter::create(const std::string& path, Duration epoch_offset) {
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  if (file == nullptr) return system_error("creating " + path);
  PcapWriter writer(file, path, epoch_offset);
  const FileHeader header;
  writer.put(&header, sizeof header);
  TRY(writer.flush_file());
  return writer;
}

void PcapWriter::write(Time when, const RxFrame& frame) {
  const std::int64_t stamp = (when.time_since_epoch() + epoch_offset_).count();
  const RecordHeader record{.seconds = static_cast<std::uint32_t>(stamp / 1'000'000'000),
                            .nanoseconds = static_cast<std::uint32_t>(stamp % 1'000'000'000),
                            .captured_bytes = frame.length_bytes,
                            .original_bytes = frame.length_bytes};
  put(&record, sizeof record);
  for (const ByteView part : frame.parts) put(part.data(), part.size());
}

void PcapWriter::put(const void* bytes, std::size_t length) {
  if (failure_.has_value() || length == 0) return;
  if (std::fwrite(bytes, length, 1, file_.get()) != 1) {
    failure_ = Error{ErrorCode::kSystem, errno, "writing " + path_};
  }
}

Result<> PcapWriter::flush_file() {
  if (!failure_.has_value() && std::fflush(file_.get()) != 0) {
    failure_ = Error{ErrorCode::kSystem, errno, "writing " + path_};
  }
  if (failure_.has_value()) return std::unexpected(*failure_);
  return {};
}

PcapLink::PcapLink(std::unique_ptr<Link> inner, PcapWriter writer)
    : inner_(std::move(inner)), writer_(std::move(writer)) {
  ASSERT(inner_ != nullptr);
}

std::span<const RxFrame> PcapLink::receive(std::size_t max_frames) {
  const std::span<const RxFrame> frames = inner_->receive(max_frames);
  for (const RxFrame& frame : frames) writer_.write(now_, frame);
  return frames;
}

void PcapLink::commit_tx(std::uint32_t length_bytes) {
  const ByteView bytes = std::exchange(room_, {}).first(length_bytes);
  writer_.write(now_, {{&bytes, 1}, length_bytes});
  inner_->commit_tx(length_bytes);
}

void PcapLink::advance(Time now) {
  now_ = now;
  inner_->advance(now);
}

}  // namespace twinstack::nic
