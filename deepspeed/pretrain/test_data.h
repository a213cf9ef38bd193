// A data set and a tokenizer of a few bytes, for tests of runs.
#pragma once

#include <cstdlib>
#include <string>

#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/pretrain/data.h"
#include "deepspeed/text/test_tokenizer.h"

namespace deepspeed::pretrain {

// 64 lines, the n-th of n + 1 letters; a letter is a token.
class TestData {
 public:
  TestData() {
    ::setenv("DEEPSPEED_CACHE_DIR", (folder_.path() + "/cache").c_str(), 1);
    std::string lines;
    for (size_t n = 0; n < kLines; ++n) {
      lines += std::string(n + 1, 'a') + "\n";
    }
    file::write_file_atomically(path("lines.txt"), lines);
    file::write_file_atomically(path("vocab.json"), text::byte_vocab());
    file::write_file_atomically(path("merges.txt"), "#version: 0.2\n");
    settings.data.dataset = path("lines.txt");
    settings.data.tokenizer = folder_.path();
    settings.data.max_seq_length = 128;
    settings.run.num_iterations = kLines;
    settings.model.num_layers = 2;
    settings.model.h_dim = 16;
    settings.model.num_heads = 2;
    settings.model.ff_dim = 24;
  }
  ~TestData() {
    ::unsetenv("DEEPSPEED_CACHE_DIR");
  }

  std::string path(const std::string& name) const {
    return folder_.path() + "/" + name;
  }
  Data open(int64_t ranks = 1) const {
    return Data(settings, bert::RobertaConfig{}.vocab_size, ranks);
  }

  static constexpr size_t kLines = 64;
  settings::Settings settings;

 private:
  file::TemporaryFolder folder_;
};

} // namespace deepspeed::pretrain
