// One thread of each CPU kernel at the shapes of the default model: 800 tokens
// in 8 sequences, hidden 256, feed-forward 512, 8 heads, 118 masked tokens.
//
// "rate" and "bound" are GFLOP/s for the attention, whose bound is that of
// multiply-adds; for the others GB/s, each array counted once, with the bound
// of a memcpy of as many bytes. DS_CPU_ISA chooses the instruction set.
//
// `kernels_benchmark --count` runs each of them once, for a program that counts
// instructions (tests/instruction_test.py).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "benchmarks/bounds.h"
#include "deepspeed/kernels/adam.h"
#include "deepspeed/kernels/attention.h"
#include "deepspeed/kernels/column_sum.h"
#include "deepspeed/kernels/convert.h"
#include "deepspeed/kernels/embedding.h"
#include "deepspeed/kernels/gelu.h"
#include "deepspeed/kernels/isa.h"
#include "deepspeed/kernels/layer_norm.h"
#include "deepspeed/kernels/softmax_block.h"

namespace deepspeed::kernels {
namespace {

using base::BFloat16;
using benchmarks::Measure;

constexpr int64_t kLengths[] = {150, 40, 12, 230, 90, 100, 60, 118};
constexpr int64_t kTokens = 800;
constexpr int64_t kHidden = 256;
constexpr int64_t kFeedForward = 512;
constexpr int64_t kHeads = 8;
constexpr int64_t kVocabulary = 50265;
// Less when instructions are counted, which takes a hundred times as long.
int64_t masked = 118;
int64_t parameters = 16'300'000;

template <typename T>
std::vector<T> data(int64_t n) {
  std::minstd_rand generator(1);
  std::vector<T> x(n);
  for (T& value : x) {
    value = T(static_cast<float>(generator()) * 0x1p-30f - 1.0f);
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
void measure_bytes(const Measure& measure, int64_t bytes, Kernel kernel) {
  measure({kernel, static_cast<double>(bytes)}, [&] {
    return benchmarks::copy_task(bytes);
  });
}

template <typename T>
void layer_norm(const Measure& measure) {
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
  measure_bytes(measure, 10 * kTokens * kHidden * sizeof(T), [&] {
    layer_norm_forward(forward, 0, kTokens);
    layer_norm_backward(backward, 0, kTokens);
    layer_norm_backward_params(parameters, 0, kHidden);
  });
}

template <typename T>
void gelu(const Measure& measure) {
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
  measure_bytes(measure, 6 * kTokens * kFeedForward * sizeof(T), [&] {
    bias_gelu_forward(args, 0, kTokens);
    gelu_backward(
        kFeedForward, x.data(), derivative.data(), dx.data(), 0, kTokens);
  });
}

template <typename T>
void columns(const Measure& measure) {
  const auto x = data<T>(kTokens * 3 * kHidden);
  std::vector<float> out(3 * kHidden);
  ColumnSum<T> args;
  args.rows = kTokens;
  args.stride = 3 * kHidden;
  args.x = x.data();
  args.out = out.data();
  measure_bytes(measure, kTokens * 3 * kHidden * sizeof(T), [&] {
    column_sum(args, 0, 3 * kHidden);
  });
}

template <typename T, bool kBackward>
void attention(const Measure& measure) {
  const auto q = data<T>(kTokens * kHidden);
  const auto kv = data<T>(kTokens * 2 * kHidden);
  const auto dout = data<T>(kTokens * kHidden);
  std::vector<uint32_t> positions;
  for (const int64_t length : kLengths) {
    for (int64_t i = 0; i < length; ++i) {
      positions.push_back(static_cast<uint32_t>(i));
    }
  }
  std::vector<T> out(dout.size());
  std::vector<T> dq(q.size());
  std::vector<T> dkv(kv.size());
  std::vector<float> lse(kHeads * kTokens);
  AttentionForward<T> forward;
  forward.shape = {kTokens, kHeads, kHidden / kHeads, std::sqrt(1 / 32.0f)};
  forward.dropout = make_dropout(0.1f, 1, 1);
  forward.positions = positions.data();
  forward.q = q.data();
  forward.kv = kv.data();
  forward.out = out.data();
  forward.lse = lse.data();
  AttentionBackward<T> backward;
  backward.shape = forward.shape;
  backward.dropout = forward.dropout;
  backward.positions = positions.data();
  backward.q = q.data();
  backward.kv = kv.data();
  backward.out = out.data();
  backward.lse = lse.data();
  backward.dout = dout.data();
  backward.dq = dq.data();
  backward.dkv = dkv.data();
  const auto kernel = [&] {
    Sequence sequence;
    for (const int64_t length : kLengths) {
      sequence.length = length;
      sequence.queries = length;
      for (int64_t head = 0; head < kHeads; ++head) {
        if (kBackward) {
          attention_backward(backward, sequence, head);
        } else {
          attention_forward(forward, sequence, head);
        }
      }
      sequence.first += length;
      sequence.first_query += length;
      ++sequence.visit;
    }
  };
  int64_t pairs = 0;
  for (const int64_t length : kLengths) {
    pairs += length * length;
  }
  constexpr int64_t kProducts = kBackward ? 5 : 2;
  measure(
      {kernel, static_cast<double>(2 * pairs * kHidden * kProducts)},
      benchmarks::multiply_add_task);
}

template <typename T>
void loss(const Measure& measure) {
  // Logits come out of the cache, and only exponentials are written.
  constexpr int64_t kWords = 480;
  const int64_t stride =
      (masked + kSoftmaxColumns - 1) / kSoftmaxColumns * kSoftmaxColumns;
  const auto logits = data<float>(kWords * stride);
  const auto bias = data<T>(kVocabulary);
  auto exponentials = data<T>(kVocabulary * stride);
  std::vector<float> max(stride);
  std::vector<float> sum(stride);
  SoftmaxBlock<T> args;
  args.columns = masked;
  args.stride = stride;
  args.logits = logits.data();
  args.max = max.data();
  args.sum = sum.data();
  measure_bytes(measure, masked * kVocabulary * sizeof(T), [&] {
    for (int64_t first = 0; first < kVocabulary; first += kWords) {
      args.rows = std::min(kWords, kVocabulary - first);
      args.bias = bias.data() + first;
      args.exponentials = exponentials.data() + first * stride;
      softmax_block(args);
    }
  });
}

template <typename T>
void embedding(const Measure& measure) {
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
      measure, kTokens * kHidden * (6 * sizeof(T) + 4 * sizeof(float)), [&] {
        embedding_forward(forward, 0, kTokens);
        embedding_backward(backward, 0, kHidden);
      });
}

// Each thread has its part.
template <bool kLowPrecision, bool kAllThreads>
void adam(const Measure& measure) {
  const int threads = kAllThreads
      ? std::max(1, static_cast<int>(std::thread::hardware_concurrency()))
      : 1;
  const std::vector<float> gradient(parameters, 0.01f);
  std::vector<float> weight(parameters, 1.0f);
  std::vector<float> m(parameters);
  std::vector<float> v(parameters);
  std::vector<BFloat16> low(parameters);
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
          parameters * i / threads,
          parameters * (i + 1) / threads);
    });
  };
  const int64_t bytes = parameters * (7 * 4 + (kLowPrecision ? 2 : 0));
  measure({kernel, static_cast<double>(bytes)}, [&] {
    return benchmarks::copy_task(bytes, threads);
  });
}

