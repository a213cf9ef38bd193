// fp32 weights from checkpoints: contents, shards, and the memory it takes.
#include "deepspeed/checkpoint/zero_export.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/checkpoint/model_folder.h"
#include "deepspeed/checkpoint/zero_test_support.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/json_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/formats/safetensors.h"
#include "deepspeed/formats/torch_file.h"

namespace deepspeed::checkpoint {
namespace {

using test::SmallModel;
using ::testing::ElementsAre;

std::vector<float> floats_of(const formats::Tensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.numel()));
  tensor.copy_to(reinterpret_cast<std::byte*>(out.data()));
  return out;
}

class ZeroExport : public ::testing::TestWithParam<int> {};

TEST_P(ZeroExport, GivesTheMasterWeights) {
  file::TemporaryFolder folder;
  SmallModel model;
  model.stage = GetParam();
  model.save(folder.path());
  const auto checkpoint = ZeroCheckpoint::open(folder.path());
  const std::string out = folder.path() + "/out";
  EXPECT_THAT(
      export_fp32(checkpoint, out), ElementsAre(out + "/pytorch_model.bin"));
  const formats::Value value =
      formats::load_torch_file(out + "/pytorch_model.bin");
  std::vector<std::string> names;
  for (const formats::DictEntry& entry :
       value.get_if<formats::Dict>()->entries) {
    names.push_back(*entry.key.get_if<std::string>());
    const bool is_version = names.back() == "version";
    EXPECT_EQ(
        entry.value.tensor()->dtype,
        is_version ? formats::DType::int64 : formats::DType::float32);
  }
  EXPECT_THAT(
      names,
      ElementsAre(
          "table",
          "version",
          "frozen.weight",
          "embed.weight",
          "a.weight",
          "b.weight",
          "a.bias",
          "b.bias",
          "decoder.weight"));
  const std::vector<float> weights =
      floats_of(*value.find("a.weight")->tensor());
  for (int64_t i = 0; i < 21; ++i) {
    EXPECT_EQ(
        weights[static_cast<size_t>(i)], SmallModel::value("fp32", 0, 15 + i));
  }
  EXPECT_THAT(
      floats_of(*value.find("frozen.weight")->tensor()), ElementsAre(8, 9));
  EXPECT_EQ(
      value.find("decoder.weight")->tensor()->storage,
      value.find("embed.weight")->tensor()->storage);

  ExportOptions options;
  options.exclude_frozen = true;
  export_fp32(checkpoint, out, options);
  const formats::Value less =
      formats::load_torch_file(out + "/pytorch_model.bin");
  EXPECT_EQ(less.find("frozen.weight"), nullptr);
  EXPECT_NE(less.find("table"), nullptr);
}

INSTANTIATE_TEST_SUITE_P(Stages, ZeroExport, ::testing::Values(0, 1, 2));

TEST(ZeroExport, SplitsAsHuggingFaceDoes) {
  file::TemporaryFolder folder;
  SmallModel().save(folder.path());
  ExportOptions options;
  options.safetensors = true;
  options.max_shard_size = 80; // a.weight has 84 bytes
  const std::vector<std::string> paths = export_fp32(
      ZeroCheckpoint::open(folder.path()), folder.path() + "/out", options);
  ASSERT_EQ(paths.size(), 5u);
  EXPECT_THAT(
      paths[0], ::testing::EndsWith("model-00001-of-00004.safetensors"));
  EXPECT_THAT(paths[4], ::testing::EndsWith("model.safetensors.index.json"));
  const base::Json index = file::read_json(paths[4], 1 << 20);
  // 8 + 8 + 8 + 60 + 84 + 8 + 12 + 4: tied names count once.
  EXPECT_EQ(index["metadata"]["total_size"], 192);
  const auto& map = index["weight_map"];
  EXPECT_EQ(map.size(), 9u);
  EXPECT_EQ(map["a.weight"], "model-00002-of-00004.safetensors");
  EXPECT_EQ(map["decoder.weight"], map["embed.weight"]);
  size_t found = 0;
  for (size_t i = 0; i < 4; ++i) {
    const formats::Safetensors file = formats::load_safetensors(paths[i]);
    for (const formats::NamedTensor& named : file.tensors) {
      EXPECT_THAT(paths[i], ::testing::EndsWith(map[named.name]));
      ++found;
    }
    if (file.find("embed.weight") != nullptr) {
      EXPECT_THAT(
          file.metadata,
          ::testing::Contains(std::pair<std::string, std::string>(
              "decoder.weight", "embed.weight")));
    }
  }
  EXPECT_EQ(found, 8u);
}

