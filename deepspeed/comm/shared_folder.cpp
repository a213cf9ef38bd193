// Whether all hosts of a run see one folder.
#include "deepspeed/comm/shared_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/comm/gather.h"
#include "deepspeed/comm/host_name.h"
#include "deepspeed/file/descriptor.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/random_name.h"

namespace deepspeed::comm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMarkPrefix = ".ds-seen-by-all-";
constexpr size_t kMarkDigits = 32;
constexpr int64_t kOldSeconds = 3600; // a start takes minutes at most

bool is_mark_name(std::string_view name) {
  return name.starts_with(kMarkPrefix) &&
      name.size() == kMarkPrefix.size() + kMarkDigits &&
      name.find_first_not_of("0123456789abcdef", kMarkPrefix.size()) ==
      name.npos;
}

// Removes what starts that were killed left in `folder`: empty files with our
// names, of this user, much older than `mark` by the clock of their own disk.
void remove_old_marks(const std::string& folder, const std::string& mark) {
  struct stat own {};
  if (::lstat(mark.c_str(), &own) != 0) {
    return;
  }
  std::error_code ignored;
  fs::directory_iterator entry(folder, ignored);
  for (; entry != fs::directory_iterator(); entry.increment(ignored)) {
    const std::string path = entry->path();
    struct stat info {};
    if (is_mark_name(entry->path().filename().string()) &&
        ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
        info.st_size == 0 && info.st_uid == own.st_uid &&
        own.st_mtime - info.st_mtime > kOldSeconds) {
      file::file_system().remove(path);
    }
  }
}

// A file with a name that nobody has seen before, which goes with the object.
class Mark {
 public:
  // No path if the folder cannot be written.
  explicit Mark(const std::string& folder) {
    const std::string path = fs::path(folder) /
        (std::string(kMarkPrefix) + file::random_name(kMarkDigits));
    const file::Descriptor made(
        file::file_system().open(path, O_CREAT | O_EXCL | O_WRONLY, 0644));
    if (made.is_open()) {
      path_ = path;
      remove_old_marks(folder, path);
    }
  }
  ~Mark() {
    if (!path_.empty()) {
      file::file_system().remove(path_);
    }
  }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

  const std::string& path() const {
    return path_;
  }

 private:
  std::string path_;
};

std::string existing_part(const std::string& folder) {
  fs::path path = folder;
  std::error_code ignored;
  while (!path.empty() && !fs::is_directory(path, ignored)) {
    const fs::path above = path.parent_path();
    path = above == path ? fs::path() : above;
  }
  return path.empty() ? "." : path.string();
}

// A network file system may show a new file a little later.
bool is_seen(const std::string& path) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::seconds(5);
  while (true) {
    if (file::Descriptor(file::file_system().open(path, O_RDONLY)).is_open()) {
      return true;
    }
    if (Clock::now() >= end) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

// A folder's number, which is one for all on one host.
struct Identity {
  uint64_t device = 0; // zeros: there is none
  uint64_t inode = 0;
  bool operator==(const Identity&) const = default;
};

Identity identity_of(const std::string& folder) {
  struct stat info {};
  return ::stat(folder.c_str(), &info) == 0 ? Identity{info.st_dev, info.st_ino}
                                            : Identity{};
}

// Ranks of one host may be in containers, or in different current folders.
void require_same_folder(ProcessGroup& ranks, const std::string& folder) {
  const std::string part =
      ranks.broadcast_text(ranks.rank() == 0 ? existing_part(folder) : "", 0);
  const std::vector<Identity> found = gather(ranks, identity_of(part));
  for (size_t rank = 1; rank < found.size(); ++rank) {
    if (found[rank] != found[0]) {
      throw base::Error(
          base::ExitCode::config,
          "not all ranks see one folder " + part + ": that of rank " +
              std::to_string(rank) + " is another than that of rank 0",
          folder,
          "checkpoints are written by all ranks: start them in one current "
          "folder and with the same folders mounted");
    }
  }
}

} // namespace

void require_shared_folder(ProcessGroup& ranks, const std::string& folder) {
  if (ranks.name() == "shared memory") {
    require_same_folder(ranks, folder);
    return;
  }
  if (ranks.name() != "gloo") {
    return;
  }
  std::string part;
  std::string path;
  std::unique_ptr<Mark> mark;
  if (ranks.rank() == 0) {
    part = existing_part(folder);
    mark = std::make_unique<Mark>(part);
    path = mark->path();
  }
  path = ranks.broadcast_text(path, 0);
  if (path.empty()) {
    return; // what is to be saved there says why
  }
  const std::vector<std::string> blind =
      ranks.all_gather_text(is_seen(path) ? "" : host_name());
  part = ranks.broadcast_text(part, 0);
  const std::string first = ranks.broadcast_text(host_name(), 0);
  std::string list;
  std::vector<std::string> hosts;
  for (size_t rank = 0; rank < blind.size(); ++rank) {
    if (!blind[rank].empty() &&
        std::find(hosts.begin(), hosts.end(), blind[rank]) == hosts.end()) {
      hosts.push_back(blind[rank]);
      list += (list.empty() ? "" : ", ") + blind[rank] + " (rank " +
          std::to_string(rank) + ")";
    }
  }
  if (!hosts.empty()) {
    throw base::Error(
        base::ExitCode::config,
        "not all hosts see one folder " + part + ": what rank 0 on " + first +
            " writes there is not on " + list,
        folder,
        "checkpoints are written by all ranks: give a folder that all hosts "
        "share, under the same path");
  }
}

} // namespace deepspeed::comm
