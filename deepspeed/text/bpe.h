// The merges of byte pair encoding, applied to one word.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace deepspeed::text {

// Strings by id, 0 to size() - 1, in one block of memory.
class TokenTable {
 public:
  void add(std::string_view text) {
    bytes_.append(text);
    ends_.push_back(bytes_.size());
  }
  size_t size() const {
    return ends_.size();
  }
  std::string_view operator[](size_t id) const {
    const size_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(bytes_).substr(begin, ends_[id] - begin);
  }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

// Two neighbours that become one token. The rank is the place in the list.
struct Merge {
  int32_t left;
  int32_t right;
  int32_t result;
};

// Byte pair encoding (Sennrich et al., arXiv 1508.07909): of all neighbours
// that may be merged, those of the lowest rank are, the leftmost first, until
// there are none. Immutable, so threads may share one.
class Bpe {
 public:
  // byte_ids: the token that each byte starts as. tokens: the bytes of the ids,
  // which must outlive this. Of a pair that is there twice the first counts.
  // REQUIRES: ids within tokens.
  Bpe(const std::vector<Merge>& merges,
      const std::array<int32_t, 256>& byte_ids,
      const TokenTable& tokens);

  // Appends the ids of `word`, of any length below 2^32. Time O(n log n);
  // memory about 30 bytes for each byte of the word, or of a part of 64 KiB
  // where it is longer.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

  // The rank at which two neighbours are merged; kNoRank if they are not.
  uint32_t rank_of(int32_t left, int32_t right) const;
  static constexpr uint32_t kNoRank = ~uint32_t{0};

 private:
  void encode_short(std::string_view word, std::vector<int32_t>& ids) const;
  void encode_long(std::string_view word, std::vector<int32_t>& ids) const;
  void encode_in_parts(std::string_view word, std::vector<int32_t>& ids) const;
  void encode_part(std::string_view word, std::vector<int32_t>& ids) const;
  bool stay_apart(int32_t left, int32_t right) const;

  std::array<int32_t, 256> byte_ids_;
  const TokenTable& tokens_;
  // Open addressing: keys_[i] is left << 32 | right, its rank is ranks_[i].
  // Most look-ups find nothing, and read the keys only.
  std::vector<uint64_t> keys_;
  std::vector<uint32_t> ranks_;
  int shift_ = 0; // the place of a key is the top bits of its hash
  std::vector<int32_t> results_; // by rank
  std::vector<uint32_t> byte_ranks_; // of two bytes, left * 256 + right
};

} // namespace deepspeed::text
