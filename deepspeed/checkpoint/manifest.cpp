// ds_manifest.json: which files make a checkpoint, with their hashes.
#include "deepspeed/checkpoint/manifest.h"

#include <unordered_set>

#include "deepspeed/base/content_hash.h"
#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/formats/dtype.h"

namespace deepspeed::checkpoint {
namespace {

using base::Json;

constexpr int64_t kFormatVersion = 1;
constexpr const char* kFormat = "deepspeed.cpp checkpoint";
constexpr const char* kHash = "hash";
constexpr size_t kHashDigits = 32;

// Of the members without the hash itself, in their order.
std::string own_hash(Json json) {
  json.erase(kHash);
  const std::string text = json.dump();
  base::ContentHash hash;
  hash.update(std::as_bytes(std::span(text.data(), text.size())));
  return hash.hex();
}

[[noreturn]] void fail(const std::string& what, const std::string& source) {
  throw base::Error(
      base::ExitCode::data,
      "not a whole manifest: " + what,
      source,
      "the file is damaged or was edited: take another checkpoint");
}

// The member of a type, or an error that names it.
template <typename T>
T get(const Json& json, const char* key, const std::string& source) {
  const auto found = json.find(key);
  if (found == json.end()) {
    fail(std::string("no ") + key, source);
  }
  if constexpr (std::is_same_v<T, std::string>) {
    if (found->is_string()) {
      return found->template get<T>();
    }
  } else if (found->is_number_integer() && *found >= 0) {
    return found->template get<T>();
  }
  fail(std::string(key) + " is of the wrong type", source);
}

std::vector<FileRecord> parse_files(
    const Json& json,
    const std::string& source) {
  const auto found = json.find("files");
  if (found == json.end() || !found->is_array() || found->empty()) {
    fail("no files", source);
  }
  std::vector<FileRecord> files;
  std::unordered_set<std::string> names;
  for (const Json& entry : *found) {
    if (!entry.is_object()) {
      fail("a file that is no object", source);
    }
    FileRecord file;
    file.name = get<std::string>(entry, "name", source);
    file.size = get<uint64_t>(entry, "size", source);
    file.hash = get<std::string>(entry, "xxh3_128", source);
    // The same characters as a tag: one path component, never "..".
    if (!is_tag(file.name) || !names.insert(file.name).second) {
      fail("a file of a strange name or named twice", source);
    }
    if (file.hash.size() != kHashDigits) {
      fail("the hash of " + file.name + " has a strange length", source);
    }
    files.push_back(std::move(file));
  }
  return files;
}

} // namespace

std::string manifest_text(const Manifest& manifest) {
  Json json{
      {"format", kFormat},
      {"format_version", kFormatVersion},
      {"tag", manifest.tag},
      {"run_id", manifest.run_id},
      {"stage", manifest.stage},
      {"ranks", manifest.ranks},
      {"dtype", manifest.dtype},
      {"global_steps", manifest.global_steps}};
  Json files = Json::array();
  for (const FileRecord& file : manifest.files) {
    files.push_back(
        {{"name", file.name}, {"size", file.size}, {"xxh3_128", file.hash}});
  }
  json["files"] = std::move(files);
  json["extra"] = manifest.extra;
  json[kHash] = own_hash(json);
  return json.dump(1) + "\n";
}

Manifest parse_manifest(const std::string& text, const std::string& source) {
  Json json;
  try {
    json = base::parse_json(text, source, {.comments = false});
  } catch (const base::Error& error) {
    fail(error.what(), source);
  }
  if (!json.is_object() ||
      get<std::string>(json, "format", source) != kFormat) {
    fail("it is of another kind", source);
  }
  if (get<std::string>(json, kHash, source) != own_hash(json)) {
    fail("its text does not match its hash", source);
  }
  if (const auto version = get<int64_t>(json, "format_version", source);
      version != kFormatVersion) {
    throw base::Error(
        base::ExitCode::config,
        "a manifest of format version " + std::to_string(version) +
            ", this program knows version " + std::to_string(kFormatVersion),
        source,
        "use a newer deepspeed.cpp");
  }
  Manifest manifest;
  manifest.tag = get<std::string>(json, "tag", source);
  manifest.run_id = get<std::string>(json, "run_id", source);
  manifest.stage = get<int>(json, "stage", source);
  manifest.ranks = get<int>(json, "ranks", source);
  manifest.dtype = get<std::string>(json, "dtype", source);
  manifest.global_steps = get<int64_t>(json, "global_steps", source);
  manifest.files = parse_files(json, source);
  manifest.extra = json.value("extra", Json::object());
  return manifest;
}

} // namespace deepspeed::checkpoint
