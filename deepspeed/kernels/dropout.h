// Dropout masks that depend on (seed, site, visit, position, feature) alone.
//
// An element is dropped if and only if its 16-bit random number is below a
// threshold. The number of (visit, row, column) comes from Philox with the
// counter {row, column / 8, low word of visit, high word of visit}: of its
// four words, word (column % 8) / 2, lower half for an even column, upper half
// for an odd one. Masks are recomputed in backward, never stored.
#pragma once

#include <cstdint>

#include "deepspeed/base/philox.h"

namespace deepspeed::kernels {

struct Dropout {
  uint32_t threshold = 0; // round(65536 p); 0 = no dropout
  float scale = 1.0f; // of the elements that stay: 1 / (1 - threshold / 65536)
  base::PhiloxKey key{};

  bool active() const {
    return threshold != 0;
  }
};

// `site` numbers the places of a model that drop out. p = 1 drops everything.
// Throws base::Error unless 0 <= p <= 1.
Dropout make_dropout(float p, uint64_t seed, uint32_t site);

// Writes the random numbers of columns [0, columns) of one row.
void dropout_bits(
    const Dropout& dropout,
    uint64_t visit,
    uint32_t row,
    int64_t columns,
    uint16_t* out);

// Per token: the visit of its sequence (the sample as the run meets it) and its
// position in that sequence, from 0. Hidden states use row = position.
struct TokenKeys {
  const uint64_t* visit = nullptr; // [tokens]
  const uint32_t* position = nullptr; // [tokens]
};

// y = dropout(x) for rows [begin, end) of [tokens, columns]; y may be x.
// The same call on dy is the backward pass.
template <typename T>
void dropout_rows(
    const Dropout& dropout,
    const TokenKeys& tokens,
    int64_t columns,
    const T* x,
    T* y,
    int64_t begin,
    int64_t end);

} // namespace deepspeed::kernels
