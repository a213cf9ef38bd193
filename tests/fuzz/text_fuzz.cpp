// Fuzzes what reads training text: lines, JSON, CSV, compression, token caches.
//
// The first byte of an input chooses the format, the rest is the file.
#include <algorithm>
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
  const auto open = [&] { return deepspeed::text::open_memory(bytes); };
  SampleReader reader(
      open(),
      deepspeed::text::detect_format(open, name),
      name,
      /*text_column=*/"text");
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
  if (bytes.size() < sizeof footer) {
    return bytes;
  }
  std::memcpy(
      &footer, bytes.data() + bytes.size() - sizeof footer, sizeof footer);
  using deepspeed::text::offsets_begin;
  bytes.resize(std::min<uint64_t>( // without its hashes
      bytes.size() - sizeof footer,
      offsets_begin(footer.tokens, footer.token_bytes) +
          (footer.samples + 1) * sizeof(uint64_t)));
  const auto data = std::as_bytes(std::span(bytes));
  std::vector<uint64_t> hashes;
  for (size_t i = 0; i < data.size(); i += deepspeed::text::kCacheBlockBytes) {
    hashes.push_back(deepspeed::text::hash_of_block(data.subspan(
        i,
        std::min<size_t>(deepspeed::text::kCacheBlockBytes, data.size() - i))));
  }
  const auto table = std::as_bytes(std::span(hashes));
  footer.table_hash = deepspeed::text::hash_of_table(table);
  footer.footer_hash = deepspeed::text::hash_of(footer);
  bytes.append(reinterpret_cast<const char*>(table.data()), table.size());
  bytes.append(reinterpret_cast<const char*>(&footer), sizeof footer);
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
  SampleReader reader(deepspeed::text::open_memory(bytes), {}, "a.txt", "");
  if (bytes.starts_with("\xEF\xBB\xBF")) {
    bytes.remove_prefix(3);
  }
  std::string_view text;
  while (!bytes.empty()) {
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
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
  switch (data[0] % 13) {
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
    case 7:
      refuse_or([&] { read_samples(bytes, "a.csv"); });
      break;
    case 8:
      refuse_or([&] { read_samples(bytes, "a.json"); });
      break;
    case 9: // whatever the first bytes say
      refuse_or([&] { read_samples(bytes, "a"); });
      break;
    case 10:
      refuse_or([&] { read_samples(bytes, "a.tsv.xz"); });
      break;
    case 11:
      refuse_or([&] { read_samples(bytes, "a.txt.bz2"); });
      break;
    default: // the format that people write by hand
      refuse_or([&] { read_samples(bytes, "a.jsonl"); });
  }
  return 0;
}
