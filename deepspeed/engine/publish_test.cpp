// What fails on one rank while a checkpoint is published.
#include "deepspeed/engine/publish.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "deepspeed/checkpoint/zero_folder.h"
#include "deepspeed/comm/test_ranks.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* kRunId = "0123456789abcdef0123456789abcdef";

// Saves a file of each rank under a name; what that says.
std::string publish(
    const comm::RankInfo& info,
    const std::string& folder,
    const std::string& name) {
  const auto ranks = comm::make_process_group(info);
  checkpoint::CheckpointCommit commit({folder, "tag", kRunId});
  checkpoint::Manifest manifest{"tag", kRunId};
  manifest.ranks = ranks->size();
  return comm::error_of([&] {
    publish_together(*ranks, commit, {{name, info.rank}}, manifest);
  });
}

TEST(PublishTogether, TheManifestHasTheFilesOfAllRanksInOrder) {
  const file::TemporaryFolder folder;
  comm::Ranks ranks(3, [&](const comm::RankInfo& info) {
    const std::string name = "part" + std::to_string(info.rank);
    EXPECT_EQ(publish(info, folder.path(), name), "");
  });
  ranks.expect_success();
  const auto manifest = checkpoint::committed_manifest(folder.path() + "/tag");
  ASSERT_TRUE(manifest);
  ASSERT_EQ(manifest->files.size(), 3u);
  EXPECT_EQ(manifest->files[0].name, "part0");
  EXPECT_EQ(manifest->files[2].name, "part2");
}

TEST(PublishTogether, AFileThatOneRankCannotWriteFailsOnAllAndLeavesNothing) {
  const file::TemporaryFolder folder;
  comm::Ranks ranks(2, [&](const comm::RankInfo& info) {
    const std::string name = info.rank == 1 ? "no folder/part" : "part";
    EXPECT_THAT(
        publish(info, folder.path(), name),
        HasSubstr(info.rank == 1 ? "cannot create" : "rank 1: cannot create"));
  });
  ranks.expect_success();
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

} // namespace
} // namespace deepspeed
