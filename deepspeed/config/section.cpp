// Reading one JSON object strictly: each key by its type, no key left over.
#include "deepspeed/config/section.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "deepspeed/base/error.h"

namespace deepspeed::config {
namespace {

using base::Json;

// The value as JSON, cut for one line of a message.
std::string shown(const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) {
    // Not in the middle of a UTF-8 character.
    size_t end = 57;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
      --end;
    }
    text = text.substr(0, end) + "...";
  }
  return text;
}

std::string shown(double value) {
  constexpr double kMostDigits = 1e18;
  if (value == std::trunc(value) && std::abs(value) < kMostDigits) {
    return std::to_string(static_cast<int64_t>(value));
  }
  std::ostringstream text;
  text.precision(15);
  text << value;
  return text.str();
}

std::string wanted(Range range) {
  const bool has_min = std::isfinite(range.min);
  const bool has_max = std::isfinite(range.max);
  std::string text = "it must be ";
  if (has_min) {
    text += range.min_itself ? "at least " : "greater than ";
    text += shown(range.min);
  }
  text += has_min && has_max ? " and " : "";
  if (has_max) {
    text += range.max_itself ? "at most " : "less than ";
    text += shown(range.max);
  }
  return has_min || has_max ? text : "it must be finite";
}

// Of a key that is shown: no control characters, one line.
std::string printable(std::string text) {
  constexpr size_t kMaxShown = 120;
  if (text.size() > kMaxShown) {
    text = text.substr(0, kMaxShown) + "...";
  }
  for (char& c : text) {
    c = c < 0x20 || c > 0x7e ? '?' : c;
  }
  return text;
}

// base::nearest_name, but not for monsters: it is quadratic.
std::string nearest_word(
    const std::string& name,
    const std::vector<std::string>& words) {
  return name.size() <= 100 ? base::nearest_name(name, words) : "";
}

std::string lower(std::string text) {
  for (char& c : text) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return text;
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    text += (text.empty() ? "\"" : ", \"") + word + "\"";
  }
  return text;
}

bool same_kind(const Json& a, const Json& b) {
  return a.is_number() ? b.is_number() : a.type() == b.type();
}

} // namespace

std::string Document::place(const std::string& path) const {
  const int line = lines_.line(path);
  std::string text = source_;
  text += line > 0 ? ":" + std::to_string(line) : "";
  return path.empty() ? text : text + " " + printable(path);
}

void Document::fail(
    const std::string& what,
    const std::string& path,
    const std::string& hint) const {
  throw base::Error(base::ExitCode::config, what, place(path), hint);
}

void Document::warn(const std::string& path, const std::string& text) {
  warnings.push_back(place(path) + ": " + text);
}

Section::Section(Document& document, const Json* json, std::string path)
    : document_(document), json_(json), path_(std::move(path)) {
  if (json_ != nullptr && !json_->is_object()) {
    document_.fail(
        (path_.empty() ? "the configuration" : path_) +
            " must be an object, not " + shown(*json_),
        path_,
        "write { ... }");
  }
}

std::string Section::path(const std::string& key) const {
  return path_.empty() ? key : path_ + "." + key;
}

void Section::fail(
    const std::string& key,
    const std::string& what,
    const std::string& hint) {
  document_.fail(what, path(key), hint);
}

void Section::warn(const std::string& key, const std::string& text) {
  document_.warn(path(key), text);
}

void Section::warn_block(const std::string& text) {
  document_.warn(path_, text);
}

const Json* Section::find(const std::string& key) {
  known_.push_back(key);
  document_.asked.insert(path(key));
  if (json_ == nullptr) {
    return nullptr;
  }
  const auto found = json_->find(key);
  return found == json_->end() || found->is_null() ? nullptr : &*found;
}

bool Section::has(const std::string& key) {
  return find(key) != nullptr;
}

Section Section::child(const std::string& key) {
  return Section(document_, find(key), path(key));
}

void Section::wrong_type(const std::string& key, const char* wanted) {
  const Json& json = json_->at(key);
  std::string hint;
  if (json == "auto") {
    hint = "\"auto\" is not possible for this key";
  } else if (json.is_string()) {
    const Json inner =
        Json::parse(json.get_ref<const std::string&>(), nullptr, false);
    hint = inner.is_number() || inner.is_boolean()
        ? "write " + shown(inner) + " without quotes"
        : "";
  }
  fail(key, key + " must be " + wanted + ", not " + shown(json), hint);
}

void Section::check(
    const std::string& key,
    double value,
    Range range,
    const std::string& origin) {
  const bool above = range.min_itself ? value >= range.min : value > range.min;
  const bool below = range.max_itself ? value <= range.max : value < range.max;
  if (!above || !below || !std::isfinite(value)) {
    fail(
        key,
        key + " is " + shown(value) +
            (origin.empty() ? "" : " (\"auto\": " + origin + ")"),
        wanted(range));
  }
}

double Section::number(const std::string& key, const Json& json, Range range) {
  if (!json.is_number()) {
    wrong_type(key, "a number");
  }
  const double value = json.get<double>();
  check(key, value, range);
  return value;
}

