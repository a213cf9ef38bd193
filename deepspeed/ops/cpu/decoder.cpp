// Through the decoder and back, a few rows of its matrix at a time.
#include "deepspeed/ops/cpu/operations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/column_sum.h"
#include "deepspeed/kernels/convert.h"
#include "deepspeed/kernels/matmul.h"
#include "deepspeed/kernels/softmax_block.h"
#include "deepspeed/ops/cpu/dispatch.h"

namespace deepspeed::ops::cpu {
namespace {

// Ranges of the vocabulary, each with its own sum for the gradient of x, added
// in order: part of the result, whatever the number of threads.
constexpr int64_t kRanges = 32;
// Words of a slice: of one block of the softmax, and one product for x.
constexpr int64_t kWords = 480;
// Of the gradient of W that is made at a time: with what an optimizer reads it
// fills half of a small L2 cache.
constexpr int64_t kRowBytes = 100 << 10;
constexpr int64_t kMultiple = 12; // rows of a tile, see kernels/matmul.h

// The length of even parts of n, of at most `most`: a multiple of kMultiple.
int64_t even_part(int64_t n, int64_t most) {
  const int64_t parts = std::max<int64_t>((n + most - 1) / most, 1);
  const int64_t length = (n + parts - 1) / parts;
  return (length + kMultiple - 1) / kMultiple * kMultiple;
}

// How the vocabulary is cut.
struct Slices {
  explicit Slices(int64_t words)
      : words(words),
        range(even_part(words, (words + kRanges - 1) / kRanges)),
        ranges((words + range - 1) / range),
        slice(even_part(range, kWords)),
        in_range((range + slice - 1) / slice) {}

  // Calls function(first, last, number) for the slices of a range.
  template <typename Function>
  void for_slices(int64_t which, Function&& function) const {
    const int64_t end = std::min((which + 1) * range, words);
    int64_t number = which * in_range;
    for (int64_t first = which * range; first < end; first += slice) {
      function(first, std::min(first + slice, end), number++);
    }
  }

  int64_t words;
  int64_t range; // words
  int64_t ranges;
  int64_t slice; // words
  int64_t in_range; // slices; the last range may have less
};

// The rows of x by their labels.
class RowsOfLabels {
 public:
  explicit RowsOfLabels(std::span<const int32_t> labels)
      : labels_(labels), rows_(labels.size()) {
    std::iota(rows_.begin(), rows_.end(), 0);
    std::sort(rows_.begin(), rows_.end(), [&](int64_t a, int64_t b) {
      return std::pair(labels[a], a) < std::pair(labels[b], b);
    });
  }

  // Calls function(label, row) for all labels in [begin, end).
  template <typename Function>
  void for_labels(int64_t begin, int64_t end, Function&& function) const {
    const auto label = [this](int64_t row) { return labels_[row]; };
    auto row = std::ranges::lower_bound(rows_, begin, {}, label);
    for (; row != rows_.end() && label(*row) < end; ++row) {
      function(int64_t{label(*row)}, *row);
    }
  }

 private:
  const std::span<const int32_t> labels_;
  std::vector<int64_t> rows_;
};

void round(const float* x, int64_t n, base::BFloat16* y) {
  kernels::to_bfloat16(x, n, y);
}
void round(const float* x, int64_t n, base::Float16* y) {
  kernels::to_float16(x, n, y);
}
void round(const float* x, int64_t n, float* y) {
  std::copy_n(x, n, y);
}

// In one block.
template <typename T>
void multiply(const kernels::Matmul<T, float>& args) {
  kernels::matmul(args, {args.rows, args.columns, 1, 1}, 0, 1);
}

template <typename T>
class Decoder {
 public:
  explicit Decoder(const DecoderInputs& inputs)
      : inputs_(inputs),
        rows_(inputs.x.size(0)),
        padded_(
            (rows_ + kernels::kSoftmaxColumns - 1) / kernels::kSoftmaxColumns *
            kernels::kSoftmaxColumns),
        hidden_(inputs.x.size(1)),
        slices_(inputs.weight.size(0)),
        labels_(inputs.labels),
        x_(data<T>(inputs.x)),
        weight_(data<T>(inputs.weight)) {}

