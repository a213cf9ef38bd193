// Exported models, and those of transformers in all their files.
#include "deepspeed/pretrain/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/checkpoint/model_folder.h"
#include "deepspeed/engine/engine.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/json_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/flat/file_tensor.h"
#include "deepspeed/formats/torch_file.h"
#include "deepspeed/pretrain/derived_buffers.h"
#include "deepspeed/pretrain/engine_model.h"
#include "deepspeed/text/test_tokenizer.h"

namespace deepspeed::pretrain {
namespace {

using formats::NamedTensor;
using testing::HasSubstr;

bert::RobertaConfig small_config(bool pooler = true) {
  bert::RobertaConfig config;
  config.vocab_size = 300; // the tokenizer has 261 ids
  config.max_position_embeddings = 20;
  config.hidden_size = 16;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 2;
  config.intermediate_size = 24;
  config.pooler = pooler;
  return config;
}

bert::RobertaForMaskedLM small_model() {
  bert::RobertaOptions options;
  options.config = small_config();
  return bert::RobertaForMaskedLM(options);
}

class ModelFiles : public testing::Test {
 protected:
  ModelFiles() {
    write(source_, "vocab.json", text::byte_vocab());
    write(source_, "merges.txt", "#version: 0.2\n");
  }

  static void write(
      const file::TemporaryFolder& folder,
      const std::string& name,
      const std::string& text) {
    file::write_file_atomically(folder.path() + "/" + name, text);
  }

  checkpoint::CheckpointPath here() const {
    return checkpoint::find_checkpoint(folder_.path());
  }

  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry :
         std::filesystem::directory_iterator(folder_.path())) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  void run_export(const std::string& tokenizer) {
    const bert::RobertaForMaskedLM model = small_model();
    export_model(
        folder_.path(),
        model->config(),
        model->state_dict_entries(),
        *text::Tokenizer::load(tokenizer));
  }

  // The exported weights, and the folder without their file.
  std::vector<NamedTensor> take_weights() {
    run_export(source_.path());
    std::vector<NamedTensor> tensors;
    std::set<const void*> seen;
    auto weights = checkpoint::ModelWeights::open(folder_.path());
    for (const NamedTensor& named : weights.tensors()) {
      tensors.push_back(named);
    }
    std::filesystem::remove(folder_.path() + "/model.safetensors");
    return tensors;
  }

  void expect_loads(const std::vector<NamedTensor>& weights) {
    const LoadedModel loaded = load_model(folder_.path(), "");
    flat::FileTensors files;
    for (const auto& item : loaded.model->named_parameters()) {
      const std::string name = item.key().starts_with("encoder.")
          ? "roberta." + item.key().substr(8)
          : item.key();
      const auto found =
          std::find_if(weights.begin(), weights.end(), [&](const auto& named) {
            return named.name == name;
          });
      ASSERT_NE(found, weights.end()) << name;
      flat::check_equal(found->tensor, name, item.value());
    }
  }

  std::string error() {
    try {
      load_model(folder_.path(), "");
      return "";
    } catch (const base::Error& error) {
      return std::to_string(static_cast<int>(error.code())) + " " +
          error.what();
    }
  }