void norm(const Measure& measure) {
  const std::vector<float> gradient(parameters, 0.01f);
  measure_bytes(measure, 2 * parameters * 4, [&] {
    benchmark::DoNotOptimize(sum_of_squares(gradient.data(), parameters));
    benchmark::DoNotOptimize(all_finite(gradient.data(), parameters));
  });
}

void convert(const Measure& measure) {
  const std::vector<float> x(parameters, 0.01f);
  std::vector<BFloat16> y(parameters);
  measure_bytes(measure, parameters * 6, [&] {
    to_bfloat16(x.data(), parameters, y.data());
  });
}

struct Kernel {
  const char* name;
  void (*run)(const Measure& measure);
  bool counted = true;
};

constexpr Kernel kKernels[] = {
    {"layer_norm_both_ways/fp32", layer_norm<float>},
    {"layer_norm_both_ways/bf16", layer_norm<BFloat16>},
    {"gelu_both_ways/fp32", gelu<float>},
    {"gelu_both_ways/bf16", gelu<BFloat16>},
    {"column_sum_qkv/fp32", columns<float>},
    {"column_sum_qkv/bf16", columns<BFloat16>},
    {"attention_forward/fp32", attention<float, false>},
    {"attention_backward/fp32", attention<float, true>},
    {"attention_forward/bf16", attention<BFloat16, false>, false},
    {"attention_backward/bf16", attention<BFloat16, true>, false},
    {"softmax/fp32", loss<float>},
    {"softmax/bf16", loss<BFloat16>},
    {"embedding_both_ways/fp32", embedding<float>},
    {"embedding_both_ways/bf16", embedding<BFloat16>},
    {"adam/fp32", adam<false, false>},
    {"adam/fp32, all threads", adam<false, true>, false},
    {"adam/bf16 weights too", adam<true, false>},
    {"adam/bf16 weights too, all threads", adam<true, true>, false},
    {"sum_of_squares_and_all_finite/fp32", norm},
    {"to_bfloat16/fp32", convert},
};

void count() {
  masked = 16;
  parameters = 1'000'000;
  for (const Kernel& kernel : kKernels) {
    if (!kernel.counted) {
      continue;
    }
    std::printf("%s\n", kernel.name);
    kernel.run([](const benchmarks::Task& task, const benchmarks::Bound&) {
      benchmarks::ds_counted(task.run);
    });
  }
}

void benchmark_all() {
  for (const Kernel& kernel : kKernels) {
    const auto run = [&kernel](benchmark::State& state) {
      kernel.run(
          [&](const benchmarks::Task& task, const benchmarks::Bound& bound) {
            benchmarks::measure(state, task, bound);
          });
    };
    benchmark::RegisterBenchmark(kernel.name, run)->UseManualTime();
  }
  benchmark::AddCustomContext("instruction set", active_isa());
  benchmark::RunSpecifiedBenchmarks();
}

} // namespace
} // namespace deepspeed::kernels

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--count") {
    deepspeed::kernels::count();
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  deepspeed::kernels::benchmark_all();
}
