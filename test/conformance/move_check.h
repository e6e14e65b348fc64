// move_check: what a move between the stacks must leave as it was in TCP_INFO. Pure.
#pragma once

#include <string>

#include "endpoint.h"

namespace twinstack::conformance {

// What has changed that must not, of the fields that a program can hold us to (docs/limits.md), by a move to `to`;
// empty: nothing. A field that one of them lacks has changed, unless the connection is over for both.
[[nodiscard]] std::string changed_by_move(const Info& before, const Info& after, Stack to);

}  // namespace twinstack::conformance
