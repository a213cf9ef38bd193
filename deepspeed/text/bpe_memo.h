// The ids of words that were encoded before.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace deepspeed::text {

// A hash table from short words to their ids. When it is full it forgets
// everything and starts again: memory stays below 60 MB for any text, and words
// that are no longer met do not stay. Not thread-safe.
class PretokenMemo {
 public:
  static constexpr size_t kLongestWord = 16; // bytes; text has few longer ones

  PretokenMemo() : slots_(kFirstSlots) {}

  // A word as two integers, the unused bytes 0, and its length.
  struct Key {
    uint64_t low = 0;
    uint64_t high = 0;
    uint32_t size = 0;
    bool operator==(const Key&) const = default;

    uint64_t hash() const {
      uint64_t mixed = (low ^ size) * 0x9E3779B97F4A7C15u;
      mixed = (mixed ^ high ^ mixed >> 32) * 0xD6E8FEB86659FD93u;
      return mixed ^ mixed >> 32;
    }
  };

  // REQUIRES: 1 <= size <= kLongestWord, size <= end - word.
  static Key key_of(const char* word, size_t size, const char* end) {
    Key key{0, 0, static_cast<uint32_t>(size)};
    if (static_cast<size_t>(end - word) < kLongestWord) {
      char padded[kLongestWord] = {};
      std::memcpy(padded, word, size);
      std::memcpy(&key.low, padded, 8);
      std::memcpy(&key.high, padded + 8, 8);
    } else {
      // Reads past the word, inside the text, and clears what is not its own.
      std::memcpy(&key.low, word, 8);
      std::memcpy(&key.high, word + 8, 8);
      if (size <= 8) {
        key.low &= ~uint64_t{0} >> (64 - 8 * size);
        key.high = 0;
      } else {
        key.high &= ~uint64_t{0} >> (128 - 8 * size);
      }
    }
    return key;
  }

  // Asks for the memory that find() will read: the table is larger than the
  // caches, and words that follow can be waited for together.
  void prefetch(const Key& key) const {
    __builtin_prefetch(&slots_[key.hash() & (slots_.size() - 1)]);
  }

  // Appends the ids of the word, if they are known.
  bool find(const Key& key, std::vector<int32_t>& ids) const {
    const Slot& slot = slots_[index_of(key)];
    if (slot.n == 0) {
      return false;
    }
    if (slot.n == 1) {
      ids.push_back(slot.ids[0]);
      return true;
    }
    const int32_t* begin =
        slot.n <= kInline ? slot.ids : more_.data() + slot.ids[0];
    ids.insert(ids.end(), begin, begin + slot.n);
    return true;
  }

  // REQUIRES: the word is not known, and has at least one id.
  void insert(const Key& key, std::span<const int32_t> ids) {
    if (used_ * 4 >= slots_.size() * 3) {
      grow();
    }
    Slot& slot = slots_[index_of(key)];
    slot.low = key.low;
    slot.high = key.high;
    slot.size = static_cast<uint16_t>(key.size);
    slot.n = static_cast<uint16_t>(ids.size());
    if (ids.size() <= kInline) {
      std::copy(ids.begin(), ids.end(), slot.ids);
    } else {
      slot.ids[0] = static_cast<int32_t>(more_.size());
      more_.insert(more_.end(), ids.begin(), ids.end());
    }
    ++used_;
  }

  size_t size() const {
    return used_;
  }

 private:
  static constexpr size_t kInline = 3;
  static constexpr size_t kFirstSlots = size_t{1} << 14;
  static constexpr size_t kMostSlots = size_t{1} << 19;

  struct Slot {
    uint64_t low = 0;
    uint64_t high = 0;
    int32_t ids[kInline] = {}; // or the place in more_
    uint16_t size = 0;
    uint16_t n = 0; // how many ids; 0: the slot is free
  };
  static_assert(sizeof(Slot) == 32);

  // The slot of the word, or the free one where it belongs.
  size_t index_of(const Key& key) const {
    const uint64_t mask = slots_.size() - 1;
    size_t i = key.hash() & mask;
    while (slots_[i].n != 0 &&
           (slots_[i].low != key.low || slots_[i].high != key.high ||
            slots_[i].size != key.size)) {
      i = (i + 1) & mask;
    }
    return i;
  }

  void grow() {
    if (slots_.size() == kMostSlots) {
      std::fill(slots_.begin(), slots_.end(), Slot());
      more_.clear();
      used_ = 0;
      return;
    }
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.n != 0) {
        slots_[index_of({slot.low, slot.high, slot.size})] = slot;
      }
    }
  }

  std::vector<Slot> slots_; // open addressing, a power of two
  std::vector<int32_t> more_; // ids of words with more than kInline
  size_t used_ = 0;
};

} // namespace deepspeed::text
