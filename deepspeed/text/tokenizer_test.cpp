// Reading tokenizers, refusing what is not one, and the ids they give.
#include "deepspeed/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/text/tokenizer_files.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {
namespace {

using base::ExitCode;
using base::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// GPT-2's letter for a byte.
std::string letter(int byte) {
  const auto is_shown = [](int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
  };
  char32_t point = static_cast<char32_t>(byte);
  if (!is_shown(byte)) {
    point = 0x100;
    for (int b = 0; b < byte; ++b) {
      point += is_shown(b) ? 0 : 1;
    }
  }
  std::string text;
  append_utf8(point, text);
  return text;
}

// <s> <pad> </s> <unk>, 256 bytes from 4 on, "ab" 260, "abc" 261, " ab" 262,
// <mask> 263.
Json tiny_vocab() {
  Json vocab = Json::object();
  for (const char* name : {"<s>", "<pad>", "</s>", "<unk>"}) {
    vocab[name] = vocab.size();
  }
  for (int b = 0; b < 256; ++b) {
    vocab[letter(b)] = vocab.size();
  }
  for (const char* name : {"ab", "abc", "Ġab", "<mask>"}) {
    vocab[name] = vocab.size();
  }
  return vocab;
}

const std::string kMerges = "#version: 0.2\na b\nab c\nĠ ab\n";

Json tiny_tokenizer_json() {
  Json added = Json::array();
  for (const auto& [name, id] :
       {std::pair{"<s>", 0},
        {"<pad>", 1},
        {"</s>", 2},
        {"<unk>", 3},
        {"<mask>", 263}}) {
    added.push_back(
        {{"id", id},
         {"content", name},
         {"single_word", false},
         {"lstrip", id == 263},
         {"rstrip", false},
         {"normalized", id != 263},
         {"special", true}});
  }
  Json json;
  json["version"] = "1.0";
  json["truncation"] = {{"max_length", 512}};
  json["padding"] = nullptr;
  json["added_tokens"] = added;
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {
      {"type", "ByteLevel"},
      {"add_prefix_space", false},
      {"trim_offsets", true},
      {"use_regex", true}};
  json["post_processor"] = {
      {"type", "RobertaProcessing"},
      {"sep", {"</s>", 2}},
      {"cls", {"<s>", 0}},
      {"trim_offsets", true},
      {"add_prefix_space", false}};
  json["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  json["model"] = {
      {"type", "BPE"},
      {"dropout", nullptr},
      {"unk_token", nullptr},
      {"continuing_subword_prefix", ""},
      {"end_of_word_suffix", ""},
      {"fuse_unk", false},
      {"byte_fallback", false},
      {"ignore_merges", false},
      {"vocab", tiny_vocab()},
      {"merges", Json::parse(R"([["a", "b"], ["ab", "c"], ["Ġ", "ab"]])")}};
  return json;
}

std::shared_ptr<const Tokenizer> from_two(
    const std::string& vocab,
    const std::string& merges = kMerges) {
  return std::make_shared<const Tokenizer>(
      parse_vocab_and_merges({vocab, "vocab.json"}, {merges, "merges.txt"}),
      std::vector<std::string>());
}

std::shared_ptr<const Tokenizer> from_json(const Json& json) {
  return std::make_shared<const Tokenizer>(
      parse_tokenizer_json({json.dump(), "tokenizer.json"}),
      std::vector<std::string>());
}

std::vector<int32_t> encode(
    const std::shared_ptr<const Tokenizer>& tokenizer,
    std::string_view text) {
  std::vector<int32_t> ids;
  Encoder(tokenizer).encode(text, ids);
  return ids;
}

void expect_error(
    const std::function<void()>& action,
    ExitCode code,
    const std::string& what) {
  try {
    action();
    ADD_FAILURE() << "no error: " << what;
  } catch (const base::Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << what;
    EXPECT_THAT(error.report(), HasSubstr(what));
  }
}

TEST(Tokenizer, MergesByRankAndRemembers) {
  const auto tokenizer = from_two(tiny_vocab().dump());
  EXPECT_EQ(tokenizer->vocab_size(), 264);
  EXPECT_EQ(tokenizer->special().mask, 263);
  EXPECT_THAT(tokenizer->special_ids(), ElementsAre(0, 1, 2, 3, 263));
  Encoder encoder(tokenizer);
  for (int time = 0; time < 2; ++time) {
    std::vector<int32_t> ids;
    encoder.encode("abc abc", ids);
    EXPECT_THAT(ids, ElementsAre(261, 4 + ' ', 261));
  }
  EXPECT_THAT(encode(tokenizer, " ab"), ElementsAre(262));
  EXPECT_THAT(encode(tokenizer, ""), ElementsAre());
  EXPECT_THAT(encode(tokenizer, std::string("\0", 1)), ElementsAre(4));
  EXPECT_EQ(tokenizer->token(262), " ab");
}

TEST(Tokenizer, CutsOutSpecialTokensAndMaskEatsSpaceBeforeIt) {
  const auto tokenizer = from_two(tiny_vocab().dump());
  const int32_t blank = 4 + ' ';
  EXPECT_THAT(
      encode(tokenizer, "ab <unk> ab"), ElementsAre(260, blank, 3, 262));
  EXPECT_THAT(
      encode(tokenizer, "ab \t\u3000<mask> ab"), ElementsAre(260, 263, 262));
  EXPECT_THAT(
      encode(tokenizer, "<s>  <mask></s><mask"),
      ElementsAre(0, 263, 2, 4 + '<', 4 + 'm', 4 + 'a', 4 + 's', 4 + 'k'));
}

TEST(Tokenizer, LongWordsNeedNoMemo) {
  const auto tokenizer = from_two(tiny_vocab().dump());
  std::string word;
  std::vector<int32_t> expected;
  for (int i = 0; i < 1000; ++i) {
    word += "abc";
    expected.push_back(261);
    if (i % 300 == 5) {
      ASSERT_EQ(encode(tokenizer, word), expected);
    }
  }
}

TEST(Tokenizer, DecodesBytesAndReplacesWhatIsNotUtf8) {
  const auto tokenizer = from_two(tiny_vocab().dump());
  const std::string text = "abc é <s>ab\n";
  EXPECT_EQ(tokenizer->decode(encode(tokenizer, text)), text);
  const std::vector<int32_t> broken{4 + 0xC3, 260, 0, 4 + 0xA9};
  EXPECT_EQ(
      tokenizer->decode(broken),
      "\uFFFD"
      "ab<s>\uFFFD");
  EXPECT_EQ(
      tokenizer->decode(broken, true),
      "\uFFFD"
      "ab\uFFFD");
  EXPECT_EQ(
      encode(
          tokenizer,
          "\xC3"
          "ab"),
      encode(
          tokenizer,
          "\uFFFD"
          "ab"));
  for (const int32_t id : {-1, 264}) {
    expect_error(
        [&] { tokenizer->decode(std::vector<int32_t>{id}); },
        ExitCode::data,
        "token id " + std::to_string(id));
  }
}

TEST(Tokenizer, BothKindsOfFilesGiveTheSame) {
  const auto two = from_two(tiny_vocab().dump());
  Json json = tiny_tokenizer_json();
  const auto pairs = from_json(json);
  json["model"]["merges"] = Json::array({"a b", "ab c", "Ġ ab"});
  const auto lines = from_json(json);
  EXPECT_EQ(two->fingerprint(), pairs->fingerprint());
  EXPECT_EQ(two->fingerprint(), lines->fingerprint());
  EXPECT_EQ(two->fingerprint().size(), 32u);
  EXPECT_EQ(encode(two, "abc <mask>ab"), encode(pairs, "abc <mask>ab"));
}

TEST(Tokenizer, FingerprintChangesWithWhateverDecidesTheIds) {
  std::set<std::string> seen{
      from_two(tiny_vocab().dump())->fingerprint(),
      from_two(tiny_vocab().dump(), "#version\na b\nĠ ab\nab c\n")
          ->fingerprint()};
  Json json = tiny_tokenizer_json();
  json["added_tokens"][4]["lstrip"] = false;
  seen.insert(from_json(json)->fingerprint());
  json["added_tokens"][3]["rstrip"] = true;
  seen.insert(from_json(json)->fingerprint());
  json["added_tokens"].push_back(
      {{"id", 264}, {"content", "<new>"}, {"special", true}});
  seen.insert(from_json(json)->fingerprint());
  EXPECT_EQ(seen.size(), 5u);
}

TEST(Tokenizer, AddedTokensFollowTheirFlags) {
  Json json = tiny_tokenizer_json();
  const auto add = [&](int id, const char* content, bool normalized) {
    json["added_tokens"].push_back(
        {{"id", id},
         {"content", content},
         {"rstrip", normalized},
         {"normalized", normalized},
         {"special", false}});
  };
  add(264, "<x", true);
  add(265, "x>", false);
  add(266, "x>>", false);
  const auto tokenizer = from_json(json);
  // x>> is the longest at its place; <x is looked for only in what is left.
  EXPECT_THAT(encode(tokenizer, "<x>>"), ElementsAre(4 + '<', 266));
  EXPECT_THAT(encode(tokenizer, "<x  ab"), ElementsAre(264, 260));
  EXPECT_THAT(tokenizer->special_ids(), ElementsAre(0, 1, 2, 3, 263));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{264, 0}, true), "<x");
}

