// The line on which each key of a JSON text stands.
#include "deepspeed/config/key_lines.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "deepspeed/base/json.h"

namespace deepspeed::config {
namespace {

// Bounds the memory for hostile texts.
constexpr size_t kMaxPath = 200;

struct Object {
  bool is_array = false;
  // Of the object itself; absent inside arrays and beyond kMaxPath.
  std::optional<std::string> path;
  std::string key; // the last one that was read
};

// The offset behind the string that starts at `start`.
size_t end_of_string(std::string_view text, size_t start) {
  size_t i = start + 1;
  while (i < text.size() && text[i] != '"') {
    i += text[i] == '\\' ? 2 : 1;
  }
  return std::min(i + 1, text.size());
}

// The offset behind the comment that starts at `start`.
size_t end_of_comment(std::string_view text, size_t start) {
  const std::string_view end = text.substr(start, 2) == "//" ? "\n" : "*/";
  const size_t found = text.find(end, start + 2);
  return found == std::string_view::npos ? text.size() : found + end.size();
}

std::optional<std::string> joined(const Object& object) {
  if (object.is_array || !object.path ||
      object.path->size() + object.key.size() >= kMaxPath) {
    return std::nullopt;
  }
  return object.path->empty() ? object.key : *object.path + "." + object.key;
}

} // namespace

KeyLines::KeyLines(std::string_view text) {
  std::vector<Object> open;
  bool wants_key = false;
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    size_t behind = i + 1;
    switch (text[i]) {
      case '{':
      case '[':
        open.push_back(
            {text[i] == '[',
             open.empty() ? std::string() : joined(open.back()),
             ""});
        wants_key = text[i] == '{';
        break;
      case '}':
      case ']':
        open.pop_back();
        wants_key = false;
        break;
      case ',':
        wants_key = !open.back().is_array;
        break;
      case '/':
        behind = end_of_comment(text, i);
        break;
      case '"':
        behind = end_of_string(text, i);
        if (wants_key) {
          open.back().key =
              base::Json::parse(text.substr(i, behind - i)).get<std::string>();
          if (const auto path = joined(open.back())) {
            lines_.emplace(*path, line);
          }
          wants_key = false;
        }
        break;
    }
    line += static_cast<int>(
        std::count(text.begin() + i, text.begin() + behind, '\n'));
    i = behind;
  }
}

int KeyLines::line(const std::string& path) const {
  const auto found = lines_.find(path);
  return found == lines_.end() ? 0 : found->second;
}

} // namespace deepspeed::config
