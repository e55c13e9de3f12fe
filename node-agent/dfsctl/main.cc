// dfsctl: the administrator's tool.

#include <stdio.h>

#include <string>
#include <string_view>
#include <vector>

#include "node-agent/dfsctl/direct.h"

namespace {

struct Command {
  std::string_view name;
  absl::Status (*run)(const std::vector<std::string>& arguments);
  std::string_view usage;
};

constexpr Command kCommands[] = {
    {"get", dfscsi::dfsctl::Get, "get SOURCE [FILE] --credentials FILE [-o OPTIONS]"},
    {"ls", dfscsi::dfsctl::Ls, "ls SOURCE --credentials FILE [-o OPTIONS]"},
};

int Usage() {
  fputs("usage:\n", stderr);
  for (const Command& command : kCommands) {
    fprintf(stderr, "  dfsctl %s\n", std::string(command.usage).c_str());
  }
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return Usage();
  for (const Command& command : kCommands) {
    if (command.name != argv[1]) continue;
    const absl::Status status = command.run({argv + 2, argv + argc});
    if (status.ok()) return 0;
    fprintf(stderr, "dfsctl: %s\n", std::string(status.message()).c_str());
    return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
  }
  return Usage();
}