  at::Tensor losses(SavedDecoder& saved) const {
    const auto options = inputs_.x.options();
    const auto floats = options.dtype(at::kFloat);
    saved.exponentials = at::empty({slices_.words, padded_}, options);
    // A slice that the last range lacks counts nothing.
    const int64_t count = slices_.ranges * slices_.in_range;
    saved.factors = at::empty({count, padded_}, floats);
    std::fill_n(data<float>(saved.factors), count * padded_, kLowest);
    const at::Tensor sums = at::empty({count, padded_}, floats);
    std::fill_n(data<float>(sums), count * padded_, 0.0f);
    const at::Tensor of_labels = at::empty({rows_}, floats);
    flat::for_tasks(slices_.ranges, [&](int64_t range) {
      const at::Tensor logits = at::empty({slices_.slice, padded_}, floats);
      slices_.for_slices(
          range, [&](int64_t first, int64_t last, int64_t number) {
            make_logits(first, last, data<float>(logits));
            keep_labels(first, last, data<float>(logits), of_labels);
            kernels::SoftmaxBlock<T> args;
            args.rows = last - first;
            args.columns = rows_;
            args.stride = padded_;
            args.logits = data<float>(logits);
            args.bias = data<T>(inputs_.bias) + first;
            args.factor = kFactor;
            args.exponentials = data<T>(saved.exponentials) + first * padded_;
            args.max = data<float>(saved.factors) + number * padded_;
            args.sum = data<float>(sums) + number * padded_;
            kernels::softmax_block(args);
          });
    });
    const at::Tensor totals = at::empty({2, padded_}, floats);
    const kernels::SoftmaxTotals total{
        data<float>(totals), data<float>(totals) + padded_};
    kernels::softmax_factors(
        count, padded_, data<float>(saved.factors), data<float>(sums), total);
    float* const losses = data<float>(of_labels);
    for (int64_t row = 0; row < rows_; ++row) {
      losses[row] = total.log_sum[row] + (total.max[row] - losses[row]);
    }
    return of_labels;
  }

  at::Tensor backward(
      const SavedDecoder& saved,
      float scale,
      const DecoderTargets& targets) const {
    const auto floats = inputs_.x.options().dtype(at::kFloat);
    const at::Tensor sums =
        at::empty({slices_.ranges, rows_ * hidden_}, floats);
    flat::for_tasks(slices_.ranges, [&](int64_t range) {
      Backward work(*this, saved, scale, targets);
      work.run(range, data<float>(sums) + range * rows_ * hidden_);
    });
    const at::Tensor sum = at::empty({rows_, hidden_}, floats);
    at::Tensor rounded = at::empty_like(inputs_.x);
    kernels::ColumnSum<float> args;
    args.rows = slices_.ranges;
    args.stride = sum.numel();
    args.x = data<float>(sums);
    args.out = data<float>(sum);
    constexpr int64_t kGrain = 1024;
    flat::for_ranges(0, sum.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels::column_sum(args, begin, end);
      round(args.out + begin, end - begin, data<T>(rounded) + begin);
    });
    return rounded;
  }

 private:
  static constexpr float kLowest = std::numeric_limits<float>::lowest();
  // Of the exponentials, see kernels::SoftmaxBlock.
  static constexpr float kFactor =
      std::is_same_v<T, base::Float16> ? 32768.0f : 1.0f;

