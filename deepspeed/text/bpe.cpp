// The merges of byte pair encoding, applied to one word.
#include "deepspeed/text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

namespace deepspeed::text {
namespace {

constexpr uint64_t kEmpty = ~uint64_t{0};
// Words up to this length are merged in arrays on the stack.
constexpr size_t kShortWord = 48;
// Longer ones, with a heap, in parts of this length.
constexpr size_t kPart = 64 << 10;

uint64_t key_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
      static_cast<uint32_t>(right);
}

uint64_t hash_of(uint64_t key) {
  key *= 0x9E3779B97F4A7C15u;
  return (key ^ key >> 32) * 0xD6E8FEB86659FD93u;
}

} // namespace

Bpe::Bpe(
    const std::vector<Merge>& merges,
    const std::array<int32_t, 256>& byte_ids,
    const TokenTable& tokens)
    : byte_ids_(byte_ids), tokens_(tokens) {
  const size_t size = std::bit_ceil(std::max<size_t>(merges.size() * 2, 16));
  shift_ = 64 - std::countr_zero(size);
  keys_.resize(size, kEmpty);
  ranks_.resize(size, kNoRank);
  results_.reserve(merges.size());
  byte_ranks_.resize(256 * 256, kNoRank);
  std::vector<int> byte_of(tokens.size(), -1);
  for (int byte = 0; byte < 256; ++byte) {
    byte_of[byte_ids_[byte]] = byte;
  }
  for (const Merge& merge : merges) {
    const auto rank = static_cast<uint32_t>(results_.size());
    results_.push_back(merge.result);
    const uint64_t key = key_of(merge.left, merge.right);
    size_t i = hash_of(key) >> shift_;
    while (keys_[i] != kEmpty && keys_[i] != key) {
      i = (i + 1) & (size - 1);
    }
    if (keys_[i] == key) {
      continue;
    }
    keys_[i] = key;
    ranks_[i] = rank;
    const int left = byte_of[merge.left];
    const int right = byte_of[merge.right];
    if (left >= 0 && right >= 0) {
      byte_ranks_[left * 256 + right] = rank;
    }
  }
}

uint32_t Bpe::rank_of(int32_t left, int32_t right) const {
  const uint64_t key = key_of(left, right);
  size_t i = hash_of(key) >> shift_;
  while (keys_[i] != key) {
    if (keys_[i] == kEmpty) {
      return kNoRank;
    }
    i = (i + 1) & (keys_.size() - 1);
  }
  return ranks_[i];
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.size() <= kPart) {
    encode_part(word, ids);
  } else {
    encode_in_parts(word, ids);
  }
}

void Bpe::encode_part(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.size() <= kShortWord) {
    encode_short(word, ids);
  } else {
    encode_long(word, ids);
  }
}

// Looks for the best pair over and over: quadratic, but the fastest for words.
void Bpe::encode_short(std::string_view word, std::vector<int32_t>& ids) const {
  int32_t symbols[kShortWord];
  uint32_t ranks[kShortWord]; // of symbols[i] and symbols[i + 1]
  size_t n = word.size();
  for (size_t i = 0; i < n; ++i) {
    const auto byte = static_cast<unsigned char>(word[i]);
    symbols[i] = byte_ids_[byte];
    if (i > 0) {
      const auto left = static_cast<unsigned char>(word[i - 1]);
      ranks[i - 1] = byte_ranks_[left * 256u + byte];
    }
  }
  while (n > 1) {
    const size_t best =
        static_cast<size_t>(std::min_element(ranks, ranks + n - 1) - ranks);
    if (ranks[best] == kNoRank) {
      break;
    }
    symbols[best] = results_[ranks[best]];
    --n;
    std::copy(symbols + best + 2, symbols + n + 1, symbols + best + 1);
    if (best + 1 < n) {
      std::copy(ranks + best + 2, ranks + n, ranks + best + 1);
      ranks[best] = rank_of(symbols[best], symbols[best + 1]);
    }
    if (best > 0) {
      ranks[best - 1] = rank_of(symbols[best - 1], symbols[best]);
    }
  }
  ids.insert(ids.end(), symbols, symbols + n);
}

