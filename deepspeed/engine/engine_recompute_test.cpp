// Parameters that get gradients more than once in a backward pass: parts of a
// module are computed again there, by backward passes of their own.
#include "deepspeed/engine/test_steps.h"
#include "deepspeed/flat/test_recompute.h"

namespace deepspeed {
namespace {

enum class Use {
  each_once, // all layers are recomputed
  twice, // one layer in two recomputed segments
  first_outside, // in the order of backward
  first_inside,
  three_times, // inside, outside, inside
  tied_logits, // as a language model whose logits are recomputed
  nested, // a recomputed segment inside of one
};
constexpr Use kUses[] = {
    Use::each_once,
    Use::twice,
    Use::first_outside,
    Use::first_inside,
    Use::three_times,
    Use::tied_logits,
    Use::nested};

// `middle` lies at the end of the flat buffer: its bucket is the first to go.
struct LayersModule : torch::nn::Module {
  LayersModule(Use use, bool recompute) : use(use), recompute(recompute) {
    first = make("first", {7, 5});
    shift = make("shift", {7});
    last = make("last", {1, 7});
    middle = make("middle", {7, 7});
  }

  at::Tensor make(const std::string& name, std::vector<int64_t> sizes) {
    at::Tensor values = at::empty(sizes);
    for (int64_t i = 0; i < values.numel(); ++i) {
      values.data_ptr<float>()[i] =
          0.4f * std::sin(1.0f + static_cast<float>(i * 7 + count));
    }
    count += 100;
    return register_parameter(name, values);
  }

  at::Tensor again(const at::Tensor& x, flat::Segment segment) const {
    return recompute ? flat::recomputed(x, std::move(segment)) : segment(x);
  }

  // x: [n, 5], fp32
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor input = x.to(first.scalar_type()).requires_grad_();
    const flat::Segment begin = [this](const at::Tensor& h) {
      return at::tanh(at::linear(h, first, shift));
    };
    const flat::Segment layer = [this](const at::Tensor& h) {
      return at::tanh(at::linear(h, middle));
    };
    const flat::Segment end = [this](const at::Tensor& h) {
      return at::linear(h, last);
    };
    at::Tensor y;
    switch (use) {
      case Use::each_once:
        y = again(again(again(input, begin), layer), end);
        break;
      case Use::twice:
        y = end(again(again(begin(input), layer), layer));
        break;
      case Use::first_outside:
        y = end(layer(again(begin(input), layer)));
        break;
      case Use::first_inside:
        y = end(again(layer(begin(input)), layer));
        break;
      case Use::three_times:
        y = end(again(layer(again(begin(input), layer)), layer));
        break;
      case Use::tied_logits:
        y = again(begin(input), [this](const at::Tensor& h) {
              return at::matmul(h, first);
            }).sum(1, true);
        break;
      case Use::nested:
        y = again(input, [=, this](const at::Tensor& h) {
          return end(again(layer(again(begin(h), layer)), layer));
        });
        break;
    }
    return y.to(at::kFloat);
  }

  Use use;
  bool recompute;
  int count = 0;
  at::Tensor first, shift, last, middle;
};

at::Tensor loss_of(LayersModule& module, int64_t batch) {
  const auto [x, y] = micro_batch(batch);
  return at::mse_loss(module.forward(x), y);
}

constexpr int kSteps = 3;
const char* kPlainSgd = R"({"type": "SGD", "params": {"lr": 0.1}})";

// All weights after each step and the gradient norms, from libtorch's own
// autograd on one process; gradients are added up in fp32.
struct Trace {
  std::vector<std::vector<at::Tensor>> weights;
  std::vector<double> norms;
};

Trace plain_trace(Use use, at::ScalarType dtype, int64_t micro_batches) {
  Trace trace;
  LayersModule module(use, /*recompute=*/false);
  std::vector<at::Tensor> masters = copies_of(module);
  module.to(dtype);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<at::Tensor> sums;
    for (const at::Tensor& master : masters) {
      sums.push_back(at::zeros_like(master));
    }
    const auto parameters = module.parameters();
    for (int64_t i = 0; i < micro_batches; ++i) {
      module.zero_grad();
      (loss_of(module, step * micro_batches + i) * 256).backward();
      for (size_t p = 0; p < sums.size(); ++p) {
        if (parameters[p].grad().defined()) {
          sums[p] += parameters[p].grad().to(at::kFloat) /
              static_cast<double>(micro_batches * 256);
        }
      }
    }
    const at::NoGradGuard no_grad;
    double squares = 0;
    for (size_t p = 0; p < sums.size(); ++p) {
      squares += sums[p].to(at::kDouble).square().sum().item<double>();
      masters[p] = masters[p] - 0.1 * sums[p];
      parameters[p].copy_(masters[p]);
    }
    trace.weights.push_back(masters);
    trace.norms.push_back(std::sqrt(squares));
  }
  return trace;
}