TEST(Tokenizer, DamagedVocabulariesAreRefused) {
  const auto vocab_error = [](const std::string& vocab,
                              const std::string& what) {
    expect_error([&] { from_two(vocab); }, ExitCode::data, what);
  };
  const std::string good = tiny_vocab().dump();
  const std::string body = good.substr(1, good.size() - 2);
  vocab_error("", "expected '{' but the file ends");
  vocab_error("[]", "expected '{'");
  vocab_error("{\"a\": 1", "file ends");
  vocab_error("{\"a", "string without an end");
  vocab_error("{\"\\ud800\": 1}", "surrogate");
  vocab_error("{\"\\x\": 1}", "unknown escape");
  vocab_error("{\"\xFF\": 1}", "UTF-8");
  vocab_error("{\"a\nb\": 1}", "control character");
  vocab_error("{\"a\": 1.5}", "expected an integer");
  vocab_error("{\"a\": -1}", "expected an integer");
  vocab_error("{\"a\": 01}", "expected an integer");
  vocab_error("{\"a\": 2147483648}", "too large");
  vocab_error(good + "x", "after the end");
  vocab_error("{" + body + ", \"ab\": 264}", "\"ab\" is there twice");
  vocab_error("{" + body + ", \"x1\": 260}", "have the same id 260");
  vocab_error("{" + body + ", \"x1\": 265}", "the ids have a gap");
  Json lacks = tiny_vocab();
  lacks["<mask>"] = lacks[letter(7)];
  lacks.erase(letter(7));
  vocab_error(lacks.dump(), "for the byte 7");
  Json renamed;
  const Json vocab = tiny_vocab();
  for (const auto& [token, id] : vocab.items()) {
    renamed[token == "<mask>" ? "[MASK]" : token] = id;
  }
  vocab_error(renamed.dump(), "no special token <mask>");
}

