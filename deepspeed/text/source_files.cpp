// The files of a data set: what a folder holds, and which split each belongs
// to.
#include "deepspeed/text/source_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "deepspeed/base/error.h"

namespace deepspeed::text {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

enum class Split { none, train, valid, test };

struct SplitWord {
  std::string_view word;
  Split split;
};
// SPLIT_KEYWORDS of datasets/data_files.py.
constexpr std::array<SplitWord, 10> kSplitWords{
    {{"train", Split::train},
     {"training", Split::train},
     {"valid", Split::valid},
     {"validation", Split::valid},
     {"val", Split::valid},
     {"dev", Split::valid},
     {"test", Split::test},
     {"testing", Split::test},
     {"eval", Split::test},
     {"evaluation", Split::test}}};

std::string name_of(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::valid:
      return "valid";
    case Split::test:
      return "test";
    case Split::none:
      break;
  }
  return "";
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return result;
}

// Which files of a folder are taken: those of the first kind that is there.
enum class Kind { text, json, table, other };

Kind kind_of(const std::string& name) {
  const std::string plain = lower(plain_name(name));
  switch (format_of_name(name)) {
    case TextFormat::lines:
      return plain.ends_with(".txt") ? Kind::text : Kind::other;
    case TextFormat::csv:
    case TextFormat::tsv:
      return Kind::table;
    default:
      break;
  }
  if (!plain.ends_with(".json")) {
    return Kind::text;
  }
  // What `datasets` keeps beside the data.
  for (const char* about :
       {"config.json",
        "dataset_dict.json",
        "dataset_info.json",
        "dataset_infos.json",
        "state.json"}) {
    if (plain == about) {
      return Kind::other;
    }
  }
  return Kind::json;
}

// A file of a folder.
struct Found {
  std::string path;
  std::string name; // relative to the folder
  Kind kind;
  Split split = Split::none;
  bool by_folder = false; // the split

  bool is_top() const {
    return name.find('/') == std::string::npos;
  }
  std::string file_name() const {
    return name.substr(name.rfind('/') + 1);
  }
  // Without the endings that say a format.
  std::string stem() const {
    const std::string plain(plain_name(file_name()));
    return plain.substr(0, plain.rfind('.'));
  }
};

// What a file or folder is, under whatever names.
using FileId = std::pair<dev_t, ino_t>;

// Nothing if it cannot be reached.
std::optional<FileId> id_of(const fs::path& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0
      ? std::optional(FileId{info.st_dev, info.st_ino})
      : std::nullopt;
}

// Looks through a folder, real folders before those behind links.
class Search {
 public:
  explicit Search(const std::string& path) : top_(path) {
    linked_.push_back(path);
    for (size_t i = 0; i < linked_.size(); ++i) {
      walk(linked_[i]);
    }
    std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
      return a.name < b.name;
    });
  }

  std::vector<Found> found;
  std::vector<LeftOut> left_out;

 private:
  std::string name_of(const fs::path& path) const {
    return path.lexically_relative(top_).string();
  }
  void walk(const fs::path& folder) {
    const auto id = id_of(folder);
    if (id && !seen_.insert(*id).second) {
      left_out.push_back({name_of(folder), "a folder that is taken already"});
      return;
    }
    std::error_code error;
    std::vector<fs::directory_entry> entries;
    for (fs::directory_iterator entry(folder, error);
         !error && entry != fs::directory_iterator();
         entry.increment(error)) {
      entries.push_back(*entry);
    }
    if (error) {
      throw Error(
          ExitCode::no_input,
          "cannot read folder: " + error.message(),
          folder.string(),
          "");
    }
    std::sort(entries.begin(), entries.end());
    for (const fs::directory_entry& entry : entries) {
      take(entry);
    }
  }
  void take(const fs::directory_entry& entry) {
    const fs::path& path = entry.path();
    const std::string file = path.filename().string();
    std::error_code ignored;
    if (file.starts_with(".")) {
      left_out.push_back({name_of(path), "hidden"});
    } else if (entry.is_directory(ignored)) {
      if (entry.is_symlink(ignored)) {
        linked_.push_back(path);
      } else {
        walk(path);
      }
    } else if (const Kind kind = kind_of(file); kind != Kind::other) {
      found.push_back({path.string(), name_of(path), kind});
    } else {
      left_out.push_back({name_of(path), "no text by its name"});
    }
  }

  fs::path top_;
  std::vector<fs::path> linked_; // to walk
  std::set<FileId> seen_;
};

