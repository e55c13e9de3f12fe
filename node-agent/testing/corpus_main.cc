// main() of a fuzz target outside the fuzzing build: runs every file of the corpus folder (argv[1])
// once through LLVMFuzzerTestOneInput. A crash or a sanitizer report fails the test; so does a
// corpus that is missing or empty, which would check nothing.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
    return 2;
  }
  std::error_code error;
  std::filesystem::directory_iterator files(argv[1], error);
  if (error) {
    fprintf(stderr, "%s: %s\n", argv[1], error.message().c_str());
    return 1;
  }
  int count = 0;
  for (const std::filesystem::directory_entry& file : files) {
    if (!file.is_regular_file()) continue;
    std::ifstream stream(file.path(), std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(stream), {}};
    if (!stream) {
      fprintf(stderr, "%s: cannot be read\n", file.path().c_str());
      return 1;
    }
    // A block of its own size, so that a read beyond the end is seen by AddressSanitizer.
    const std::vector<uint8_t> input(bytes.begin(), bytes.end());
    LLVMFuzzerTestOneInput(input.data(), input.size());
    ++count;
  }
  if (count == 0) {
    fprintf(stderr, "%s: no corpus\n", argv[1]);
    return 1;
  }
  printf("%d inputs\n", count);
  return 0;
}
