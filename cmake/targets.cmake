# The packet path goes through wire, tcp, ipc and engine in many small functions. The programs that are named to
# twinstack_inline_across() are optimised as a whole at their link (a fifth of the instructions of a packet less); the
# tests are not, since each such link takes seconds: the objects carry both forms. GCC only: clang needs lld for it.
# Frame pointers cost these functions a fifteenth of their time; .eh_frame, which a backtrace can use instead, stays.
set(TWINSTACK_PATH_LIBRARIES wire tcp ipc engine)
# GCC's usual limits leave some thirty calls in the path of a packet, each with its saving of registers: a tenth of its
# instructions.
set(TWINSTACK_PATH_OPTIONS
  -O3 -fomit-frame-pointer -flto=auto -ffat-lto-objects
  "SHELL:--param max-inline-insns-auto=400" "SHELL:--param inline-min-speedup=2"
  "SHELL:--param inline-unit-growth=150" "SHELL:--param large-function-insns=20000"
  "SHELL:--param large-function-growth=1000" "SHELL:--param large-stack-frame-growth=4000")
set(TWINSTACK_INLINE_ACROSS OFF)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo" AND NOT TWINSTACK_SANITIZE)
  set(TWINSTACK_INLINE_ACROSS ON)
  add_link_options($<IF:$<BOOL:$<TARGET_PROPERTY:TWINSTACK_INLINE_ACROSS>>,-flto=auto,-fno-lto>)
endif()

function(twinstack_inline_across)
  set_target_properties(${ARGN} PROPERTIES TWINSTACK_INLINE_ACROSS ${TWINSTACK_INLINE_ACROSS})
endfunction()

# twinstack_light(TARGET...): whose own speed does not matter is built in less time.
function(twinstack_light)
  foreach(target ${ARGN})
    target_compile_options(${target} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O1>)
  endforeach()
endfunction()

# twinstack_library(NAME SOURCES a.cc ... [DEPS target ...] [TESTS a_test.cc ...] [TEST_DEPS target ...])
#
# One static library per folder; the link list says who may know whom. Unit tests stand beside their source and
# become one program per folder, NAME_test, that CTest runs.
add_custom_target(unit_tests)  # all of them and what they need, nothing else

function(twinstack_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;TESTS;TEST_DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(twinstack_${name} STATIC ${ARG_SOURCES})
    target_include_directories(twinstack_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
    target_link_libraries(twinstack_${name} PUBLIC ${ARG_DEPS})
    if(TWINSTACK_INLINE_ACROSS AND name IN_LIST TWINSTACK_PATH_LIBRARIES)
      target_compile_options(twinstack_${name} PRIVATE ${TWINSTACK_PATH_OPTIONS})
    endif()
  else()
    add_library(twinstack_${name} INTERFACE)
    target_include_directories(twinstack_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
    target_link_libraries(twinstack_${name} INTERFACE ${ARG_DEPS})
  endif()
  if(ARG_TESTS)
    add_executable(${name}_test ${ARG_TESTS})
    target_link_libraries(${name}_test PRIVATE twinstack_${name} ${ARG_TEST_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
    twinstack_light(${name}_test)
    add_dependencies(unit_tests ${name}_test)
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES TIMEOUT 300)
  endif()
endfunction()
