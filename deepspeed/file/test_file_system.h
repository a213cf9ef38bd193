// A file system for tests that records what is done in a folder, and fails when
// it is told to.
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/file/file_system.h"
#include "deepspeed/file/test_power_cut.h"

namespace deepspeed::file::test {

// Passes everything on but syncs, which take time and show nothing. The folder
// must be empty at first, and nothing else may change it. Links, O_TRUNC, modes
// and the text of locks are not recorded. Not thread-safe.
class RecordingFileSystem : public FileSystem {
 public:
  explicit RecordingFileSystem(std::string folder)
      : folder_(std::move(folder)) {}

  // Asked before each operation: an errno that is not 0 is how it fails, and
  // then it is not done.
  std::function<int(const Operation&)> fault;
  // Syncs for which this is true say that they are done, and are not.
  std::function<bool(const Operation&)> lies;

  const std::vector<Operation>& operations() const {
    return operations_;
  }
  std::set<Tree> after_power_cut(size_t n) const {
    return test::after_power_cut(operations_, n);
  }

  int open(const std::string& path, int flags, mode_t mode) override {
    if ((flags & O_CREAT) == 0 || node_of(path) >= 0) {
      const int fd = FileSystem::open(path, flags, mode);
      files_[fd] = node_of(path);
      return fd;
    }
    Operation made{Operation::create, nodes_};
    made.to = entry_of(path);
    const int fd =
        run(made, [&] { return FileSystem::open(path, flags, mode); });
    files_[fd] = made.node;
    return fd;
  }
  ssize_t write(int fd, std::span<const std::byte> bytes) override {
    Operation done{Operation::write, files_[fd]};
    done.bytes.assign(
        reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return run(done, [&] { return FileSystem::write(fd, bytes); });
  }
  int sync(int fd) override {
    return run({Operation::sync, files_[fd]}, [] { return 0; });
  }
  int sync_folder(const std::string& path) override {
    return run({Operation::sync, node_of(path), true}, [] { return 0; });
  }
  int rename(const std::string& from, const std::string& to) override {
    return run(move(Operation::rename, from, to), [&] {
      return FileSystem::rename(from, to);
    });
  }
  int exchange(const std::string& a, const std::string& b) override {
    return run(move(Operation::exchange, a, b), [&] {
      return FileSystem::exchange(a, b);
    });
  }
  int remove(const std::string& path) override {
    return run(move(Operation::remove, path, path), [&] {
      return FileSystem::remove(path);
    });
  }
  int remove_tree(const std::string& path) override {
    std::set<std::string> inside;
    if (std::filesystem::is_directory(path)) {
      for (const auto& entry : std::filesystem::directory_iterator(path)) {
        inside.insert(entry.path());
      }
    }
    for (const std::string& one : inside) {
      if (remove_tree(one) != 0) {
        return -1;
      }
    }
    return std::filesystem::exists(path) ? remove(path) : 0;
  }
  int make_folder(const std::string& path) override {
    Operation made{Operation::create, nodes_, true};
    made.to = entry_of(path);
    return run(made, [&] { return FileSystem::make_folder(path); });
  }

 private:
  // The number behind a path; -1: there is none, or it is elsewhere.
  int node_of(const std::string& path) const {
    if (path == folder_) {
      return 0;
    }
    const auto found = entries_.find(entry_of(path));
    return found == entries_.end() ? -1 : found->second;
  }
  Entry entry_of(const std::string& path) const {
    if (!path.starts_with(folder_ + "/")) {
      return {-1, path};
    }
    return {node_of(parent_folder(path)), path.substr(path.rfind('/') + 1)};
  }
  Operation move(
      Operation::Kind kind,
      const std::string& from,
      const std::string& to) const {
    return {
        kind, node_of(from), false, entry_of(from), entry_of(to), node_of(to)};
  }

  template <typename Call>
  auto run(const Operation& operation, const Call& call) -> decltype(call()) {
    const bool is_ours = operation.node >= 0 && operation.to.first >= 0;
    if (is_ours && fault) {
      if (const int error = fault(operation)) {
        errno = error;
        return -1;
      }
    }
    const auto result = call();
    if (!is_ours || result < 0) {
      return result;
    }
    nodes_ += operation.kind == Operation::create ? 1 : 0;
    if (operation.kind != Operation::sync || !lies || !lies(operation)) {
      apply(operation, entries_);
      operations_.push_back(operation);
    }
    return result;
  }

  std::string folder_;
  std::vector<Operation> operations_;
  std::map<Entry, int> entries_; // what the names of `folder_` stand for
  std::map<int, int> files_; // of descriptors
  int nodes_ = 1; // so many numbers are given
};

} // namespace deepspeed::file::test
