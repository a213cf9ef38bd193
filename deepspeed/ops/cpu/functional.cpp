// The kernels as functions on tensors, threaded.
#include "deepspeed/ops/cpu/operations.h"

#include <algorithm>
#include <cmath>

#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/column_sum.h"
#include "deepspeed/kernels/convert.h"
#include "deepspeed/kernels/cross_entropy.h"
#include "deepspeed/kernels/embedding.h"
#include "deepspeed/kernels/gelu.h"
#include "deepspeed/kernels/layer_norm.h"
#include "deepspeed/ops/cpu/dispatch.h"
#include "deepspeed/ops/cpu/product.h"

namespace deepspeed::ops::cpu {
namespace {

// Rows per thread below which another thread does not pay.
constexpr int64_t kRowGrain = 32;
// Columns per thread: whole cache lines of fp32.
constexpr int64_t kColumnGrain = 64;

// Cuts [0, n) into ranges for the threads.
template <typename Function>
void for_rows(int64_t n, Function&& function) {
  flat::for_ranges(0, n, kRowGrain, function);
}
template <typename Function>
void for_columns(int64_t n, Function&& function) {
  flat::for_ranges(0, n, kColumnGrain, function);
}

// Calls function(sequence, head) for all pairs. The most work first: no thread
// is left with a long one at the end.
template <typename Function>
void for_heads(const AttentionInputs& inputs, Function&& function) {
  std::vector<kernels::Sequence> sequences(
      inputs.sequences.begin(), inputs.sequences.end());
  std::stable_sort(
      sequences.begin(),
      sequences.end(),
      [](const kernels::Sequence& a, const kernels::Sequence& b) {
        return a.length * a.queries > b.length * b.queries;
      });
  flat::TaskList tasks;
  for (const kernels::Sequence& sequence : sequences) {
    tasks.add(inputs.heads, [&function, sequence](int64_t head) {
      function(sequence, head);
    });
  }
  tasks.run();
}

kernels::AttentionShape attention_shape(const AttentionInputs& inputs) {
  const int64_t head_dim = inputs.q.size(1) / inputs.heads;
  return {
      inputs.q.size(0),
      inputs.heads,
      head_dim,
      1.0f / std::sqrt(static_cast<float>(head_dim))};
}

template <typename T>
kernels::CrossEntropy<T> cross_entropy_arguments(
    const at::Tensor& logits,
    const at::Tensor& bias,
    std::span<const int32_t> labels,
    const CrossEntropyResult& result) {
  kernels::CrossEntropy<T> args;
  args.vocabulary = logits.size(1);
  args.stride = logits.stride(0);
  args.logits = data<T>(logits);
  args.bias = data<T>(bias);
  args.labels = labels.data();
  args.loss = data<float>(result.losses);
  args.predicted = data<int32_t>(result.predicted);
  return args;
}

} // namespace

at::Tensor Operations::layer_norm(const NormInputs& inputs, SavedNorm& saved)
    const {
  const int64_t rows = inputs.x.size(0);
  at::Tensor y = at::empty_like(inputs.x);
  saved.normalized = at::empty_like(inputs.x);
  saved.rstd = at::empty({rows}, inputs.x.options().dtype(at::kFloat));
  dispatch(inputs.x, [&](auto t) {
    using T = decltype(t);
    kernels::LayerNormForward<T> args;
    args.hidden = inputs.x.size(1);
    args.eps = inputs.eps;
    args.x = data<T>(inputs.x);
    args.bias = data<T>(inputs.bias);
    args.residual = data<T>(inputs.residual);
    args.gamma = data<T>(inputs.gamma);
    args.beta = data<T>(inputs.beta);
    args.dropout = inputs.dropout;
    args.tokens = inputs.tokens;
    args.y = data<T>(y);
    args.normalized = data<T>(saved.normalized);
    args.rstd = data<float>(saved.rstd);
    for_rows(rows, [&](int64_t begin, int64_t end) {
      kernels::layer_norm_forward(args, begin, end);
    });
  });
  return y;
}

NormGradients Operations::layer_norm_backward(
    flat::TaskList& tasks,
    const NormInputs& inputs,
    const at::Tensor& dy,
    const SavedNorm& saved) const {
  NormGradients result;
  result.residual = at::empty_like(dy);
  result.x = inputs.dropout.active() ? at::empty_like(dy) : result.residual;
  dispatch(dy, [&](auto t) {
    using T = decltype(t);
    kernels::LayerNormBackward<T> args;
    args.hidden = dy.size(1);
    args.dy = data<T>(dy);
    args.normalized = data<T>(saved.normalized);
    args.rstd = data<float>(saved.rstd);
    args.gamma = data<T>(inputs.gamma);
    args.dropout = inputs.dropout;
    args.tokens = inputs.tokens;
    args.dresidual = data<T>(result.residual);
    args.dx = data<T>(result.x);
    tasks.add_ranges(
        0,
        dy.size(0),
        kRowGrain,
        [args, dy, saved, result](int64_t begin, int64_t end) {
          kernels::layer_norm_backward(args, begin, end);
        });
  });
  return result;
}

void Operations::layer_norm_parameter_gradients(
    flat::TaskList& tasks,
    const at::Tensor& dy,
    const SavedNorm& saved,
    const GradientTarget& gamma,
    const GradientTarget& beta) const {
  // The two are always used together, so they are fresh together.
  TORCH_INTERNAL_ASSERT(gamma.add == beta.add);
  dispatch(dy, [&](auto t) {
    using T = decltype(t);
    kernels::LayerNormParameterGradients<T> args;
    args.rows = dy.size(0);
    args.hidden = dy.size(1);
    args.dy = data<T>(dy);
    args.normalized = data<T>(saved.normalized);
    args.accumulate = gamma.add;
    args.dgamma = data<float>(gamma.grad);
    args.dbeta = data<float>(beta.grad);
    tasks.add_ranges(
        0,
        args.hidden,
        kColumnGrain,
        [args, dy, saved](int64_t begin, int64_t end) {
          kernels::layer_norm_backward_params(args, begin, end);
        });
  });
}

at::Tensor bias_gelu_(at::Tensor& x, const at::Tensor& bias) {
  at::Tensor derivative = at::empty_like(x);
  dispatch(x, [&](auto t) {
    using T = decltype(t);
    kernels::BiasGelu<T> args;
    args.columns = x.size(1);
    args.x = data<T>(x);
    args.bias = data<T>(bias);
    args.y = data<T>(x);
    args.derivative = data<T>(derivative);
    for_rows(x.size(0), [&](int64_t begin, int64_t end) {
      kernels::bias_gelu_forward(args, begin, end);
    });
  });
  return derivative;
}

void Operations::gelu_backward_(at::Tensor& dy, const at::Tensor& derivative)
    const {
  dispatch(dy, [&](auto t) {
    using T = decltype(t);
    T* const d = data<T>(dy);
    for_rows(dy.size(0), [&](int64_t begin, int64_t end) {
      kernels::gelu_backward(dy.size(1), d, data<T>(derivative), d, begin, end);
    });
  });
}

at::Tensor Operations::select_rows(
    const at::Tensor& x,
    std::span<const int32_t> rows) const {
  const int64_t hidden = x.size(1);
  at::Tensor selected = at::empty({std::ssize(rows), hidden}, x.options());
  dispatch(x, [&](auto t) {
    using T = decltype(t);
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(
          data<T>(x) + rows[i] * hidden,
          hidden,
          data<T>(selected) + static_cast<int64_t>(i) * hidden);
    }
  });
  return selected;
}

