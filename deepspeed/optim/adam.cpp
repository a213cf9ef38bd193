// Adam and AdamW on flat buffers, with the formula of torch.optim.
#include "deepspeed/optim/adam.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "deepspeed/base/trace.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/optim/grain.h"
#include "deepspeed/optim/sum_of_squares.h"

namespace deepspeed::optim {

// Updates the rows of one parameter as their gradient comes, but for those that
// get more of it: their gradient is kept.
class Adam::EarlyRows : public flat::RowConsumer {
 public:
  EarlyRows(
      const Adam& adam,
      const flat::FlatEntry& entry,
      const kernels::AdamStep& numbers,
      bool with_norm)
      : adam_(adam),
        entry_(entry),
        numbers_(numbers),
        columns_(entry.parameter.size(1)),
        squares_(with_norm ? entry.parameter.size(0) : 0) {}

  const flat::FlatEntry& entry() const {
    return entry_;
  }

  void begin(std::vector<int64_t> kept) override {
    begun_ = true;
    kept_ = std::move(kept);
  }

  void take(int64_t begin, int64_t end, const float* gradient) override {
    const float* from = gradient;
    auto next = std::lower_bound(kept_.begin(), kept_.end(), begin);
    for (int64_t row = begin; row < end;) {
      const bool any_kept = next != kept_.end() && *next < end;
      const int64_t stop = any_kept ? *next : end;
      update(row, stop, from);
      if (!squares_.empty() && row < stop) {
        squares_[row] = kernels::sum_of_squares(from, (stop - row) * columns_);
      }
      from += (stop - row) * columns_;
      row = stop;
      if (any_kept) {
        std::copy_n(
            from,
            columns_,
            entry_.slot.grad().data_ptr<float>() + row * columns_);
        from += columns_;
        ++row;
        ++next;
      }
    }
  }

  std::array<const float*, 3> reads(int64_t begin) const override {
    const kernels::AdamArrays arrays = adam_.arrays(offset(begin));
    return {arrays.weight, arrays.exp_avg, arrays.exp_avg_sq};
  }

  // Whether rows have come.
  bool begun() const {
    return begun_;
  }

  // Of all rows, when the gradient is complete.
  double sum_of_squares() const {
    if (squares_.empty()) {
      throw std::logic_error(
          "the norm of a gradient that was used as it came: start_early() was "
          "not told");
    }
    double total = std::accumulate(squares_.begin(), squares_.end(), 0.0);
    for (const int64_t row : kept_) {
      total +=
          kernels::sum_of_squares(adam_.arrays(offset(row)).gradient, columns_);
    }
    return total;
  }

  // Updates the rows that take() has kept, too.
  void finish(flat::TaskList& tasks) const {
    constexpr int64_t kRows = 32; // of a task
    tasks.add_ranges(
        0, std::ssize(kept_), kRows, [this](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t row = kept_[i];
            update(row, row + 1, adam_.arrays(offset(row)).gradient);
          }
        });
  }

 private:
  int64_t offset(int64_t row) const {
    return entry_.offset + row * columns_;
  }

  void update(int64_t begin, int64_t end, const float* gradient) const {
    kernels::AdamArrays arrays = adam_.arrays(offset(begin));
    arrays.gradient = gradient;
    kernels::adam_update(numbers_, arrays, 0, (end - begin) * columns_);
  }

  const Adam& adam_;
  const flat::FlatEntry& entry_;
  const kernels::AdamStep numbers_;
  const int64_t columns_;
  bool begun_ = false;
  std::vector<int64_t> kept_;
  std::vector<double> squares_; // of rows updated together, at the first one
};

Adam::Adam(flat::FlatParameters& parameters, const AdamOptions& options)
    : parameters_(parameters),
      options_(options),
      tensors_(
          {parameters.master(),
           parameters.gradients(),
           parameters.has_separate_master() ? parameters.compute()
                                            : at::Tensor()}),
      moments_(parameters.master()) {
  for (const flat::FlatEntry& entry : parameters.entries()) {
    state_.push_back(
        {0,
         entry.view_of(moments_.exp_avg),
         entry.view_of(moments_.exp_avg_sq)});
  }
}

