// Memory in huge pages: a table of many connections that is touched everywhere otherwise waits more for the address
// translation than for the memory.
#pragma once

#include <cstddef>
#include <span>

#include "base/result.h"

namespace twinstack {

inline constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;  // x86-64, and arm64 with pages of 4 KiB

// mmap(2) of the first `bytes` of `fd`, shared, for reading and writing; what is as large as a huge page begins at the
// boundary of one, without which it could not lie in any. The caller unmaps it. Errors: those of mmap(2).
Result<std::byte*> map_shared(int fd, std::size_t bytes);

// Gives the whole huge pages within `memory` their memory now, and in huge pages, whatever
// /sys/kernel/mm/transparent_hugepage says of pages that nobody asks for (madvise(2), MADV_COLLAPSE, Linux 6.1). False:
// there are none, or the kernel cannot or has not got them; the memory is as good as before.
bool use_huge_pages(std::span<std::byte> memory) noexcept;

}  // namespace twinstack
