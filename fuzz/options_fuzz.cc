// Any bytes as TCP options: what was read can be written and reads the same again.
#include <array>
#include <cstdint>

#include "base/assert.h"
#include "wire/tcp_options.h"

namespace twinstack {
namespace {

void run(const std::uint8_t* data, std::size_t size) {
  const ByteView bytes(reinterpret_cast<const std::byte*>(data), std::min<std::size_t>(size, wire::kMaxOptionBytes));
  wire::TcpOptions options;
  (void)wire::parse_options(bytes, options);
  ASSERT(options.sack_count <= wire::kMaxSackBlocks);
  const std::uint32_t needed = wire::options_bytes(options);
  ASSERT(needed % 4 == 0 && needed <= wire::kMaxOptionBytes);
  std::array<std::byte, wire::kMaxOptionBytes> out;
  ASSERT(wire::write_options(std::span(out).first(needed), options) == needed);
  wire::TcpOptions again;
  ASSERT(wire::parse_options(std::span(out).first(needed), again));
  // Blocks that do not fit beside the others are left out; what an option without its flag carried is not written.
  ASSERT(again.sack_count <= options.sack_count);
  for (std::size_t i = 0; i < again.sack_count; ++i) ASSERT(again.sack[i] == options.sack[i]);
  ASSERT(again.has_timestamps == options.has_timestamps && again.ts_val == options.ts_val &&
         again.ts_ecr == options.ts_ecr);
  ASSERT(again.has_mss == options.has_mss && again.mss == options.mss);
  ASSERT(again.has_window_scale == options.has_window_scale && again.sack_permitted == options.sack_permitted);
}

}  // namespace
}  // namespace twinstack

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  twinstack::run(data, size);
  return 0;
}
