#include "cli/preload.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace twinstack::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class PreloadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/ts-cli-preload.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string put(const std::string& name, const std::string& content, fs::perms mode = fs::perms::owner_all) {
    const fs::path path = fs::path(root_) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    fs::permissions(path, mode);
    return path.string();
  }

  // The head of a program with one segment of this type.
  static std::string elf(unsigned char word_class, std::uint32_t segment_type) {
    Elf64_Ehdr header{};
    std::string(ELFMAG).copy(reinterpret_cast<char*>(header.e_ident), SELFMAG);
    header.e_ident[EI_CLASS] = word_class;
    std::ifstream own("/proc/self/exe", std::ios::binary);
    Elf64_Ehdr ours{};
    own.read(reinterpret_cast<char*>(&ours), sizeof ours);
    header.e_machine = ours.e_machine;
    header.e_phoff = sizeof header;
    header.e_phnum = 1;
    header.e_phentsize = sizeof(Elf64_Phdr);
    Elf64_Phdr segment{};
    segment.p_type = segment_type;
    return std::string(reinterpret_cast<const char*>(&header), sizeof header) +
           std::string(reinterpret_cast<const char*>(&segment), sizeof segment);
  }

  std::string root_;
};

TEST_F(PreloadTest, LibraryIsFoundBesideTheBinary) {
  const std::string self = root_ + "/bin/twinstack";
  const auto none = find_preload_library(self, "");
  ASSERT_FALSE(none.has_value()) << "installed on this machine: " << *none;
  EXPECT_THAT(none.error().message(), HasSubstr(root_ + "/lib"));
  const std::string library = put("lib/libtwinstack-preload.so", "x");
  EXPECT_EQ(find_preload_library(self, ""), library);
}

TEST_F(PreloadTest, TheOverrideWinsAndMustExist) {
  put("lib/libtwinstack-preload.so", "x");
  const std::string other = put("other.so", "x");
  EXPECT_EQ(find_preload_library(root_ + "/bin/twinstack", other), other);
  const auto missing = find_preload_library(root_ + "/bin/twinstack", root_ + "/none.so");
  ASSERT_FALSE(missing.has_value());
  EXPECT_THAT(missing.error().message(), HasSubstr("TWINSTACK_PRELOAD="));
}

TEST_F(PreloadTest, ProgramsAreFoundAsExecvpFindsThem) {
  const std::string tool = put("a/tool", "x");
  put("b/tool", "x");
  put("c/plain", "x", fs::perms::owner_read);
  const std::string path = root_ + "/none:" + root_ + "/c:" + root_ + "/a:" + root_ + "/b";
  EXPECT_EQ(find_program("tool", path), tool);
  EXPECT_EQ(find_program(tool, ""), tool);
  EXPECT_FALSE(find_program("plain", path).has_value());
  EXPECT_FALSE(find_program("tool", "").has_value());
  EXPECT_FALSE(find_program("", path).has_value());
  EXPECT_FALSE(find_program(root_ + "/a", "").has_value());  // a folder
}

TEST_F(PreloadTest, TellsWhatTheLoaderWillDo) {
  EXPECT_EQ(reception_of("/proc/self/exe"), Reception::kTaken);
  EXPECT_EQ(reception_of(put("dynamic", elf(ELFCLASS64, PT_INTERP))), Reception::kTaken);
  EXPECT_EQ(reception_of(put("static", elf(ELFCLASS64, PT_LOAD))), Reception::kStatic);
  EXPECT_EQ(reception_of(put("small", elf(ELFCLASS32, PT_INTERP))), Reception::kOtherAbi);
  EXPECT_EQ(reception_of(put("cut", elf(ELFCLASS64, PT_INTERP).substr(0, 70))), Reception::kUnknown);
  EXPECT_EQ(reception_of(put("text", "hello")), Reception::kUnknown);
  EXPECT_EQ(reception_of(root_ + "/none"), Reception::kUnknown);
  EXPECT_THAT(std::string(explanation(Reception::kStatic)), HasSubstr("statically"));
  EXPECT_EQ(explanation(Reception::kTaken), "");
}

TEST_F(PreloadTest, ScriptsAreWhatTheirInterpreterIs) {
  const std::string interpreter = put("static", elf(ELFCLASS64, PT_LOAD));
  const std::string script = put("script", "#! " + interpreter + " -x\n");
  EXPECT_EQ(reception_of(script), Reception::kStatic);
  EXPECT_EQ(reception_of(put("second", "#!" + script + "\n")), Reception::kStatic);
  EXPECT_EQ(reception_of(put("loop", "#!" + root_ + "/loop\n")), Reception::kUnknown);
  EXPECT_EQ(reception_of(put("empty", "#!\n")), Reception::kUnknown);
}

TEST_F(PreloadTest, SetuidProgramsAreNoticed) {
  if (::getuid() != 0) GTEST_SKIP() << "needs root: gives a file away";
  const std::string file = put("setuid", elf(ELFCLASS64, PT_INTERP));
  ASSERT_EQ(::chmod(file.c_str(), 04755), 0);
  EXPECT_EQ(reception_of(file), Reception::kTaken);  // root's own: nobody gains anything
  ASSERT_EQ(::chown(file.c_str(), 61001, 0), 0);
  ASSERT_EQ(::chmod(file.c_str(), 04755), 0);  // chown() took the bit away
  EXPECT_EQ(reception_of(file), Reception::kSetuid);
}

TEST(PreloadValue, KeepsWhatWasThere) {
  EXPECT_EQ(preload_value("/l.so", ""), "/l.so");
  EXPECT_EQ(preload_value("/l.so", "/a.so:/b.so"), "/l.so:/a.so:/b.so");
}

}  // namespace
}  // namespace twinstack::cli
