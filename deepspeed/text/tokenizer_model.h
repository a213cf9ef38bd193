// The tables of a tokenizer, as its encoders share them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/text/bpe.h"
#include "deepspeed/text/tokenizer.h"

namespace deepspeed::text {

// A token that is cut out of the text before it is split into words. The
// fields are those of `added_tokens` in tokenizer.json.
struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool lstrip = false; // eats the white space before it
  bool rstrip = false; // eats the white space after it
  bool normalized = false; // looked for after those that are not
  bool special = false; // left out of decode(skip_special_tokens)
};

// Finds the leftmost of some strings, the longest of those that start there.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  bool empty() const {
    return tokens_.empty();
  }
  struct Match {
    const AddedToken* token = nullptr; // null: none was found
    size_t begin = 0;
  };
  Match find(std::string_view text, size_t from) const;

 private:
  std::vector<AddedToken> tokens_; // longest first
  std::array<bool, 256> starts_{}; // first bytes
  char only_start_ = 0; // the first byte, if all share it
  bool has_only_start_ = false;
};

// Immutable. Not to be moved: bpe refers to tokens.
struct TokenizerModel {
  TokenizerModel(
      TokenTable bytes_of_tokens,
      const std::vector<Merge>& merges,
      const std::array<int32_t, 256>& byte_ids);
  TokenizerModel(const TokenizerModel&) = delete;
  TokenizerModel& operator=(const TokenizerModel&) = delete;

  TokenTable tokens;
  Bpe bpe;
  AddedTokenFinder first_added; // before normalization, as Hugging Face says
  AddedTokenFinder second_added; // in what the first ones leave
  SpecialTokens special;
  std::vector<int32_t> special_ids;
  std::string fingerprint;
};

} // namespace deepspeed::text
