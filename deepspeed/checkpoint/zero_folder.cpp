// The folder of a checkpoint: which tags it has, and which files a tag has.
#include "deepspeed/checkpoint/zero_folder.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>

#include "deepspeed/base/content_hash.h"
#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/zero_keys.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

constexpr uint64_t kMaxLatestBytes = 256;
constexpr size_t kHashBlockBytes = size_t{16} << 20;

// What follows a complaint about a tag that is not whole.
constexpr const char* kTakeAnother =
    "take another tag, or put back a copy of this one";

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) {
    throw base::system_error(
        ExitCode::no_input, "cannot read the folder", folder, error.value());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A mapping to hash block by block, so that a file larger than the memory does
// not push everything else out.
std::string hash_of(const file::MappedFile& file) {
  base::ContentHash hash;
  const auto bytes = file.bytes();
  for (size_t at = 0; at < bytes.size(); at += kHashBlockBytes) {
    hash.update(
        bytes.subspan(at, std::min(kHashBlockBytes, bytes.size() - at)));
    file.release_pages();
  }
  return hash.hex();
}

// What the names in a tag's folder say.
struct Listing {
  bool model = false;
  std::map<int, std::string> shards;
};

[[noreturn]] void refuse_kind(const std::string& what, const std::string& at) {
  throw Error(
      ExitCode::config,
      what,
      at,
      "deepspeed.cpp reads ZeRO stages 0, 1 and 2 of plain data parallelism");
}

Listing list_files(const std::string& path) {
  using Kind = ZeroFile::Kind;
  Listing listing;
  for (const std::string& name : names_in(path)) {
    const ZeroFile file = parse_zero_file_name(name);
    switch (file.kind) {
      case Kind::stage3_states:
        refuse_kind("a checkpoint of ZeRO stage 3", join(path, name));
      case Kind::model_parallel:
        refuse_kind("a checkpoint of a model in parts", join(path, name));
      case Kind::experts:
        refuse_kind("a checkpoint of a mixture of experts", join(path, name));
      case Kind::model_states:
        listing.model = true;
        break;
      case Kind::shard_states: {
        const auto [found, is_new] = listing.shards.emplace(file.rank, name);
        if (!is_new) {
          throw Error(
              ExitCode::data,
              "two shards of rank " + std::to_string(file.rank) + ": " +
                  found->second + " and " + name,
              path,
              kTakeAnother);
        }
        break;
      }
      case Kind::other:
        break;
    }
  }
  if (!listing.model) {
    throw Error(
        ExitCode::data,
        "no " + std::string(kModelStatesFile),
        path,
        kTakeAnother);
  }
  return listing;
}

// Shards are numbered without gaps; whether the last ones are there, the
// contents tell.
void check_numbering(const Listing& listing, const std::string& path) {
  std::string missing;
  int expected = 0;
  for (const auto& [rank, name] : listing.shards) {
    for (; expected < rank; ++expected) {
      if (missing.size() < 200) {
        missing += (missing.empty() ? "" : ", ") + std::to_string(expected);
      }
    }
    ++expected;
  }
  if (!missing.empty()) {
    throw Error(
        ExitCode::data,
        "the shards of ranks " + missing + " are missing",
        path,
        kTakeAnother);
  }
}

// All throw if the manifest does not speak for the files.
void check_sizes(const Manifest& manifest, const std::string& path) {
  std::string missing;
  for (const FileRecord& file : manifest.files) {
    std::error_code error;
    const uint64_t size = fs::file_size(join(path, file.name), error);
    if (error) {
      missing += (missing.empty() ? "" : ", ") + file.name;
    } else if (size != file.size) {
      throw Error(
          ExitCode::data,
          "the file has " + std::to_string(size) +
              " bytes, the manifest says " + std::to_string(file.size),
          join(path, file.name),
          kTakeAnother);
    }
  }
  if (!missing.empty()) {
    throw Error(ExitCode::data, "missing: " + missing, path, kTakeAnother);
  }
}

void check_names(
    const Manifest& manifest,
    const Listing& listing,
    const std::string& path) {
  std::set<std::string> listed;
  for (const FileRecord& file : manifest.files) {
    listed.insert(file.name);
  }
  for (const auto& [rank, name] : listing.shards) {
    if (!listed.contains(name)) {
      throw Error(
          ExitCode::data,
          name + " does not belong to this checkpoint",
          path,
          "remove it if you know where it came from");
    }
  }
  if (!listed.contains(std::string(kModelStatesFile))) {
    throw Error(
        ExitCode::data,
        "the manifest lacks " + std::string(kModelStatesFile),
        path,
        kTakeAnother);
  }
}

void check_hashes(const Manifest& manifest, const std::string& path) {
  for (const FileRecord& record : manifest.files) {
    const file::MappedFile file(join(path, record.name));
    if (file.checked([&] { return hash_of(file); }) != record.hash) {
      throw Error(
          ExitCode::data,
          "the bytes do not match the hash in the manifest",
          file.path(),
          kTakeAnother);
    }
  }
}

std::string read_manifest_text(const std::string& path) {
  // Not what never ends: a pipe, a device.
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    throw Error(ExitCode::data, "not a regular file", path, kTakeAnother);
  }
  return file::read_file(path, kMaxManifestBytes);
}