void Section::read(const std::string& key, bool& value) {
  if (const Json* json = find(key)) {
    if (!json->is_boolean()) {
      wrong_type(key, "true or false");
    }
    value = json->get<bool>();
  }
}

void Section::read(const std::string& key, std::string& value) {
  if (const Json* json = find(key)) {
    if (!json->is_string()) {
      wrong_type(key, "a text");
    }
    value = json->get<std::string>();
  }
}

void Section::read(const std::string& key, double& value, Range range) {
  if (const Json* json = find(key)) {
    value = number(key, *json, range);
  }
}

void Section::read(const std::string& key, int64_t& value, Range range) {
  const Json* json = find(key);
  if (json == nullptr) {
    return;
  }
  // Beyond 2^53 a double no longer says which integer was meant.
  constexpr double kExact = 9007199254740992.0;
  range.min = std::max(range.min, -kExact);
  range.max = std::min(range.max, kExact);
  const bool integral = json->is_number() &&
      !(json->get<double>() != std::trunc(json->get<double>()));
  if (!integral) {
    wrong_type(key, "an integer");
  }
  value = static_cast<int64_t>(number(key, *json, range));
}

void Section::read(
    const std::string& key,
    std::vector<double>& value,
    Range range) {
  const Json* json = find(key);
  if (json == nullptr) {
    return;
  }
  if (!json->is_array()) {
    value = {number(key, *json, range)};
    return;
  }
  if (json->empty()) {
    fail(key, key + " is an empty list", "write one number or more");
  }
  value.clear();
  for (const Json& element : *json) {
    value.push_back(number(key, element, range));
  }
}

size_t Section::word(
    const std::string& key,
    const std::vector<std::string>& words,
    bool any_case) {
  const Json* json = find(key);
  if (!json->is_string()) {
    wrong_type(key, ("one of " + listed(words)).c_str());
  }
  const std::string given = json->get<std::string>();
  for (size_t i = 0; i < words.size(); ++i) {
    if (given == words[i] || (any_case && lower(given) == lower(words[i]))) {
      return i;
    }
  }
  const std::string nearest = nearest_word(given, words);
  fail(
      key,
      key + " cannot be " + shown(*json),
      (nearest.empty() ? "" : "did you mean \"" + nearest + "\"? ") +
          "it is one of " + listed(words));
}

std::optional<bool> Section::boolean(const std::string& key) {
  const Json* json = find(key);
  return json != nullptr && json->is_boolean()
      ? std::optional<bool>(json->get<bool>())
      : std::nullopt;
}

bool Section::is_word(const std::string& key, const std::string& word) {
  const Json* json = find(key);
  return json != nullptr && json->is_string() &&
      lower(json->get<std::string>()) == lower(word);
}

void Section::no_auto(const std::string& key, const char* flag) {
  fail(
      key,
      key + " is \"auto\", but the program gives no value for it",
      std::string("give the program ") + flag + ", or write a value");
}

void Section::refuse(const std::string& key, const std::string& reason) {
  if (has(key)) {
    fail(key, key + " is not supported: " + reason, "remove the key");
  }
}

void Section::refuse_unless(
    const std::string& key,
    const Json& only,
    const std::string& reason) {
  const Json* json = find(key);
  if (json != nullptr && (!same_kind(*json, only) || *json != only)) {
    fail(
        key,
        key + " " + shown(*json) + " is not supported: " + reason,
        only.is_null() ? "remove the key"
                       : "remove the key, or set it to " + shown(only));
  }
}

void Section::refuse_removed(
    const std::string& key,
    const std::string& reason) {
  const Json* json = find(key);
  if (json == nullptr) {
    return;
  }
  const bool off = *json == false ||
      (json->is_object() && json->contains("enabled") &&
       ((*json)["enabled"] == false || (*json)["enabled"] == "auto"));
  if (!off) {
    fail(key, key + " is not supported: " + reason, "remove the key");
  }
  warn(key, "is switched off and has no effect: " + reason);
}

void Section::no_effect(
    const std::string& key,
    const Json& standard,
    const std::string& reason) {
  const Json* json = find(key);
  if (json == nullptr || *json == standard) {
    return;
  }
  if (!standard.is_null() && !same_kind(*json, standard)) {
    wrong_type(key, ("like " + shown(standard)).c_str());
  }
  warn(key, shown(*json) + " has no effect: " + reason);
}

void Section::refuse_enabled(
    const std::string& key,
    const std::vector<std::string>& keys,
    const std::string& reason) {
  Section block = child(key);
  bool enabled = false;
  block.read("enabled", enabled);
  if (enabled) {
    fail(key, key + " is not supported: " + reason, "remove the block");
  }
  for (const std::string& name : keys) {
    block.has(name);
  }
  block.finish();
}

void Section::finish() {
  if (json_ == nullptr) {
    return;
  }
  for (const auto& [key, value] : json_->items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) {
      continue;
    }
    const std::string nearest = nearest_word(key, known_);
    fail(
        key,
        "unknown key " + shown(key),
        nearest.empty() ? "docs/configuration.md lists the keys"
                        : "did you mean \"" + nearest + "\"?");
  }
}

} // namespace deepspeed::config
