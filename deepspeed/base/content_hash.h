// The hash by which files are recognised: XXH3-128 (xxhash.com).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace deepspeed::base {

// Fast and good against accidents; it does not stop a forger. Not thread-safe.
class ContentHash {
 public:
  ContentHash();
  ~ContentHash();
  ContentHash(const ContentHash&) = delete;
  ContentHash& operator=(const ContentHash&) = delete;

  void update(std::span<const std::byte> bytes);
  // Of all bytes so far: 32 hexadecimal digits, as `xxhsum -H2` prints them.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace deepspeed::base
