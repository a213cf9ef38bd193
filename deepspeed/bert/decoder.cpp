// Back through the decoder, a few rows of its matrix at a time.
#include "deepspeed/bert/decoder.h"

#include <algorithm>

#include "deepspeed/bert/dispatch.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/column_sum.h"
#include "deepspeed/kernels/matmul.h"

namespace deepspeed::bert {
namespace {

// Ranges of the vocabulary, each with its own sum for the gradient of x, added
// in order: part of the result, whatever the number of threads.
constexpr int64_t kRanges = 32;
// Words at a time: in the product for x, and, of so many bytes, in the one for
// W: with what an optimizer reads they fill half of a small L2 cache.
constexpr int64_t kWords = 480;
constexpr int64_t kRowBytes = 100 << 10;
constexpr int64_t kMultiple = 12; // rows of a tile, see kernels/matmul.h

// The length of even parts of n, of at most `most`: a multiple of kMultiple.
int64_t even_part(int64_t n, int64_t most) {
  const int64_t parts = std::max<int64_t>((n + most - 1) / most, 1);
  const int64_t length = (n + parts - 1) / parts;
  return (length + kMultiple - 1) / kMultiple * kMultiple;
}

template <typename T>
class DecoderBackward {
 public:
  DecoderBackward(const DecoderGradient& gradient, const DecoderTarget& target)
      : gradient_(gradient),
        target_(target),
        rows_(gradient.x.size(0)),
        hidden_(gradient.x.size(1)),
        words_(gradient.weight.size(0)),
        range_(even_part(words_, (words_ + kRanges - 1) / kRanges)),
        ranges_((words_ + range_ - 1) / range_),
        slice_(even_part(range_, kWords)),
        step_(even_part(
            slice_,
            std::max<int64_t>(
                kRowBytes / int64_t{sizeof(float)} / hidden_,
                1))),
        sums_(at::empty(
            {ranges_, rows_ * hidden_},
            gradient.x.options().dtype(at::kFloat))) {}

  at::Tensor run() {
    flat::for_tasks(ranges_, [&](int64_t range) { run_range(range); });
    const at::Tensor sum = at::empty({rows_, hidden_}, sums_.options());
    kernels::ColumnSum<float> args;
    args.rows = ranges_;
    args.stride = sum.numel();
    args.x = data<float>(sums_);
    args.out = data<float>(sum);
    constexpr int64_t kGrain = 1024;
    flat::for_ranges(0, sum.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels::column_sum(args, begin, end);
    });
    return sum.to(gradient_.x.scalar_type());
  }

 private:
  void run_range(int64_t range) {
    const int64_t first = range * range_;
    const int64_t last = std::min(first + range_, words_);
    const at::Tensor buffer = target_.consumer == nullptr
        ? at::Tensor()
        : at::empty({step_, hidden_}, sums_.options());
    for (int64_t begin = first; begin < last; begin += slice_) {
      const int64_t end = std::min(begin + slice_, last);
      add_to_sum(range, begin, end, /*add=*/begin > first);
      for (int64_t row = begin; row < end; row += step_) {
        make_rows(row, std::min(row + step_, end), data<float>(buffer));
      }
    }
  }

  // The part of the words [begin, end) in the gradient of x.
  void add_to_sum(int64_t range, int64_t begin, int64_t end, bool add) const {
    kernels::Matmul<T, float> args;
    args.rows = rows_;
    args.columns = hidden_;
    args.depth = end - begin;
    args.left = {data<T>(gradient_.logits) + begin, words_, 1};
    args.right = {data<T>(gradient_.weight) + begin * hidden_, hidden_, 1};
    args.scale = gradient_.factor;
    args.accumulate = add;
    args.out = data<float>(sums_) + range * rows_ * hidden_;
    args.out_row = hidden_;
    args.ahead.ranges[args.ahead.count++] =
        data<T>(gradient_.weight) + end * hidden_;
    args.ahead.bytes = args.depth * hidden_ * int64_t{sizeof(T)};
    multiply(args);
  }

  // The gradient of the rows [begin, end) of W.
  void make_rows(int64_t begin, int64_t end, float* buffer) const {
    kernels::Matmul<T, float> args;
    args.rows = end - begin;
    args.columns = hidden_;
    args.depth = rows_;
    args.left = {data<T>(gradient_.logits) + begin, 1, words_};
    args.right = {data<T>(gradient_.x), hidden_, 1};
    args.scale = gradient_.factor;
    args.out_row = hidden_;
    if (target_.consumer == nullptr) {
      args.out = data<float>(target_.weight.grad) + begin * hidden_;
      args.accumulate = target_.weight.add;
      args.streams = true;
      multiply(args);
      return;
    }
    args.out = buffer;
    for (const float* array : target_.consumer->reads(begin)) {
      args.ahead.ranges[args.ahead.count++] = array;
    }
    args.ahead.bytes = args.rows * hidden_ * int64_t{sizeof(float)};
    multiply(args);
    target_.consumer->take(begin, end, buffer);
  }

  // In one block.
  static void multiply(const kernels::Matmul<T, float>& args) {
    kernels::matmul(args, {args.rows, args.columns, 1, 1}, 0, 1);
  }

  const DecoderGradient& gradient_;
  const DecoderTarget& target_;
  const int64_t rows_;
  const int64_t hidden_;
  const int64_t words_;
  const int64_t range_; // words
  const int64_t ranges_;
  const int64_t slice_; // words
  const int64_t step_; // words
  const at::Tensor sums_; // [ranges, rows * hidden], fp32
};

} // namespace

at::Tensor decoder_backward(
    const DecoderGradient& gradient,
    const DecoderTarget& target) {
  at::Tensor result;
  dispatch(gradient.x, [&](auto t) {
    result = DecoderBackward<decltype(t)>(gradient, target).run();
  });
  return result;
}

} // namespace deepspeed::bert
