// Putting the tables of a tokenizer together, with every check on them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "deepspeed/text/tokenizer_model.h"

namespace deepspeed::text {

constexpr size_t kMostAddedTokens = 1024; // each is compared at each '<'

// What the files of a tokenizer say, not yet checked. The views point into the
// files. Texts are in the alphabet of GPT-2, where each byte is a letter.
struct TokenizerParts {
  std::string source; // the name of the file, for messages
  std::string merges_source;
  std::vector<std::pair<std::string_view, int32_t>> vocab;
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  std::vector<AddedToken> added;
};

// Error(data) for parts that do not fit together, Error(config) for added
// tokens that are not supported.
std::unique_ptr<const TokenizerModel> build_tokenizer(
    const TokenizerParts& parts);

} // namespace deepspeed::text