at::Tensor Operations::spread_rows(
    const at::Tensor& values,
    std::span<const int32_t> rows,
    int64_t count) const {
  const int64_t hidden = values.size(1);
  at::Tensor spread = at::empty({count, hidden}, values.options());
  dispatch(values, [&](auto t) {
    using T = decltype(t);
    std::fill_n(data<T>(spread), count * hidden, T(0.0f));
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(
          data<T>(values) + static_cast<int64_t>(i) * hidden,
          hidden,
          data<T>(spread) + rows[i] * hidden);
    }
  });
  return spread;
}

void Operations::bias_gradient(
    flat::TaskList& tasks,
    const at::Tensor& dy,
    const GradientTarget& target) const {
  dispatch(dy, [&](auto t) {
    using T = decltype(t);
    kernels::ColumnSum<T> args;
    args.rows = dy.size(0);
    args.stride = dy.stride(0);
    args.x = data<T>(dy);
    args.accumulate = target.add;
    args.out = data<float>(target.grad);
    tasks.add_ranges(
        0, dy.size(1), kColumnGrain, [args, dy](int64_t begin, int64_t end) {
          kernels::column_sum(args, begin, end);
        });
  });
}

void Operations::weight_gradient(
    flat::TaskList& tasks,
    const at::Tensor& dy,
    const at::Tensor& x,
    const GradientTarget& target) const {
  at::Tensor grad = target.grad;
  product_into(tasks, grad, dy.t(), x, target.add);
}

AttentionOutputs Operations::attention(const AttentionInputs& inputs) const {
  AttentionOutputs outputs;
  outputs.context = at::empty_like(inputs.q);
  outputs.lse = at::empty(
      {inputs.heads, inputs.q.size(0)}, inputs.q.options().dtype(at::kFloat));
  dispatch(inputs.q, [&](auto t) {
    using T = decltype(t);
    kernels::AttentionForward<T> args;
    args.shape = attention_shape(inputs);
    args.dropout = inputs.dropout;
    args.positions = inputs.positions.data();
    args.q = data<T>(inputs.q);
    args.kv = data<T>(inputs.kv);
    args.out = data<T>(outputs.context);
    args.lse = data<float>(outputs.lse);
    for_heads(inputs, [&](const kernels::Sequence& sequence, int64_t head) {
      kernels::attention_forward(args, sequence, head);
    });
  });
  return outputs;
}

