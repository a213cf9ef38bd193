// Models as transformers keeps them: config.json, model.safetensors, tokenizer.
#include "deepspeed/pretrain/model_files.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <unordered_set>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/checkpoint_path.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/checkpoint/model_folder.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/json_file.h"
#include "deepspeed/flat/file_tensor.h"
#include "deepspeed/pretrain/derived_buffers.h"
#include "deepspeed/pretrain/engine_model.h"
#include "deepspeed/pretrain/step_checkpoint.h"
#include "deepspeed/settings/hparams.h"
#include "deepspeed/text/data_lookup.h"

namespace deepspeed::pretrain {
namespace {

using base::ExitCode;
using base::Json;

constexpr uint64_t kMaxConfigBytes = 1 << 20;
// Names of state dicts: the encoder of HelloDeepSpeed's RobertaMLMModel is the
// roberta of transformers' RobertaForMaskedLM.
constexpr std::string_view kOurPrefix = "encoder.";
constexpr std::string_view kTheirPrefix = "roberta.";
constexpr std::string_view kPooler = "encoder.pooler.";

std::string their_name(const std::string& name) {
  return name.starts_with(kOurPrefix)
      ? std::string(kTheirPrefix) + name.substr(kOurPrefix.size())
      : name;
}

Json config_json(
    const bert::RobertaConfig& config,
    const text::SpecialTokens& special) {
  Json json;
  json["architectures"] = {"RobertaForMaskedLM"};
  json["attention_probs_dropout_prob"] = config.dropout;
  json["bos_token_id"] = special.bos;
  json["dtype"] = "float32";
  json["eos_token_id"] = special.eos;
  json["hidden_act"] = "gelu";
  json["hidden_dropout_prob"] = config.dropout;
  json["hidden_size"] = config.hidden_size;
  json["initializer_range"] = config.initializer_range;
  json["intermediate_size"] = config.intermediate_size;
  json["layer_norm_eps"] = config.layer_norm_eps;
  json["max_position_embeddings"] = config.max_position_embeddings;
  json["model_type"] = "roberta";
  json["num_attention_heads"] = config.num_attention_heads;
  json["num_hidden_layers"] = config.num_hidden_layers;
  json["pad_token_id"] = config.pad_token_id;
  json["position_embedding_type"] = "absolute";
  json["tie_word_embeddings"] = true;
  json["torch_dtype"] = "float32";
  json["type_vocab_size"] = config.type_vocab_size;
  json["vocab_size"] = config.vocab_size;
  return json;
}

Json tokenizer_config_json(
    const bert::RobertaConfig& config,
    const text::Tokenizer& tokenizer) {
  const text::SpecialTokens& special = tokenizer.special();
  const auto token = [&](int32_t id) {
    return std::string(tokenizer.token(id));
  };
  Json json;
  json["add_prefix_space"] = false;
  json["bos_token"] = token(special.bos);
  json["cls_token"] = token(special.bos);
  json["eos_token"] = token(special.eos);
  json["sep_token"] = token(special.eos);
  json["pad_token"] = token(special.pad);
  json["unk_token"] = token(special.unk);
  json["mask_token"] = {
      {"__type", "AddedToken"},
      {"content", token(special.mask)},
      {"lstrip", true},
      {"normalized", false},
      {"rstrip", false},
      {"single_word", false},
      {"special", true}};
  json["model_max_length"] = config.max_position_embeddings - 2;
  json["tokenizer_class"] = "RobertaTokenizer";
  return json;
}

// The older of the two ways in which transformers keeps them.
Json special_tokens_json(const Json& config) {
  Json json;
  for (const char* name :
       {"bos_token",
        "cls_token",
        "eos_token",
        "mask_token",
        "pad_token",
        "sep_token",
        "unk_token"}) {
    json[name] = config.at(name);
  }
  json["mask_token"].erase("__type");
  json["mask_token"].erase("special");
  return json;
}

// What is taken from the folder before a new model is written there.
void clear_folder(
    const std::string& folder,
    const text::Tokenizer& tokenizer,
    const std::vector<std::string>& written) {
  // Without it there is no model, should this be the last thing that happens.
  file::file_system().remove(
      checkpoint::join(folder, checkpoint::kModelConfigFile));
  std::vector<std::string> others =
      checkpoint::list_model_files(folder, checkpoint::ModelFile::weights);
  // The tokenizer's own folder has its files already.
  const bool own = std::any_of(
      tokenizer.files().begin(),
      tokenizer.files().end(),
      [&](const std::string& file) {
        std::error_code ignored;
        return std::filesystem::equivalent(
            file::parent_folder(file), folder, ignored);
      });
  if (!own) {
    const auto more =
        checkpoint::list_model_files(folder, checkpoint::ModelFile::tokenizer);
    others.insert(others.end(), more.begin(), more.end());
  }
  std::erase_if(others, [&](const std::string& name) {
    return std::find(written.begin(), written.end(), name) != written.end();
  });
  checkpoint::remove_model_files(folder, others);
}

void write_json(
    const std::string& folder,
    std::string_view name,
    const Json& json) {
  file::write_file_atomically(
      checkpoint::join(folder, name), json.dump(2) + "\n");
}

// A number of config.json, which must be there.
template <typename T>
T config_value(const Json& json, const char* key, const std::string& path) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number()) {
    throw base::Error(
        ExitCode::data,
        "the model configuration has no number '" + std::string(key) + "'",
        path,
        "");
  }
  return found->get<T>();
}

