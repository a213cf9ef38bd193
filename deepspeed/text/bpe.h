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
  // which must outlive this. REQUIRES: no pair twice, ids within tokens.
  Bpe(const std::vector<Merge>& merges,
      const std::array<int32_t, 256>& byte_ids,
      const TokenTable& tokens);

  // Appends the ids of `word`, of any length below 2^32. Time O(n log n);
  // memory about 30 bytes for each byte of the word, or of a part of 64 KiB
  // where it is longer.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

 private:
  struct Slot {
    uint64_t key; // left << 32 | right
    uint32_t rank;
    int32_t result;
  };

  // The merge of two neighbours; rank kNoRank if there is none.
  Slot find(int32_t left, int32_t right) const;
  void encode_short(std::string_view word, std::vector<int32_t>& ids) const;
  void encode_long(std::string_view word, std::vector<int32_t>& ids) const;
  void encode_in_parts(std::string_view word, std::vector<int32_t>& ids) const;
  void encode_part(std::string_view word, std::vector<int32_t>& ids) const;
  bool stay_apart(int32_t left, int32_t right) const;

  std::array<int32_t, 256> byte_ids_;
  const TokenTable& tokens_;
  std::vector<Slot> slots_; // open addressing, a power of two
  int shift_ = 0; // the slot of a hash is its top bits
};

} // namespace deepspeed::text