  // Transposed: [last - first, padded_].
  void make_logits(int64_t first, int64_t last, float* logits) const {
    kernels::Matmul<T, float> args;
    args.rows = last - first;
    args.columns = rows_;
    args.depth = hidden_;
    args.left = {weight_ + first * hidden_, hidden_, 1};
    args.right = {x_, 1, hidden_};
    args.out = logits;
    args.out_row = padded_;
    args.ahead.ranges[args.ahead.count++] = weight_ + last * hidden_;
    args.ahead.bytes = args.rows * hidden_ * int64_t{sizeof(T)};
    multiply(args);
    for (int64_t row = 0; row < last - first; ++row) {
      std::fill(
          logits + row * padded_ + rows_, logits + (row + 1) * padded_, 0.0f);
    }
  }

  void keep_labels(
      int64_t first,
      int64_t last,
      const float* logits,
      const at::Tensor& of_labels) const {
    labels_.for_labels(first, last, [&](int64_t label, int64_t row) {
      data<float>(of_labels)[row] = logits[(label - first) * padded_ + row] +
          static_cast<float>(data<T>(inputs_.bias)[label]);
    });
  }

  // The work of one thread on a range.
  class Backward {
   public:
    Backward(
        const Decoder& decoder,
        const SavedDecoder& saved,
        float scale,
        const DecoderTargets& targets)
        : d_(decoder),
          saved_(saved),
          scale_(scale),
          targets_(targets),
          step_(even_part(
              d_.slices_.slice,
              std::max<int64_t>(
                  kRowBytes / int64_t{sizeof(float)} / d_.hidden_,
                  1))),
          // The depth of products is even where a row of zeros follows.
          weighted_(at::zeros(
              {d_.rows_ + d_.rows_ % 2, d_.hidden_},
              d_.inputs_.x.options())),
          part_(at::empty(
              {d_.rows_, d_.hidden_},
              d_.inputs_.x.options().dtype(at::kFloat))),
          rows_of_weight_(at::empty(
              {targets.consumer == nullptr ? 0 : step_, d_.hidden_},
              part_.options())) {}

    // Writes the range's part of the gradient of x, [m, h], to `sum`.
    void run(int64_t range, float* sum) {
      std::fill_n(sum, d_.rows_ * d_.hidden_, 0.0f);
      d_.slices_.for_slices(
          range, [&](int64_t first, int64_t last, int64_t number) {
            factors_ = data<float>(saved_.factors) + number * d_.padded_;
            add_to_sum(first, last, sum);
            weigh();
            for (int64_t row = first; row < last; row += step_) {
              make_rows(row, std::min(row + step_, last));
            }
            make_bias(first, last);
          });
    }

   private:
    const T* exponentials(int64_t word) const {
      return data<T>(saved_.exponentials) + word * d_.padded_;
    }

    // The part of the words [first, last) in the gradient of x.
    void add_to_sum(int64_t first, int64_t last, float* sum) {
      kernels::Matmul<T, float> args;
      args.rows = d_.rows_;
      args.columns = d_.hidden_;
      args.depth = last - first;
      args.left = {exponentials(first), 1, d_.padded_};
      args.right = {d_.weight_ + first * d_.hidden_, d_.hidden_, 1};
      args.scale = scale_ / kFactor;
      args.out = data<float>(part_);
      args.out_row = d_.hidden_;
      args.ahead.ranges[args.ahead.count++] = d_.weight_ + last * d_.hidden_;
      args.ahead.bytes = args.depth * d_.hidden_ * int64_t{sizeof(T)};
      multiply(args);
      for (int64_t row = 0; row < d_.rows_; ++row) {
        const int64_t at = row * d_.hidden_;
        kernels::scale_add(
            factors_[row], data<float>(part_) + at, d_.hidden_, sum + at);
      }
      d_.labels_.for_labels(first, last, [&](int64_t label, int64_t row) {
        kernels::scale_add(
            -scale_,
            d_.weight_ + label * d_.hidden_,
            d_.hidden_,
            sum + row * d_.hidden_);
      });
    }