  const file::TemporaryFolder source_; // of the tokenizer
  const file::TemporaryFolder folder_; // of the model
};

formats::Value dict_of(const std::vector<NamedTensor>& tensors) {
  formats::Value dict = formats::make_ordered_dict();
  for (const NamedTensor& named : tensors) {
    dict.set(named.name, named.tensor);
  }
  return dict;
}

const std::set<std::string> kExported{
    "config.json",
    "merges.txt",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.json"};

TEST_F(ModelFiles, AnExportOwnsTheFilesOfTheModel) {
  for (const char* name :
       {"tokenizer.json",
        "added_tokens.json",
        "adapter_config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
        "pytorch_model-00002-of-00002.bin",
        "special_tokens_map.json",
        "config.json",
        "README.md",
        "model-card.bin"}) {
    write(folder_, name, "{}");
  }
  testing::internal::CaptureStderr();
  run_export(source_.path());
  const std::string said = testing::internal::GetCapturedStderr();
  std::set<std::string> expected = kExported;
  expected.insert({"README.md", "model-card.bin"});
  EXPECT_EQ(files(), expected);
  EXPECT_THAT(
      said,
      HasSubstr("adapter_config.json, model-00001-of-00002.safetensors, "
                "model.safetensors.index.json, "
                "pytorch_model-00002-of-00002.bin, pytorch_model.bin, "
                "added_tokens.json, tokenizer.json"));
  EXPECT_THAT(said, HasSubstr("300 outputs"));
  EXPECT_THAT(said, HasSubstr("261 ids"));
  const base::Json special =
      file::read_json(folder_.path() + "/special_tokens_map.json", 1 << 16);
  EXPECT_EQ(special["bos_token"], "<s>");
  EXPECT_EQ(special["mask_token"]["content"], "<mask>");
  EXPECT_EQ(special["mask_token"]["lstrip"], true);
  EXPECT_EQ(load_model(folder_.path(), "").tokenizer->vocab_size(), 261);
  // A second one has nothing to remove.
  testing::internal::CaptureStderr();
  run_export(source_.path());
  EXPECT_THAT(
      testing::internal::GetCapturedStderr(), Not(HasSubstr("removed")));
}

TEST_F(ModelFiles, AnExportIntoTheTokenizersFolderKeepsItsFiles) {
  write(folder_, "vocab.json", text::byte_vocab(true));
  write(folder_, "merges.txt", "#version: 0.2\na b\n");
  run_export(folder_.path());
  EXPECT_EQ(files(), kExported);
  EXPECT_EQ(load_model(folder_.path(), "").tokenizer->vocab_size(), 262);
}

TEST_F(ModelFiles, AnExportBesideCheckpointsIsSaid) {
  run_export(source_.path());
  const auto said = [&] {
    testing::internal::CaptureStderr();
    load_model(folder_.path(), "");
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(said(), "");
  for (const std::string name :
       {"hparams.json", "checkpoint.iter_3.pt", "mp_rank_00_model_states.pt"}) {
    const std::string path = folder_.path() + "/" + name;
    file::write_file_atomically(path, "");
    EXPECT_THAT(said(), HasSubstr("holds an exported model and checkpoints"))
        << name;
    std::filesystem::remove(path);
  }
}

TEST_F(ModelFiles, AnExportThatFailsLeavesNoModel) {
  run_export(source_.path());
  std::filesystem::remove(folder_.path() + "/merges.txt");
  std::filesystem::create_directories(folder_.path() + "/merges.txt/x");
  EXPECT_THROW(run_export(source_.path()), base::Error);
  EXPECT_THAT(error(), testing::StartsWith("66 no model there"));
}

TEST_F(ModelFiles, WhereAnExportCannotWriteIsKnownBefore) {
  const auto code_of = [](const std::string& folder) {
    try {
      check_export_folder(folder);
      return base::ExitCode::ok;
    } catch (const base::Error& error) {
      return error.code();
    }
  };
  EXPECT_EQ(code_of(folder_.path()), base::ExitCode::ok);
  EXPECT_EQ(code_of(folder_.path() + "/a/b/"), base::ExitCode::ok);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/a"));
  write(folder_, "file", "");
  for (const std::string bad : {"/file", "/file/model"}) {
    EXPECT_EQ(code_of(folder_.path() + bad), base::ExitCode::cannot_create);
  }
}

TEST_F(ModelFiles, WeightsInPartsAndOfTorchAreRead) {
  const std::vector<NamedTensor> weights = take_weights();
  for (const bool safetensors : {true, false}) {
    const std::string stem = safetensors ? "model" : "pytorch_model";
    const std::string suffix = safetensors ? ".safetensors" : ".bin";
    const auto save = [&](const std::string& name,
                          const std::vector<NamedTensor>& part) {
      const std::string path = folder_.path() + "/" + name;
      if (safetensors) {
        formats::save_safetensors(path, part);
      } else {
        formats::save_torch_file(path, dict_of(part));
      }
    };
    save(stem + suffix, weights);
    expect_loads(weights);
    std::filesystem::remove(folder_.path() + "/" + stem + suffix);
    EXPECT_THAT(error(), testing::StartsWith("66 no weights there"));

    base::Json map = base::Json::object();
    for (size_t i = 0; i < 3; ++i) {
      const std::string name =
          stem + "-0000" + std::to_string(i + 1) + "-of-00003" + suffix;
      std::vector<NamedTensor> part;
      for (size_t j = i; j < weights.size(); j += 3) {
        part.push_back(weights[j]);
        map[weights[j].name] = name;
      }
      save(name, part);
    }
    const std::string index = stem + suffix + ".index.json";
    const auto error_with = [&](const base::Json& map) {
      write(folder_, index, base::Json({{"weight_map", map}}).dump());
      return error();
    };
    EXPECT_EQ(error_with(map), "");
    expect_loads(weights);
    base::Json bad = map;
    bad["more"] = map.begin().value();
    EXPECT_THAT(error_with(bad), HasSubstr("65 the index says that 'more' is"));
    bad.erase("more");
    bad.erase(weights[0].name);
    EXPECT_THAT(error_with(bad), HasSubstr("65 the index does not say"));
    for (const char* path : {"../model.safetensors", "/dev/zero", ""}) {
      bad[weights[0].name] = path;
      EXPECT_THAT(error_with(bad), HasSubstr("no name of a part"));
    }
    EXPECT_THAT(error_with({}), HasSubstr("65 the index has no weight_map"));
    error_with(map);
    std::filesystem::remove(
        folder_.path() + "/" + stem + "-00002-of-00003" + suffix);
    EXPECT_THAT(error(), testing::StartsWith("66 "));
    std::filesystem::remove(folder_.path() + "/" + index);
  }
}

TEST_F(ModelFiles, BuffersThatFollowFromTheSettingsAreChecked) {
  std::vector<NamedTensor> weights = take_weights();
  const auto error_with = [&](const at::Tensor& positions) {
    std::vector<NamedTensor> all = weights;
    all.push_back(
        {"roberta.embeddings.position_ids",
         flat::FileTensors().add(positions)});
    formats::save_safetensors(folder_.path() + "/model.safetensors", all);
    return error();
  };
  EXPECT_EQ(error_with(at::arange(20).unsqueeze(0)), "");
  EXPECT_THAT(
      error_with(at::arange(1, 21).unsqueeze(0)),
      testing::StartsWith("65 the file holds other values"));
  EXPECT_THAT(
      error_with(at::arange(514).unsqueeze(0)),
      testing::StartsWith("65 the file holds int64[1, 514]"));
  testing::internal::CaptureStderr();
  weights.push_back({"classifier.weight", weights[0].tensor});
  EXPECT_EQ(error_with(at::arange(20).unsqueeze(0)), "");
  EXPECT_THAT(
      testing::internal::GetCapturedStderr(),
      HasSubstr("not used, as the model of config.json has none: classifier"));
}

// The model as a module whose files have position_ids, like HelloDeepSpeed's
// with transformers 4.5.1.
std::shared_ptr<torch::nn::Module> with_positions(int64_t first) {
  const bert::RobertaForMaskedLM model = small_model();
  auto module = std::make_shared<torch::nn::Module>();
  for (const auto& child : model->named_children()) {
    module->register_module(child.key(), child.value());
  }
  module->named_modules()["encoder.embeddings"]->register_buffer(
      "position_ids", at::arange(first, first + 20).unsqueeze(0));
  return module;
}

TEST_F(ModelFiles, CheckpointsWithPositionIdsLoad) {
  const bert::RobertaForMaskedLM model = small_model();
  flat::FileTensors tensors;
  const auto error_with = [&](const std::string& name, const at::Tensor& more) {
    formats::Value state = formats::make_ordered_dict();
    for (const auto& entry : model->state_dict_entries()) {
      state.set(entry.name, tensors.add(entry.tensor));
    }
    state.set(name, tensors.add(more));
    formats::Value file = formats::make_dict();
    file.set("model", std::move(state));
    formats::save_torch_file(folder_.path() + "/checkpoint.iter_1.pt", file);
    bert::RobertaForMaskedLM other = small_model();
    try {
      load_step_checkpoint_weights(here(), false, *other);
      return std::string();
    } catch (const base::Error& error) {
      return std::string(error.what());
    }
  };
  const std::string positions = "encoder.embeddings.position_ids";
  EXPECT_EQ(error_with(positions, at::arange(20).unsqueeze(0)), "");
  EXPECT_EQ(
      error_with(
          "encoder.embeddings.token_type_ids", at::zeros({1, 20}, at::kLong)),
      "");
  EXPECT_THAT(
      error_with(positions, at::arange(1, 21).unsqueeze(0)),
      testing::StartsWith("the file holds other values"));
  EXPECT_THAT(
      error_with("encoder.layer.9.bias", at::zeros({2})),
      HasSubstr("'encoder.layer.9.bias' that the model does not have"));
}

TEST_F(ModelFiles, EngineCheckpointsWithPositionIdsLoadAndKeepClientState) {
  const auto engine_of = [](std::shared_ptr<torch::nn::Module> module) {
    const char* config =
        R"({"train_micro_batch_size_per_gpu": 1,
            "optimizer": {"type": "Adam", "params": {"lr": 0.1}},
            "zero_optimization": {"stage": 1}})";
    InitializeOptions options;
    options.ranks = comm::make_process_group({}, {});
    return initialize(
        std::move(module),
        config::parse_config(config, "test", {}),
        std::move(options));
  };
  for (const int64_t first : {0, 1}) {
    Engine saved = engine_of(with_positions(first));
    SaveOptions options;
    options.client_state.set("note", "kept");
    options.client_state.set("checkpoint_step", 7);
    saved.save_checkpoint(folder_.path(), options);

    bert::RobertaForMaskedLM other = small_model();
    Engine engine = engine_of(other.ptr());
    EngineModel trained(other, engine, 0);
    if (first == 1) {
      EXPECT_THROW(trained.load(here()), base::Error);
      EXPECT_THROW(
          load_engine_checkpoint_weights(here(), false, *other), base::Error);
      continue;
    }
    EXPECT_EQ(trained.load(here()).loop.step, 0);
    load_engine_checkpoint_weights(here(), false, *other);
    trained.save(folder_.path(), {});
    const formats::Value state =
        engine.load_checkpoint(folder_.path()).client_state;
    EXPECT_EQ(*state.find("note")->get_if<std::string>(), "kept");
    EXPECT_EQ(*state.find("checkpoint_step")->get_if<int64_t>(), 0);
    ASSERT_NE(state.find("train_bert_ds"), nullptr);
  }
}

} // namespace
} // namespace deepspeed::pretrain
