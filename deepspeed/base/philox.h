// Philox4x32-10, the counter-based generator behind every random decision.
//
// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A
// value depends on its key and counter alone: not on the rank, the thread, or
// what was drawn before. That is what makes a resume exact.
#pragma once

#include <array>
#include <cstdint>

namespace deepspeed::base {

// What a random number is for; part of the key, so that streams never meet.
enum class Purpose : uint32_t {
  order = 1, // permutation of the samples of an epoch
  mask = 2, // which tokens are masked, and by what they are replaced
  dropout = 3, // site << 8 is added: one stream for each place in the model
  init = 4, // initial weights
};

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

// The key of (seed, purpose, site): two rounds of 64-bit mixing (the finalizer
// of MurmurHash3), since close keys must give unrelated streams.
constexpr PhiloxKey philox_key(
    uint64_t seed,
    Purpose purpose,
    uint32_t site = 0) {
  auto mix = [](uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ (x >> 33);
  };
  const uint64_t key =
      mix(mix(seed) + (uint64_t{site} << 8 | static_cast<uint32_t>(purpose)));
  return {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
}

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85;
constexpr int kPhiloxRounds = 10;

// Four random 32-bit words.
constexpr PhiloxCounter philox(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * counter[2];
    counter = {
        static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
        static_cast<uint32_t>(product1),
        static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
        static_cast<uint32_t>(product0)};
    key[0] += kPhiloxWeyl0;
    key[1] += kPhiloxWeyl1;
  }
  return counter;
}

// A stream of words for one object, for callers that need a few of them.
// `object` is, for example, the visit of a sample.
class PhiloxStream {
 public:
  PhiloxStream(PhiloxKey key, uint64_t object)
      : key_(key),
        counter_{
            0,
            0,
            static_cast<uint32_t>(object),
            static_cast<uint32_t>(object >> 32)} {}

  uint32_t next() {
    if (used_ == 4) {
      words_ = philox(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return words_[used_++];
  }
  // Uniform in [0, 1), 24 bits.
  float uniform() {
    return static_cast<float>(next() >> 8) * 0x1p-24f;
  }
  // Uniform in [0, bound), without bias (Lemire's method). bound > 0.
  uint32_t below(uint32_t bound) {
    uint64_t product = uint64_t{next()} * bound;
    if (static_cast<uint32_t>(product) < bound) {
      const uint32_t threshold = -bound % bound;
      while (static_cast<uint32_t>(product) < threshold) {
        product = uint64_t{next()} * bound;
      }
    }
    return static_cast<uint32_t>(product >> 32);
  }

 private:
  PhiloxKey key_;
  PhiloxCounter counter_;
  PhiloxCounter words_{};
  unsigned used_ = 4;
};

} // namespace deepspeed::base