// A linked list of symbols, and a heap of the pairs that may be merged. A pair
// that has changed since it was pushed is recognised by its rank.
void Bpe::encode_long(std::string_view word, std::vector<int32_t>& ids) const {
  struct Symbol {
    int32_t id;
    uint32_t previous;
    uint32_t next;
    uint32_t rank; // of the pair with the next symbol
  };
  const auto n = static_cast<uint32_t>(word.size());
  std::vector<Symbol> symbols(n + 1); // the last one is the end of the list
  for (uint32_t i = 0; i < n; ++i) {
    symbols[i] = {
        byte_ids_[static_cast<unsigned char>(word[i])], i - 1, i + 1, kNoRank};
  }
  symbols[n] = {-1, n - 1, n, kNoRank};

  std::vector<uint64_t> heap; // rank << 32 | position
  const auto set_pair = [&](uint32_t i) {
    symbols[i].rank = kNoRank;
    if (symbols[i].next != n) {
      symbols[i].rank = rank_of(symbols[i].id, symbols[symbols[i].next].id);
    }
    if (symbols[i].rank != kNoRank) {
      heap.push_back(uint64_t{symbols[i].rank} << 32 | i);
    }
    return symbols[i].rank != kNoRank;
  };
  for (uint32_t i = 0; i < n; ++i) {
    set_pair(i);
  }
  const auto later = std::greater<uint64_t>();
  std::make_heap(heap.begin(), heap.end(), later);
  const auto renew_pair = [&](uint32_t i) {
    if (set_pair(i)) {
      std::push_heap(heap.begin(), heap.end(), later);
    }
  };

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const auto i = static_cast<uint32_t>(heap.back());
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    heap.pop_back();
    if (symbols[i].rank != rank) {
      continue;
    }
    const uint32_t gone = symbols[i].next;
    symbols[i].id = results_[rank];
    symbols[i].next = symbols[gone].next;
    symbols[symbols[gone].next].previous = i;
    symbols[gone].rank = kNoRank;
    renew_pair(i);
    if (i > 0) {
      renew_pair(symbols[i].previous);
    }
  }
  for (uint32_t i = 0; i != n; i = symbols[i].next) {
    ids.push_back(symbols[i].id);
  }
}

// True if the two tokens, when side by side, are not merged into something
// else. A sequence of tokens is the encoding of its bytes exactly if that holds
// for each two neighbours (shown by the authors of the Rust crate `bpe`): the
// first merge across a boundary would only have to do with these two.
bool Bpe::stay_apart(int32_t left, int32_t right) const {
  std::string bytes(tokens_[left]);
  bytes += tokens_[right];
  std::vector<int32_t> ids;
  encode_part(bytes, ids);
  return ids.size() == 2 && ids[0] == left && ids[1] == right;
}

// Encodes part after part, so that memory does not grow with the word. The
// last tokens of a part, which lack what follows them, are left to the next
// one; where the parts still do not fit together, they become longer.
void Bpe::encode_in_parts(std::string_view word, std::vector<int32_t>& ids)
    const {
  const size_t first = ids.size();
  size_t part = kPart;
  size_t spare = 4;
  std::vector<int32_t> tokens;
  for (size_t done = 0; done < word.size();) {
    tokens.clear();
    encode_part(word.substr(done, part), tokens);
    const bool is_last = word.size() - done <= part;
    const bool fits =
        ids.size() == first || stay_apart(ids.back(), tokens.front());
    const size_t keep = is_last ? tokens.size()
        : tokens.size() > spare ? tokens.size() - spare
                                : 0;
    if (fits && keep > 0) {
      for (size_t i = 0; i < keep; ++i) {
        done += tokens_[tokens[i]].size();
        ids.push_back(tokens[i]);
      }
      continue;
    }
    for (size_t i = 0; !fits && i < spare && ids.size() > first; ++i) {
      done -= tokens_[ids.back()].size();
      ids.pop_back();
    }
    part *= 2;
    spare *= fits ? 1 : 2;
  }
}

} // namespace deepspeed::text
