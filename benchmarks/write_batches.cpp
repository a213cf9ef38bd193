// Writes the batches that train_bert would train on, for the Python peers.
//
//   write_batches TEXT TOKENIZER_FOLDER OUT.jsonl [--steps N] [--seed N]
//                 [--batch_size N] [--ranks N]
//                 [--max_seq_length N] [--eval]
//
// A line is a step: the batch of rank 0, then that of rank 1, ...
// With --eval: the batches of an evaluation of all of TEXT.
#include "deepspeed/base/error.h"
#include "deepspeed/text/batch.h"
#include "deepspeed/text/batch_file.h"
#include "deepspeed/text/source_files.h"
#include "deepspeed/text/token_cache.h"
#include "programs/command_line.h"

using namespace deepspeed;

int main(int argc, char** argv) {
  return base::run_program([&] {
    std::string source;
    std::string tokenizer_folder;
    std::string out;
    uint64_t steps = 100;
    bool eval = false;
    text::BatchOptions options;
    options.seed = 42;
    CLI::App app("Write batches as JSON lines.");
    app.add_option("text", source)->required();
    app.add_option("tokenizer", tokenizer_folder)->required();
    app.add_option("out", out)->required();
    app.add_option("--steps", steps);
    app.add_option("--seed", options.seed);
    app.add_option("--batch_size", options.shape.batch_size);
    app.add_option("--ranks", options.shape.ranks);
    app.add_option("--max_seq_length", options.max_seq_length);
    app.add_flag("--eval", eval);
    return run_with_arguments(app, argc, argv, [&] {
      const auto tokenizer = text::Tokenizer::load(tokenizer_folder);
      text::CacheRequest request;
      request.source = text::list_source(source);
      const text::TokenCache cache = text::open_or_build(request, tokenizer);
      const text::BatchMaker maker(cache, *tokenizer, options);
      text::BatchFileWriter file(out);
      if (eval) {
        const uint64_t n = options.shape.batch_size;
        for (uint64_t first = 0; first < maker.samples(); first += n) {
          file.write(maker.make_eval(first, n));
        }
      } else {
        for (uint64_t step = 0; step < steps; ++step) {
          file.write(
              maker.make(maker.deal(step * options.shape.global()).positions));
        }
      }
      file.commit();
      return 0;
    });
  });
}
