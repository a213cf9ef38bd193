// The data side of a step: order, masks and packing of one batch of 8 lines of
// the packaged corpus, on one thread. Run from the root of the checkout.
#include <benchmark/benchmark.h>

#include <memory>

#include "deepspeed/text/batch.h"
#include "deepspeed/text/source_files.h"
#include "deepspeed/text/token_cache.h"

namespace deepspeed::text {
namespace {

constexpr char kText[] = "data/encyclopedia/train.txt";
constexpr char kTokenizer[] = "data/roberta-base";

void make_batch(benchmark::State& state) {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<TokenCache> cache;
  try {
    tokenizer = Tokenizer::load(kTokenizer);
    CacheRequest request;
    request.source = list_source(kText);
    cache = std::make_unique<TokenCache>(open_or_build(request, tokenizer));
  } catch (const std::exception& error) {
    state.SkipWithError(error.what());
    return;
  }
  BatchOptions options;
  options.seed = 42;
  options.shape.batch_size = static_cast<uint32_t>(state.range(0));
  const BatchMaker maker(*cache, *tokenizer, options);
  uint64_t position = 0;
  uint64_t tokens = 0;
  for (auto _ : state) {
    tokens += maker.make(position).ids.size();
    position += options.shape.global();
  }
  state.SetItemsProcessed(static_cast<int64_t>(tokens));
}
BENCHMARK(make_batch)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);

} // namespace
} // namespace deepspeed::text

BENCHMARK_MAIN();
