// Writes the bytes of a token cache, sample by sample, in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace deepspeed::text {

// Not thread-safe. Keeps two bytes for each sample and eight for each block
// until finish().
class CacheWriter {
 public:
  // Receives the bytes of the file in order.
  using Write = std::function<void(std::span<const std::byte>)>;

  CacheWriter(uint32_t vocab_size, Write write);

  // Appends samples: `lengths` says how many of `ids` belong to each.
  void add(std::span<const int32_t> ids, std::span<const uint16_t> lengths);
  // Writes offsets, hashes and footer; `key` has 32 characters.
  void finish(const std::string& key);

  uint64_t samples() const {
    return lengths_.size();
  }

 private:
  void put(std::span<const std::byte> bytes);
  void end_block();
  template <typename Token>
  void put_ids(std::span<const int32_t> ids);
  void put_offsets();

  uint32_t vocab_size_;
  Write write_;
  uint64_t tokens_ = 0;
  std::string block_; // the bytes of the block that is not full
  std::vector<uint64_t> hashes_; // of the blocks before
  std::vector<uint16_t> lengths_;
};

} // namespace deepspeed::text
