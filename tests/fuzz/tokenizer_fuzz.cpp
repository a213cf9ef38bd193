// Fuzzes the parsers of a tokenizer's files, and encoding with what they give.
#include <cstddef>
#include <cstdint>
#include <string>

#include "deepspeed/base/error.h"
#include "deepspeed/text/tokenizer_files.h"
#include "deepspeed/text/unicode.h"

namespace {

using namespace deepspeed;

void append_letter(int byte, std::string& text) {
  const bool is_shown =
      (byte >= 0x21 && byte <= 0x7E && byte != '"' && byte != '\\') ||
      (byte >= 0xA1 && byte != 0xAD);
  // GPT-2's alphabet, in the order of encoder.py.
  static const std::string hidden = [] {
    std::string bytes;
    for (int b = 0; b < 256; ++b) {
      if (b < 0x21 || (b > 0x7E && b < 0xA1) || b == 0xAD) {
        bytes += static_cast<char>(b);
      }
    }
    return bytes;
  }();
  if (byte == '"' || byte == '\\') {
    text += '\\';
    text += static_cast<char>(byte);
  } else if (is_shown) {
    text::append_utf8(static_cast<char32_t>(byte), text);
  } else {
    const size_t place = hidden.find(static_cast<char>(byte));
    text::append_utf8(static_cast<char32_t>(0x100 + place), text);
  }
}

// A vocabulary that is whole but for the entries that the input adds: random
// bytes alone would hardly ever hold a token for each byte.
std::string vocab_with(std::string_view entries) {
  std::string vocab = R"({"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"<mask>":4)";
  for (int b = 0; b < 256; ++b) {
    vocab += ",\"";
    append_letter(b, vocab);
    vocab += "\":" + std::to_string(5 + b);
  }
  vocab += entries;
  return vocab + "}";
}

std::string tokenizer_json_with(
    std::string_view rest,
    const std::string& vocab) {
  return R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
         R"("decoder":{"type":"ByteLevel"},"post_processor":)"
         R"({"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",0]},)"
         R"("model":{"type":"BPE","merges":[["a","b"]],"vocab":)" +
      vocab + "}," + std::string(rest);
}

void use(
    std::unique_ptr<const text::TokenizerModel> model,
    std::string_view s) {
  const auto tokenizer = std::make_shared<const text::Tokenizer>(
      std::move(model), std::vector<std::string>());
  text::Encoder encoder(tokenizer);
  std::vector<int32_t> ids;
  encoder.encode(s, ids);
  const std::string valid = text::replace_invalid_utf8(s);
  std::vector<int32_t> again;
  encoder.encode(valid, again);
  const std::string decoded = tokenizer->decode(ids);
  // Without an added token that eats white space, nothing may be lost.
  const bool is_plain = s.find('<') == std::string_view::npos;
  if (ids != again ||
      (is_plain && tokenizer->special_ids().size() == 5 &&
       tokenizer->vocab_size() == 261 && decoded != valid)) {
    __builtin_trap();
  }
}

// Errors of the user are fine; anything else that is thrown is a bug.
template <class Parse>
void attempt(Parse parse) {
  try {
    parse();
  } catch (const base::Error&) {
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view input(
      reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = input.find("\n\n");
  const std::string_view head = input.substr(0, cut);
  const std::string_view tail =
      cut == std::string_view::npos ? "" : input.substr(cut + 2);
  attempt([&] {
    switch (data[0] % 6) {
      case 0:
        use(text::parse_vocab_and_merges({head, "v"}, {tail, "m"}), tail);
        break;
      case 1: {
        const std::string vocab = vocab_with(head);
        const std::string merges = "#version\n" + std::string(tail);
        use(text::parse_vocab_and_merges({vocab, "v"}, {merges, "m"}), input);
        break;
      }
      case 2:
        use(text::parse_tokenizer_json({input, "t"}), input);
        break;
      case 3: {
        const std::string vocab = vocab_with("");
        const std::string json = tokenizer_json_with(head, vocab);
        use(text::parse_tokenizer_json({json, "t"}), tail);
        break;
      }
      case 4:
        text::check_tokenizer_config({input, "c"});
        break;
      default: {
        const std::string vocab = vocab_with(R"(,"ab":261,"abc":262)");
        const std::string merges = "#version\na b\nab c\n";
        use(text::parse_vocab_and_merges({vocab, "v"}, {merges, "m"}), input);
      }
    }
  });
  return 0;
}