// What our encoder does not have must not be asked for.
void require_value(
    const Json& json,
    const char* key,
    const Json& expected,
    const std::string& path) {
  const auto found = json.find(key);
  if (found != json.end() && *found != expected) {
    throw base::Error(
        ExitCode::config,
        "'" + std::string(key) + "' is " + found->dump() + ", but only " +
            expected.dump() + " is supported",
        path,
        "");
  }
}

bert::RobertaConfig read_config(const std::string& path) {
  const Json json = file::read_json(path, kMaxConfigBytes);
  if (!json.is_object()) {
    throw base::Error(ExitCode::data, "not a model configuration", path, "");
  }
  require_value(json, "model_type", "roberta", path);
  require_value(json, "hidden_act", "gelu", path);
  require_value(json, "position_embedding_type", "absolute", path);
  require_value(json, "tie_word_embeddings", true, path);
  require_value(json, "is_decoder", false, path);
  const auto integer = [&](const char* key) {
    return config_value<int64_t>(json, key, path);
  };
  bert::RobertaConfig config;
  config.vocab_size = integer("vocab_size");
  config.max_position_embeddings = integer("max_position_embeddings");
  config.type_vocab_size = integer("type_vocab_size");
  config.hidden_size = integer("hidden_size");
  config.num_hidden_layers = integer("num_hidden_layers");
  config.num_attention_heads = integer("num_attention_heads");
  config.intermediate_size = integer("intermediate_size");
  config.layer_norm_eps = config_value<double>(json, "layer_norm_eps", path);
  config.pad_token_id = integer("pad_token_id");
  config.pooler = false;
  bert::validate(config);
  return config;
}

// Tensors that the model does not have: checked if they follow from its
// settings, else named.
void check_rest(
    const checkpoint::ModelWeights& file,
    const bert::RobertaForMaskedLMImpl& model) {
  std::unordered_set<std::string> known;
  for (const bert::NamedTensor& entry : model.state_dict_entries()) {
    known.insert(their_name(entry.name));
  }
  for (const bert::NamedTensor& derived : derived_buffers(model.config())) {
    const std::string name = their_name(derived.name);
    known.insert(name);
    if (const formats::Tensor* tensor = file.find(name)) {
      flat::check_equal(*tensor, file.path() + ": " + name, derived.tensor);
    }
  }
  std::string names;
  for (const formats::NamedTensor& named : file.tensors()) {
    if (!known.contains(named.name) &&
        !named.name.starts_with(their_name(std::string(kPooler)))) {
      names += (names.empty() ? "" : ", ") + named.name;
    }
  }
  if (!names.empty()) {
    constexpr size_t kShown = 500;
    base::log_warning(
        file.path() + ": not used, as the model of config.json has none: " +
        (names.size() > kShown ? names.substr(0, kShown) + " ..." : names));
  }
}

