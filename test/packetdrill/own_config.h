// The portable stack's Config as the script's namespace has it: sysctls, and the MTU of tun0.
#pragma once

#include "flags.h"
#include "stack/config.h"

namespace twinstack::packetdrill {

// Before the first read_host_settings().
[[nodiscard]] stack::Config first_config(const Flags& flags);
// What a script may change between two of its lines. What cannot be read stays as it is.
void read_host_settings(stack::Config& config);

}  // namespace twinstack::packetdrill
