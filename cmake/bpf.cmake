# twinstack_bpf(NAME): src/bpf/NAME.bpf.c -> object -> skeleton NAME.skel.h, as interface target twinstack_bpf_NAME.
#
# The programs carry the few kernel types that they touch (CO-RE, preserve_access_index), so the build needs no vmlinux.h.
find_program(BPF_CLANG NAMES clang-19 clang REQUIRED)
find_program(BPFTOOL bpftool PATHS /usr/sbin /sbin REQUIRED)

add_custom_target(bpf_skeletons)  # all of them, for tools that read the source

function(twinstack_bpf name)
  set(source ${PROJECT_SOURCE_DIR}/src/bpf/${name}.bpf.c)
  set(dir ${CMAKE_BINARY_DIR}/bpf)
  file(MAKE_DIRECTORY ${dir})
  add_custom_command(
    OUTPUT ${dir}/${name}.skel.h
    COMMAND ${BPF_CLANG} -target bpf -mcpu=v3 -O2 -g -Wall -Werror -I/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}
            -I${PROJECT_SOURCE_DIR}/src -MD -MF ${dir}/${name}.d -MT ${dir}/${name}.skel.h
            -c ${source} -o ${dir}/${name}.bpf.o
    COMMAND ${BPFTOOL} gen skeleton ${dir}/${name}.bpf.o name ${name}_bpf > ${dir}/${name}.skel.h
    DEPENDS ${source}
    DEPFILE ${dir}/${name}.d
    VERBATIM)
  add_custom_target(bpf_${name} DEPENDS ${dir}/${name}.skel.h)
  add_dependencies(bpf_skeletons bpf_${name})
  add_library(twinstack_bpf_${name} INTERFACE)
  target_include_directories(twinstack_bpf_${name} SYSTEM INTERFACE ${dir})
  target_link_libraries(twinstack_bpf_${name} INTERFACE PkgConfig::LIBBPF)
  add_dependencies(twinstack_bpf_${name} bpf_${name})
endfunction()