LoadedModel load_exported(const std::string& folder) {
  bert::RobertaOptions options;
  options.config =
      read_config(checkpoint::join(folder, checkpoint::kModelConfigFile));
  LoadedModel loaded;
  loaded.model = bert::RobertaForMaskedLM(options);
  const auto file = checkpoint::ModelWeights::open(folder);
  for (const auto& item : loaded.model->named_parameters()) {
    const std::string name = their_name(item.key());
    const formats::Tensor* tensor = file.find(name);
    if (tensor == nullptr) {
      throw base::Error(
          ExitCode::data,
          "the file has no tensor '" + name + "'",
          file.path(),
          "it is not a RoBERTa masked language model");
    }
    flat::copy_from_file(*tensor, file.path() + ": " + name, item.value());
  }
  check_rest(file, *loaded.model);
  loaded.tokenizer = text::Tokenizer::load(folder);
  return loaded;
}

LoadedModel load_checkpoint(
    const checkpoint::CheckpointPath& path,
    const std::string& data_dir,
    bool newest_whole) {
  const checkpoint::CheckpointKind kind = checkpoint::only_kind(path);
  const settings::Settings settings = settings::read_hparams(
      checkpoint::join(path.folder, checkpoint::kHparamsFile));
  bert::RobertaOptions options;
  options.config = model_config(settings.model);
  LoadedModel loaded;
  loaded.model = bert::RobertaForMaskedLM(options);
  if (kind == checkpoint::CheckpointKind::tags) {
    load_engine_checkpoint_weights(path, newest_whole, *loaded.model);
  } else {
    load_step_checkpoint_weights(path, newest_whole, *loaded.model);
  }
  loaded.tokenizer = text::Tokenizer::load(text::find_tokenizer(
      settings.data.tokenizer,
      data_dir.empty() ? settings.data.data_dir : data_dir));
  const std::string& hash = settings.trained_data.tokenizer_hash;
  if (!hash.empty() && hash != loaded.tokenizer->fingerprint()) {
    throw base::Error(
        base::ExitCode::config,
        "the tokenizer is not the one that this model was trained with",
        settings.data.tokenizer,
        std::filesystem::path(settings.data.tokenizer).is_absolute()
            ? "put the old one back there"
            : "put the old one back, or name its folder's parent with "
              "--data_dir");
  }
  return loaded;
}

} // namespace

bert::RobertaConfig model_config(const settings::ModelSettings& settings) {
  bert::RobertaConfig config;
  config.hidden_size = settings.h_dim;
  config.num_hidden_layers = settings.num_layers;
  config.num_attention_heads = settings.num_heads;
  config.intermediate_size = settings.ff_dim;
  config.dropout = settings.dropout;
  return config;
}

void check_export_folder(const std::string& folder) {
  // The folder, or the nearest above it in which it would be made.
  std::filesystem::path nearest = std::filesystem::absolute(folder);
  std::error_code failure;
  while (!std::filesystem::exists(nearest, failure) &&
         nearest.has_relative_path()) {
    nearest = nearest.parent_path();
  }
  const int error = !std::filesystem::is_directory(nearest, failure) ? ENOTDIR
      : ::access(nearest.c_str(), W_OK | X_OK) != 0                  ? errno
                                                                     : 0;
  if (error != 0) {
    throw base::system_error(
        ExitCode::cannot_create,
        "the model could not be exported: cannot write in",
        nearest.string(),
        error);
  }
}

