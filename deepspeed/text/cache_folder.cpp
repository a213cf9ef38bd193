// Finds the token cache of a source in a folder, or makes it there.
//
// Files of the folder, all safe to delete when no program runs:
//   tokens-KEY.bin    a cache; KEY is its content_key()
//   tokens-KEY.lock   held by the program that makes it
//   stamp-KEY.txt     the content_key() that belongs to a stamp_key(): saves
//   the
//                     reading of sources that nobody touched
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/open_file.h"
#include "deepspeed/text/cache_builder.h"
#include "deepspeed/text/cache_file.h"
#include "deepspeed/text/cache_lock.h"
#include "deepspeed/text/token_cache.h"

namespace deepspeed::text {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

// A file that was changed just now may change again without a new time: clocks
// of file systems are coarse.
constexpr int64_t kSettledNanoseconds = 2'000'000'000;

// A program of another version made it, and it may be whole.
bool is_of_another_version(const std::string& path) {
  std::array<char, kCacheMagic.size()> magic{};
  const file::Descriptor file = file::open_to_read(path);
  file::file_system().read(file.get(), magic);
  const std::string_view found(magic.data(), magic.size());
  return found.starts_with(kAnyCacheMagic) && found != kCacheMagic &&
      found.back() >= '1' && found.back() <= '9';
}

// The cache with this key, if there is a sound one.
std::optional<TokenCache> open_existing(
    const std::string& path,
    const std::string& key,
    bool verify,
    bool warn) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    return std::nullopt;
  }
  try {
    if (is_of_another_version(path)) {
      return std::nullopt; // made again, as there was none
    }
    TokenCache cache = TokenCache::open(path, verify);
    if (cache.key() == key) {
      return cache;
    }
    throw Error(ExitCode::data, "it belongs to another source", path, "");
  } catch (const Error& error) {
    if (warn) {
      base::log_warning(std::string(error.what()) + ", made again: " + path);
    }
    return std::nullopt;
  }
}

TokenCache build_in_memory(const CacheRecipe& recipe, const std::string& key) {
  std::string bytes;
  build_cache(recipe, key, [&bytes](std::span<const std::byte> part) {
    bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
  });
  return TokenCache::from_bytes(std::move(bytes), /*verify=*/false);
}

// What a killed program left. REQUIRES: the lock.
void remove_leftovers(const fs::path& path) {
  std::error_code ignored;
  for (const auto& entry :
       fs::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(path.filename().string()) &&
        file::is_temporary_name(name)) {
      file::file_system().remove(entry.path());
    }
  }
}

class CacheFolder {
 public:
  CacheFolder(
      fs::path folder,
      const CacheRecipe& recipe,
      std::chrono::milliseconds patience)
      : folder_(std::move(folder)),
        recipe_(recipe),
        wait_(patience),
        stamp_path_(folder_ / ("stamp-" + stamp_key(recipe) + ".txt")) {}

  // The key, from the stamps of the files if they are known.
  std::string find_key() {
    std::error_code ignored;
    if (fs::exists(stamp_path_, ignored)) {
      try {
        const std::string key =
            file::read_file(stamp_path_, sizeof(CacheFooter::key));
        if (is_cache_key(key)) {
          stamp_is_known_ = true;
          return key;
        }
      } catch (const Error&) {
        // Unreadable: as good as not there.
      }
    }
    return content_key(recipe_);
  }

  TokenCache open_or_build(const std::string& key, bool verify) {
    const std::string path = folder_ / ("tokens-" + key + ".bin");
    if (auto cache = open_existing(path, key, verify, /*warn=*/false)) {
      return *std::move(cache);
    }
    file::try_make_folders(folder_);
    CacheLock lock(
        folder_ / ("tokens-" + key + ".lock"), wait_, recipe_.stopped);
    if (auto cache = open_existing(path, key, verify, /*warn=*/true)) {
      return *std::move(cache);
    }
    if (lock.held()) {
      remove_leftovers(path); // else another program may be writing one
    }
    file::AtomicFile file(path);
    CacheRecipe recipe = recipe_;
    recipe.progress = [&](uint64_t done, uint64_t total) {
      lock.show(done, total);
      if (recipe_.progress) {
        recipe_.progress(done, total);
      }
    };
    build_cache(recipe, key, [&file](std::span<const std::byte> part) {
      file.write(part);
    });
    file.commit();
    return TokenCache::open(path, /*verify=*/true);
  }

  // Saves the next run from reading the sources. Not vital: may fail.
  void remember(const std::string& key, int64_t listed_ns) {
    const bool settled = std::all_of(
        recipe_.source.files.begin(),
        recipe_.source.files.end(),
        [&](const auto& file) {
          return std::max(file.stamp.modified_ns, file.stamp.changed_ns) +
              kSettledNanoseconds <
              listed_ns;
        });
    if (stamp_is_known_ || !settled) {
      return;
    }
    try {
      file::write_file_atomically(stamp_path_, key);
    } catch (const Error&) {
      // A folder that is read-only: the next run hashes the sources again.
    }
  }

 private:
  fs::path folder_;
  const CacheRecipe& recipe_;
  std::chrono::milliseconds wait_;
  std::string stamp_path_;
  bool stamp_is_known_ = false;
};

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

} // namespace

std::string default_cache_dir() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
  };
  if (const std::string folder = variable("DEEPSPEED_CACHE_DIR");
      !folder.empty()) {
    return folder;
  }
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return cache + "/deepspeed.cpp";
  }
  const std::string home = variable("HOME");
  return home.empty() ? "" : home + "/.cache/deepspeed.cpp";
}

TokenCache open_or_build(
    const CacheRequest& request,
    std::shared_ptr<const Tokenizer> tokenizer) {
  const int64_t listed_ns = now_ns();
  const int machine = static_cast<int>(std::thread::hardware_concurrency());
  const CacheRecipe recipe{
      request.source,
      request.text_column,
      std::move(tokenizer),
      request.threads > 0 ? request.threads : std::max(machine, 1),
      request.progress,
      request.stopped};
  if (request.cache_dir.empty()) {
    return build_in_memory(recipe, content_key(recipe));
  }
  CacheFolder folder(request.cache_dir, recipe, request.patience);
  const std::string key = folder.find_key();
  try {
    TokenCache cache = folder.open_or_build(key, request.verify);
    folder.remember(key, listed_ns);
    return cache;
  } catch (const Error& error) {
    // Reading has other codes: only the cache itself could not be written.
    if (error.code() != ExitCode::cannot_create &&
        error.code() != ExitCode::io) {
      throw;
    }
    base::log_warning(
        std::string("the token cache is kept in memory, ") + error.what() +
        ": " + error.where());
    return build_in_memory(recipe, key);
  }
}

} // namespace deepspeed::text
