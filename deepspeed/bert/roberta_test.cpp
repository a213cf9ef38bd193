// The fast blocks against the reference path, gradients included.
#include "deepspeed/bert/roberta.h"

#include <gtest/gtest.h>

#include <random>

#include "deepspeed/base/error.h"
#include "deepspeed/flat/flat_parameters.h"
#include "deepspeed/ops/cpu/product.h"
#include "deepspeed/optim/adam.h"

namespace deepspeed::bert {
namespace {

RobertaConfig small_config() {
  RobertaConfig config;
  config.vocab_size = 211;
  config.hidden_size = 48;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.intermediate_size = 72;
  return config;
}

// Sequences of the given lengths with about a fifth of their tokens masked.
std::shared_ptr<const Batch> random_batch(
    const std::vector<int>& lengths,
    int vocab_size,
    unsigned seed) {
  std::mt19937 random(seed);
  text::PackedBatch packed;
  packed.cu_seqlens.push_back(0);
  for (const int length : lengths) {
    for (int i = 0; i < length; ++i) {
      if (i > 0 && random() % 5 == 0) {
        packed.masked.push_back(static_cast<int32_t>(packed.ids.size()));
        packed.labels.push_back(static_cast<int32_t>(random() % vocab_size));
      }
      packed.ids.push_back(static_cast<int32_t>(random() % vocab_size));
      packed.positions.push_back(2 + i);
    }
    packed.cu_seqlens.push_back(static_cast<int32_t>(packed.ids.size()));
    packed.visits.push_back((uint64_t{seed} << 33) + packed.visits.size());
  }
  return std::make_shared<Batch>(std::move(packed));
}

RobertaForMaskedLM make_model(
    const RobertaConfig& config,
    Implementation implementation) {
  return RobertaForMaskedLM(RobertaOptions{config, implementation, 7});
}

double relative_error(const at::Tensor& value, const at::Tensor& expected) {
  const at::Tensor a = value.to(at::kDouble);
  const at::Tensor b = expected.to(at::kDouble);
  return ((a - b).norm() / (b.norm() + 1e-30)).item<double>();
}

struct Pass {
  double loss = 0;
  std::vector<std::string> names;
  std::vector<at::Tensor> gradients; // fp32; undefined: none
};

// Forward and backward through flat buffers, over all batches.
Pass run(
    const RobertaConfig& config,
    Implementation implementation,
    at::ScalarType dtype,
    const std::vector<std::shared_ptr<const Batch>>& batches,
    double loss_scale = 1) {
  RobertaForMaskedLM model = make_model(config, implementation);
  flat::FlatParameters flat(*model, dtype);
  flat.gradients().fill_(1e9f);
  flat.begin_step();
  Pass pass;
  for (const auto& batch : batches) {
    const at::Tensor loss = model->forward(batch);
    pass.loss += loss.item<double>();
    (loss * loss_scale).backward();
    for (const auto& entry : flat.entries()) {
      EXPECT_TRUE(
          implementation == Implementation::reference ||
          !entry.parameter.grad().defined())
          << entry.name << ": not written to its slot";
    }
    flat.collect();
  }
  for (const auto& entry : flat.entries()) {
    pass.names.push_back(entry.name);
    pass.gradients.push_back(
        entry.slot.is_fresh() ? at::Tensor() : entry.slot.grad() / loss_scale);
  }
  return pass;
}

void expect_same_gradients(
    const Pass& fast,
    const Pass& reference,
    double tolerance) {
  ASSERT_EQ(fast.names, reference.names);
  for (size_t i = 0; i < fast.names.size(); ++i) {
    ASSERT_EQ(fast.gradients[i].defined(), reference.gradients[i].defined())
        << fast.names[i];
    if (!fast.gradients[i].defined()) {
      EXPECT_EQ(fast.names[i].find("encoder.pooler"), 0u);
      continue;
    }
    // The gradient of a key bias is 0 but for rounding: softmax does not see
    // it.
    if (fast.names[i].find("key.bias") != std::string::npos) {
      EXPECT_LT(fast.gradients[i].abs().max().item<float>(), 1e-3);
      continue;
    }
    EXPECT_LT(
        relative_error(fast.gradients[i], reference.gradients[i]), tolerance)
        << fast.names[i];
  }
}

struct FastPathCase {
  double dropout;
  bool own_products;
};

class FastPath : public testing::TestWithParam<FastPathCase> {
 protected:
  void SetUp() override {
    ops::cpu::force_own_products(GetParam().own_products);
  }
  void TearDown() override {
    ops::cpu::force_own_products(std::nullopt);
  }
};

TEST_P(FastPath, AgreesWithTheReferenceInFp32) {
  RobertaConfig config = small_config();
  config.dropout = GetParam().dropout;
  for (unsigned seed = 0; seed < 5; ++seed) {
    const std::vector<std::shared_ptr<const Batch>> batches{
        random_batch({17, 1, 40, 3}, 211, seed)};
    const Pass fast = run(config, Implementation::fast, at::kFloat, batches);
    const Pass reference =
        run(config, Implementation::reference, at::kFloat, batches);
    EXPECT_NEAR(fast.loss, reference.loss, 1e-5 * reference.loss);
    expect_same_gradients(fast, reference, 1e-4);
  }
}

TEST_P(FastPath, AgreesWithTheReferenceInBf16) {
  RobertaConfig config = small_config();
  config.dropout = GetParam().dropout;
  const std::vector<std::shared_ptr<const Batch>> batches{
      random_batch({60, 33, 40, 3}, 211, 1)};
  const Pass fast = run(config, Implementation::fast, at::kBFloat16, batches);
  const Pass exact =
      run(config, Implementation::reference, at::kFloat, batches);
  EXPECT_NEAR(fast.loss, exact.loss, 1e-2 * exact.loss);
  expect_same_gradients(fast, exact, 4e-2);
}

double cosine(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.flatten().to(at::kDouble);
  const at::Tensor y = b.flatten().to(at::kDouble);
  return (x.dot(y) / (x.norm() * y.norm())).item<double>();
}

// With a loss scale: without one, the small gradients of the query and key
// weights underflow.
TEST_P(FastPath, AgreesWithTheReferenceInFp16) {
  RobertaConfig config = small_config();
  config.dropout = GetParam().dropout;
  const std::vector<std::shared_ptr<const Batch>> batches{
      random_batch({60, 33, 40, 3}, 211, 1), random_batch({50}, 211, 2)};
  const Pass exact =
      run(config, Implementation::reference, at::kFloat, batches);
  for (const double loss_scale : {4096.0, 65536.0}) {
    const Pass fast =
        run(config, Implementation::fast, at::kHalf, batches, loss_scale);
    EXPECT_NEAR(fast.loss, exact.loss, 1e-3 * exact.loss);
    expect_same_gradients(fast, exact, 5e-3);
    for (size_t i = 0; i < fast.names.size(); ++i) {
      const bool meaningful = fast.gradients[i].defined() &&
          fast.names[i].find("key.bias") == std::string::npos;
      if (meaningful) {
        EXPECT_GT(cosine(fast.gradients[i], exact.gradients[i]), 0.9999)
            << fast.names[i];
      }
    }
  }
}

TEST_P(FastPath, AccumulatesMicroBatches) {
  RobertaConfig config = small_config();
  config.dropout = GetParam().dropout;
  const std::vector<std::shared_ptr<const Batch>> batches{
      random_batch({9, 12}, 211, 1), random_batch({30}, 211, 2)};
  const Pass fast =
      run(config, Implementation::fast, at::kFloat, batches, 128.0);
  const Pass reference =
      run(config, Implementation::reference, at::kFloat, batches);
  expect_same_gradients(fast, reference, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(
    DropoutAndProducts,
    FastPath,
    testing::Values(
        FastPathCase{0.0, true},
        FastPathCase{0.1, true},
        FastPathCase{0.5, true},
        FastPathCase{0.0, false},
        FastPathCase{0.1, false}));

// The weights after three steps.
at::Tensor trained(at::ScalarType dtype, bool early, int threads) {
  const int before = at::get_num_threads();
  at::set_num_threads(threads);
  RobertaForMaskedLM model = make_model(small_config(), Implementation::fast);
  flat::FlatParameters parameters(*model, dtype);
  optim::Adam adam(parameters, {});
  for (unsigned step = 0; step < 3; ++step) {
    parameters.begin_step();
    const at::Tensor loss =
        model->forward(random_batch({9, 30, 17}, 211, step));
    if (early) {
      adam.start_early(1e-2);
    }
    loss.backward();
    parameters.collect();
    adam.step(1e-2);
  }
  at::set_num_threads(before);
  return parameters.master().clone();
}

TEST_P(FastPath, MayBeUpdatedAsTheGradientComes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor late = trained(dtype, false, 1);
    EXPECT_TRUE(at::equal(trained(dtype, true, 1), late)) << dtype;
    if (GetParam().own_products) {
      EXPECT_TRUE(at::equal(trained(dtype, true, 3), late)) << dtype;
    }
  }
}

TEST(RobertaDeathTest, UnknownProductsAreAnError) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  setenv("DS_PRODUCTS", "mine", 1);
  EXPECT_EXIT(
      {
        try {
          ops::cpu::has_own_product(at::kFloat);
        } catch (const base::Error& error) {
          std::exit(static_cast<int>(error.code()));
        }
      },
      testing::ExitedWithCode(64),
      "");
  unsetenv("DS_PRODUCTS");
}

// What a loss scaler lives on: too large a scale gives gradients that are not
// finite, never wrong ones.
TEST(Roberta, AnOverflowInFp16IsNotFinite) {
  const Pass pass =
      run(small_config(),
          Implementation::fast,
          at::kHalf,
          {random_batch({30, 20}, 211, 1)},
          0x1p40);
  bool finite = true;
  for (const at::Tensor& gradient : pass.gradients) {
    finite = finite &&
        (!gradient.defined() || at::isfinite(gradient).all().item<bool>());
  }
  EXPECT_FALSE(finite);
}

TEST(Roberta, ParametersAreCountedFromTheShape) {
  for (const bool pooler : {true, false}) {
    RobertaConfig config = small_config();
    config.pooler = pooler;
    int64_t count = 0;
    for (const at::Tensor& parameter :
         make_model(config, Implementation::fast)->parameters()) {
      count += parameter.numel();
    }
    EXPECT_EQ(parameter_count(config), count);
  }
}

TEST(Roberta, WorksWithoutFlatBuffers) {
  const auto batch = random_batch({12, 7}, 211, 3);
  RobertaForMaskedLM fast = make_model(small_config(), Implementation::fast);
  RobertaForMaskedLM reference =
      make_model(small_config(), Implementation::reference);
  fast->forward(batch).backward();
  reference->forward(batch).backward();
  const auto a = fast->named_parameters();
  const auto b = reference->named_parameters();
  for (const auto& item : a) {
    if (item.key().find("pooler") != std::string::npos) {
      EXPECT_FALSE(item.value().grad().defined());
    } else if (item.key().find("key.bias") == std::string::npos) {
      EXPECT_LT(relative_error(item.value().grad(), b[item.key()].grad()), 1e-4)
          << item.key();
    }
  }
}

TEST(Roberta, DoesNotDependOnTheThreads) {
  const auto batch = random_batch({60, 33, 100, 3, 77}, 211, 4);
  const int threads = at::get_num_threads();
  std::vector<Pass> passes;
  for (const int n : {1, 2, 3}) {
    at::set_num_threads(n);
    passes.push_back(
        run(small_config(), Implementation::fast, at::kFloat, {batch}));
  }
  at::set_num_threads(threads);
  for (const Pass& pass : passes) {
    EXPECT_EQ(pass.loss, passes[0].loss);
    for (size_t i = 0; i < pass.gradients.size(); ++i) {
      if (pass.gradients[i].defined()) {
        EXPECT_TRUE(at::equal(pass.gradients[i], passes[0].gradients[i]))
            << pass.names[i];
      }
    }
  }
}

TEST(Roberta, EvaluatesWithoutDropoutAndCountsHits) {
  const auto batch = random_batch({30, 20}, 211, 5);
  RobertaForMaskedLM fast = make_model(small_config(), Implementation::fast);
  RobertaForMaskedLM reference =
      make_model(small_config(), Implementation::reference);
  const Evaluation a = fast->evaluate(batch);
  const Evaluation b = reference->evaluate(batch);
  EXPECT_EQ(a.masked, batch->masked());
  EXPECT_NEAR(a.loss_sum, b.loss_sum, 1e-5 * b.loss_sum);
  EXPECT_EQ(a.correct, b.correct);
  fast->eval();
  const at::Tensor loss = fast->forward(batch);
  EXPECT_NEAR(
      loss.item<double>(), a.loss_sum / static_cast<double>(a.masked), 1e-5);
  EXPECT_LT(
      relative_error(fast->logits(batch), reference->logits(batch)), 1e-5);
}

TEST(Roberta, DropoutFollowsTheVisitAlone) {
  // The same sequence, alone and as the last of a batch.
  text::PackedBatch alone;
  alone.ids = {5, 6, 7, 8};
  alone.positions = {2, 3, 4, 5};
  alone.cu_seqlens = {0, 4};
  alone.masked = {2};
  alone.labels = {9};
  alone.visits = {77};
  text::PackedBatch second;
  second.ids = {1, 2, 3, 5, 6, 7, 8};
  second.positions = {2, 3, 4, 2, 3, 4, 5};
  second.cu_seqlens = {0, 3, 7};
  second.masked = {5};
  second.labels = {9};
  second.visits = {76, 77};
  RobertaForMaskedLM model = make_model(small_config(), Implementation::fast);
  const double a =
      model->forward(std::make_shared<Batch>(alone)).item<double>();
  const double b =
      model->forward(std::make_shared<Batch>(second)).item<double>();
  EXPECT_NEAR(a, b, 1e-5);
  alone.visits = {78};
  EXPECT_GT(
      std::abs(
          model->forward(std::make_shared<Batch>(alone)).item<double>() - a),
      1e-4);
}

TEST(Roberta, HasTheNamesOfHelloDeepSpeed) {
  RobertaForMaskedLM model(RobertaOptions{RobertaConfig{}});
  const auto entries = model->state_dict_entries();
  ASSERT_EQ(entries.size(), 110u);
  EXPECT_EQ(entries[0].name, "encoder.embeddings.word_embeddings.weight");
  EXPECT_EQ(
      entries[5].name, "encoder.encoder.layer.0.attention.self.query.weight");
  EXPECT_EQ(entries[101].name, "encoder.pooler.dense.weight");
  EXPECT_EQ(entries[103].name, "lm_head.bias");
  EXPECT_EQ(entries[104].name, "lm_head.dense.weight");
  EXPECT_EQ(entries[108].name, "lm_head.decoder.weight");
  EXPECT_EQ(entries[109].name, "lm_head.decoder.bias");
  int64_t numel = 0;
  for (const auto& parameter : model->parameters()) {
    numel += parameter.numel();
  }
  EXPECT_EQ(numel, 16345177);
}

TEST(Roberta, InitialWeightsAreNormal) {
  RobertaForMaskedLM model(RobertaOptions{RobertaConfig{}});
  const at::Tensor words =
      model->named_parameters()["encoder.embeddings.word_embeddings.weight"];
  EXPECT_NEAR(words.mean().item<double>(), 0, 3e-5);
  EXPECT_NEAR(words.std().item<double>(), 0.02, 3e-5);
  // Fourth moment of a normal distribution: 3 sigma^4.
  EXPECT_NEAR(
      words.to(at::kDouble).pow(4).mean().item<double>(), 3 * 1.6e-7, 5e-9);
}

TEST(Roberta, RefusesWhatDoesNotFit) {
  RobertaForMaskedLM model = make_model(small_config(), Implementation::fast);
  EXPECT_THROW(model->forward(random_batch({5}, 100000, 1)), c10::ValueError);
  EXPECT_THROW(model->forward(random_batch({513}, 211, 1)), c10::ValueError);
  RobertaConfig config = small_config();
  config.num_attention_heads = 5;
  EXPECT_THROW(make_model(config, Implementation::fast), base::Error);
}

TEST(Roberta, NothingMaskedHasNoLoss) {
  text::PackedBatch packed;
  packed.ids = {0, 2};
  packed.positions = {2, 3};
  packed.cu_seqlens = {0, 2};
  packed.visits = {1};
  const auto batch = std::make_shared<Batch>(packed);
  for (auto implementation :
       {Implementation::fast, Implementation::reference}) {
    RobertaForMaskedLM model = make_model(small_config(), implementation);
    const at::Tensor loss = model->forward(batch);
    EXPECT_EQ(loss.item<double>(), 0);
    loss.backward();
    EXPECT_EQ(model->evaluate(batch).masked, 0);
    EXPECT_EQ(
        model->logits(batch).sizes(),
        (std::vector<int64_t>{0, small_config().vocab_size}));
  }
}

} // namespace
} // namespace deepspeed::bert
