// Writes the bytes of a token cache, sample by sample, in one pass.
#include "deepspeed/text/cache_writer.h"

#include <algorithm>
#include <utility>

#include "deepspeed/text/cache_file.h"

namespace deepspeed::text {

CacheWriter::CacheWriter(uint32_t vocab_size, Write write)
    : vocab_size_(vocab_size), write_(std::move(write)) {
  put(std::as_bytes(std::span(kCacheMagic)));
}

void CacheWriter::put(std::span<const std::byte> bytes) {
  write_(bytes);
  while (!bytes.empty()) {
    const size_t n =
        std::min<size_t>(bytes.size(), kCacheBlockBytes - block_.size());
    block_.append(reinterpret_cast<const char*>(bytes.data()), n);
    bytes = bytes.subspan(n);
    if (block_.size() == kCacheBlockBytes) {
      end_block();
    }
  }
}

void CacheWriter::end_block() {
  hashes_.push_back(hash_of_block(std::as_bytes(std::span(block_))));
  block_.clear();
}

template <typename Token>
void CacheWriter::put_ids(std::span<const int32_t> ids) {
  const std::vector<Token> tokens(ids.begin(), ids.end());
  put(std::as_bytes(std::span(tokens)));
}

void CacheWriter::add(
    std::span<const int32_t> ids,
    std::span<const uint16_t> lengths) {
  if (token_bytes_of(vocab_size_) == sizeof(uint16_t)) {
    put_ids<uint16_t>(ids);
  } else {
    put_ids<uint32_t>(ids);
  }
  tokens_ += ids.size();
  lengths_.insert(lengths_.end(), lengths.begin(), lengths.end());
}

void CacheWriter::put_offsets() {
  constexpr size_t kBlock = 8192;
  std::vector<uint64_t> block{0};
  uint64_t offset = 0;
  for (const uint16_t length : lengths_) {
    offset += length;
    block.push_back(offset);
    if (block.size() == kBlock) {
      put(std::as_bytes(std::span(block)));
      block.clear();
    }
  }
  put(std::as_bytes(std::span(block)));
}

void CacheWriter::finish(const std::string& key) {
  CacheFooter footer;
  footer.samples = samples();
  footer.tokens = tokens_;
  footer.token_bytes = token_bytes_of(vocab_size_);
  footer.vocab_size = vocab_size_;
  const std::array<std::byte, 8> zeros{};
  const uint64_t end = kCacheMagic.size() + tokens_ * footer.token_bytes;
  put(std::span(zeros).first(offsets_begin(tokens_, footer.token_bytes) - end));
  put_offsets();
  if (!block_.empty()) {
    end_block();
  }
  const std::span<const std::byte> table = std::as_bytes(std::span(hashes_));
  write_(table);
  std::copy_n(
      key.begin(), std::min(key.size(), footer.key.size()), footer.key.begin());
  footer.table_hash = hash_of_table(table);
  footer.footer_hash = hash_of(footer);
  write_(std::as_bytes(std::span(&footer, 1)));
}

} // namespace deepspeed::text