// The manifest if it speaks for the files; else null, and why not if there is
// one.
base::Json take_manifest(
    const std::string& folder,
    const Listing& listing,
    bool verify,
    std::string* passed_over) {
  const std::string path = join(folder, kManifestFile);
  std::error_code ignored;
  if (fs::symlink_status(path, ignored).type() == fs::file_type::not_found) {
    return nullptr;
  }
  try {
    const std::string text = read_manifest_text(path);
    const Manifest manifest = parse_manifest(text, path);
    check_sizes(manifest, folder);
    check_names(manifest, listing, folder);
    if (verify) {
      check_hashes(manifest, folder);
    }
    return base::parse_json(text, path);
  } catch (const Error& error) {
    if (error.code() != ExitCode::data && error.code() != ExitCode::no_input) {
      throw;
    }
    *passed_over = error.where() + ": " + error.what();
    return nullptr;
  }
}

ZeroTagFile open_file(
    const std::string& path,
    const std::string& name,
    bool verify_checksums) {
  ZeroTagFile file;
  file.path = join(path, name);
  file.mapping = std::make_shared<const file::MappedFile>(file.path);
  formats::TorchFileOptions options;
  options.verify_checksums = verify_checksums;
  options.after_block = [&] { file.mapping->release_pages(); };
  file.value = file.mapping->checked([&] {
    return formats::parse_torch_file(
        file.mapping->bytes(), file.mapping, file.path, options);
  });
  file.mapping->release_pages();
  return file;
}

} // namespace

std::optional<std::string> read_latest(const std::string& folder) {
  const std::string path = join(folder, kLatestFile);
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    return std::nullopt;
  }
  const auto fail = [&](const std::string& what) {
    throw Error(ExitCode::data, what, path, "write the name of a tag into it");
  };
  if (!fs::is_regular_file(status)) {
    fail("not a regular file");
  }
  std::string text = file::read_file(path, kMaxLatestBytes);
  constexpr const char* kSpace = " \t\r\n";
  text.erase(0, text.find_first_not_of(kSpace));
  text.erase(text.find_last_not_of(kSpace) + 1);
  if (!is_tag(text)) {
    fail(text.empty() ? "it is empty" : "it does not hold the name of a tag");
  }
  return text;
}

int64_t steps_of_tag(const std::string& path) {
  try {
    formats::TorchFileOptions options;
    options.verify_checksums = false;
    const formats::Value value =
        formats::load_torch_file(join(path, kModelStatesFile), options);
    const formats::Value* steps = value.find(zero_keys::kGlobalSteps);
    const int64_t* number =
        steps == nullptr ? nullptr : steps->get_if<int64_t>();
    return number == nullptr ? -1 : *number;
  } catch (const Error&) {
    return -1;
  }
}

std::optional<Manifest> committed_manifest(const std::string& path) {
  try {
    const std::string file = join(path, kManifestFile);
    Manifest manifest = parse_manifest(read_manifest_text(file), file);
    check_sizes(manifest, path);
    return manifest;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<std::string> list_tags(const std::string& folder) {
  // Step and time of each.
  std::vector<std::tuple<int64_t, fs::file_time_type, std::string>> found;
  for (const std::string& name : names_in(folder)) {
    const std::string path = join(folder, name);
    std::error_code error;
    const fs::file_time_type time =
        fs::last_write_time(join(path, kModelStatesFile), error);
    if (is_tag(name) && !error) {
      found.emplace_back(steps_of_tag(path), time, name);
    }
  }
  std::sort(found.rbegin(), found.rend());
  std::vector<std::string> tags;
  for (auto& [step, time, name] : found) {
    tags.push_back(std::move(name));
  }
  return tags;
}

bool has_tag(const std::string& folder, const std::string& tag) {
  std::error_code ignored;
  return fs::is_directory(join(folder, tag), ignored);
}

ZeroTag open_tag(
    const std::string& path,
    bool verify,
    std::string* passed_over) {
  ZeroTag out;
  out.path = path;
  const Listing listing = list_files(path);
  out.manifest = take_manifest(path, listing, verify, passed_over);
  check_numbering(listing, path);
  const bool verify_checksums = verify && out.manifest.is_null();
  out.model = open_file(path, std::string(kModelStatesFile), verify_checksums);
  for (const auto& [rank, name] : listing.shards) {
    out.shards.push_back(open_file(path, name, verify_checksums));
  }
  return out;
}

} // namespace deepspeed::checkpoint
