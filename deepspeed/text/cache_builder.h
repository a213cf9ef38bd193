// Reads and tokenizes a source with several threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "deepspeed/text/cache_writer.h"
#include "deepspeed/text/source.h"
#include "deepspeed/text/tokenizer.h"

namespace deepspeed::text {

// What a cache is made from, and how.
struct CacheRecipe {
  Source source;
  std::string text_column;
  std::shared_ptr<const Tokenizer> tokenizer;
  int threads = 1;
  // Both may be empty, see CacheRequest.
  std::function<void(uint64_t, uint64_t)> progress;
  std::function<bool()> stopped;
};

// The key of the cache: 32 hexadecimal digits that change with the content and
// the names of the files, the tokenizer, and the text column. Reads all files.
std::string content_key(const CacheRecipe& recipe);
// Another key, of the stamps of the files instead of their content.
std::string stamp_key(const CacheRecipe& recipe);

// Writes the whole cache file. The samples have the order of the files,
// whatever the number of threads. Says once how many samples were cut or held
// invalid UTF-8. Error(data) if there is no sample at all,
// Error(stopped) when recipe.stopped says so.
void build_cache(
    const CacheRecipe& recipe,
    const std::string& key,
    const CacheWriter::Write& write);

} // namespace deepspeed::text
