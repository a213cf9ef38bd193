// The hash by which files are recognised: XXH3-128 (xxhash.com).
#include "deepspeed/base/content_hash.h"

#include <xxhash.h>

#include <cstdio>
#include <new>

namespace deepspeed::base {

struct ContentHash::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() {
    XXH3_freeState(xxh);
  }
};

ContentHash::ContentHash() : state_(std::make_unique<State>()) {
  if (state_->xxh == nullptr || XXH3_128bits_reset(state_->xxh) != XXH_OK) {
    throw std::bad_alloc();
  }
}

ContentHash::~ContentHash() = default;

void ContentHash::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}

std::string ContentHash::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  char text[33];
  std::snprintf(
      text,
      sizeof text,
      "%016llx%016llx",
      static_cast<unsigned long long>(hash.high64),
      static_cast<unsigned long long>(hash.low64));
  return text;
}

} // namespace deepspeed::base