TEST(Tokenizer, EscapesOfTheVocabularyAreUnderstood) {
  std::string vocab = tiny_vocab().dump(-1, ' ', /*ensure_ascii=*/true);
  EXPECT_THAT(vocab, HasSubstr("\\u0120ab"));
  EXPECT_EQ(
      from_two(vocab)->fingerprint(),
      from_two(tiny_vocab().dump())->fingerprint());
  vocab.insert(vocab.size() - 1, ", \"\\ud83d\\ude00\\n\": 264");
  EXPECT_EQ(from_two(vocab)->token(264), "\U0001F600\n");
}

TEST(Tokenizer, DamagedMergesAreRefused) {
  const std::string vocab = tiny_vocab().dump();
  const auto merges_error = [&](const std::string& merges,
                                const std::string& what) {
    expect_error([&] { from_two(vocab, merges); }, ExitCode::data, what);
  };
  merges_error("", "#version");
  merges_error("a b\n", "#version");
  merges_error("#version\na b", "merges.txt:2");
  merges_error("#version\na b\nab  c\n", "merges.txt:3");
  merges_error("#version\na b c\n", "not two tokens");
  merges_error("#version\nab\n", "not two tokens");
  merges_error("#version\n\n", "not two tokens");
  merges_error("#version\n\xFF \xFF\n", "UTF-8");
  merges_error("#version\na b\na b\n", "is there twice");
  merges_error("#version\nzz b\n", "needs the token \"zz\"");
  merges_error("#version\nb zz\n", "needs the token \"zz\"");
  merges_error("#version\nb a\n", "needs the token \"ba\"");
  EXPECT_EQ(
      from_two(vocab, "#version\r\na b\r\nab c\r\nĠ ab\r\n")->fingerprint(),
      from_two(vocab)->fingerprint());
}

