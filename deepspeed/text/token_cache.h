// Token ids of a whole source in one memory-mapped file, made once.
//
// cache_file.h describes the bytes.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "deepspeed/file/mapped_file.h"
#include "deepspeed/text/source.h"
#include "deepspeed/text/tokenizer.h"

namespace deepspeed::text {

// RoBERTa has 512 positions, two of them for <s> and </s>: a sample is stored
// up to here, whatever --max_seq_length is.
constexpr uint32_t kMaxSampleIds = 510;

struct CacheRequest {
  Source source; // see list_source()
  std::string text_column = "text"; // of JSON lines and CSV
  // Folder of the cache, made if missing; "" keeps the tokens in memory.
  std::string cache_dir;
  int threads = 0; // that tokenize; 0: as many as the machine has
  // Check all bytes of a cache that exists. Caches up to 64 MiB always are;
  // others block by block where they are first read.
  bool verify = false;
  // How long to wait for another program that makes the cache and does not get
  // on.
  std::chrono::milliseconds patience = std::chrono::minutes(10);
  // Asked now and then by the calling thread: true gives up, with
  // Error(stopped). May be empty.
  std::function<bool()> stopped;
  // Called now and then by the calling thread with bytes done and in all.
  std::function<void(uint64_t, uint64_t)> progress;
};

// $DEEPSPEED_CACHE_DIR, else $XDG_CACHE_HOME/deepspeed.cpp, else
// ~/.cache/deepspeed.cpp; "" if none of them is set.
std::string default_cache_dir();

// The samples of a source as token ids, without <s> and </s>, in the order of
// the files. Constant after construction; safe to read from many threads.
class TokenCache {
 public:
  // Opens a cache file and checks its structure; all of its bytes if `verify`
  // is set or it is small. Error(data) if it is damaged.
  static TokenCache open(const std::string& path, bool verify);
  // The same for the bytes of such a file in memory.
  static TokenCache from_bytes(std::string bytes, bool verify);
  TokenCache(TokenCache&&) noexcept;
  TokenCache& operator=(TokenCache&&) noexcept;
  ~TokenCache();

  // Number of samples: at least 1.
  uint64_t size() const {
    return samples_;
  }
  // Number of ids of all samples.
  uint64_t tokens() const {
    return tokens_;
  }
  // Number of ids of sample i: 1 to kMaxSampleIds. i < size(). It and copy()
  // check blocks that nobody has read before: of a damaged one they remove the
  // file, so that the next run makes it again, and throw Error(data).
  uint32_t length(uint64_t i) const;
  // Writes the first min(length(i), max_ids) ids to `out`; returns how many.
  // Throws Error(data) for an id that is not in the vocabulary.
  uint32_t copy(uint64_t i, uint32_t max_ids, int32_t* out) const;

  // Ids of the tokenizer that made it.
  uint32_t vocab_size() const {
    return vocab_size_;
  }
  // Identifies the content of the sources, the tokenizer and the text column:
  // 32 hexadecimal digits.
  const std::string& key() const {
    return key_;
  }
  // "" if the tokens are in memory only.
  const std::string& path() const {
    return file_.path();
  }

 private:
  TokenCache() = default;
  void read_footer(bool verify);
  std::span<const std::byte> bytes() const;
  bool check_block(uint64_t block) const;
  // Throws unless the bytes [begin, end) are what was written.
  void require_sound(uint64_t begin, uint64_t end) const;
  uint64_t offset(uint64_t i) const;

  file::MappedFile file_;
  std::string memory_;
  std::string key_;
  uint64_t samples_ = 0;
  uint64_t tokens_ = 0;
  uint32_t vocab_size_ = 0;
  uint32_t token_bytes_ = 0;
  uint64_t data_bytes_ = 0; // before the hashes
  // Of each block, whether its hash was found right; set by any thread.
  std::unique_ptr<std::atomic<bool>[]> is_sound_;
};

// The cache of a source, made if there is none. Two runs may call this at once:
// one makes it, the other waits. A cache belongs to the content of the files,
// their names, the tokenizer and the text column; a damaged one is made again
// with a warning. When the folder cannot be written, the tokens stay in memory,
// with a warning. Throws Error(no_input) or Error(data) for the source,
// Error(stopped), and Error(unavailable) when patience is at its end.
TokenCache open_or_build(
    const CacheRequest& request,
    std::shared_ptr<const Tokenizer> tokenizer);

} // namespace deepspeed::text
