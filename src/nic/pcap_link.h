// PcapWriter, PcapLink: frames into a pcap file (magic of nanosecond resolution, link type Ethernet), for tcpdump,
// tshark, Wireshark. This is the one part of src/nic that does file I/O; it is a target of its own (twinstack_nic_pcap)
// and never part of a production data path.
//
// Output is buffered: it is complete when the writer is gone, or after flush_file(). When the file cannot be written
// (disk full) the recording ends, not the traffic; failure() says so. One thread at a time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "nic/link.h"

namespace twinstack::nic {

class PcapWriter {
 public:
  // Makes or empties the file. `epoch_offset` is added to every time: the wall-clock time of Time's zero.
  static Result<PcapWriter> create(const std::string& path, Duration epoch_offset = Duration(0));

  void write(Time when, const RxFrame& frame);
  // Puts what is buffered into the file.
  Result<> flush_file();
  // The first failure to write; nothing was written after it.
  [[nodiscard]] const std::optional<Error>& failure() const noexcept { return failure_; }

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  PcapWriter(std::FILE* file, std::string path, Duration epoch_offset)
      : file_(file), path_(std::move(path)), epoch_offset_(epoch_offset) {}
  void put(const void* bytes, std::size_t length);

  std::unique_ptr<std::FILE, Close> file_;
  std::string path_;
  Duration epoch_offset_;
  std::optional<Error> failure_;
};

// Writes what is received and what is committed for sending, in the order in which it happens, stamped with the time
// that advance() said last.
class PcapLink final : public Link {
 public:
  // REQUIRES: inner is not null.
  PcapLink(std::unique_ptr<Link> inner, PcapWriter writer);

  std::span<const RxFrame> receive(std::size_t max_frames) override;
  void release() override { inner_->release(); }
  std::span<std::byte> allocate_tx() override { return room_ = inner_->allocate_tx(); }
  void commit_tx(std::uint32_t length_bytes) override;
  std::size_t tx_room() override { return inner_->tx_room(); }
  void flush() override { inner_->flush(); }
  void kick() override { inner_->kick(); }
  [[nodiscard]] int poll_fd() const override { return inner_->poll_fd(); }
  [[nodiscard]] Time next_event() const override { return inner_->next_event(); }
  void advance(Time now) override;
  [[nodiscard]] const LinkInfo& info() const override { return inner_->info(); }
  [[nodiscard]] LinkStats stats() const override { return inner_->stats(); }

  [[nodiscard]] PcapWriter& writer() noexcept { return writer_; }

 private:
  std::unique_ptr<Link> inner_;
  PcapWriter writer_;
  Time now_{};
  std::span<std::byte> room_;
};

}  // namespace twinstack::nic
