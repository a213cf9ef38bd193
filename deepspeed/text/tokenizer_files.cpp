// Reading the files of a tokenizer: vocab.json, merges.txt, tokenizer.json.
#include "deepspeed/text/tokenizer_files.h"

#include <algorithm>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/text/tokenizer_builder.h"
#include "deepspeed/text/tokenizer_json.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;
using base::Json;

constexpr uint64_t kMostBytes = uint64_t{64} << 20; // of any file

[[noreturn]] void refuse(const std::string& what, const std::string& source) {
  throw Error(
      ExitCode::config,
      what + " is not supported",
      source,
      "this reads byte-level BPE as transformers writes it for RoBERTa");
}

std::vector<std::pair<std::string_view, int32_t>> read_vocab(
    JsonReader& reader) {
  std::vector<std::pair<std::string_view, int32_t>> vocab;
  reader.object([&](std::string_view token) {
    vocab.emplace_back(token, reader.integer());
  });
  return vocab;
}

// "left right", with exactly one blank.
bool split_merge(
    std::string_view text,
    std::pair<std::string_view, std::string_view>& merge) {
  const size_t blank = text.find(' ');
  if (blank == std::string_view::npos || blank == 0 ||
      blank + 1 == text.size() ||
      text.find(' ', blank + 1) != std::string_view::npos) {
    return false;
  }
  merge = {text.substr(0, blank), text.substr(blank + 1)};
  return true;
}

std::vector<std::pair<std::string_view, std::string_view>> read_merge_lines(
    const Document& merges) {
  const auto fail = [&](const std::string& what, size_t line) {
    throw Error(
        ExitCode::data,
        what,
        merges.source + ":" + std::to_string(line),
        "the file is damaged or of another kind: fetch it again");
  };
  if (!is_valid_utf8(merges.text)) {
    fail("not valid UTF-8", 1);
  }
  // transformers takes the first line for a comment whatever it says, and
  // drops the last one if it has no end: where either matters, we refuse.
  if (!merges.text.starts_with("#version")) {
    fail("the first line does not start with \"#version\"", 1);
  }
  std::vector<std::pair<std::string_view, std::string_view>> found;
  std::string_view rest = merges.text;
  for (size_t number = 1; !rest.empty(); ++number) {
    const size_t newline = rest.find('\n');
    if (newline == std::string_view::npos) {
      fail("the last line has no end: the file is cut off", number);
    }
    std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline + 1);
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    if (number > 1 && !split_merge(line, found.emplace_back())) {
      fail("not two tokens with a blank between them", number);
    }
  }
  return found;
}

std::vector<std::pair<std::string_view, std::string_view>> read_merge_array(
    JsonReader& reader) {
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  reader.array([&] {
    auto& merge = merges.emplace_back();
    if (!reader.accept('[')) {
      if (!split_merge(reader.string(), merge)) {
        reader.fail("a merge is not two tokens with a blank between them");
      }
      return;
    }
    merge.first = reader.string();
    reader.expect(',');
    merge.second = reader.string();
    reader.expect(']');
  });
  return merges;
}

// Throws unless each key of `object` is one of those that were thought of.
void check_keys(
    const Json& object,
    const std::vector<std::string>& known,
    const std::string& name,
    const std::string& source) {
  if (!object.is_object()) {
    refuse(name + " " + object.dump().substr(0, 60), source);
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      refuse("the key \"" + key + "\" of " + name, source);
    }
  }
}

// Throws unless `object` lacks `key` or has one of the allowed values.
void check_value(
    const Json& object,
    const std::string& key,
    const std::vector<Json>& allowed,
    const std::string& name,
    const std::string& source) {
  const auto found = object.find(key);
  if (found != object.end() &&
      std::find(allowed.begin(), allowed.end(), *found) == allowed.end()) {
    refuse(name + " with " + key + " = " + found->dump().substr(0, 60), source);
  }
}

// The type that a part says it has, or the start of the part.
std::string kind_of(const Json& part) {
  const bool has_type = part.is_object() && part.contains("type");
  return (has_type ? part["type"] : part).dump().substr(0, 60);
}

void check_type(
    const Json& part,
    const std::string& type,
    const std::string& name,
    const std::string& source) {
  if (kind_of(part) != "\"" + type + "\"" || !part.is_object()) {
    refuse("the " + name + " " + kind_of(part), source);
  }
}

