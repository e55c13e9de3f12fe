# One target per folder; the folders are the layers: fuse -> vfs -> dfs -> smb.
# A layer's tests link its DEPS only, so a call that points upward fails to link; cmake/check_layers.py
# does the same for includes.

set(DFSCSI_WARNINGS -Wall -Wextra -Wshadow -Wswitch -Wimplicit-fallthrough -Werror
    -Wthread-safety -Wno-unused-parameter -Wno-missing-designated-field-initializers)

add_compile_options(-fno-omit-frame-pointer -fstack-protector-strong)
add_link_options(-fuse-ld=lld)
if(DFSCSI_SANITIZE)
  add_compile_options(-fsanitize=${DFSCSI_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${DFSCSI_SANITIZE})
else()
  add_compile_options($<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
endif()
if(DFSCSI_FUZZ)
  # Coverage feedback in every object; the fuzzer's main comes with the fuzz targets alone.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)

# dfscsi_library(<name> SRCS ... DEPS ...)     adds library dfscsi::<name>
function(dfscsi_library name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "" "SRCS;DEPS")
  add_library(dfscsi_${name} STATIC ${ARG_SRCS})
  add_library(dfscsi::${name} ALIAS dfscsi_${name})
  target_include_directories(dfscsi_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(dfscsi_${name} PRIVATE ${DFSCSI_WARNINGS})
  target_link_libraries(dfscsi_${name} PUBLIC ${ARG_DEPS})
endfunction()

# dfscsi_program(<name> SRCS ... DEPS ...)     adds a program; the release build's land in build/bin
function(dfscsi_program name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "" "SRCS;DEPS")
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${DFSCSI_WARNINGS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${DFSCSI_BIN_DIR})
endfunction()

# dfscsi_test(<name> SRCS ... DEPS ...)        adds CTest <name>, label "unit"
function(dfscsi_test name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "LABEL;TIMEOUT" "SRCS;DEPS")
  add_executable(${name} ${ARG_SRCS})
  target_compile_options(${name} PRIVATE ${DFSCSI_WARNINGS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120) # Seconds.
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS ${ARG_LABEL})
endfunction()

# dfscsi_fuzz(<name> SRCS ... DEPS ... CORPUS dir)  adds a libFuzzer program (DFSCSI_FUZZ), and in every
# build the test <name>_corpus, which runs the corpus once through the same entry point.
function(dfscsi_fuzz name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "CORPUS" "SRCS;DEPS")
  get_filename_component(corpus ${ARG_CORPUS} ABSOLUTE)
  file(APPEND ${PROJECT_BINARY_DIR}/fuzz_targets.txt "${name} ${corpus}\n")
  if(DFSCSI_FUZZ)
    add_executable(${name} ${ARG_SRCS})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${ARG_SRCS} ${PROJECT_SOURCE_DIR}/node-agent/testing/corpus_main.cc)
    add_test(NAME ${name}_corpus COMMAND ${name} ${corpus})
    set_tests_properties(${name}_corpus PROPERTIES TIMEOUT 120 LABELS unit)
  endif()
  target_compile_options(${name} PRIVATE ${DFSCSI_WARNINGS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
endfunction()
file(WRITE ${PROJECT_BINARY_DIR}/fuzz_targets.txt "")

# dfscsi_bench(<name> SRCS ... DEPS ...)       adds a google-benchmark program, run by `make bench`
function(dfscsi_bench name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "" "SRCS;DEPS")
  add_executable(${name} ${ARG_SRCS})
  target_compile_options(${name} PRIVATE ${DFSCSI_WARNINGS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} benchmark::benchmark_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
endfunction()

if(NOT DFSCSI_BIN_DIR)
  set(DFSCSI_BIN_DIR ${PROJECT_BINARY_DIR}/bin)
endif()