TEST(Tokenizer, WhatWouldChangeTheIdsIsRefusedByName) {
  const auto refused = [](const std::string& pointer,
                          const Json& value,
                          const std::string& what) {
    Json json = tiny_tokenizer_json();
    json[Json::json_pointer(pointer)] = value;
    expect_error([&] { from_json(json); }, ExitCode::config, what);
  };
  refused("/normalizer", {{"type", "NFC"}}, "NFC");
  refused("/pre_tokenizer", nullptr, "pre-tokenizer null");
  refused("/pre_tokenizer/type", "Whitespace", "Whitespace");
  refused("/pre_tokenizer/add_prefix_space", true, "add_prefix_space");
  refused("/pre_tokenizer/use_regex", false, "use_regex");
  refused("/pre_tokenizer/new_key", 1, "new_key");
  refused("/decoder", {{"type", "WordPiece"}}, "WordPiece");
  refused("/post_processor", {{"type", "TemplateProcessing"}}, "Template");
  refused("/post_processor/cls", {"[CLS]", 0}, "cls");
  refused("/model/type", "WordPiece", "WordPiece");
  refused("/model/dropout", 0.1, "dropout");
  refused("/model/continuing_subword_prefix", "##", "continuing_subword");
  refused("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  refused("/model/byte_fallback", true, "byte_fallback");
  refused("/model/ignore_merges", true, "ignore_merges");
  refused("/model/new_key", 1, "new_key");
  refused("/new_key", 1, "new_key");
  refused("/added_tokens/0/single_word", true, "single_word");
  refused("/added_tokens/0/content", " x", "white space");
  refused("/added_tokens/0/new_key", 1, "new_key");
}

TEST(Tokenizer, DamagedTokenizerJsonIsRefused) {
  const auto damaged = [](const std::string& pointer,
                          const Json& value,
                          const std::string& what) {
    Json json = tiny_tokenizer_json();
    json[Json::json_pointer(pointer)] = value;
    expect_error([&] { from_json(json); }, ExitCode::data, what);
  };
  damaged("/added_tokens/0/id", 1, "\"<s>\" has the id 1");
  damaged("/added_tokens/0/id", "0", "without id or content");
  damaged("/added_tokens/0/content", "", "is empty");
  damaged("/added_tokens/1", tiny_tokenizer_json()["added_tokens"][0], "twice");
  damaged("/added_tokens/0/special", false, "no special token <s>");
  damaged("/model/merges/0", Json::array({"a"}), "expected ','");
  damaged("/model/merges/0", "a", "not two tokens");
  damaged("/model/vocab", {{"a", 9}}, "gap");
  Json json = tiny_tokenizer_json();
  json["model"].erase("vocab");
  expect_error([&] { from_json(json); }, ExitCode::data, "\"vocab\"");
  json = tiny_tokenizer_json();
  json.erase("decoder");
  expect_error([&] { from_json(json); }, ExitCode::data, "\"decoder\"");
  const std::string deep(100000, '[');
  expect_error(
      [&] {
        parse_tokenizer_json({"{\"padding\":" + deep, "deep.json"});
      },
      ExitCode::data,
      "deep.json");
}

TEST(Tokenizer, LoadsAFolderAndSaysWhatIsMissing) {
  file::TemporaryFolder folder;
  const std::string& path = folder.path();
  const auto load = [&] { Tokenizer::load(path); };
  expect_error(load, ExitCode::no_input, "no vocab.json");
  file::write_file_atomically(path + "/vocab.json", tiny_vocab().dump());
  expect_error(load, ExitCode::no_input, "no merges.txt");
  file::write_file_atomically(path + "/merges.txt", kMerges);
  const auto two = Tokenizer::load(path);
  EXPECT_THAT(
      two->files(), ElementsAre(path + "/vocab.json", path + "/merges.txt"));
  file::write_file_atomically(path + "/added_tokens.json", "{}");
  expect_error(load, ExitCode::config, "added_tokens.json");
  file::write_file_atomically(
      path + "/tokenizer.json", tiny_tokenizer_json().dump());
  file::write_file_atomically(
      path + "/tokenizer_config.json", "{\"add_prefix_space\": false}");
  const auto one = Tokenizer::load(path);
  EXPECT_THAT(
      one->files(),
      ElementsAre(path + "/tokenizer_config.json", path + "/tokenizer.json"));
  EXPECT_EQ(one->fingerprint(), two->fingerprint());
  file::write_file_atomically(
      path + "/tokenizer_config.json", "{\"add_prefix_space\": true}");
  expect_error(load, ExitCode::config, "add_prefix_space = true");
}

// The vectors of transformers and fairseq; the parity test has many more.
TEST(Tokenizer, RobertaBase) {
  const std::string folder = DS_SOURCE_DIR "/data/roberta-base";
  // Fetched, not in the repository; `make test` runs `make data` first.
  if (!std::filesystem::exists(folder)) {
    GTEST_SKIP() << folder << " is not there: make data";
  }
  const auto tokenizer = Tokenizer::load(folder);
  EXPECT_EQ(tokenizer->vocab_size(), 50265);
  EXPECT_THAT(tokenizer->special_ids(), ElementsAre(0, 1, 2, 3, 50264));
  EXPECT_THAT(encode(tokenizer, "Hello world!"), ElementsAre(31414, 232, 328));
  EXPECT_THAT(encode(tokenizer, "x <mask> y"), ElementsAre(1178, 50264, 1423));
  EXPECT_THAT(
      encode(tokenizer, " = Homarus gammarus = "),
      ElementsAre(5457, 11858, 42292, 20577, 3916, 687, 5457, 1437));
}

} // namespace
} // namespace deepspeed::text
