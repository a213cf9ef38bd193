// Reading the files of a tokenizer: vocab.json, merges.txt, tokenizer.json.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "deepspeed/text/tokenizer_model.h"

namespace deepspeed::text {

// A document in memory, and the name that messages call it by.
struct Document {
  std::string_view text;
  std::string source;
};

// The two files of GPT-2 and RoBERTa: a flat JSON object {"token": id}, and a
// line "left right" for each merge, below a line that starts with "#version".
// The special tokens are those of transformers' RobertaTokenizerFast (4.57.6):
// <s> <pad> </s> <unk>, and <mask>, which eats the white space before it.
// Error(data) names a duplicate or missing id, a merge whose parts or result
// are not in the vocabulary, a missing special token or byte.
std::unique_ptr<const TokenizerModel> parse_vocab_and_merges(
    const Document& vocab,
    const Document& merges);

// The file of the Hugging Face library tokenizers, as transformers writes it
// for RoBERTa; merges as ["left", "right"] or as "left right". Besides the
// errors above, Error(config) for a part that would change the ids and is not
// supported: another model, pre-tokenizer or decoder, a normalizer, dropout,
// byte_fallback, add_prefix_space, single_word ... `truncation` and `padding`
// are passed over, because transformers sets them anew at each call.
std::unique_ptr<const TokenizerModel> parse_tokenizer_json(
    const Document& document);

// Checks what tokenizer_config.json may say about the ids. Error(config) for
// add_prefix_space, Error(data) if it is not valid.
void check_tokenizer_config(const Document& document);

} // namespace deepspeed::text
