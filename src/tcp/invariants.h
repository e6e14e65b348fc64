// What must hold of a control block between two calls, whatever program, peer and network do. For tests, simulator and
// fuzzers: walks the whole flight.
#pragma once

#include "tcp/control_block.h"

namespace twinstack::tcp {

// nullptr, or what is wrong, in words.
[[nodiscard]] const char* broken_invariant(const ControlBlock& cb) noexcept;

}  // namespace twinstack::tcp
