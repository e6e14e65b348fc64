#include "cli/preload.h"

#include <elf.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

namespace twinstack::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxInterpreters = 4;  // of scripts whose interpreter is a script: as many as Linux follows
constexpr unsigned char kOurClass = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool is_executable(const std::string& path) { return is_file(path) && ::access(path.c_str(), X_OK) == 0; }

// Would the kernel start it in secure mode (AT_SECURE)? Then ld.so skips a preload from outside the system's folders.
bool gains_rights(const std::string& file) {
  struct stat status{};
  if (::stat(file.c_str(), &status) != 0) return false;
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != ::getuid()) return true;
  if ((status.st_mode & S_ISGID) != 0 && (status.st_mode & S_IXGRP) != 0 && status.st_gid != ::getgid()) return true;
  return ::getuid() != 0 && ::getxattr(file.c_str(), "security.capability", nullptr, 0) > 0;
}

template <typename T>
std::optional<T> read_at(std::ifstream& file, std::uint64_t offset) {
  T value{};
  file.clear();
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(reinterpret_cast<char*>(&value), sizeof value);
  return file ? std::optional(value) : std::nullopt;
}

// The interpreter of a "#!" line.
std::optional<std::string> script_interpreter(std::ifstream& file) {
  file.clear();
  file.seekg(0);
  std::string line;
  std::array<char, 256> head{};
  file.read(head.data(), head.size());
  line.assign(head.data(), static_cast<std::size_t>(file.gcount()));
  if (!line.starts_with("#!")) return std::nullopt;
  const std::size_t start = line.find_first_not_of(" \t", 2);
  if (start == std::string::npos) return std::nullopt;
  return line.substr(start, line.find_first_of(" \t\n", start) - start);
}

// Only programs of our own word size are loaded together with our library, so only their header is read.
Reception elf_reception(std::ifstream& file) {
  using Header = std::conditional_t<sizeof(void*) == 8, Elf64_Ehdr, Elf32_Ehdr>;
  using Segment = std::conditional_t<sizeof(void*) == 8, Elf64_Phdr, Elf32_Phdr>;
  std::ifstream own("/proc/self/exe", std::ios::binary);
  const auto header = read_at<Header>(file, 0);
  const auto ours = read_at<Header>(own, 0);
  if (!header.has_value()) return Reception::kUnknown;
  if (header->e_ident[EI_CLASS] != kOurClass || (ours.has_value() && ours->e_machine != header->e_machine))
    return Reception::kOtherAbi;
  for (unsigned i = 0; i < header->e_phnum; ++i) {
    const auto segment = read_at<Segment>(file, header->e_phoff + std::uint64_t{i} * header->e_phentsize);
    if (!segment.has_value()) return Reception::kUnknown;
    if (segment->p_type == PT_INTERP) return Reception::kTaken;
  }
  return Reception::kStatic;
}

}  // namespace

Result<std::string> find_preload_library(const std::string& self, const std::string& override_path) {
  if (!override_path.empty()) {
    if (is_file(override_path)) return fs::absolute(override_path).string();
    return error(ErrorCode::kNotFound, fmt::format("{}={}: there is no such file", kPreloadVariable, override_path));
  }
  const fs::path folder = fs::path(self).parent_path();
  const std::vector<fs::path> places = {folder / ".." / "lib", folder / ".." / TWINSTACK_RELATIVE_LIBDIR,
                                        TWINSTACK_FULL_LIBDIR};
  std::string tried;
  for (const fs::path& place : places) {
    const fs::path candidate = (place / kPreloadFile).lexically_normal();
    if (is_file(candidate)) return candidate.string();
    const std::string folder_text = ' ' + candidate.parent_path().string();
    if (!tried.ends_with(folder_text)) tried += folder_text;
  }
  return error(ErrorCode::kNotFound,
               fmt::format("{} is in none of:{} (set {} to its path)", kPreloadFile, tried, kPreloadVariable));
}

Result<std::string> find_program(const std::string& program, std::string_view search_path) {
  if (program.find('/') != std::string::npos) {
    if (is_file(program)) return program;
    return error(ErrorCode::kNotFound, fmt::format("there is no program {}", program));
  }
  while (!program.empty() && !search_path.empty()) {
    const std::size_t end = std::min(search_path.find(':'), search_path.size());
    const std::string_view folder = search_path.substr(0, end);
    std::string candidate = fmt::format("{}/{}", folder.empty() ? "." : folder, program);
    if (is_executable(candidate)) return candidate;
    search_path.remove_prefix(std::min(end + 1, search_path.size()));
  }
  return error(ErrorCode::kNotFound, fmt::format("there is no program '{}' in $PATH", program));
}

Reception reception_of(const std::string& start) {
  std::string file = start;
  for (int depth = 0; depth <= kMaxInterpreters; ++depth) {
    std::ifstream stream(file, std::ios::binary);
    const auto magic = read_at<std::array<char, SELFMAG>>(stream, 0);
    if (!magic.has_value()) return Reception::kUnknown;
    if (std::memcmp(magic->data(), ELFMAG, SELFMAG) == 0)
      return gains_rights(file) ? Reception::kSetuid : elf_reception(stream);
    const std::optional<std::string> interpreter = script_interpreter(stream);
    if (!interpreter.has_value()) return Reception::kUnknown;
    file = *interpreter;
  }
  return Reception::kUnknown;
}

std::string_view explanation(Reception reception) noexcept {
  switch (reception) {
    case Reception::kStatic:
      return "it is linked statically, so nothing can be preloaded";
    case Reception::kSetuid:
      return "it runs with other rights than yours (setuid, setgid or file capabilities), and then nothing is "
             "preloaded";
    case Reception::kOtherAbi:
      return "it is built for another machine or word size than Twinstack's library";
    case Reception::kTaken:
    case Reception::kUnknown:
      return {};
  }
  return {};
}

std::string preload_value(const std::string& library, std::string_view existing) {
  return existing.empty() ? library : fmt::format("{}:{}", library, existing);
}

}  // namespace twinstack::cli