TEST(ZeroExport, OlderWeightsOfTheFormatGo) {
  file::TemporaryFolder folder;
  SmallModel().save(folder.path());
  const std::string out = folder.path() + "/out";
  const auto run = [&](bool safetensors, uint64_t size) {
    ExportOptions options;
    options.safetensors = safetensors;
    options.max_shard_size = size;
    ::testing::internal::CaptureStderr();
    export_fp32(ZeroCheckpoint::open(folder.path()), out, options);
    return ::testing::internal::GetCapturedStderr();
  };
  const auto files = [&] {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(out)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  };
  EXPECT_EQ(run(true, 80), "");
  EXPECT_EQ(ModelWeights::open(out).tensors().size(), 8u);
  EXPECT_NE(ModelWeights::open(out).find("decoder.weight"), nullptr);
  file::write_file_atomically(out + "/notes.txt", "");
  // One file in place of four: the index would be found by others.
  EXPECT_THAT(
      run(true, 1 << 20),
      ::testing::HasSubstr("model.safetensors.index.json, "
                           "model-00001-of-00004.safetensors, "));
  EXPECT_THAT(
      files(),
      ::testing::UnorderedElementsAre("model.safetensors", "notes.txt"));
  // Parts in place of one file, which would be taken before them.
  EXPECT_THAT(run(true, 80), ::testing::HasSubstr("removed"));
  EXPECT_EQ(files().size(), 6u);
  EXPECT_THAT(
      run(false, 1 << 20),
      ::testing::HasSubstr("out has other weights, too, which a loader may "
                           "prefer: model-00001-of-00004.safetensors"));
  EXPECT_EQ(files().size(), 7u);
}

TEST(ZeroExport, Sizes) {
  EXPECT_EQ(parse_size("5GB"), 5'000'000'000u);
  EXPECT_EQ(parse_size("200mb"), 200'000'000u);
  EXPECT_EQ(parse_size("0.5KB"), 500u);
  EXPECT_EQ(parse_size("1TB"), 1'000'000'000'000u);
  for (const char* text :
       {"",
        "5",
        "GB",
        "5 GB",
        "-5GB",
        "0GB",
        "1..5GB",
        ".GB",
        "nanGB",
        "1e5GB",
        "99999999999TB",
        "5GiB"}) {
    EXPECT_THROW(parse_size(text), base::Error) << text;
  }
}

// 28 parameters of 1 MiB elements for 2 ranks: 112 MiB of fp32 weights in a
// file that has the module (fp32, too) beside the shards with no states.
class LargeModel {
 public:
  static constexpr int64_t kElements = int64_t{1} << 20;
  static constexpr int kParameters = 28;

  static void save(const std::string& folder) {
    ZeroTopology topology;
    topology.stage = 2;
    topology.ranks = 2;
    topology.groups.resize(1);
    const auto data = std::make_shared<std::vector<float>>(
        static_cast<size_t>(kElements * kParameters), 0.5f);
    ModelStates model;
    for (int i = 0; i < kParameters; ++i) {
      const std::string name = "p" + std::to_string(i);
      topology.groups[0].parameters.push_back({name, {kElements}});
      model.module.push_back(
          {name,
           formats::Tensor::borrow(
               formats::DType::float32,
               {kElements},
               data->data() + i * kElements,
               data)});
    }
    CommitOptions options;
    options.folder = folder;
    options.tag = "t";
    options.run_id = test::kRunId;
    CheckpointCommit commit(options);
    commit.begin(1);
    Manifest manifest;
    manifest.tag = "t";
    manifest.run_id = test::kRunId;
    manifest.stage = 2;
    manifest.ranks = 2;
    manifest.dtype = "float32";
    manifest.files.push_back(commit.add(
        std::string(kModelStatesFile),
        model_states_value(topology, model, nullptr)));
    for (int rank = 0; rank < 2; ++rank) {
      const Shard shard = shard_of(kElements * kParameters, 2, rank);
      OptimizerStates states;
      states.groups.resize(1);
      states.groups[0].fp32 = formats::Tensor::borrow(
          formats::DType::float32,
          {shard.size},
          data->data() + shard.offset,
          data);
      manifest.files.push_back(commit.add(
          shard_states_name(rank, false),
          shard_states_value(topology, rank, states, formats::make_dict())));
    }
    commit.publish(manifest);
  }
};

int64_t peak_kib() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

// In a child, so that the peak is its own.
template <typename Work>
int in_child(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(work());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ZeroExport, NeedsFarLessMemoryThanTheModel) {
  file::TemporaryFolder folder;
  ASSERT_EQ(
      in_child([&] {
        LargeModel::save(folder.path());
        return 0;
      }),
      0);
  // 224 MiB are verified and 112 MiB are written; the largest tensor has 4.
  for (const bool manifest : {true, false}) { // by hashes, by checksums
    if (!manifest) {
      std::filesystem::remove(folder.path() + "/t/ds_manifest.json");
    }
    const int growth_mib = in_child([&] {
      const int64_t before = peak_kib();
      export_fp32(ZeroCheckpoint::open(folder.path()), folder.path() + "/out");
      return static_cast<int>((peak_kib() - before) / 1024);
    });
    EXPECT_GE(growth_mib, 0);
#ifndef __SANITIZE_ADDRESS__ // which keeps freed memory for a while
    EXPECT_LT(growth_mib, 64) << manifest;
#endif
    RecordProperty(manifest ? "hashes_mib" : "checksums_mib", growth_mib);
  }
  const formats::Value out =
      formats::load_torch_file(folder.path() + "/out/pytorch_model.bin");
  EXPECT_EQ(out.get_if<formats::Dict>()->entries.size(), 28u);
}

} // namespace
} // namespace deepspeed::checkpoint