AddedToken read_added(const Json& json, const std::string& source) {
  const std::string name = "an added token";
  check_keys(
      json,
      {"id",
       "content",
       "single_word",
       "lstrip",
       "rstrip",
       "normalized",
       "special"},
      name,
      source);
  const auto content = json.find("content");
  const auto id = json.find("id");
  if (content == json.end() || !content->is_string() || id == json.end() ||
      !id->is_number_unsigned() || id->get<uint64_t>() > INT32_MAX) {
    throw Error(
        ExitCode::data, "an added token without id or content", source, "");
  }
  for (const char* flag :
       {"single_word", "lstrip", "rstrip", "normalized", "special"}) {
    check_value(json, flag, {true, false}, name, source);
  }
  AddedToken token;
  token.content = content->get<std::string>();
  token.id = id->get<int32_t>();
  token.lstrip = json.value("lstrip", false);
  token.rstrip = json.value("rstrip", false);
  token.special = json.value("special", false);
  token.normalized = json.value("normalized", !token.special);
  check_value(
      json,
      "single_word",
      {false},
      name + " \"" + token.content.substr(0, 40) + "\"",
      source);
  return token;
}

// The parts of the model that are small; vocab and merges are read elsewhere.
void check_model(
    const std::string& key,
    const Json& value,
    const std::string& source) {
  const Json model = {{key, value}};
  // With a token for each byte no character is unknown, so that unk_token and
  // fuse_unk have no effect.
  check_keys(
      model,
      {"type",
       "dropout",
       "unk_token",
       "continuing_subword_prefix",
       "end_of_word_suffix",
       "fuse_unk",
       "byte_fallback",
       "ignore_merges"},
      "the model",
      source);
  if (key == "type") {
    check_type(model, "BPE", "model", source);
  }
  check_value(model, "dropout", {nullptr, 0.0}, "a model", source);
  check_value(
      model, "continuing_subword_prefix", {nullptr, ""}, "a model", source);
  check_value(model, "end_of_word_suffix", {nullptr, ""}, "a model", source);
  check_value(model, "byte_fallback", {false}, "a model", source);
  check_value(model, "ignore_merges", {false}, "a model", source);
}

void check_pipeline(
    const std::string& key,
    const Json& value,
    const std::string& source) {
  if (key == "normalizer") {
    if (!value.is_null()) {
      refuse("the normalizer " + kind_of(value), source);
    }
  } else if (key == "pre_tokenizer") {
    check_type(value, "ByteLevel", "pre-tokenizer", source);
    check_keys(
        value,
        {"type", "add_prefix_space", "trim_offsets", "use_regex"},
        "the pre-tokenizer",
        source);
    const std::string name = "a pre-tokenizer";
    check_value(value, "use_regex", {true}, name, source);
    if (!value.contains("add_prefix_space")) {
      refuse(name + " without add_prefix_space", source);
    }
    check_value(value, "add_prefix_space", {false}, name, source);
  } else if (key == "decoder") {
    check_type(value, "ByteLevel", "decoder", source);
  } else if (key == "post_processor") {
    check_type(value, "RobertaProcessing", "post-processor", source);
    const std::string name = "a post-processor";
    for (const auto& [end, token] :
         {std::pair{"cls", "<s>"}, {"sep", "</s>"}}) {
      const auto found = value.find(end);
      if (found == value.end() || !found->is_array() || found->empty() ||
          (*found)[0] != token) {
        refuse(name + " that does not put " + token + " as " + end, source);
      }
    }
  } else if (key != "version" && key != "truncation" && key != "padding") {
    refuse("the key \"" + key + "\"", source);
  }
}

// A small value, as a tree.
Json read_tree(JsonReader& reader) {
  constexpr size_t kMostTree = 1 << 20;
  const std::string_view text = reader.skip();
  if (text.size() > kMostTree) {
    reader.fail("a part of the file is too large");
  }
  base::JsonOptions options;
  options.comments = false;
  return base::parse_json(text, reader.source(), options);
}

