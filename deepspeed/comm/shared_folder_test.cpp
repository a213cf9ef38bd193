// Folders that only some ranks see.
#include "deepspeed/comm/shared_folder.h"

#include <gmock/gmock.h>

#include <chrono>
#include <filesystem>
#include <fstream>

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

TEST(SharedFolder, SweepsWhatKilledStartsLeft) {
  namespace fs = std::filesystem;
  const file::TemporaryFolder folder;
  const auto make = [&](const std::string& name, int hours, const char* text) {
    const std::string path = folder.path() + "/" + name;
    std::ofstream(path) << text;
    fs::last_write_time(
        path, fs::file_time_type::clock::now() - std::chrono::hours(hours));
    return path;
  };
  const std::string left =
      make(".ds-seen-by-all-" + std::string(32, 'a'), 2, "");
  const std::vector<std::string> kept = {
      // of a start that may go on
      make(".ds-seen-by-all-" + std::string(32, 'b'), 0, ""),
      make(".ds-seen-by-all-" + std::string(32, 'c'), 2, "mine"),
      make(".ds-seen-by-all-" + std::string(32, 'x'), 2, ""),
      make(".ds-seen-by-all-" + std::string(31, 'd'), 2, ""),
      make("notes", 2, "")};
  Ranks ranks(2, [&](const RankInfo& info) {
    const auto group = make_process_group(info, options_of("gloo"));
    require_shared_folder(*group, folder.path());
    group->barrier();
  });
  ranks.expect_success();
  EXPECT_FALSE(fs::exists(left));
  for (const std::string& path : kept) {
    EXPECT_TRUE(fs::exists(path)) << path;
  }
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
