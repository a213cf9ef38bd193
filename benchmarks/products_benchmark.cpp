// Matrix products at the shapes of the default model (800 tokens, 118 of them
// masked), ours and libtorch's, against multiply-adds in registers. Arguments:
// threads.
//
// NT: x times a weight, forward. NN: a gradient times a weight. TN: the
// gradient of a weight. "square" has no small side. The bound is that of fp32
// in both dtypes, so a machine with instructions for bf16 may pass it.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <string>

#include "benchmarks/bounds.h"
#include "deepspeed/ops/cpu/product.h"

namespace deepspeed {
namespace {

enum class Form { nt, nn, tn };

// C[rows, columns] of a sum over `depth`.
struct Shape {
  const char* name;
  Form form;
  int64_t rows;
  int64_t columns;
  int64_t depth;
};

constexpr int64_t kTokens = 800;
constexpr int64_t kHidden = 256;
constexpr int64_t kFeedForward = 512;
constexpr int64_t kMasked = 118;
constexpr int64_t kVocabulary = 50265;
constexpr int64_t kSquare = 1536;

constexpr std::array kShapes = {
    Shape{"square", Form::nn, kSquare, kSquare, kSquare},
    Shape{"qkv/nt", Form::nt, kTokens, 3 * kHidden, kHidden},
    Shape{"qkv/nn", Form::nn, kTokens, kHidden, 3 * kHidden},
    Shape{"qkv/tn", Form::tn, 3 * kHidden, kHidden, kTokens},
    Shape{"hidden/nt", Form::nt, kTokens, kHidden, kHidden},
    Shape{"hidden/nn", Form::nn, kTokens, kHidden, kHidden},
    Shape{"hidden/tn", Form::tn, kHidden, kHidden, kTokens},
    Shape{"up/nt", Form::nt, kTokens, kFeedForward, kHidden},
    Shape{"up/nn", Form::nn, kTokens, kHidden, kFeedForward},
    Shape{"up/tn", Form::tn, kFeedForward, kHidden, kTokens},
    Shape{"down/nt", Form::nt, kTokens, kHidden, kFeedForward},
    Shape{"down/nn", Form::nn, kTokens, kFeedForward, kHidden},
    Shape{"down/tn", Form::tn, kHidden, kFeedForward, kTokens},
    Shape{"head/nt", Form::nt, kMasked, kVocabulary, kHidden},
    Shape{"head/nn", Form::nn, kMasked, kHidden, kVocabulary},
    Shape{"head/tn", Form::tn, kVocabulary, kHidden, kMasked},
};

// Whose products are measured. libtorch's run on its own threads, ours on them,
// too: two pools of threads would meet.
enum class Maker { ours, libtorch };

// The bound on libtorch's own threads: others would meet them spinning.
benchmarks::Task multiply_adds(int threads) {
  const benchmarks::Task one = benchmarks::multiply_add_task();
  const auto run = [=] {
    at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        one.run();
      }
    });
  };
  return {run, one.work * threads, true};
}

void product(
    benchmark::State& state,
    const Shape& shape,
    at::ScalarType type,
    Maker maker) {
  const int threads = static_cast<int>(state.range(0));
  at::set_num_threads(threads);
  const auto matrix = [&](int64_t rows, int64_t columns, bool transposed) {
    return transposed ? at::randn({columns, rows}).to(type).t()
                      : at::randn({rows, columns}).to(type);
  };
  const at::Tensor a = matrix(shape.rows, shape.depth, shape.form == Form::tn);
  const at::Tensor b =
      matrix(shape.depth, shape.columns, shape.form == Form::nt);
  at::Tensor c = at::empty({shape.rows, shape.columns}, type);
  const double operations = 2.0 * static_cast<double>(shape.rows) *
      static_cast<double>(shape.columns) * static_cast<double>(shape.depth);
  ops::cpu::force_own_products(maker == Maker::ours);
  const auto run = [&] {
    flat::TaskList tasks;
    ops::cpu::product_into(tasks, c, a, b, false);
    tasks.run();
  };
  benchmarks::measure(
      state, {run, operations}, [=] { return multiply_adds(threads); });
}

void register_all(int threads) {
  for (const Shape& shape : kShapes) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      for (const auto maker : {Maker::ours, Maker::libtorch}) {
        const std::string name = std::string(shape.name) +
            (type == at::kFloat ? "/fp32" : "/bf16") +
            (maker == Maker::ours ? "/ours" : "/libtorch");
        auto* const line = benchmark::RegisterBenchmark(
            name.c_str(), product, shape, type, maker);
        line->UseManualTime()->Unit(benchmark::kMillisecond)->Arg(1);
        if (threads > 1) {
          line->Arg(threads);
        }
      }
    }
  }
}

} // namespace
} // namespace deepspeed

int main(int argc, char** argv) {
  const int threads = at::get_num_threads();
  benchmark::Initialize(&argc, argv);
  deepspeed::register_all(threads);
  const at::NoGradGuard no_gradients;
  benchmark::RunSpecifiedBenchmarks();
}
