// What a power cut may leave of operations on files, for tests.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace deepspeed::file::test {

// A name in a folder. Folders and files are numbers, whatever they are called;
// the folder that is watched is 0.
using Entry = std::pair<int, std::string>;

struct Operation {
  enum Kind { create, write, sync, rename, exchange, remove } kind;
  int node; // what is made, written, synced, moved or removed
  bool is_folder = false; // of create and sync
  Entry from = {}; // of rename, exchange and remove
  Entry to = {}; // of create, rename and exchange
  int other = -1; // of exchange: what was called `to`
  std::string bytes = {}; // of write, at the end of the file
};

// What the names stand for afterwards. Names that are not there, since what
// made them was lost, are no fault.
inline void apply(const Operation& done, std::map<Entry, int>& entries) {
  const auto has_moved = entries.find(done.from);
  if (done.kind >= Operation::rename && has_moved != entries.end() &&
      has_moved->second == done.node) {
    entries.erase(has_moved);
  }
  if (done.kind == Operation::create || done.kind == Operation::rename ||
      done.kind == Operation::exchange) {
    entries[done.to] = done.node;
  }
  if (done.kind == Operation::exchange) {
    entries[done.from] = done.other;
  }
}

// Paths below the folder and what the files hold; nothing: a folder.
using Tree = std::map<std::string, std::optional<std::string>>;

inline void make_tree(const Tree& tree, const std::string& folder) {
  for (const auto& [path, text] : tree) { // a folder before what is in it
    if (text) {
      std::ofstream(folder + path, std::ios::binary) << *text;
    } else {
      std::filesystem::create_directory(folder + path);
    }
  }
}

inline Tree tree_of(const std::string& folder) {
  Tree tree;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(folder)) {
    auto& text = tree[entry.path().string().substr(folder.size())];
    if (!entry.is_directory()) {
      std::ifstream file(entry.path(), std::ios::binary);
      text = std::string(std::istreambuf_iterator<char>(file), {});
    }
  }
  return tree;
}

// What is there when the first `n` operations were done, but for those lost.
inline Tree replay(
    const std::vector<Operation>& operations,
    size_t n,
    const std::function<bool(size_t)>& is_lost) {
  std::map<Entry, int> entries;
  std::map<int, std::string> files;
  std::set<int> folders;
  for (size_t i = 0; i < n; ++i) {
    const Operation& done = operations[i];
    if (done.is_folder) {
      folders.insert(done.node);
    }
    if (!is_lost(i)) {
      files[done.node] += done.bytes;
      apply(done, entries);
    }
  }
  Tree tree;
  const std::function<void(int, const std::string&)> list =
      [&](int folder, const std::string& path) {
        for (auto entry = entries.lower_bound({folder, ""});
             entry != entries.end() && entry->first.first == folder;
             ++entry) {
          const int node = entry->second;
          const std::string name = path + "/" + entry->first.second;
          if (folders.count(node) != 0) {
            tree[name] = std::nullopt;
            list(node, name);
          } else {
            tree[name] = files[node];
          }
        }
      };
  list(0, "");
  return tree;
}

// A sync of a file makes its bytes durable, a sync of a folder its names.
inline bool is_synced_by(const Operation& done, const Operation& sync) {
  if (done.kind == Operation::write) {
    return !sync.is_folder && done.node == sync.node;
  }
  const Entry& entry = done.kind == Operation::remove ? done.from : done.to;
  return sync.is_folder && entry.first == sync.node;
}

// All that may be there after a power cut behind the first `n` operations: what
// was synced, and of the rest all, nothing, all but one, one alone, the bytes
// alone or the names alone. Disks keep to no order.
inline std::set<Tree> after_power_cut(
    const std::vector<Operation>& operations,
    size_t n) {
  std::set<size_t> open;
  for (size_t i = 0; i < n; ++i) {
    if (operations[i].kind != Operation::sync) {
      open.insert(i);
      continue;
    }
    std::erase_if(open, [&](size_t j) {
      return is_synced_by(operations[j], operations[i]);
    });
  }
  std::set<Tree> trees;
  const auto lose = [&](const std::function<bool(size_t)>& is_lost) {
    trees.insert(replay(operations, n, [&](size_t i) {
      return open.count(i) != 0 && is_lost(i);
    }));
  };
  const auto is_write = [&](size_t i) {
    return operations[i].kind == Operation::write;
  };
  lose([](size_t) { return false; });
  lose([](size_t) { return true; });
  lose([&](size_t i) { return is_write(i); });
  lose([&](size_t i) { return !is_write(i); });
  for (const size_t one : open) {
    lose([&](size_t i) { return i == one; });
    lose([&](size_t i) { return i != one; });
  }
  return trees;
}

} // namespace deepspeed::file::test
