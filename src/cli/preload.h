// How a program comes under the socket layer: where the preload library is, and whether a program will take it. Reads
// files; changes nothing. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace twinstack::cli {

inline constexpr const char* kPreloadFile = "libtwinstack-preload.so";
inline constexpr const char* kPreloadVariable = "TWINSTACK_PRELOAD";  // environment: another path

// The library's absolute path: `override_path` when not empty, else beside the executable `self` (../lib, which is also
// where the build tree has it, and the installed library folder). kNotFound names the places that were tried.
Result<std::string> find_preload_library(const std::string& self, const std::string& override_path);

// The file that execvp() would take: `program` itself when it has a '/', else the first of $PATH. kNotFound.
Result<std::string> find_program(const std::string& program, std::string_view search_path);

enum class Reception : std::uint8_t {
  kTaken,     // the loader will take the library
  kStatic,    // no dynamic loader: nothing is preloaded
  kSetuid,    // runs with other rights than the caller's: the loader takes no library from the caller
  kOtherAbi,  // built for another word size or machine than the library
  kUnknown,   // not readable, or no ELF file and no script
};

// Looks at the file and, for a script, at its interpreter.
[[nodiscard]] Reception reception_of(const std::string& start);
// Why its connections stay in the kernel; empty for kTaken and kUnknown.
[[nodiscard]] std::string_view explanation(Reception reception) noexcept;

// "LIBRARY" or "LIBRARY:WHAT WAS THERE".
[[nodiscard]] std::string preload_value(const std::string& library, std::string_view existing);

}  // namespace twinstack::cli
