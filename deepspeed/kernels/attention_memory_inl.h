// Scratch memory of attention; included again for each instruction set.
//
// The scores stand transposed, [keys, kQueries]: a vector holds one key and the
// scores of kLanes queries. So the softmax needs no sums over lanes, dropout
// comes from the registers that it was drawn in, and keys and values are the
// left operand, which needs no transposition.
#if defined(DEEPSPEED_KERNELS_ATTENTION_MEMORY_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSPEED_KERNELS_ATTENTION_MEMORY_INL_H_
#undef DEEPSPEED_KERNELS_ATTENTION_MEMORY_INL_H_
#else
#define DEEPSPEED_KERNELS_ATTENTION_MEMORY_INL_H_
#endif

#include "deepspeed/kernels/attention_units_inl.h"
#include "deepspeed/kernels/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace deepspeed::kernels::HWY_NAMESPACE {

// The sizes of the packed matrices of one sequence and head.
template <class Units>
struct Sizes {
  HWY_INLINE Sizes(int64_t length, int64_t head_dim)
      : keys(round_up(length, kKeys)),
        depth((head_dim + Units::kNumbers - 1) / Units::kNumbers),
        row(round_up(depth, kLanes)),
        columns(round_up(head_dim, kLanes)),
        pairs((length + Units::kNumbers - 1) / Units::kNumbers) {}

  int64_t keys; // padded
  int64_t depth; // units of a head
  int64_t row; // of packed rows, in units
  int64_t columns; // of products with a column for each number of a head
  int64_t pairs; // units of the depth where that is the keys
};

// Hands out parts of one scratch buffer.
class Carver {
 public:
  explicit Carver(float* memory) : next_(memory) {}
  float* take(int64_t count) {
    float* part = next_;
    next_ += round_up(count, 16);
    return part;
  }

 private:
  float* next_;
};
constexpr int64_t kSlack = 256; // floats, for the alignment of the parts

// Scratch memory of the forward pass.
template <class Units>
struct ForwardMemory {
  explicit ForwardMemory(const Sizes<Units>& s)
      : carver(scratch_floats(static_cast<size_t>(
            s.keys * (2 * s.row + s.columns + 2 * kQueries) +
            kQueries * (2 * s.row + s.columns) + kSlack))),
        keys(carver.take(s.keys * s.row)),
        values(carver.take(s.keys * s.row)),
        joined_values(carver.take(s.keys * s.columns)),
        scores(carver.take(s.keys * kQueries)),
        p(Units::kNumbers == 1 ? scores : carver.take(s.keys * kQueries)),
        queries(carver.take(kQueries * s.row)),
        queries_t(carver.take(kQueries * s.row)),
        result(carver.take(kQueries * s.columns)) {}

  Carver carver;
  float* keys; // packed rows
  float* values; // packed rows
  float* joined_values; // where Units joins rows
  float* scores; // [keys, kQueries]
  float* p; // probabilities after dropout, times `sum`, for products over keys
  float* queries; // packed rows
  float* queries_t;
  float* result; // [kQueries, columns]
};

// Rows of a tile of queries, in the three forms that the products need.
struct QueryRows {
  float* packed;
  float* transposed;
  float* memory; // for joined rows
};

// Scratch memory of the backward pass.
template <class Units>
struct BackwardMemory {
  explicit BackwardMemory(const Sizes<Units>& s)
      : carver(scratch_floats(static_cast<size_t>(
            s.keys * (2 * s.row + 3 * s.columns + 5 * kQueries) +
            kQueries * (4 * s.row + 3 * s.columns) + kSlack))),
        keys(carver.take(s.keys * s.row)),
        values(carver.take(s.keys * s.row)),
        joined_keys(carver.take(s.keys * s.columns)),
        dkeys(carver.take(s.keys * s.columns)),
        dvalues(carver.take(s.keys * s.columns)),
        scores(carver.take(s.keys * kQueries)),
        dp(carver.take(s.keys * kQueries)),
        p(kShared ? scores : carver.take(s.keys * kQueries)),
        ds(kShared ? dp : carver.take(s.keys * kQueries)),
        ds_for_keys(kShared ? dp : carver.take(s.keys * kQueries)),
        queries(rows(s)),
        dout(rows(s)),
        dqueries(carver.take(kQueries * s.columns)) {}

  static constexpr bool kShared = Units::kNumbers == 1;

  QueryRows rows(const Sizes<Units>& s) {
    return {
        carver.take(kQueries * s.row),
        carver.take(kQueries * s.row),
        carver.take(kQueries * s.columns)};
  }

  Carver carver;
  float* keys; // packed rows
  float* values; // packed rows
  float* joined_keys; // where Units joins rows
  float* dkeys; // [keys, columns]
  float* dvalues; // [keys, columns]
  float* scores; // [keys, kQueries]
  float* dp; // [keys, kQueries]: dout v^T
  float* p; // probabilities after dropout, for products over queries
  float* ds; // gradients of the scores, for products over queries
  float* ds_for_keys; // the same for products over keys; ds itself for floats
  QueryRows queries;
  QueryRows dout;
  float* dqueries; // [kQueries, columns]
};

// What the forward pass left, for each query of a tile.
struct Saved {
  alignas(64) float lse[kQueries];
  alignas(64) float delta[kQueries]; // dout . out
};

} // namespace deepspeed::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif // the toggling guard
