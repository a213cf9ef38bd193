// Fuzzes what reads training text: lines, JSON lines, gzip, zstd, token caches.
//
// The first byte of an input chooses the format, the rest is the file.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/text/cache_file.h"
#include "deepspeed/text/source.h"
#include "deepspeed/text/token_cache.h"

namespace {

using deepspeed::base::Error;
using deepspeed::base::ExitCode;
using deepspeed::text::SampleReader;
using deepspeed::text::TokenCache;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// A damaged file is an Error(data) with its name, and nothing else.
void refuse_or(const std::function<void()>& read) {
  try {
    read();
  } catch (const Error& error) {
    require(error.code() == ExitCode::data);
    require(!error.where().empty());
  }
}

void read_samples(std::string_view bytes, const char* name) {
  SampleReader reader(
      deepspeed::text::open_memory(bytes), name, /*text_column=*/"text");
  std::string_view text;
  uint64_t samples = 0;
  while (reader.next(text)) {
    require(!text.empty() && text.size() <= deepspeed::text::kMaxSampleBytes);
    ++samples;
  }
  require(reader.counts().samples == samples);
}

// With the hashes put right, or no input would get past them.
std::string signed_cache(std::string bytes) {
  using deepspeed::text::CacheFooter;
  CacheFooter footer;
  if (bytes.size() >= sizeof footer) {
    char* end = bytes.data() + bytes.size() - sizeof footer;
    std::memcpy(&footer, end, sizeof footer);
    footer.data_hash = deepspeed::text::hash_of_data(
        std::as_bytes(std::span(bytes).first(bytes.size() - sizeof footer)));
    footer.footer_hash = deepspeed::text::hash_of(footer);
    std::memcpy(end, &footer, sizeof footer);
  }
  return bytes;
}

void read_cache(const std::string& bytes) {
  const TokenCache cache = TokenCache::from_bytes(bytes, true);
  std::vector<int32_t> ids(deepspeed::text::kMaxSampleIds);
  for (uint64_t i = 0; i < cache.size(); ++i) {
    const uint32_t n =
        cache.copy(i, deepspeed::text::kMaxSampleIds, ids.data());
    require(n > 0 && n == cache.length(i));
    for (uint32_t j = 0; j < n; ++j) {
      require(ids[j] >= 0 && uint32_t(ids[j]) < cache.vocab_size());
    }
  }
}

// The reader of lines, checked against the simplest one.
void compare_lines(std::string_view bytes) {
  SampleReader reader(deepspeed::text::open_memory(bytes), "a.txt", "");
  if (bytes.starts_with("\xEF\xBB\xBF")) {
    bytes.remove_prefix(3);
  }
  std::string_view text;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
    line.remove_suffix(line.ends_with('\r') ? 1 : 0);
    if (line.find_first_not_of(" \t\r\v\f") != std::string_view::npos) {
      require(reader.next(text) && text == line);
    }
  }
  require(!reader.next(text));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view bytes(
      reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 7) {
    case 0:
      compare_lines(bytes);
      break;
    case 1:
      refuse_or([&] { read_samples(bytes, "a.txt.gz"); });
      break;
    case 2:
      refuse_or([&] { read_samples(bytes, "a.txt.zst"); });
      break;
    case 3:
      refuse_or([&] { read_samples(bytes, "a.jsonl.gz"); });
      break;
    case 4:
      refuse_or([&] { read_cache(std::string(bytes)); });
      refuse_or([&] { read_cache(signed_cache(std::string(bytes))); });
      break;
    default: // the format that people write by hand
      refuse_or([&] { read_samples(bytes, "a.jsonl"); });
  }
  return 0;
}