AttentionGradients Operations::attention_backward(
    const AttentionInputs& inputs,
    const AttentionOutputs& outputs,
    const at::Tensor& dcontext) const {
  AttentionGradients gradients;
  gradients.q = at::empty_like(inputs.q);
  gradients.kv = at::empty_like(inputs.kv);
  dispatch(inputs.q, [&](auto t) {
    using T = decltype(t);
    kernels::AttentionBackward<T> args;
    args.shape = attention_shape(inputs);
    args.dropout = inputs.dropout;
    args.positions = inputs.positions.data();
    args.q = data<T>(inputs.q);
    args.kv = data<T>(inputs.kv);
    args.out = data<T>(outputs.context);
    args.lse = data<float>(outputs.lse);
    args.dout = data<T>(dcontext);
    args.dq = data<T>(gradients.q);
    args.dkv = data<T>(gradients.kv);
    for_heads(inputs, [&](const kernels::Sequence& sequence, int64_t head) {
      kernels::attention_backward(args, sequence, head);
    });
  });
  return gradients;
}

at::Tensor Operations::embedding(
    const EmbeddingInputs& inputs,
    SavedNorm& saved) const {
  const int64_t tokens = std::ssize(inputs.ids);
  at::Tensor y =
      at::empty({tokens, inputs.word.size(1)}, inputs.word.options());
  saved.normalized = at::empty_like(y);
  saved.rstd = at::empty({tokens}, y.options().dtype(at::kFloat));
  dispatch(y, [&](auto t) {
    using T = decltype(t);
    kernels::EmbeddingForward<T> args;
    args.hidden = y.size(1);
    args.eps = inputs.eps;
    args.ids = inputs.ids.data();
    args.positions = inputs.positions.data();
    args.word = data<T>(inputs.word);
    args.position = data<T>(inputs.position);
    args.type = data<T>(inputs.type);
    args.gamma = data<T>(inputs.gamma);
    args.beta = data<T>(inputs.beta);
    args.dropout = inputs.dropout;
    args.tokens = inputs.tokens;
    args.y = data<T>(y);
    args.normalized = data<T>(saved.normalized);
    args.rstd = data<float>(saved.rstd);
    for_rows(tokens, [&](int64_t begin, int64_t end) {
      kernels::embedding_forward(args, begin, end);
    });
  });
  return y;
}

void Operations::embedding_backward(
    const EmbeddingInputs& inputs,
    const at::Tensor& dy,
    const SavedNorm& saved,
    const EmbeddingTargets& targets) const {
  const int64_t tokens = std::ssize(inputs.ids);
  at::Tensor dnorm = inputs.dropout.active() ? at::empty_like(dy) : dy;
  if (inputs.dropout.active()) {
    dispatch(dy, [&](auto t) {
      using T = decltype(t);
      for_rows(tokens, [&](int64_t begin, int64_t end) {
        kernels::dropout_rows(
            inputs.dropout,
            inputs.tokens,
            dy.size(1),
            data<T>(dy),
            data<T>(dnorm),
            begin,
            end);
      });
    });
  }
  flat::TaskList tasks;
  layer_norm_parameter_gradients(
      tasks, dnorm, saved, targets.gamma, targets.beta);
  NormInputs norm;
  norm.gamma = inputs.gamma;
  const at::Tensor dsum =
      layer_norm_backward(tasks, norm, dnorm, saved).residual;
  tasks.run();
  // The kernel adds rows to what is there.
  for (const GradientTarget* target :
       {&targets.word, &targets.position, &targets.type}) {
    if (!target->add) {
      target->grad.zero_();
    }
  }
  dispatch(dsum, [&](auto t) {
    using T = decltype(t);
    kernels::EmbeddingBackward<T> args;
    args.tokens = tokens;
    args.hidden = dsum.size(1);
    args.ids = targets.word_rows.data();
    args.positions = inputs.positions.data();
    args.d = data<T>(dsum);
    args.dword = data<float>(targets.word.grad);
    args.dposition = data<float>(targets.position.grad);
    args.dtype = data<float>(targets.type.grad);
    for_columns(args.hidden, [&](int64_t begin, int64_t end) {
      kernels::embedding_backward(args, begin, end);
    });
  });
}

CrossEntropyResult Operations::cross_entropy(
    const at::Tensor& logits,
    const at::Tensor& bias,
    std::span<const int32_t> labels) const {
  CrossEntropyResult result;
  const int64_t rows = logits.size(0);
  result.losses = at::empty({rows}, logits.options().dtype(at::kFloat));
  result.predicted = at::empty({rows}, logits.options().dtype(at::kInt));
  dispatch(logits, [&](auto t) {
    using T = decltype(t);
    const auto args = cross_entropy_arguments<T>(logits, bias, labels, result);
    flat::for_ranges(0, rows, 1, [&](int64_t begin, int64_t end) {
      kernels::cross_entropy(args, begin, end);
    });
  });
  return result;
}

} // namespace deepspeed::ops::cpu
