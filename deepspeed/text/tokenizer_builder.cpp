// Putting the tables of a tokenizer together, with every check on them.
#include "deepspeed/text/tokenizer_builder.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <unordered_map>

#include "deepspeed/base/error.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;

// A text that sits in a file may be long or hold anything.
std::string quoted(std::string_view text) {
  constexpr size_t kShown = 40;
  std::string shown = "\"";
  for (const char c : text.substr(0, kShown)) {
    const bool is_control = static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
    shown += is_control ? '?' : c;
  }
  return shown + (text.size() > kShown ? "...\"" : "\"");
}

[[noreturn]] void refuse(const std::string& what, const std::string& source) {
  throw Error(
      ExitCode::data,
      what,
      source,
      "vocabulary and merges must come from one tokenizer: fetch them again");
}

// Finds the place of a text among texts. Its table is small enough for a
// cache: it holds a part of the hash, and the text itself is only compared
// where that part is equal.
class TextIndex {
 public:
  explicit TextIndex(size_t n)
      : slots_(std::bit_ceil(std::max<size_t>(2 * n, 16))) {
    entries_.reserve(n);
  }

  // False if the text is there already.
  bool add(std::string_view text, int32_t id) {
    const uint64_t hash = XXH3_64bits(text.data(), text.size());
    Slot& slot = slots_[place_of(text, hash)];
    if (slot.entry >= 0) {
      return false;
    }
    slot = {
        static_cast<uint32_t>(hash >> 32),
        static_cast<int32_t>(entries_.size())};
    entries_.push_back({text, id});
    return true;
  }

  // -1 if it is not there.
  int32_t find(std::string_view text) const {
    const uint64_t hash = XXH3_64bits(text.data(), text.size());
    const Slot& slot = slots_[place_of(text, hash)];
    return slot.entry < 0 ? -1 : entries_[slot.entry].id;
  }

 private:
  struct Entry {
    std::string_view text;
    int32_t id;
  };
  struct Slot {
    uint32_t tag = 0; // the upper half of the hash
    int32_t entry = -1;
  };

  size_t place_of(std::string_view text, uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    const auto tag = static_cast<uint32_t>(hash >> 32);
    size_t i = hash & mask;
    while (slots_[i].entry >= 0 &&
           (slots_[i].tag != tag || entries_[slots_[i].entry].text != text)) {
      i = (i + 1) & mask;
    }
    return i;
  }

  std::vector<Slot> slots_;
  std::vector<Entry> entries_;
};

// GPT-2's alphabet (bytes_to_unicode in encoder.py of openai/gpt-2): printable
// bytes of Latin-1 stand for themselves, the others for U+0100 and up.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable =
          (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      letters_[b] = printable ? static_cast<char32_t>(b) : next++;
      bytes_[letters_[b]] = static_cast<int16_t>(b);
    }
  }

  std::string letter(int byte) const {
    std::string text;
    append_utf8(letters_[byte], text);
    return text;
  }

  // The bytes of a token. One with other letters stands for its own text.
  std::string bytes_of(std::string_view token) const {
    std::string bytes;
    for (size_t i = 0; i < token.size();) {
      const Decoded decoded = decode_utf8(token.data() + i);
      const auto found =
          decoded.point < bytes_.size() ? bytes_[decoded.point] : int16_t{-1};
      if (found < 0) {
        return std::string(token);
      }
      bytes += static_cast<char>(found);
      i += decoded.size;
    }
    return bytes;
  }

 private:
  static std::array<int16_t, 0x200> no_bytes() {
    std::array<int16_t, 0x200> bytes;
    bytes.fill(-1);
    return bytes;
  }

  std::array<char32_t, 256> letters_;
  std::array<int16_t, 0x200> bytes_ = no_bytes();
};

// All tokens by id; added ones that are not in the vocabulary follow it.
std::vector<std::string_view> order_by_id(
    const TokenizerParts& parts,
    TextIndex& index) {
  std::vector<std::pair<std::string_view, int32_t>> entries = parts.vocab;
  for (const auto& [text, id] : parts.vocab) {
    if (!index.add(text, id)) {
      refuse("the token " + quoted(text) + " is there twice", parts.source);
    }
  }
  for (const AddedToken& added : parts.added) {
    const int32_t known = index.find(added.content);
    if (known >= 0 && known != added.id) {
      refuse(
          "the added token " + quoted(added.content) + " has the id " +
              std::to_string(added.id) + ", but " + std::to_string(known) +
              " in the vocabulary",
          parts.source);
    }
    if (known < 0) {
      index.add(added.content, added.id);
      entries.emplace_back(added.content, added.id);
    }
  }
  std::vector<std::string_view> texts(entries.size());
  for (const auto& [text, id] : entries) {
    if (static_cast<size_t>(id) >= entries.size()) {
      refuse(
          "the ids have a gap: " + std::to_string(entries.size()) +
              " tokens, but " + quoted(text) + " has the id " +
              std::to_string(id),
          parts.source);
    }
    if (texts[id].data() != nullptr) {
      refuse(
          "the tokens " + quoted(texts[id]) + " and " + quoted(text) +
              " have the same id " + std::to_string(id),
          parts.source);
    }
    texts[id] = text;
  }
  return texts;
}

