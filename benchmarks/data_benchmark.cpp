// The data side of a step: order, masks and packing of one batch of 8 lines of
// the packaged corpus, on one thread. Run from the root of the checkout.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>

#include "deepspeed/text/batch.h"
#include "deepspeed/text/source_files.h"
#include "deepspeed/text/token_cache.h"

namespace deepspeed::text {
namespace {

constexpr char kText[] = "data/encyclopedia/train.txt";
constexpr char kTokenizer[] = "data/roberta-base";

struct Corpus {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<TokenCache> cache;
};

// Empty, with an error, if there is none.
Corpus open_corpus(benchmark::State& state) {
  Corpus corpus;
  try {
    corpus.tokenizer = Tokenizer::load(kTokenizer);
    CacheRequest request;
    request.source = list_source(kText);
    corpus.cache =
        std::make_unique<TokenCache>(open_or_build(request, corpus.tokenizer));
  } catch (const std::exception& error) {
    state.SkipWithError(error.what());
  }
  return corpus;
}

void make_batch(benchmark::State& state) {
  const Corpus corpus = open_corpus(state);
  if (corpus.cache == nullptr) {
    return;
  }
  BatchOptions options;
  options.seed = 42;
  options.shape.batch_size = static_cast<uint32_t>(state.range(0));
  const BatchMaker maker(*corpus.cache, *corpus.tokenizer, options);
  uint64_t position = 0;
  uint64_t tokens = 0;
  for (auto _ : state) {
    tokens += maker.make(position).ids.size();
    position += options.shape.global();
  }
  state.SetItemsProcessed(static_cast<int64_t>(tokens));
}
BENCHMARK(make_batch)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);

// Arguments: ranks, sequences of each, whether balanced. max_of_mean: tokens of
// the rank with most, over the mean of the ranks, in the mean of 5,000 steps.
void deal_step(benchmark::State& state) {
  const Corpus corpus = open_corpus(state);
  if (corpus.cache == nullptr) {
    return;
  }
  BatchOptions options;
  options.seed = 42;
  options.shape.ranks = static_cast<uint64_t>(state.range(0));
  options.shape.batch_size = static_cast<uint64_t>(state.range(1));
  options.dealing = state.range(2) != 0 ? Dealing::balanced : Dealing::in_order;
  const BatchMaker maker(*corpus.cache, *corpus.tokenizer, options);
  uint64_t position = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(maker.deal(position).positions.data());
    position += options.shape.global();
  }
  constexpr uint64_t kSteps = 5000;
  double of_mean = 0;
  for (uint64_t i = 0; i < kSteps; ++i) {
    const DealtStep step = maker.deal(i * options.shape.global());
    uint64_t most = 0;
    for (uint64_t rank = 0; rank < options.shape.ranks; ++rank) {
      most = std::max(most, maker.tokens(step.micro_batch(0, rank)));
    }
    of_mean += static_cast<double>(most * options.shape.ranks) /
        static_cast<double>(maker.tokens(step.positions));
  }
  state.counters["max_of_mean"] = of_mean / kSteps;
}
BENCHMARK(deal_step)
    ->ArgsProduct({{2, 4, 8}, {8, 32}, {0, 1}})
    ->Unit(benchmark::kMicrosecond);

} // namespace
} // namespace deepspeed::text

BENCHMARK_MAIN();