void export_model(
    const std::string& folder,
    const bert::RobertaConfig& config,
    const std::vector<bert::NamedTensor>& weights,
    const text::Tokenizer& tokenizer) {
  file::make_folders(folder, "cannot create folder");
  std::vector<formats::NamedTensor> tensors;
  for (const bert::NamedTensor& weight : weights) {
    if (!weight.name.starts_with(kPooler)) {
      tensors.push_back(
          {their_name(weight.name), flat::FileTensors().add(weight.tensor)});
    }
  }
  // Read before anything is removed: the folder may be the tokenizer's own.
  std::vector<std::pair<std::string, std::string>> copies;
  for (const std::string& file : tokenizer.files()) {
    copies.emplace_back(
        std::filesystem::path(file).filename().string(),
        file::read_file(file, uint64_t{1} << 30));
  }
  std::vector<std::string> written{
      std::string(checkpoint::kModelWeightsFile),
      std::string(checkpoint::kTokenizerConfigFile),
      std::string(checkpoint::kSpecialTokensFile)};
  for (const auto& [name, text] : copies) {
    written.push_back(name);
  }
  clear_folder(folder, tokenizer, written);
  formats::save_safetensors(
      checkpoint::join(folder, checkpoint::kModelWeightsFile), tensors);
  for (const auto& [name, text] : copies) {
    file::write_file_atomically(checkpoint::join(folder, name), text);
  }
  const Json tokenizer_config = tokenizer_config_json(config, tokenizer);
  write_json(folder, checkpoint::kTokenizerConfigFile, tokenizer_config);
  write_json(
      folder,
      checkpoint::kSpecialTokensFile,
      special_tokens_json(tokenizer_config));
  if (tokenizer.vocab_size() != config.vocab_size) {
    base::log_info(
        "the exported model has " + std::to_string(config.vocab_size) +
        " outputs (vocab_size of " + std::string(checkpoint::kModelConfigFile) +
        "), its tokenizer " + std::to_string(tokenizer.vocab_size()) +
        " ids: what is beyond them stands for no token");
  }
  // Last: a folder with a configuration is a whole model.
  write_json(
      folder,
      checkpoint::kModelConfigFile,
      config_json(config, tokenizer.special()));
}

LoadedModel load_model(
    const std::string& path,
    const std::string& data_dir,
    bool newest_whole) {
  const auto holds = [&](std::string_view name) {
    return std::filesystem::exists(checkpoint::join(path, name));
  };
  const bool exported = holds(checkpoint::kModelConfigFile);
  LoadedModel loaded;
  if (exported) {
    loaded = load_exported(path);
    if (holds(checkpoint::kHparamsFile) ||
        !checkpoint::find_checkpoint(path).kinds.empty()) {
      base::log_warning(
          path + " holds an exported model and checkpoints: the model of " +
          std::string(checkpoint::kModelConfigFile) +
          " is taken; for another give the path of its tag or file");
    }
  } else {
    const auto found = checkpoint::find_checkpoint(path);
    if (found.kinds.empty() && !holds(checkpoint::kHparamsFile)) {
      throw base::Error(
          ExitCode::no_input,
          "no model there: neither " +
              std::string(checkpoint::kModelConfigFile) + " nor " +
              std::string(checkpoint::kHparamsFile),
          path,
          "name a folder made by train_bert --export, an experiment, a "
          "checkpoint in one, or a RoBERTa model of transformers");
    }
    loaded = load_checkpoint(found, data_dir, newest_whole);
  }
  if (loaded.tokenizer->vocab_size() > loaded.model->config().vocab_size) {
    throw base::Error(
        ExitCode::config,
        "the tokenizer has " + std::to_string(loaded.tokenizer->vocab_size()) +
            " ids, the model " +
            std::to_string(loaded.model->config().vocab_size),
        path,
        "use the tokenizer that the model was made with");
  }
  loaded.model->eval();
  return loaded;
}

} // namespace deepspeed::pretrain
