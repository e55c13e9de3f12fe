// How the requests and answers of simulated writers are put together.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_REQUESTS_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_REQUESTS_H_

#include <string.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace dfscsi::simulation::requests {

template <typename T>
std::string BytesOf(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
T As(const std::string& bytes, size_t offset = 0) {
  T value = {};
  if (bytes.size() >= offset + sizeof(T)) memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// `body` and a name behind it, as requests of names are.
inline std::string Named(const std::string& body, const std::string& name) {
  return absl::StrCat(body, name, std::string(1, '\0'));
}

// Of a path in a folder.
inline std::string Parent(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

inline std::string Name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace dfscsi::simulation::requests

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_REQUESTS_H_