Trace engine_trace(
    Use use,
    const std::shared_ptr<comm::ProcessGroup>& ranks,
    RunPlan plan) {
  plan.optimizer = kPlainSgd;
  plan.more += R"(, "gradient_clipping": 0)";
  const auto module = std::make_shared<LayersModule>(use, /*recompute=*/true);
  Engine engine = make_engine(module, ranks, plan);
  Trace trace;
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int64_t micro = 0; micro < plan.accumulation; ++micro) {
      const int64_t first = (step * plan.accumulation + micro) * ranks->size();
      engine.backward(loss_of(*module, first + ranks->rank()));
      engine.step();
    }
    trace.weights.emplace_back();
    for (const auto& [name, tensor] : engine.fp32_parameters()) {
      trace.weights.back().push_back(tensor.clone());
    }
    trace.norms.push_back(engine.get_global_grad_norm());
  }
  return trace;
}

void expect_near(
    const Trace& actual,
    const Trace& expected,
    double bound,
    const std::string& what) {
  for (int step = 0; step < kSteps; ++step) {
    EXPECT_NEAR(actual.norms[step] / expected.norms[step], 1, bound)
        << what << ", step " << step;
    EXPECT_LT(
        largest_difference(actual.weights[step], expected.weights[step]),
        0.1 * bound)
        << what << ", step " << step;
  }
}

void expect_same_bits(
    const Trace& actual,
    const Trace& expected,
    const std::string& what) {
  EXPECT_EQ(actual.norms, expected.norms) << what;
  for (int step = 0; step < kSteps; ++step) {
    EXPECT_EQ(
        largest_difference(actual.weights[step], expected.weights[step]), 0)
        << what << ", step " << step;
  }
}

// Every stage and bucket size against libtorch, and all of them the same bits.
void check_all(int size, const std::string& dtype, int accumulation) {
  const at::ScalarType type = dtype == "fp32" ? at::kFloat
      : dtype == "bf16"                       ? at::kBFloat16
                                              : at::kHalf;
  const double bound = dtype == "fp32" ? 3e-6 : dtype == "fp16" ? 4e-3 : 4e-2;
  on_ranks(size, [&](const auto& ranks) {
    for (const Use use : kUses) {
      const Trace expected = plain_trace(use, type, size * accumulation);
      Trace first;
      for (const int stage : {0, 1, 2}) {
        for (const int64_t bucket : {1, 40, 500'000'000}) {
          const RunPlan plan{
              .stage = stage,
              .accumulation = accumulation,
              .bucket = bucket,
              .dtype = dtype};
          const Trace actual = engine_trace(use, ranks, plan);
          const std::string what = "use " +
              std::to_string(static_cast<int>(use)) + ", " + dtype + ", " +
              std::to_string(size) + " ranks, stage " + std::to_string(stage) +
              ", bucket " + std::to_string(bucket);
          expect_near(actual, expected, bound, what);
          if (first.norms.empty()) {
            first = actual;
          }
          expect_same_bits(actual, first, what);
        }
      }
    }
  });
}

TEST(Recompute, GradientsAreThoseOfLibtorch) {
  for (const int ranks : {1, 2, 3}) {
    check_all(ranks, "fp32", 1);
  }
  check_all(2, "fp32", 2);
}

TEST(Recompute, In16BitsToo) {
  check_all(2, "bf16", 1);
  check_all(2, "fp16", 1);
}

TEST(Recompute, WithoutOverlapTheBitsAreTheSame) {
  on_ranks(2, [&](const auto& ranks) {
    for (const Use use : {Use::first_outside, Use::three_times}) {
      RunPlan plan{.stage = 1, .bucket = 1};
      const Trace overlapped = engine_trace(use, ranks, plan);
      plan.overlap = false;
      expect_same_bits(engine_trace(use, ranks, plan), overlapped, "overlap");
    }
  });
}

} // namespace
} // namespace deepspeed
