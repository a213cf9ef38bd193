// Reading one JSON object strictly: each key by its type, no key left over.
#pragma once

#include <initializer_list>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/base/json.h"
#include "deepspeed/config/key_lines.h"

namespace deepspeed::config {

// The numbers that a key takes; all must be finite.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_itself = true; // is min one of them?
  bool max_itself = true;
};
inline constexpr double kNoLimit = std::numeric_limits<double>::infinity();
inline constexpr Range kAny{};
inline constexpr Range kNotNegative{0.0};
inline constexpr Range kPositive{0.0, kNoLimit, false};
inline constexpr Range kFraction{0.0, 1.0};
inline constexpr Range kBelowOne{0.0, 1.0, true, false};
inline constexpr Range kCount{1.0}; // of an integer: 1 or more

// What stands for "auto": the program's value, and the flag that gives it.
template <class T>
struct Auto {
  std::optional<T> value;
  const char* flag;
};

// The text being read: makes errors and collects warnings.
class Document {
 public:
  Document(std::string source, KeyLines lines)
      : source_(std::move(source)), lines_(std::move(lines)) {}

  // "ds_config.json:12 zero_optimization.stage"
  std::string place(const std::string& path) const;
  // Error(config) at a key.
  [[noreturn]] void fail(
      const std::string& what,
      const std::string& path,
      const std::string& hint) const;
  void warn(const std::string& path, const std::string& text);

  std::vector<std::string> warnings;
  // The paths of all keys that were asked for: what the parser knows.
  std::set<std::string> asked;

 private:
  std::string source_;
  KeyLines lines_;
};

// One object, or an absent one: then everything keeps its default. A null is
// the same as no key. Whoever reads a section calls finish() at its end.
class Section {
 public:
  // `json` may be null; otherwise an object. It and `document` must outlive
  // the section.
  Section(Document& document, const base::Json* json, std::string path);

  // Is the key there (and not null)?
  bool has(const std::string& key);
  // The value of a key that may be true, false or an object.
  std::optional<bool> boolean(const std::string& key);
  // Is the value this word, in any case?
  bool is_word(const std::string& key, const std::string& word);
  Section child(const std::string& key);

  void read(const std::string& key, bool& value);
  void read(const std::string& key, std::string& value);
  // An integer may be written 5e8.
  void read(const std::string& key, int64_t& value, Range range);
  void read(const std::string& key, double& value, Range range);
  // A number or an array of at least one.
  void read(const std::string& key, std::vector<double>& value, Range range);
  template <class T>
  void read(const std::string& key, T& value, Range range, Auto<T> automatic);
  // One of a few words, case ignored if `any_case`.
  template <class E>
  void read(
      const std::string& key,
      E& value,
      std::initializer_list<std::pair<const char*, E>> words,
      bool any_case = false);

  // Replaces "auto" by the program's value, or fails. False: not "auto".
  template <class T>
  bool read_auto(const std::string& key, T& value, const Auto<T>& automatic);

  // A key that is not taken, whatever its value.
  void refuse(const std::string& key, const std::string& reason);
  // The same, but false, or a block with "enabled" false or "auto", is what
  // happens anyway: it gives a warning.
  void refuse_removed(const std::string& key, const std::string& reason);
  // A key that is taken with one value only.
  void refuse_unless(
      const std::string& key,
      const base::Json& only,
      const std::string& reason);
  // A key that changes nothing here: another value than the default, of the
  // same type, gives a warning with the reason.
  void no_effect(
      const std::string& key,
      const base::Json& standard,
      const std::string& reason);
  // A block of a feature that is not here: it may stand in the file as long as
  // "enabled" is false.
  void refuse_enabled(
      const std::string& key,
      const std::vector<std::string>& keys,
      const std::string& reason);

  // Error for a key that nothing above asked for, with the nearest one.
  void finish();

  [[noreturn]] void fail(
      const std::string& key,
      const std::string& what,
      const std::string& hint);
  void warn(const std::string& key, const std::string& text);
  void warn_block(const std::string& text);
  std::string path(const std::string& key) const;

 private:
  const base::Json* find(const std::string& key);
  [[noreturn]] void wrong_type(const std::string& key, const char* wanted);
  // `origin` says where the value comes from, if not from the text.
  void check(
      const std::string& key,
      double value,
      Range range,
      const std::string& origin = "");
  double number(const std::string& key, const base::Json& json, Range range);
  size_t word(
      const std::string& key,
      const std::vector<std::string>& words,
      bool any_case);
  [[noreturn]] void no_auto(const std::string& key, const char* flag);

  Document& document_;
  const base::Json* json_;
  std::string path_;
  std::vector<std::string> known_;
};

template <class T>
bool Section::read_auto(
    const std::string& key,
    T& value,
    const Auto<T>& automatic) {
  if (!is_word(key, "auto")) {
    return false;
  }
  if (!automatic.value) {
    no_auto(key, automatic.flag);
  }
  value = *automatic.value;
  return true;
}

template <class T>
void Section::read(
    const std::string& key,
    T& value,
    Range range,
    Auto<T> automatic) {
  if (read_auto(key, value, automatic)) {
    check(key, static_cast<double>(value), range, automatic.flag);
  } else {
    read(key, value, range);
  }
}

template <class E>
void Section::read(
    const std::string& key,
    E& value,
    std::initializer_list<std::pair<const char*, E>> words,
    bool any_case) {
  if (!has(key)) {
    return;
  }
  std::vector<std::string> names;
  for (const auto& [name, meaning] : words) {
    names.emplace_back(name);
  }
  value = (words.begin() + word(key, names, any_case))->second;
}

} // namespace deepspeed::config
