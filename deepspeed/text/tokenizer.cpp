// Byte-level BPE with exactly the ids of Hugging Face's roberta-base tokenizer.
#include "deepspeed/text/tokenizer.h"

#include <algorithm>
#include <cstring>

#include "deepspeed/base/error.h"
#include "deepspeed/text/bpe_memo.h"
#include "deepspeed/text/pretokenize.h"
#include "deepspeed/text/tokenizer_model.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {
namespace {

constexpr size_t kLongestText = size_t{1} << 30;

// Where the white space that ends at `end` begins, not before `begin`.
size_t start_of_space(std::string_view text, size_t begin, size_t end) {
  while (end > begin) {
    size_t last = end - 1;
    while ((static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) {
      --last;
    }
    if (class_of(decode_utf8(text.data() + last).point) != CharClass::space) {
      break;
    }
    end = last;
  }
  return end;
}

size_t end_of_space(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Decoded decoded = decode_utf8(text.data() + begin);
    if (class_of(decoded.point) != CharClass::space) {
      break;
    }
    begin += decoded.size;
  }
  return begin;
}

} // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)) {
  std::stable_sort(
      tokens_.begin(),
      tokens_.end(),
      [](const AddedToken& a, const AddedToken& b) {
        return a.content.size() > b.content.size();
      });
  for (const AddedToken& token : tokens_) {
    starts_[static_cast<unsigned char>(token.content[0])] = true;
  }
  has_only_start_ = std::count(starts_.begin(), starts_.end(), true) == 1;
  only_start_ = has_only_start_ ? tokens_[0].content[0] : 0;
}

AddedTokenFinder::Match AddedTokenFinder::find(
    std::string_view text,
    size_t from) const {
  for (size_t i = from; i < text.size(); ++i) {
    if (has_only_start_) {
      const void* next =
          std::memchr(text.data() + i, only_start_, text.size() - i);
      if (next == nullptr) {
        break;
      }
      i = static_cast<size_t>(static_cast<const char*>(next) - text.data());
    } else if (!starts_[static_cast<unsigned char>(text[i])]) {
      continue;
    }
    for (const AddedToken& token : tokens_) {
      if (text.compare(i, token.content.size(), token.content) == 0) {
        return {&token, i};
      }
    }
  }
  return {nullptr, text.size()};
}

TokenizerModel::TokenizerModel(
    TokenTable bytes_of_tokens,
    const std::vector<Merge>& merges,
    const std::array<int32_t, 256>& byte_ids)
    : tokens(std::move(bytes_of_tokens)), bpe(merges, byte_ids, tokens) {}

Tokenizer::Tokenizer(
    std::unique_ptr<const TokenizerModel> model,
    std::vector<std::string> files)
    : model_(std::move(model)), files_(std::move(files)) {}

Tokenizer::~Tokenizer() = default;

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(model_->tokens.size());
}

const SpecialTokens& Tokenizer::special() const {
  return model_->special;
}

const std::vector<int32_t>& Tokenizer::special_ids() const {
  return model_->special_ids;
}

std::string Tokenizer::decode(
    std::span<const int32_t> ids,
    bool skip_special_tokens) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (skip_special_tokens &&
        std::binary_search(
            model_->special_ids.begin(), model_->special_ids.end(), id)) {
      continue;
    }
    bytes += token(id);
  }
  return is_valid_utf8(bytes) ? bytes : replace_invalid_utf8(bytes);
}

std::string_view Tokenizer::token(int32_t id) const {
  if (id < 0 || id >= vocab_size()) {
    throw base::Error(
        base::ExitCode::data,
        "the token id " + std::to_string(id) + " is not in the vocabulary",
        "",
        "ids are 0 to " + std::to_string(vocab_size() - 1));
  }
  return model_->tokens[static_cast<size_t>(id)];
}

const std::string& Tokenizer::fingerprint() const {
  return model_->fingerprint;
}

const std::vector<std::string>& Tokenizer::files() const {
  return files_;
}

const TokenizerModel& Tokenizer::model() const {
  return *model_;
}

Encoder::Encoder(std::shared_ptr<const Tokenizer> tokenizer)
    : tokenizer_(std::move(tokenizer)),
      memo_(std::make_unique<PretokenMemo>()) {}
Encoder::~Encoder() = default;
Encoder::Encoder(Encoder&&) noexcept = default;
Encoder& Encoder::operator=(Encoder&&) noexcept = default;

void Encoder::encode(std::string_view text, std::vector<int32_t>& ids) {
  if (text.size() > kLongestText) {
    throw base::Error(
        base::ExitCode::data,
        "a text of " + std::to_string(text.size()) +
            " bytes is too long for one sample",
        "",
        "split it into lines");
  }
  if (is_valid_utf8(text)) {
    encode_valid(text, /*normalized=*/false, ids);
  } else {
    encode_valid(replace_invalid_utf8(text), /*normalized=*/false, ids);
  }
}

// Cuts out the added tokens, first those of first_added, then, in what is left,
// those of second_added. Everything between them is text on its own.
void Encoder::encode_valid(
    std::string_view text,
    bool normalized,
    std::vector<int32_t>& ids) {
  const TokenizerModel& model = tokenizer_->model();
  const AddedTokenFinder& finder =
      normalized ? model.second_added : model.first_added;
  const auto encode_rest = [&](std::string_view rest) {
    if (normalized) {
      encode_plain(rest, ids);
    } else {
      encode_valid(rest, /*normalized=*/true, ids);
    }
  };
  size_t done = 0;
  while (!finder.empty()) {
    const AddedTokenFinder::Match match = finder.find(text, done);
    if (match.token == nullptr) {
      break;
    }
    size_t begin = match.begin;
    size_t end = begin + match.token->content.size();
    if (match.token->lstrip) {
      begin = start_of_space(text, done, begin);
    }
    if (match.token->rstrip) {
      end = end_of_space(text, end);
    }
    encode_rest(text.substr(done, begin - done));
    ids.push_back(match.token->id);
    done = end;
  }
  encode_rest(text.substr(done));
}

// Words are taken in blocks, so that the memo can be read ahead.
void Encoder::encode_plain(std::string_view text, std::vector<int32_t>& ids) {
  constexpr size_t kBlock = 32;
  struct Word {
    std::string_view text;
    PretokenMemo::Key key;
  };
  Word words[kBlock];
  const Bpe& bpe = tokenizer_->model().bpe;
  const char* end = text.data() + text.size();
  while (!text.empty()) {
    size_t n = 0;
    for (; n < kBlock && !text.empty(); ++n) {
      const size_t size = first_pretoken(text);
      Word& word = words[n];
      word.text = text.substr(0, size);
      text.remove_prefix(size);
      if (size <= PretokenMemo::kLongestWord) {
        word.key = PretokenMemo::key_of(word.text.data(), size, end);
        memo_->prefetch(word.key);
      }
    }
    for (const Word& word : std::span(words, n)) {
      const bool is_long = word.text.size() > PretokenMemo::kLongestWord;
      if (!is_long && memo_->find(word.key, ids)) {
        continue;
      }
      const size_t first = ids.size();
      bpe.encode(word.text, ids);
      if (!is_long) {
        memo_->insert(word.key, std::span(ids).subspan(first));
      }
    }
  }
}

} // namespace deepspeed::text