// Moves files for which `take` says no to those left out.
template <typename Take>
void keep(
    std::vector<Found>& found,
    std::vector<LeftOut>& left_out,
    const std::string& reason,
    const Take& take) {
  const auto rest = std::stable_partition(found.begin(), found.end(), take);
  for (auto file = rest; file != found.end(); ++file) {
    left_out.push_back({file->name, reason});
  }
  found.erase(rest, found.end());
}

void keep_one_kind(std::vector<Found>& found, std::vector<LeftOut>& left_out) {
  Kind first = Kind::other;
  for (const Found& file : found) {
    first = std::min(first, file.kind);
  }
  keep(
      found,
      left_out,
      first == Kind::text ? "beside .txt or .jsonl" : "beside .json",
      [&](const Found& file) { return file.kind == first; });
}

void refuse_two_forms(const std::vector<Found>& found) {
  std::map<std::string, const Found*> plain_names;
  for (const Found& file : found) {
    const auto [other, is_new] =
        plain_names.emplace(plain_name(file.name), &file);
    if (!is_new) {
      throw Error(
          ExitCode::data,
          "the same file compressed and not",
          other->second->path + " and " + file.path,
          "remove one of them, or give a file instead of the folder");
    }
  }
}

// The split that the words of `text` name; Split::none without one.
Split split_of(std::string_view text, const std::string& path) {
  Split split = Split::none;
  std::string words = lower(text);
  for (size_t begin = 0; begin < words.size();) {
    size_t end = begin;
    while (end < words.size() &&
           std::string_view("-._ /0123456789").find(words[end]) ==
               std::string_view::npos) {
      ++end;
    }
    const std::string_view word =
        std::string_view(words).substr(begin, end - begin);
    for (const SplitWord& known : kSplitWords) {
      if (known.word != word) {
        continue;
      }
      if (split != Split::none && split != known.split) {
        throw Error(
            ExitCode::data,
            "the name says two splits: " + name_of(split) + " and " +
                name_of(known.split),
            path,
            "rename it, or give a file instead of the folder");
      }
      split = known.split;
    }
    begin = end + 1;
  }
  return split;
}

void find_splits(std::vector<Found>& found) {
  for (Found& file : found) {
    const size_t slash = file.name.rfind('/');
    if (slash != std::string::npos) {
      file.split = split_of(file.name.substr(0, slash), file.path);
      file.by_folder = file.split != Split::none;
    }
    if (!file.by_folder) {
      file.split = split_of(file.stem(), file.path);
    }
  }
}

// A file "train.txt" at the top is the split, whatever else has its name.
void keep_whole_split(
    std::vector<Found>& found,
    std::vector<LeftOut>& left_out,
    Split split) {
  const auto is_whole = [&](const Found& file) {
    const std::string stem = lower(file.stem());
    return file.split == split && file.is_top() &&
        std::any_of(
               kSplitWords.begin(), kSplitWords.end(), [&](const auto& known) {
                 return known.word == stem;
               });
  };
  const auto whole = std::find_if(found.begin(), found.end(), is_whole);
  if (whole == found.end()) {
    return;
  }
  const auto second = std::find_if(whole + 1, found.end(), is_whole);
  if (second != found.end()) {
    throw Error(
        ExitCode::data,
        "two files of the split \"" + name_of(split) + "\"",
        whole->path + " and " + second->path,
        "remove one of them, or give a file instead of the folder");
  }
  const std::string name = whole->name;
  keep(found, left_out, "beside " + name, [&](const Found& file) {
    return file.split != split || file.name == name;
  });
}

SourceFile opened(const std::string& path, const std::string& name) {
  const FileStamp stamp = stamp_of(path);
  return {
      path,
      name,
      stamp,
      detect_format([&] { return open_file(path, stamp); }, path)};
}

