// Times the tokenizer on one thread, for benchmarks/tokenizer_benchmark.py.
//
// usage: tokenizer_speed TOKENIZER_FOLDER TEXT_FILE
// Encodes each line of the file, with nothing remembered at the start, and
// prints the seconds of processor time to load the tokenizer, those to encode,
// and the tokens.
#include <time.h>

#include <algorithm>
#include <cstdio>

#include "benchmarks/bounds.h"
#include "deepspeed/base/error.h"
#include "deepspeed/file/mapped_file.h"
#include "deepspeed/text/tokenizer.h"

namespace {

using namespace deepspeed;

// Processor time: on a shared machine the wall clock measures the others.
double now() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * time.tv_nsec;
}

int run(const std::string& folder, const std::string& path) {
  const double started = now();
  const auto tokenizer = text::Tokenizer::load(folder);
  const double loaded = now();

  // A private copy: page faults of the file are not the tokenizer's.
  const file::MappedFile file(path);
  const std::string copy(
      reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  std::string_view rest = copy;
  std::vector<int32_t> ids;
  size_t tokens = 0;
  const double begun = now();
  benchmarks::ds_counted([&] {
    text::Encoder encoder(tokenizer);
    while (!rest.empty()) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      ids.clear();
      encoder.encode(line, ids);
      tokens += ids.size();
    }
  });
  const double done = now();
  std::printf("%.6f %.6f %zu\n", loaded - started, done - begun, tokens);
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program([&]() -> int {
    if (argc != 3) {
      throw base::Error(
          base::ExitCode::usage,
          "two arguments are needed",
          "",
          "tokenizer_speed TOKENIZER_FOLDER TEXT_FILE");
    }
    return run(argv[1], argv[2]);
  });
}