// Calls entry(key) once for each member. Error(data) for one that comes twice
// and for one of `needed` that does not come.
template <class Entry>
void read_members(
    JsonReader& reader,
    const std::vector<std::string>& needed,
    Entry entry) {
  std::vector<std::string> seen;
  reader.object([&](std::string_view key) {
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) {
      reader.fail("duplicate key \"" + std::string(key.substr(0, 40)) + "\"");
    }
    seen.emplace_back(key);
    entry(seen.back());
  });
  for (const std::string& key : needed) {
    if (std::find(seen.begin(), seen.end(), key) == seen.end()) {
      reader.fail("the key \"" + key + "\" is missing");
    }
  }
}

} // namespace

std::unique_ptr<const TokenizerModel> parse_vocab_and_merges(
    const Document& vocab,
    const Document& merges) {
  JsonReader reader(vocab.text, vocab.source);
  TokenizerParts parts;
  parts.source = vocab.source;
  parts.merges_source = merges.source;
  parts.vocab = read_vocab(reader);
  reader.finish();
  parts.merges = read_merge_lines(merges);
  for (const char* name : {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}) {
    for (const auto& [text, id] : parts.vocab) {
      if (text == name) {
        const bool is_mask = text == "<mask>";
        parts.added.push_back(
            {std::string(text),
             id,
             /*lstrip=*/is_mask,
             /*rstrip=*/false,
             /*normalized=*/!is_mask,
             /*special=*/true});
        break;
      }
    }
  }
  return build_tokenizer(parts);
}

std::unique_ptr<const TokenizerModel> parse_tokenizer_json(
    const Document& document) {
  const std::string& source = document.source;
  JsonReader reader(document.text, source);
  TokenizerParts parts;
  parts.source = source;
  parts.merges_source = source;
  const auto read_model = [&](const std::string& key) {
    if (key == "vocab") {
      parts.vocab = read_vocab(reader);
    } else if (key == "merges") {
      parts.merges = read_merge_array(reader);
    } else {
      check_model(key, read_tree(reader), source);
    }
  };
  read_members(
      reader,
      {"model", "pre_tokenizer", "decoder", "post_processor", "added_tokens"},
      [&](const std::string& key) {
        if (key == "model") {
          read_members(reader, {"type", "vocab", "merges"}, read_model);
        } else if (key == "added_tokens") {
          reader.array([&] {
            if (parts.added.size() <= kMostAddedTokens) { // else refused later
              parts.added.push_back(read_added(read_tree(reader), source));
            } else {
              reader.skip();
            }
          });
        } else {
          check_pipeline(key, read_tree(reader), source);
        }
      });
  reader.finish();
  return build_tokenizer(parts);
}

void check_tokenizer_config(const Document& document) {
  base::JsonOptions options;
  options.comments = false;
  const Json config = base::parse_json(document.text, document.source, options);
  if (!config.is_object()) {
    refuse("a configuration that is not an object", document.source);
  }
  check_value(
      config, "add_prefix_space", {false}, "a tokenizer", document.source);
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& folder) {
  const std::string prefix = folder + "/";
  const auto exists = [&](const char* name) {
    std::error_code ignored;
    return std::filesystem::exists(prefix + name, ignored);
  };
  std::vector<std::string> files;
  const auto read = [&](const char* name) {
    files.push_back(prefix + name);
    return file::read_file(files.back(), kMostBytes);
  };
  // Both say more than vocab.json and merges.txt can.
  if (exists("tokenizer_config.json")) {
    const std::string text = read("tokenizer_config.json");
    check_tokenizer_config({text, files.back()});
  }
  std::unique_ptr<const TokenizerModel> model;
  if (exists("tokenizer.json")) {
    const std::string text = read("tokenizer.json");
    model = parse_tokenizer_json({text, files.back()});
  } else if (exists("added_tokens.json")) {
    refuse("added_tokens.json without tokenizer.json", folder);
  } else {
    for (const char* name : {"vocab.json", "merges.txt"}) {
      if (!exists(name)) {
        throw Error(
            ExitCode::no_input,
            std::string("no ") + name + " in the folder of the tokenizer",
            folder,
            "it must hold tokenizer.json, or vocab.json and merges.txt");
      }
    }
    const std::string vocab = read("vocab.json");
    const std::string merges = read("merges.txt");
    model = parse_vocab_and_merges(
        {vocab, prefix + "vocab.json"}, {merges, prefix + "merges.txt"});
  }
  return std::make_shared<const Tokenizer>(std::move(model), std::move(files));
}

} // namespace deepspeed::text
