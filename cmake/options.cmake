# Warnings, sanitizers and the libraries that come from Debian's packages.

option(TWINSTACK_FUZZ "Build the libFuzzer targets (clang only)" OFF)
set(TWINSTACK_SANITIZE "" CACHE STRING "Sanitizers to build with, as for -fsanitize=")

# Line numbers and names for backtraces: full debugging information takes a third of the build's time. The debug preset
# has it.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
if(TWINSTACK_SANITIZE)
  set(CMAKE_C_FLAGS_DEBUG "-O1 -g1")
  set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")
endif()

add_compile_options(-Wall -Wextra -Wconversion -Wshadow -Werror -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wthread-safety>)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # As clang: a function of ours is the one that was compiled, so it may be inlined into its neighbours.
  add_compile_options(-fno-semantic-interposition)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    # GCC 12 clears a struct of 40 bytes and more by `rep stos`, which takes some 30 cycles to begin.
    add_compile_options(-mmemset-strategy=vector_loop:1024:noalign,libcall:-1:noalign)
  endif()
endif()
if(TWINSTACK_SANITIZE)
  add_compile_options(-fsanitize=${TWINSTACK_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${TWINSTACK_SANITIZE})
endif()

# Eight sources are compiled together: half the time of a whole build, since most of a small file's time is its headers'.
# Without it a change of one file is built faster, and each file is seen to include what it needs.
option(TWINSTACK_UNITY "Compile several sources together" ON)
set(CMAKE_UNITY_BUILD ${TWINSTACK_UNITY})
set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
if(TWINSTACK_UNITY AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)  # takes a source for a header then
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(GTest REQUIRED)
find_package(benchmark REQUIRED)
pkg_check_modules(LIBBPF REQUIRED IMPORTED_TARGET libbpf)
pkg_check_modules(LIBXDP REQUIRED IMPORTED_TARGET libxdp)
pkg_check_modules(LIBNL_ROUTE REQUIRED IMPORTED_TARGET libnl-route-3.0)
