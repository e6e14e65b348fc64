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
  else()
    add_library(twinstack_${name} INTERFACE)
    target_include_directories(twinstack_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
    target_link_libraries(twinstack_${name} INTERFACE ${ARG_DEPS})
  endif()
  if(ARG_TESTS)
    add_executable(${name}_test ${ARG_TESTS})
    target_link_libraries(${name}_test PRIVATE twinstack_${name} ${ARG_TEST_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
    add_dependencies(unit_tests ${name}_test)
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES TIMEOUT 300)
  endif()
endfunction()
