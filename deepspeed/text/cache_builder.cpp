// Reads and tokenizes a source with several threads.
#include "deepspeed/text/cache_builder.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/text/byte_stream.h"
#include "deepspeed/text/cache_lock.h"
#include "deepspeed/text/token_cache.h"

namespace deepspeed::text {
namespace {

// Text that one thread takes at once, and that each gets in a round of reading.
constexpr size_t kBlockBytes = size_t{1} << 16;
constexpr size_t kRoundBytesOfThread = size_t{1} << 21;

// Samples in a row, as text and then as ids.
struct Block {
  std::string text;
  std::vector<size_t> ends; // of each sample in `text`
  std::vector<int32_t> ids;
  std::vector<uint16_t> lengths; // of each sample in `ids`
};

void encode_block(Encoder& encoder, Block& block) {
  std::vector<int32_t> ids;
  size_t begin = 0;
  for (const size_t end : block.ends) {
    ids.clear();
    encoder.encode(
        std::string_view(block.text).substr(begin, end - begin), ids);
    begin = end;
    const size_t n = std::min<size_t>(ids.size(), kMaxSampleIds);
    if (n > 0) {
      block.ids.insert(block.ids.end(), ids.begin(), ids.begin() + n);
      block.lengths.push_back(static_cast<uint16_t>(n));
    }
  }
}

// Each thread has one encoder for the whole source: it remembers words.
void encode_blocks(std::vector<Encoder>& encoders, std::vector<Block>& blocks) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure; // protected by mutex
  const auto work = [&](Encoder& encoder) {
    try {
      for (size_t i = next++; i < blocks.size(); i = next++) {
        encode_block(encoder, blocks[i]);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < std::min(encoders.size(), blocks.size()); ++i) {
      threads.emplace_back([&work, &encoder = encoders[i]] { work(encoder); });
    }
    work(encoders[0]);
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
}

// The samples of all files, as one sequence.
class SourceReader {
 public:
  explicit SourceReader(const CacheRecipe& recipe) : recipe_(recipe) {
    for (const SourceFile& file : recipe.source.files) {
      total_bytes_ += file.stamp.size;
    }
  }

  // About `bytes` of text in blocks; none at the end.
  std::vector<Block> read_round(size_t bytes) {
    std::vector<Block> blocks;
    size_t read = 0;
    std::string_view text;
    while (read < bytes && next(text)) {
      if (blocks.empty() || blocks.back().text.size() >= kBlockBytes) {
        blocks.emplace_back();
      }
      blocks.back().text += text;
      blocks.back().ends.push_back(blocks.back().text.size());
      read += text.size();
    }
    return blocks;
  }

  void report_progress() const {
    if (recipe_.progress) {
      const uint64_t here = reader_ != nullptr ? reader_->bytes_read() : 0;
      recipe_.progress(finished_bytes_ + here, total_bytes_);
    }
  }
  const SourceCounts& counts() const {
    return counts_;
  }

 private:
  bool next(std::string_view& text) {
    for (;;) {
      if (reader_ == nullptr) {
        if (file_ == recipe_.source.files.size()) {
          return false;
        }
        reader_ = std::make_unique<SampleReader>(
            recipe_.source.files[file_], recipe_.text_column);
      }
      if (reader_->next(text)) {
        return true;
      }
      counts_.samples += reader_->counts().samples;
      counts_.cut += reader_->counts().cut;
      counts_.invalid_utf8 += reader_->counts().invalid_utf8;
      finished_bytes_ += recipe_.source.files[file_].stamp.size;
      reader_.reset();
      ++file_;
    }
  }

  const CacheRecipe& recipe_;
  size_t file_ = 0;
  std::unique_ptr<SampleReader> reader_; // of file_
  uint64_t finished_bytes_ = 0;
  uint64_t total_bytes_ = 0;
  SourceCounts counts_;
};

void warn_of(const SourceCounts& counts, const std::string& source) {
  const std::string of =
      " of " + std::to_string(counts.samples) + " samples in " + source + " ";
  if (counts.cut > 0) {
    base::log_warning(
        std::to_string(counts.cut) + of + "are longer than " +
        std::to_string(kMaxSampleBytes) + " bytes: cut there");
  }
  if (counts.invalid_utf8 > 0) {
    base::log_warning(
        std::to_string(counts.invalid_utf8) + of +
        "hold invalid UTF-8: U+FFFD stands for it");
  }
}

std::string hex(XXH128_hash_t hash) {
  char text[33];
  std::snprintf(
      text,
      sizeof text,
      "%016llx%016llx",
      static_cast<unsigned long long>(hash.high64),
      static_cast<unsigned long long>(hash.low64));
  return text;
}

// Texts may be large: neither reading nor tokenizing them holds a run up that
// is to stop.
void go_on_or_stop(const CacheRecipe& recipe) {
  if (recipe.stopped && recipe.stopped()) {
    throw stopped_error(recipe.source.path);
  }
}

std::string hash_of_file(const SourceFile& file, const CacheRecipe& recipe) {
  const auto free_state = [](XXH3_state_t* state) { XXH3_freeState(state); };
  const std::unique_ptr<XXH3_state_t, decltype(free_state)> state(
      XXH3_createState(), free_state);
  XXH3_128bits_reset(state.get());
  const std::unique_ptr<ByteStream> stream = open_file(file.path, file.stamp);
  std::vector<char> buffer(size_t{1} << 18);
  while (const size_t n = stream->read(buffer)) {
    XXH3_128bits_update(state.get(), buffer.data(), n);
    go_on_or_stop(recipe);
  }
  return hex(XXH3_128bits_digest(state.get()));
}

// Parts of a key, each with its length: no two lists give the same text.
class KeyText {
 public:
  void add(std::string_view part) {
    text_ += std::to_string(part.size()) + ":" + std::string(part);
  }
  void add(int64_t number) {
    add(std::to_string(number));
  }
  std::string key() const {
    return hex(XXH3_128bits(text_.data(), text_.size()));
  }

 private:
  std::string text_;
};

// What both keys have in common.
KeyText key_text(const CacheRecipe& recipe, std::string_view kind) {
  KeyText text;
  text.add(kind);
  text.add(kMaxSampleIds);
  text.add(static_cast<int64_t>(kMaxSampleBytes));
  text.add(recipe.tokenizer->fingerprint());
  text.add(recipe.text_column);
  return text;
}

} // namespace

std::string content_key(const CacheRecipe& recipe) {
  KeyText text = key_text(recipe, "content 1");
  for (const SourceFile& file : recipe.source.files) {
    text.add(file.name);
    text.add(static_cast<int64_t>(file.stamp.size));
    text.add(hash_of_file(file, recipe));
  }
  return text.key();
}

std::string stamp_key(const CacheRecipe& recipe) {
  KeyText text = key_text(recipe, "stamp 1");
  for (const SourceFile& file : recipe.source.files) {
    text.add(file.path);
    text.add(file.name);
    text.add(static_cast<int64_t>(file.stamp.size));
    text.add(static_cast<int64_t>(file.stamp.inode));
    text.add(file.stamp.modified_ns);
    text.add(file.stamp.changed_ns);
  }
  return text.key();
}

void build_cache(
    const CacheRecipe& recipe,
    const std::string& key,
    const CacheWriter::Write& write) {
  std::vector<Encoder> encoders;
  for (int i = 0; i < recipe.threads; ++i) {
    encoders.emplace_back(recipe.tokenizer);
  }
  CacheWriter writer(
      static_cast<uint32_t>(recipe.tokenizer->vocab_size()), write);
  SourceReader reader(recipe);
  for (;;) {
    std::vector<Block> blocks =
        reader.read_round(kRoundBytesOfThread * encoders.size());
    if (blocks.empty()) {
      break;
    }
    encode_blocks(encoders, blocks);
    for (const Block& block : blocks) {
      writer.add(block.ids, block.lengths);
    }
    reader.report_progress();
    go_on_or_stop(recipe);
  }
  if (writer.samples() == 0) {
    throw base::Error(
        base::ExitCode::data,
        "there is no text in it",
        recipe.source.path,
        "each line that is not empty is a sample");
  }
  warn_of(reader.counts(), recipe.source.path);
  writer.finish(key);
}

} // namespace deepspeed::text
