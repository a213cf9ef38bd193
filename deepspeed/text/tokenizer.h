// Byte-level BPE with exactly the ids of Hugging Face's roberta-base tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace deepspeed::text {

// Ids of the tokens that a RoBERTa model gives a meaning to.
struct SpecialTokens {
  int32_t bos = -1; // <s>, roberta-base: 0
  int32_t pad = -1; // <pad>, 1
  int32_t eos = -1; // </s>, 2
  int32_t unk = -1; // <unk>, 3
  int32_t mask = -1; // <mask>, 50264
};

struct TokenizerModel; // tables shared by all encoders, in tokenizer_model.h

// A vocabulary with its merges. Immutable, so threads may share one.
class Tokenizer {
 public:
  // Reads FOLDER/tokenizer.json, or FOLDER/vocab.json and FOLDER/merges.txt
  // where there is none. Error(no_input) for a missing or unreadable file,
  // Error(data) for a damaged one, Error(config) for a tokenizer of another
  // kind (WordPiece, a normalizer, add_prefix_space ...), which is refused by
  // name because its ids would be wrong.
  static std::shared_ptr<const Tokenizer> load(const std::string& folder);

  // Takes tables that were read from memory; see tokenizer_files.h.
  Tokenizer(
      std::unique_ptr<const TokenizerModel> model,
      std::vector<std::string> files);
  ~Tokenizer();

  // The largest id + 1. There are no gaps.
  int32_t vocab_size() const;
  const SpecialTokens& special() const;
  // All special ids, ascending. None of them may be a random replacement.
  const std::vector<int32_t>& special_ids() const;

  // The text of `ids`, always valid UTF-8: bytes that are not are replaced as
  // by replace_invalid_utf8() in unicode.h. Equals Hugging Face's decode() with
  // clean_up_tokenization_spaces=False. Error(data) for an id out of range.
  std::string decode(
      std::span<const int32_t> ids,
      bool skip_special_tokens = false) const;

  // The bytes that `id` stands for, possibly a part of a UTF-8 character.
  // Error(data) for an id out of range.
  std::string_view token(int32_t id) const;

  // 32 hexadecimal digits that change with whatever decides the ids, and with
  // nothing else: both kinds of files of one tokenizer give the same.
  const std::string& fingerprint() const;

  // The files it was read from, for an export to copy.
  const std::vector<std::string>& files() const;

  const TokenizerModel& model() const;

 private:
  std::unique_ptr<const TokenizerModel> model_;
  std::vector<std::string> files_;
};

class PretokenMemo;

// Turns text into ids. It remembers the ids of words it has seen (in at
// most 60 MB), so each thread wants one of its own. Not thread-safe.
class Encoder {
 public:
  explicit Encoder(std::shared_ptr<const Tokenizer> tokenizer);
  ~Encoder();
  Encoder(Encoder&&) noexcept;
  Encoder& operator=(Encoder&&) noexcept;

  // Appends the ids of `text`, without <s> and </s> around them: Hugging Face's
  // encode(text, add_special_tokens=False). Special tokens that are spelled out
  // in the text become their ids, and <mask> eats the white space before it.
  // Invalid UTF-8 is first replaced as by replace_invalid_utf8() in unicode.h.
  // Time is O(n log n) for any text. Error(data) for a text over 1 GiB.
  void encode(std::string_view text, std::vector<int32_t>& ids);

  const Tokenizer& tokenizer() const {
    return *tokenizer_;
  }

 private:
  void encode_valid(
      std::string_view text,
      bool normalized,
      std::vector<int32_t>& ids);
  void encode_plain(std::string_view text, std::vector<int32_t>& ids);

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<PretokenMemo> memo_;
};

} // namespace deepspeed::text
