// The line on which each key of a JSON text stands.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

namespace deepspeed::config {

class KeyLines {
 public:
  // Without a text, no key has a line.
  KeyLines() = default;
  // `text` was accepted by base::parse_json with comments and trailing commas.
  explicit KeyLines(std::string_view text);

  // The line (1-based) of "zero_optimization.stage", 0 if it is not known: not
  // in the text, inside an array, or with a path of over 200 bytes.
  int line(const std::string& path) const;

 private:
  std::unordered_map<std::string, int> lines_;
};

} // namespace deepspeed::config
