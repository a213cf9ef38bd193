// Folders that only some ranks see.
#include "deepspeed/comm/shared_folder.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "deepspeed/comm/test_ranks.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::comm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

bool is_empty(const file::TemporaryFolder& folder) {
  return std::filesystem::is_empty(folder.path());
}

TEST(SharedFolder, OneThatAllSee) {
  const file::TemporaryFolder folder;
  Ranks ranks(2, [&](const RankInfo& info) {
    const auto group = make_process_group(info, options_of("gloo"));
    require_shared_folder(*group, folder.path());
    require_shared_folder(*group, folder.path() + "/not/there/yet");
    group->barrier();
  });
  ranks.expect_success();
  EXPECT_TRUE(is_empty(folder));
}

// As a local disk of each host: the same name is another folder.
TEST(SharedFolder, EachRankHasItsOwn) {
  const file::TemporaryFolder first;
  const file::TemporaryFolder second;
  Ranks ranks(2, [&](const RankInfo& info) {
    const auto group = make_process_group(info, options_of("gloo"));
    std::filesystem::current_path((info.rank == 0 ? first : second).path());
    EXPECT_THAT(
        error_of([&] { require_shared_folder(*group, "experiments"); }),
        AllOf(
            StartsWith("78 not all hosts see one folder .: what rank 0 on "),
            HasSubstr("(rank 1)")));
  });
  ranks.expect_success();
  EXPECT_TRUE(is_empty(first));
  EXPECT_TRUE(is_empty(second));
}

// As containers that share memory, but not their folders.
TEST(SharedFolder, RanksOfOneHostMayHaveTheirOwnToo) {
  const file::TemporaryFolder first;
  const file::TemporaryFolder second;
  Ranks ranks(2, [&](const RankInfo& info) {
    const auto group = make_process_group(info, options_of(""));
    require_shared_folder(*group, first.path() + "/not/there/yet");
    std::filesystem::current_path((info.rank == 0 ? first : second).path());
    EXPECT_THAT(
        error_of([&] { require_shared_folder(*group, "experiments"); }),
        StartsWith("78 not all ranks see one folder .: that of rank 1 is"));
    group->barrier();
  });
  ranks.expect_success();
  EXPECT_TRUE(is_empty(first));
}

} // namespace
} // namespace deepspeed::comm
