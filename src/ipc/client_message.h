// What an application may send over its socket, decoded and checked as far as the bytes alone allow. Trusts nothing.
// Pure; any thread.
#pragma once

#include <cstddef>
#include <span>
#include <variant>

#include "base/result.h"
#include "ipc/messages.h"

namespace twinstack::ipc {

using ClientMessage = std::variant<Register, Close, Upload, Query>;

// The first message; kProtocol also when library and service are of different versions.
[[nodiscard]] Result<Hello> decode_hello(std::span<const std::byte> bytes);

// Any later one. `brings_descriptors`: some came with it, or were lost on the way. Errors: kProtocol, with what is wrong.
[[nodiscard]] Result<ClientMessage> decode_client_message(std::span<const std::byte> bytes, bool brings_descriptors);

}  // namespace twinstack::ipc