Source source_of(
    const std::string& folder,
    const std::vector<Found>& found,
    Split split) {
  Source source{folder, {}};
  for (const Found& file : found) {
    if (file.split == split) {
      source.files.push_back(opened(file.path, file.name));
    }
  }
  if (source.files.size() == 1) {
    source.path = source.files[0].path;
  }
  return source;
}

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

Source source_of_file(const std::string& path) {
  return {path, {opened(path, fs::path(path).filename().string())}};
}

Search search(const std::string& path) {
  Search all(path);
  if (all.found.empty()) {
    throw Error(
        ExitCode::no_input,
        "no text in this folder",
        path,
        "it needs files that end in .txt, .jsonl, .json or .csv, or in these "
        "with .gz, .zst, .xz or .bz2");
  }
  keep_one_kind(all.found, all.left_out);
  refuse_two_forms(all.found);
  return all;
}

void sort_by_name(std::vector<LeftOut>& left_out) {
  std::sort(left_out.begin(), left_out.end(), [](const auto& a, const auto& b) {
    return a.name < b.name;
  });
}

bool has(const std::vector<Found>& found, Split split) {
  return std::any_of(found.begin(), found.end(), [&](const Found& file) {
    return file.split == split;
  });
}

// With splits. Files of none are Split::train if no other file is.
Search search_splits(const std::string& path) {
  Search all = search(path);
  find_splits(all.found);
  for (const Split split : {Split::train, Split::valid, Split::test}) {
    keep_whole_split(all.found, all.left_out, split);
  }
  if (has(all.found, Split::train)) {
    keep(all.found, all.left_out, "of no split", [](const Found& file) {
      return file.split != Split::none;
    });
  }
  return all;
}

} // namespace

Dataset dataset_at(const std::string& path) {
  if (!is_folder(path)) {
    return {source_of_file(path), {}, {}, {}};
  }
  Search all = search_splits(path);
  for (Found& file : all.found) {
    if (file.split == Split::none) {
      file.split = Split::train;
    }
  }
  if (!has(all.found, Split::train)) {
    throw Error(
        ExitCode::no_input,
        "no text to train on: all files of this folder are held out by name",
        path,
        "give a file, or a folder of which valid and test are a part");
  }
  Dataset dataset{
      source_of(path, all.found, Split::train),
      source_of(path, all.found, Split::valid),
      source_of(path, all.found, Split::test),
      std::move(all.left_out)};
  for (const SourceFile& file : dataset.test.files) {
    dataset.left_out.push_back({file.name, "test"});
  }
  sort_by_name(dataset.left_out);
  return dataset;
}

Source held_out_at(const std::string& path) {
  if (!is_folder(path)) {
    return source_of_file(path);
  }
  const Search all = search_splits(path);
  for (const Split split : {Split::valid, Split::none}) {
    if (has(all.found, split)) {
      return source_of(path, all.found, split);
    }
  }
  throw Error(
      ExitCode::data,
      "no split \"valid\" in this folder",
      path,
      "give the file to evaluate with");
}

Source list_source(const std::string& path) {
  return is_folder(path) ? source_of(path, search(path).found, Split::none)
                         : source_of_file(path);
}

void evaluate_with(Source held_out, Dataset& dataset) {
  std::set<FileId> ids;
  for (const SourceFile& file : held_out.files) {
    if (const auto id = id_of(file.path)) {
      ids.insert(*id);
    }
  }
  const auto is_held_out = [&](const SourceFile& file) {
    const auto id = id_of(file.path);
    return id && ids.contains(*id);
  };
  std::vector<SourceFile> rest;
  for (const SourceFile& file : dataset.train.files) {
    if (is_held_out(file)) {
      dataset.left_out.push_back({file.name, "held out for evaluation"});
    } else {
      rest.push_back(file);
    }
  }
  if (rest.empty()) {
    throw Error(
        ExitCode::config,
        "the text to train on is the one to evaluate with",
        dataset.train.path,
        "leave --validation_file out, or name another file");
  }
  for (const SourceFile& file : dataset.valid.files) {
    if (!is_held_out(file)) {
      dataset.left_out.push_back({file.name, "--validation_file is given"});
    }
  }
  dataset.train.files = std::move(rest);
  dataset.valid = std::move(held_out);
  sort_by_name(dataset.left_out);
}

} // namespace deepspeed::text