    // x with its rows times the factors of the slice; times a power of two that
    // brings them near 1, for fp16.
    void weigh() {
      const float most = *std::max_element(factors_, factors_ + d_.rows_);
      const int exponent =
          most > 0.0f && std::isfinite(most) ? std::ilogb(most) : 0;
      power_ = std::ldexp(1.0f, exponent);
      for (int64_t row = 0; row < d_.rows_; ++row) {
        kernels::scale_copy(
            std::ldexp(factors_[row], -exponent),
            d_.x_ + row * d_.hidden_,
            d_.hidden_,
            data<T>(weighted_) + row * d_.hidden_);
      }
    }

    // The gradient of the rows [first, last) of W.
    void make_rows(int64_t first, int64_t last) {
      kernels::Matmul<T, float> args;
      args.rows = last - first;
      args.columns = d_.hidden_;
      args.depth = weighted_.size(0);
      args.left = {exponentials(first), d_.padded_, 1};
      args.right = {data<T>(weighted_), d_.hidden_, 1};
      args.scale = scale_ / kFactor * power_;
      args.out_row = d_.hidden_;
      if (targets_.consumer == nullptr) {
        args.out = data<float>(targets_.weight.grad) + first * d_.hidden_;
        args.accumulate = targets_.weight.add;
        args.streams = true;
        multiply(args);
        subtract_labels(first, last, args.out);
        return;
      }
      args.out = data<float>(rows_of_weight_);
      for (const float* array : targets_.consumer->reads(first)) {
        args.ahead.ranges[args.ahead.count++] = array;
      }
      args.ahead.bytes = args.rows * d_.hidden_ * int64_t{sizeof(float)};
      multiply(args);
      subtract_labels(first, last, args.out);
      targets_.consumer->take(first, last, args.out);
    }

    void subtract_labels(int64_t first, int64_t last, float* rows) const {
      d_.labels_.for_labels(first, last, [&](int64_t label, int64_t row) {
        kernels::scale_add(
            -scale_,
            d_.x_ + row * d_.hidden_,
            d_.hidden_,
            rows + (label - first) * d_.hidden_);
      });
    }

    void make_bias(int64_t first, int64_t last) const {
      float* const bias = data<float>(targets_.bias.grad);
      kernels::weighted_row_sums(
          exponentials(first),
          last - first,
          d_.padded_,
          factors_,
          scale_ / kFactor,
          targets_.bias.add,
          bias + first);
      d_.labels_.for_labels(first, last, [&](int64_t label, int64_t /*row*/) {
        bias[label] -= scale_;
      });
    }

    const Decoder& d_;
    const SavedDecoder& saved_;
    const float scale_;
    const DecoderTargets& targets_;
    const int64_t step_; // words
    const at::Tensor weighted_; // [m, even, h]
    const at::Tensor part_; // [m, h], fp32
    const at::Tensor rows_of_weight_; // [step, h], fp32
    const float* factors_ = nullptr; // of the slice
    float power_ = 1.0f;
  };

  const DecoderInputs& inputs_;
  const int64_t rows_; // m
  const int64_t padded_;
  const int64_t hidden_;
  const Slices slices_;
  const RowsOfLabels labels_;
  const T* const x_;
  const T* const weight_;
};

} // namespace

at::Tensor Operations::decoder_losses(
    const DecoderInputs& inputs,
    SavedDecoder& saved) const {
  at::Tensor losses;
  dispatch(inputs.x, [&](auto t) {
    losses = Decoder<decltype(t)>(inputs).losses(saved);
  });
  return losses;
}

at::Tensor Operations::decoder_backward(
    const DecoderInputs& inputs,
    const SavedDecoder& saved,
    float scale,
    const DecoderTargets& targets) const {
  at::Tensor gradient;
  dispatch(inputs.x, [&](auto t) {
    gradient = Decoder<decltype(t)>(inputs).backward(saved, scale, targets);
  });
  return gradient;
}

} // namespace deepspeed::ops::cpu
