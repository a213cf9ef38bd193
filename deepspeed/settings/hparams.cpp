// hparams.json: the settings of an experiment, in HelloDeepSpeed's format.
#include "deepspeed/settings/hparams.h"

#include <array>
#include <cstdio>
#include <limits>

#include "deepspeed/base/crc32c.h"
#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/base/log.h"
#include "deepspeed/file/atomic_file.h"

namespace deepspeed::settings {
namespace {

using base::Error;
using base::ExitCode;
using base::Json;

constexpr uint64_t kMostBytes = 1 << 20;
constexpr const char* kAsWritten = "as_written";
constexpr const char* kChecksum = "as_written_crc32c";

// `value` for a message: its beginning, if it is long.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  if (text.size() > 60) {
    text = text.substr(0, 57) + "...";
  }
  return text;
}

// Writes a JSON value into a field; returns what was expected if it is not
// that.
struct Assign {
  const Json& value;

  const char* operator()(int64_t* to) const {
    // nlohmann keeps what does not fit into int64 as uint64 or double.
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() &&
         value.get<uint64_t>() >
             static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))) {
      return "a whole number";
    }
    *to = value.get<int64_t>();
    return nullptr;
  }
  const char* operator()(double* to) const {
    // Python writes 0 for a flag that was given as 0.
    if (!value.is_number()) {
      return "a number";
    }
    *to = value.get<double>();
    return nullptr;
  }
  const char* operator()(bool* to) const {
    if (!value.is_boolean()) {
      return "true or false";
    }
    *to = value.get<bool>();
    return nullptr;
  }
  const char* operator()(std::string* to) const {
    if (!value.is_string()) {
      return "a text";
    }
    *to = value.get<std::string>();
    return nullptr;
  }
};

[[noreturn]] void refuse_key(
    const std::string& key,
    const std::vector<Setting>& fields,
    const std::string& source) {
  std::vector<std::string> names;
  for (const Setting& field : fields) {
    if (field.stored) {
      names.push_back(field.name);
    }
  }
  const std::string nearest = base::nearest_name(key, names);
  throw Error(
      ExitCode::data,
      "unknown key " + shown(key),
      source,
      nearest.empty() ? "" : "did you mean \"" + nearest + "\"?");
}

// "name": value, for each stored field that has one.
std::string pairs_text(Settings settings, const std::string& separator) {
  std::string text;
  for (const Setting& field : fields_of(settings)) {
    std::string value = value_text(field);
    const bool is_unknown = !field.is_flag && (value.empty() || value == "0");
    if (!field.stored || is_unknown ||
        (field.engine_only && !settings.engine.enabled)) {
      continue;
    }
    if (std::holds_alternative<std::string*>(field.value)) {
      value = Json(value).dump(-1, ' ', /*ensure_ascii=*/true);
    }
    text +=
        (text.empty() ? "\"" : separator + "\"") + field.name + "\": " + value;
  }
  return text;
}

Json parse_document(std::string_view text, const std::string& source) {
  return base::parse_json(text, source, {.comments = false, .max_depth = 16});
}

// Of the values, however they are laid out.
std::string checksum(const Json& document) {
  std::array<char, 9> text{};
  std::snprintf(
      text.data(), text.size(), "%08x", base::crc32c(document.dump()));
  return text.data();
}

Settings settings_of(
    const Json& document,
    const std::string& source,
    const Settings& defaults) {
  if (!document.is_object()) {
    throw Error(
        ExitCode::data,
        "settings must be a JSON object, not " + shown(document),
        source,
        "");
  }
  Settings settings = defaults;
  // An experiment of before this setting goes on as it began.
  settings.optimizer.balance_batches = false;
  const std::vector<Setting> fields = fields_of(settings);
  for (const auto& [key, value] : document.items()) {
    if (key == kAsWritten || key == kChecksum) {
      continue;
    }
    const Setting* found = nullptr;
    for (const Setting& field : fields) {
      if (field.stored && field.name == key) {
        found = &field;
      }
    }
    if (found == nullptr) {
      refuse_key(key, fields, source);
    }
    const char* expected = std::visit(Assign{value}, found->value);
    if (expected != nullptr) {
      throw Error(
          ExitCode::data,
          key + " must be " + expected + ", not " + shown(value),
          source,
          "");
    }
  }
  return settings;
}

} // namespace

std::string to_hparams(const Settings& settings) {
  return "{\n  " + pairs_text(settings, ",\n  ") + "\n}";
}

std::string to_hparams_file(const Settings& settings) {
  const std::string copy =
      "{\n    " + pairs_text(settings, ",\n    ") + "\n  }";
  return "{\n  " + pairs_text(settings, ",\n  ") + ",\n  \"" + kAsWritten +
      "\": " + copy + ",\n  \"" + kChecksum + "\": \"" +
      checksum(parse_document(copy, kAsWritten)) + "\"\n}";
}

std::vector<SettingChange> changes_by_hand(
    std::string_view text,
    const std::string& source,
    const Settings& defaults) {
  const Json document = parse_document(text, source);
  const auto written = document.find(kAsWritten);
  if (written == document.end()) {
    return {};
  }
  std::vector<SettingChange> changes = differences(
      settings_of(*written, source + ": " + kAsWritten, defaults),
      settings_of(document, source, defaults));
  const Json stored = document.value(kChecksum, Json());
  if (changes.empty() && stored != checksum(*written)) {
    changes.push_back(
        {"both copies in hparams.json, checksum",
         shown(stored),
         shown(checksum(*written))});
  }
  return changes;
}

Settings parse_hparams(
    std::string_view text,
    const std::string& source,
    const Settings& defaults) {
  return settings_of(parse_document(text, source), source, defaults);
}

Settings read_hparams(const std::string& path, const Settings& defaults) {
  const std::string text = file::read_file(path, kMostBytes);
  const Settings settings = parse_hparams(text, path, defaults);
  for (const SettingChange& change : changes_by_hand(text, path, defaults)) {
    base::log_info(
        "changed by hand: " + change.name + " " + change.from + " -> " +
        change.to);
  }
  return settings;
}

} // namespace deepspeed::settings