Adam::~Adam() = default;

void Adam::start_early(
    double learning_rate,
    double gradient_scale,
    bool with_norm) {
  parameters_.take_changes();
  auto& entries = parameters_.entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].slot.traits.rows_come_last) {
      early_.push_back(std::make_unique<EarlyRows>(
          *this,
          entries[i],
          numbers(state_[i].step + 1, learning_rate, gradient_scale),
          with_norm));
      entries[i].slot.consumer = early_.back().get();
    }
  }
}

void Adam::step(double learning_rate, double gradient_scale) {
  const base::Span span({"update"});
  last_learning_rate_ = learning_rate;
  parameters_.take_changes();
  auto& entries = parameters_.entries();
  const auto is_early = [&](const flat::FlatEntry& entry) {
    return std::any_of(early_.begin(), early_.end(), [&](const auto& rows) {
      return &rows->entry() == &entry && rows->begun();
    });
  };
  flat::TaskList tasks;
  // Parameters that stand side by side and have seen as many updates are
  // updated together.
  size_t i = 0;
  while (i < entries.size()) {
    if (entries[i].slot.is_fresh() || is_early(entries[i])) {
      state_[i].step += entries[i].slot.is_fresh() ? 0 : 1;
      ++i;
      continue;
    }
    const int64_t step = state_[i].step + 1;
    const int64_t begin = entries[i].offset;
    int64_t end = begin;
    while (i < entries.size() && !entries[i].slot.is_fresh() &&
           !is_early(entries[i]) && state_[i].step + 1 == step) {
      state_[i].step = step;
      end = entries[i].offset + entries[i].numel;
      ++i;
    }
    const kernels::AdamStep parameters =
        numbers(step, learning_rate, gradient_scale);
    const kernels::AdamArrays all = arrays(0);
    const auto update = [=](int64_t block) {
      const int64_t first = begin + block * kGrain;
      kernels::adam_update(
          parameters, all, first, std::min(first + kGrain, end));
    };
    tasks.add((end - begin + kGrain - 1) / kGrain, update);
  }
  for (const auto& rows : early_) {
    rows->finish(tasks);
  }
  tasks.run();
  for (flat::FlatEntry& entry : entries) {
    entry.slot.consumer = nullptr;
  }
  early_.clear();
}

kernels::AdamStep Adam::numbers(
    int64_t step,
    double learning_rate,
    double gradient_scale) const {
  return {
      .lr = learning_rate,
      .beta1 = options_.beta1,
      .beta2 = options_.beta2,
      .eps = options_.eps,
      .weight_decay = options_.weight_decay,
      .decoupled = options_.decoupled_weight_decay,
      .step = step,
      .grad_scale = static_cast<float>(gradient_scale)};
}

kernels::AdamArrays Adam::arrays(int64_t offset) const {
  return arrays_of(tensors_, moments_, offset);
}

double Adam::gradient_norm() const {
  const base::Span span({"gradient norm"});
  double total = 0;
  for (flat::FlatRange range : parameters_.ranges_with_gradient()) {
    for (const auto& rows : early_) {
      const flat::FlatEntry& entry = rows->entry();
      if (rows->begun() && range.begin <= entry.offset &&
          entry.offset < range.end) {
        total += sum_of_squares(
            arrays(range.begin).gradient, entry.offset - range.begin);
        total += rows->sum_of_squares();
        range.begin = entry.offset + entry.numel;
      }
    }
    total +=
        sum_of_squares(arrays(range.begin).gradient, range.end - range.begin);
  }
  return std::sqrt(total);
}

double gradient_norm(const flat::FlatParameters& parameters, double scale) {
  const base::Span span({"gradient norm"});
  const float* gradients = parameters.gradients().const_data_ptr<float>();
  double total = 0;
  for (const flat::FlatRange& range : parameters.ranges_with_gradient()) {
    total += sum_of_squares(gradients + range.begin, range.end - range.begin);
  }
  return std::sqrt(total) * scale;
}

double clip_factor(double norm, double max_norm) {
  const double factor = max_norm / (norm + 1e-6);
  return factor > 1.0 ? 1.0 : factor;
}

} // namespace deepspeed::optim
