// What ranks find in their environment.
#include "deepspeed/launcher/rank_environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "deepspeed/base/error.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/launcher/child_process.h"

namespace deepspeed::launcher {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TEST(RankPlaces, CountThroughTheNodes) {
  const std::vector<Node> nodes{{"w0", {0, 2}}, {"w1", {5}}, {"w2", {0, 1, 2}}};
  const auto places = rank_places(nodes, 2);
  ASSERT_EQ(places.size(), 3U);
  for (int i = 0; i < 3; ++i) {
    const RankPlace& place = places[static_cast<size_t>(i)];
    EXPECT_EQ(place.rank, 3 + i);
    EXPECT_EQ(place.local_rank, i);
    EXPECT_EQ(place.world_size, 6);
    EXPECT_EQ(place.local_size, 3);
    EXPECT_EQ(place.node_rank, 2);
    EXPECT_EQ(place.node_count, 3);
  }
  EXPECT_EQ(rank_places(nodes, 1)[0].rank, 2);
  EXPECT_EQ(rank_places(nodes, 1)[0].local_rank, 0);
}

TEST(RankPlaces, LocalRankStartsAtZeroOnUnevenHosts) {
  // DeepSpeed's rank % 2 gives 1, 0 here.
  const auto places = rank_places({{"w0", {0, 1, 2}}, {"w1", {0, 1}}}, 1);
  EXPECT_EQ(places[0].local_rank, 0);
  EXPECT_EQ(places[1].local_rank, 1);
}

TEST(SetPlace, ReplacesWhatWasThere) {
  std::vector<std::string> environment{"RANK=9", "A=b", "RANKS=x"};
  set_place(
      environment,
      {.rank = 3,
       .world_size = 4,
       .local_rank = 1,
       .local_size = 2,
       .node_rank = 1,
       .node_count = 2},
      "10.0.0.1",
      1234);
  EXPECT_THAT(
      environment,
      testing::UnorderedElementsAre(
          "A=b",
          "RANKS=x",
          "MASTER_ADDR=10.0.0.1",
          "MASTER_PORT=1234",
          "RANK=3",
          "WORLD_SIZE=4",
          "LOCAL_RANK=1",
          "LOCAL_SIZE=2",
          "LOCAL_WORLD_SIZE=2",
          "CROSS_RANK=1",
          "CROSS_SIZE=2"));
}

TEST(EnvironmentFile, Values) {
  EXPECT_THAT(
      parse_environment_file(
          "# comment\n\nA=b\n export B='c d' \nC=\"$(id)\"\nD=\nE=x=y\n"
          "F=b\r\n"
          "G=\"x\" # note\nH='a # b'\t# c\nI=x#y # z\nJ= # empty\n"
          "K='{\"a\": 'b'}'",
          "f"),
      ElementsAre(
          Pair("A", "b"),
          Pair("B", "c d"),
          Pair("C", "$(id)"),
          Pair("D", ""),
          Pair("E", "x=y"),
          Pair("F", "b"),
          Pair("G", "x"),
          Pair("H", "a # b"),
          Pair("I", "x#y"),
          Pair("J", ""),
          Pair("K", "{\"a\": 'b'}")));
}

TEST(EnvironmentFile, SkipsAByteOrderMark) {
  EXPECT_THAT(
      parse_environment_file("\xEF\xBB\xBFX=1\n", "f"),
      ElementsAre(Pair("X", "1")));
}

TEST(EnvironmentFile, NamesTheBadLine) {
  for (const char* line :
       {"novalue", "=x", "1A=b", "A B=c", "A-B=c", "A=\"x", "A='x'y"}) {
    SCOPED_TRACE(line);
    try {
      parse_environment_file("X=1\n\n" + std::string(line) + "\n", "env");
      ADD_FAILURE() << "accepted";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ExitCode::data);
      EXPECT_EQ(error.where(), "env:3");
    }
  }
}

class EnvironmentFiles : public testing::Test {
 protected:
  EnvironmentFiles() {
    std::filesystem::create_directory(folder_.path() + "/home");
    ::setenv("HOME", (folder_.path() + "/home").c_str(), 1);
    ::unsetenv("DS_ENV_FILE");
    std::filesystem::current_path(folder_.path());
  }
  ~EnvironmentFiles() override {
    std::filesystem::current_path(before_);
    ::setenv("HOME", home_.c_str(), 1);
    ::unsetenv("DS_ENV_FILE");
  }
  static void write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }

  const std::filesystem::path before_ = std::filesystem::current_path();
  const std::string home_ = std::getenv("HOME");
  file::TemporaryFolder folder_;
  std::vector<std::string> warnings_;
};

TEST_F(EnvironmentFiles, TheCurrentFolderWinsAndIsReported) {
  write("home/.deepspeed_env", "A=home\nB=home\n");
  EXPECT_EQ(read_environment_files(warnings_).size(), 2U);
  EXPECT_THAT(warnings_, ElementsAre());
  write(".deepspeed_env", "A=here\n");
  EXPECT_THAT(
      read_environment_files(warnings_),
      ElementsAre(Pair("A", "home"), Pair("B", "home"), Pair("A", "here")));
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("current folder")));
}

TEST_F(EnvironmentFiles, SaysThatTheOneAskedForIsMissing) {
  ::setenv("DS_ENV_FILE", "nowhere", 1);
  EXPECT_TRUE(read_environment_files(warnings_).empty());
  EXPECT_THAT(
      warnings_, ElementsAre(testing::HasSubstr("DS_ENV_FILE=nowhere")));
}

TEST_F(EnvironmentFiles, AnotherName) {
  write("mine", "A=b\n");
  ::setenv("DS_ENV_FILE", "mine", 1);
  EXPECT_EQ(read_environment_files(warnings_).size(), 1U);
  ::setenv("DS_ENV_FILE", (folder_.path() + "/mine").c_str(), 1);
  warnings_.clear();
  EXPECT_EQ(read_environment_files(warnings_).size(), 1U); // once, not twice
  EXPECT_THAT(warnings_, ElementsAre());
  ::setenv("DS_ENV_FILE", "missing", 1);
  EXPECT_EQ(read_environment_files(warnings_).size(), 0U);
}

TEST(PassedToHosts, NoSecrets) {
  for (const char* name :
       {"PYTHONPATH",
        "NCCL_DEBUG",
        "PATH",
        "LD_LIBRARY_PATH",
        "OMP_NUM_THREADS",
        "DS_COMM",
        "UCX_TLS",
        "GLOO_SOCKET_IFNAME"}) {
    EXPECT_TRUE(passed_to_hosts(name)) << name;
  }
  for (const char* name :
       {"HF_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "HOME",
        "PATHOLOGY",
        "SSH_AUTH_SOCK",
        "CUDA_VISIBLE_DEVICES",
        "RANK"}) {
    EXPECT_FALSE(passed_to_hosts(name)) << name;
  }
}

TEST(Variables, SetAndFind) {
  std::vector<std::string> environment{"AB=1", "A=2", "A=3"};
  set_variable(environment, "A", "x\ny");
  EXPECT_THAT(environment, ElementsAre("AB=1", "A=x\ny"));
  EXPECT_STREQ(find_variable(environment, "AB"), "1");
  EXPECT_EQ(find_variable(environment, "B"), nullptr);
}

} // namespace
} // namespace deepspeed::launcher
