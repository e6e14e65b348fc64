// An application's messages by bytes: no read beyond them, and what is decoded says the same when it is written again.
// What comes of them: sessions_fuzz.cc.
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "input.h"
#include "ipc/client_message.h"

namespace twinstack {
namespace {

void try_message(std::span<const std::byte> bytes, bool brings_descriptors) {
  const auto decoded = ipc::decode_client_message(bytes, brings_descriptors);
  if (!decoded.has_value()) return;
  std::visit(
      [&](const auto& message) {
        ASSERT(bytes.size() == sizeof(message) && std::memcmp(&message, bytes.data(), sizeof(message)) == 0);
      },
      *decoded);
}

}  // namespace
}  // namespace twinstack

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace twinstack;
  // On the heap and of exactly this length, so that a sanitizer sees a byte too many.
  const std::vector<std::uint8_t> copy(data, data + size);
  const auto bytes = std::as_bytes(std::span(copy));
  static_cast<void>(ipc::decode_hello(bytes));
  try_message(bytes, false);
  try_message(bytes, true);
  return 0;
}
