// A tokenizer for tests whose ids can be told by hand.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "deepspeed/text/tokenizer.h"
#include "deepspeed/text/tokenizer_files.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {

// Byte b has the id 4 + b; <s> <pad> </s> <unk> are 0 to 3, <mask> is 260.
// With `merge_ab`, "ab" is one token more, 261.
inline std::string byte_vocab(bool merge_ab = false) {
  std::string vocab = R"({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3)";
  char32_t letter = 256; // of the next byte that is no printable letter
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') ||
        (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string name;
    if (byte == '"' || byte == '\\') {
      name = "\\";
    }
    append_utf8(printable ? static_cast<char32_t>(byte) : letter++, name);
    vocab += ", \"" + name + "\": " + std::to_string(4 + byte);
  }
  vocab += R"(, "<mask>": 260)";
  return vocab + (merge_ab ? ", \"ab\": 261}" : "}");
}

inline std::shared_ptr<const Tokenizer> byte_tokenizer(bool merge_ab = false) {
  return std::make_shared<const Tokenizer>(
      parse_vocab_and_merges(
          {byte_vocab(merge_ab), "vocab.json"},
          {merge_ab ? "#version: 0.2\na b\n" : "#version: 0.2\n",
           "merges.txt"}),
      std::vector<std::string>{});
}

} // namespace deepspeed::text