std::vector<Merge> find_merges(
    const TokenizerParts& parts,
    const TextIndex& index) {
  std::vector<Merge> merges;
  merges.reserve(parts.merges.size());
  std::string joined;
  for (const auto& [left, right] : parts.merges) {
    joined.assign(left);
    joined += right;
    const Merge merge{index.find(left), index.find(right), index.find(joined)};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
      const std::string_view missing = merge.left < 0 ? left
          : merge.right < 0                           ? right
                            : std::string_view(joined);
      refuse(
          "merge " + std::to_string(merges.size() + 1) + " needs the token " +
              quoted(missing) + ", which is not in the vocabulary",
          parts.merges_source);
    }
    merges.push_back(merge);
  }
  return merges;
}

void check_no_merge_twice(
    const Bpe& bpe,
    const std::vector<Merge>& merges,
    const TokenizerParts& parts) {
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    if (bpe.rank_of(merges[rank].left, merges[rank].right) != rank) {
      const auto& [left, right] = parts.merges[rank];
      refuse(
          "the merge of " + quoted(left) + " and " + quoted(right) +
              " is there twice",
          parts.merges_source);
    }
  }
}

// The five tokens of a RoBERTa model, by the names they have in every one.
SpecialTokens find_special(
    const std::vector<AddedToken>& added,
    const std::string& source) {
  SpecialTokens special;
  const std::pair<const char*, int32_t*> names[] = {
      {"<s>", &special.bos},
      {"<pad>", &special.pad},
      {"</s>", &special.eos},
      {"<unk>", &special.unk},
      {"<mask>", &special.mask}};
  std::string missing;
  for (const auto& [name, id] : names) {
    for (const AddedToken& token : added) {
      if (token.special && token.content == name) {
        *id = token.id;
      }
    }
    if (*id < 0) {
      missing.append(" ").append(name);
    }
  }
  if (!missing.empty()) {
    throw Error(
        ExitCode::data,
        "the vocabulary has no special token" + missing,
        source,
        "a RoBERTa tokenizer has <s> <pad> </s> <unk> <mask>");
  }
  return special;
}

void check_added(
    const std::vector<AddedToken>& added,
    const std::string& source) {
  if (added.size() > kMostAddedTokens) {
    throw Error(
        ExitCode::config,
        std::to_string(added.size()) + " added tokens are too many",
        source,
        "at most " + std::to_string(kMostAddedTokens) + " are supported");
  }
  for (size_t i = 0; i < added.size(); ++i) {
    const std::string& content = added[i].content;
    if (content.empty()) {
      refuse("an added token is empty", source);
    }
    if (class_of(decode_utf8(content.data()).point) == CharClass::space) {
      throw Error(
          ExitCode::config,
          "the added token " + quoted(content) +
              " starts with white space, which is not supported",
          source,
          "");
    }
    for (size_t j = 0; j < i; ++j) {
      if (added[j].content == content) {
        refuse(
            "the added token " + quoted(content) + " is there twice", source);
      }
    }
  }
}

// XXH3-128 over the tokens by id, the merges and the added tokens.
std::string fingerprint_of(
    const std::vector<std::string_view>& texts,
    const std::vector<Merge>& merges,
    std::vector<AddedToken> added) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  const auto add = [state](const void* data, size_t size) {
    XXH3_128bits_update(state, data, size);
  };
  for (const std::string_view text : texts) {
    const uint64_t size = text.size();
    add(&size, sizeof(size));
    add(text.data(), text.size());
  }
  add(merges.data(), merges.size() * sizeof(Merge));
  std::sort(added.begin(), added.end(), [](const auto& a, const auto& b) {
    return a.id < b.id;
  });
  for (const AddedToken& token : added) {
    const int32_t fields[] = {
        token.id, token.lstrip, token.rstrip, token.special};
    add(fields, sizeof(fields));
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  char text[33];
  std::snprintf(
      text,
      sizeof(text),
      "%016llx%016llx",
      static_cast<unsigned long long>(hash.high64),
      static_cast<unsigned long long>(hash.low64));
  return text;
}

} // namespace

std::unique_ptr<const TokenizerModel> build_tokenizer(
    const TokenizerParts& parts) {
  check_added(parts.added, parts.source);
  TextIndex index(parts.vocab.size() + parts.added.size());
  const std::vector<std::string_view> texts = order_by_id(parts, index);
  const std::vector<Merge> merges = find_merges(parts, index);

  const ByteAlphabet alphabet;
  std::array<int32_t, 256> byte_ids;
  for (int b = 0; b < 256; ++b) {
    byte_ids[b] = index.find(alphabet.letter(b));
    if (byte_ids[b] < 0) {
      refuse(
          "the vocabulary has no token " + quoted(alphabet.letter(b)) +
              " for the byte " + std::to_string(b),
          parts.source);
    }
  }
  TokenTable tokens;
  for (const std::string_view text : texts) {
    tokens.add(alphabet.bytes_of(text));
  }
  auto model =
      std::make_unique<TokenizerModel>(std::move(tokens), merges, byte_ids);
  check_no_merge_twice(model->bpe, merges, parts);
  model->special = find_special(parts.added, parts.source);
  model->fingerprint = fingerprint_of(texts, merges, parts.added);

  std::vector<AddedToken> first, second;
  for (const AddedToken& token : parts.added) {
    (token.normalized ? second : first).push_back(token);
    if (token.special) {
      model->special_ids.push_back(token.id);
    }
  }
  std::sort(model->special_ids.begin(), model->special_ids.end());
  model->first_added = AddedTokenFinder(std::move(first));
  model->second_added = AddedTokenFinder(std::move(second));
  return model;
}

} // namespace deepspeed::text
