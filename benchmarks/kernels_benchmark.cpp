// One thread of each CPU kernel at the shapes of the default model: 800 tokens
// in 8 sequences, hidden 256, feed-forward 512, 8 heads, 118 masked tokens.
//
// "rate" and "bound" are GFLOP/s for the attention, whose bound is that of
// multiply-adds; for the others GB/s, each array counted once, with the bound
// of a memcpy of as many bytes. DS_CPU_ISA chooses the instruction set.
#include <algorithm>
#include <cmath>
#include <random>
#include <thread>
#include <vector>

#include "benchmarks/bounds.h"
#include "deepspeed/kernels/adam.h"
#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/column_sum.h"
#include "deepspeed/kernels/convert.h"
#include "deepspeed/kernels/cross_entropy.h"
#include "deepspeed/kernels/embedding.h"
#include "deepspeed/kernels/gelu.h"
#include "deepspeed/kernels/isa.h"
#include "deepspeed/kernels/layer_norm.h"

namespace deepspeed::kernels {
namespace {

using base::BFloat16;

constexpr int64_t kLengths[] = {150, 40, 12, 230, 90, 100, 60, 118};
constexpr int64_t kTokens = 800;
constexpr int64_t kHidden = 256;
constexpr int64_t kFeedForward = 512;
constexpr int64_t kHeads = 8;
constexpr int64_t kMasked = 118;
constexpr int64_t kVocabulary = 50265;
constexpr int64_t kParameters = 16'300'000;

template <typename T>
std::vector<T> data(int64_t n) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<T> x(n);
  for (T& value : x) {
    value = T(uniform(generator));
  }
  return x;
}

struct Keys {
  Keys() {
    for (const int64_t length : kLengths) {
      for (int64_t i = 0; i < length; ++i) {
        visit.push_back(visit.size());
        position.push_back(static_cast<uint32_t>(i));
      }
    }
  }
  std::vector<uint64_t> visit;
  std::vector<uint32_t> position;
};

// A kernel on one thread that reads and writes so many bytes.
template <typename Kernel>
void measure_bytes(benchmark::State& state, int64_t bytes, Kernel kernel) {
  benchmarks::measure(
      state,
      {kernel, static_cast<double>(bytes)},
      benchmarks::copy_task(bytes));
}

template <typename T>
void layer_norm(benchmark::State& state) {
  const Keys keys;
  const auto x = data<T>(kTokens * kHidden);
  const auto row = data<T>(kHidden);
  std::vector<T> y(x.size());
  std::vector<T> normalized(x.size());
  std::vector<T> dx(x.size());
  std::vector<float> rstd(kTokens);
  std::vector<float> dgamma(kHidden);
  std::vector<float> dbeta(kHidden);
  LayerNormForward<T> forward;
  forward.hidden = kHidden;
  forward.x = forward.residual = x.data();
  forward.bias = forward.gamma = forward.beta = row.data();
  forward.dropout = make_dropout(0.1f, 1, 1);
  forward.tokens = {keys.visit.data(), keys.position.data()};
  forward.y = y.data();
  forward.normalized = normalized.data();
  forward.rstd = rstd.data();
  LayerNormBackward<T> backward;
  backward.hidden = kHidden;
  backward.dy = x.data();
  backward.normalized = normalized.data();
  backward.rstd = rstd.data();
  backward.gamma = row.data();
  backward.dropout = forward.dropout;
  backward.tokens = forward.tokens;
  backward.dresidual = y.data();
  backward.dx = dx.data();
  LayerNormParameterGradients<T> parameters;
  parameters.rows = kTokens;
  parameters.hidden = kHidden;
  parameters.dy = x.data();
  parameters.normalized = normalized.data();
  parameters.dgamma = dgamma.data();
  parameters.dbeta = dbeta.data();
  measure_bytes(state, 10 * kTokens * kHidden * sizeof(T), [&] {
    layer_norm_forward(forward, 0, kTokens);
    layer_norm_backward(backward, 0, kTokens);
    layer_norm_backward_params(parameters, 0, kHidden);
  });
}
BENCHMARK(layer_norm<float>)
    ->Name("layer_norm_both_ways/float")
    ->UseManualTime();
BENCHMARK(layer_norm<BFloat16>)
    ->Name("layer_norm_both_ways/bfloat16")
    ->UseManualTime();

template <typename T>
void gelu(benchmark::State& state) {
  const auto x = data<T>(kTokens * kFeedForward);
  const auto bias = data<T>(kFeedForward);
  std::vector<T> y(x.size());
  std::vector<T> derivative(x.size());
  std::vector<T> dx(x.size());
  BiasGelu<T> args;
  args.columns = kFeedForward;
  args.x = x.data();
  args.bias = bias.data();
  args.y = y.data();
  args.derivative = derivative.data();
  measure_bytes(state, 6 * kTokens * kFeedForward * sizeof(T), [&] {
    bias_gelu_forward(args, 0, kTokens);
    gelu_backward(
        kFeedForward, x.data(), derivative.data(), dx.data(), 0, kTokens);
  });
}
BENCHMARK(gelu<float>)->Name("gelu_both_ways/float")->UseManualTime();
BENCHMARK(gelu<BFloat16>)->Name("gelu_both_ways/bfloat16")->UseManualTime();

template <typename T>
void columns(benchmark::State& state) {
  const auto x = data<T>(kTokens * 3 * kHidden);
  std::vector<float> out(3 * kHidden);
  ColumnSum<T> args;
  args.rows = kTokens;
  args.stride = 3 * kHidden;
  args.x = x.data();
  args.out = out.data();
  measure_bytes(state, kTokens * 3 * kHidden * sizeof(T), [&] {
    column_sum(args, 0, 3 * kHidden);
  });
}
BENCHMARK(columns<float>)->Name("column_sum_qkv/float")->UseManualTime();
BENCHMARK(columns<BFloat16>)->Name("column_sum_qkv/bfloat16")->UseManualTime();

template <typename T, bool kBackward>
void attention(benchmark::State& state) {
  const auto qkv = data<T>(kTokens * 3 * kHidden);
  const auto dout = data<T>(kTokens * kHidden);
  std::vector<T> out(dout.size());
  std::vector<T> dqkv(qkv.size());
  std::vector<float> lse(kHeads * kTokens);
  AttentionForward<T> forward;
  forward.shape = {kTokens, kHeads, kHidden / kHeads, std::sqrt(1 / 32.0f)};
  forward.dropout = make_dropout(0.1f, 1, 1);
  forward.qkv = qkv.data();
  forward.out = out.data();
  forward.lse = lse.data();
  AttentionBackward<T> backward;
  backward.shape = forward.shape;
  backward.dropout = forward.dropout;
  backward.qkv = qkv.data();
  backward.out = out.data();
  backward.lse = lse.data();
  backward.dout = dout.data();
  backward.dqkv = dqkv.data();
  const auto kernel = [&] {
    Sequence sequence;
    for (const int64_t length : kLengths) {
      sequence.length = length;
      for (int64_t head = 0; head < kHeads; ++head) {
        if (kBackward) {
          attention_backward(backward, sequence, head);
        } else {
          attention_forward(forward, sequence, head);
        }
      }
      sequence.first += length;
      ++sequence.visit;
    }
  };
  int64_t pairs = 0;
  for (const int64_t length : kLengths) {
    pairs += length * length;
  }
  constexpr int64_t kProducts = kBackward ? 5 : 2;
  benchmarks::measure(
      state,
      {kernel, static_cast<double>(2 * pairs * kHidden * kProducts)},
      benchmarks::multiply_add_task());
}
BENCHMARK(attention<float, false>)
    ->Name("attention_forward/float")
    ->UseManualTime();
BENCHMARK(attention<float, true>)
    ->Name("attention_backward/float")
    ->UseManualTime();
BENCHMARK(attention<BFloat16, false>)
    ->Name("attention_forward/bfloat16")
    ->UseManualTime();
BENCHMARK(attention<BFloat16, true>)
    ->Name("attention_backward/bfloat16")
    ->UseManualTime();

template <typename T>
void loss(benchmark::State& state) {
  auto logits = data<T>(kMasked * kVocabulary);
  const auto bias = data<T>(kVocabulary);
  const std::vector<int32_t> labels(kMasked, 12345);
  std::vector<float> losses(kMasked);
  CrossEntropy<T> args;
  args.vocabulary = args.stride = kVocabulary;
  args.logits = logits.data();
  args.bias = bias.data();
  args.labels = labels.data();
  args.loss = losses.data();
  measure_bytes(state, 2 * kMasked * kVocabulary * sizeof(T), [&] {
    cross_entropy_with_gradient(args, 0, kMasked);
  });
}
BENCHMARK(loss<float>)->Name("cross_entropy/float")->UseManualTime();
BENCHMARK(loss<BFloat16>)->Name("cross_entropy/bfloat16")->UseManualTime();

template <typename T>
void embedding(benchmark::State& state) {
  const Keys keys;
  const auto word = data<T>(kVocabulary * kHidden);
  const auto position = data<T>(514 * kHidden);
  const auto row = data<T>(kHidden);
  std::vector<int32_t> ids(kTokens);
  std::vector<int32_t> positions(kTokens);
  for (int64_t i = 0; i < kTokens; ++i) {
    ids[i] = static_cast<int32_t>(i * 7919 % kVocabulary);
    positions[i] = static_cast<int32_t>(keys.position[i] + 2);
  }
  std::vector<T> y(kTokens * kHidden);
  std::vector<T> normalized(y.size());
  std::vector<float> rstd(kTokens);
  std::vector<float> dword(word.size());
  std::vector<float> dposition(position.size());
  std::vector<float> dtype(kHidden);
  EmbeddingForward<T> forward;
  forward.hidden = kHidden;
  forward.ids = ids.data();
  forward.positions = positions.data();
  forward.word = word.data();
  forward.position = position.data();
  forward.type = forward.gamma = forward.beta = row.data();
  forward.dropout = make_dropout(0.1f, 1, 1);
  forward.tokens = {keys.visit.data(), keys.position.data()};
  forward.y = y.data();
  forward.normalized = normalized.data();
  forward.rstd = rstd.data();
  EmbeddingBackward<T> backward;
  backward.tokens = kTokens;
  backward.hidden = kHidden;
  backward.ids = ids.data();
  backward.positions = positions.data();
  backward.d = y.data();
  backward.dword = dword.data();
  backward.dposition = dposition.data();
  backward.dtype = dtype.data();
  measure_bytes(
      state, kTokens * kHidden * (6 * sizeof(T) + 4 * sizeof(float)), [&] {
        embedding_forward(forward, 0, kTokens);
        embedding_backward(backward, 0, kHidden);
      });
}
BENCHMARK(embedding<float>)->Name("embedding_both_ways/float")->UseManualTime();
BENCHMARK(embedding<BFloat16>)
    ->Name("embedding_both_ways/bfloat16")
    ->UseManualTime();

int all_threads() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// On as many threads as the argument says, each with its part.
template <bool kLowPrecision>
void adam(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  const std::vector<float> gradient(kParameters, 0.01f);
  std::vector<float> weight(kParameters, 1.0f);
  std::vector<float> m(kParameters);
  std::vector<float> v(kParameters);
  std::vector<BFloat16> low(kParameters);
  const AdamArrays arrays{
      gradient.data(),
      weight.data(),
      m.data(),
      v.data(),
      kLowPrecision ? low.data() : nullptr};
  const auto kernel = [&] {
    benchmarks::on_threads(threads, [&](int i) {
      adam_update(
          AdamStep(),
          arrays,
          kParameters * i / threads,
          kParameters * (i + 1) / threads);
    });
  };
  const int64_t bytes = kParameters * (7 * 4 + (kLowPrecision ? 2 : 0));
  benchmarks::measure(
      state,
      {kernel, static_cast<double>(bytes)},
      benchmarks::copy_task(bytes, threads));
}
BENCHMARK(adam<false>)
    ->Name("adam")
    ->Arg(1)
    ->Arg(all_threads())
    ->UseManualTime();
BENCHMARK(adam<true>)
    ->Name("adam_with_bfloat16_weights")
    ->Arg(1)
    ->Arg(all_threads())
    ->UseManualTime();

void norm(benchmark::State& state) {
  const std::vector<float> gradient(kParameters, 0.01f);
  measure_bytes(state, 2 * kParameters * 4, [&] {
    benchmark::DoNotOptimize(sum_of_squares(gradient.data(), kParameters));
    benchmark::DoNotOptimize(all_finite(gradient.data(), kParameters));
  });
}
BENCHMARK(norm)->Name("sum_of_squares_and_all_finite")->UseManualTime();

void convert(benchmark::State& state) {
  const std::vector<float> x(kParameters, 0.01f);
  std::vector<BFloat16> y(kParameters);
  measure_bytes(state, kParameters * 6, [&] {
    to_bfloat16(x.data(), kParameters, y.data());
  });
}
BENCHMARK(convert)->Name("to_bfloat16")->UseManualTime();

} // namespace
} // namespace deepspeed::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext(
      "instruction set", deepspeed::kernels::active_isa());
  benchmark::RunSpecifiedBenchmarks();
}
