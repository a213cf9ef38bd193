// The variables of each launcher, and their contradictions.
#include "deepspeed/comm/rank_info.h"

#include <gmock/gmock.h>

#include <map>

#include "deepspeed/base/error.h"

namespace deepspeed::comm {
namespace {

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

RankInfo read(const Variables& variables) {
  return rank_from_environment(
      [&](const std::string& name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt
                                        : std::optional(found->second);
      });
}

// The error message that these variables give.
std::string rank_error(const Variables& variables) {
  try {
    read(variables);
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::config);
    return error.what();
  }
  return "no error";
}

Variables torchrun() {
  return {
      {"RANK", "5"},
      {"WORLD_SIZE", "8"},
      {"LOCAL_RANK", "1"},
      {"LOCAL_WORLD_SIZE", "4"},
      {"MASTER_ADDR", "node1"},
      {"MASTER_PORT", "29500"},
      {"TORCHELASTIC_RUN_ID", "run7"},
      {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
}

Variables with(Variables variables, const Variables& changes) {
  for (const auto& [name, value] : changes) {
    variables[name] = value;
  }
  return variables;
}

TEST(RankInfo, NothingSetIsOneRank) {
  const RankInfo info = read({{"PATH", "/bin"}, {"SLURM_PROCID", "0"}});
  EXPECT_EQ(info.rank, 0);
  EXPECT_EQ(info.world_size, 1);
  EXPECT_TRUE(info.is_one_host());
  EXPECT_EQ(info.master_addr, "");
  EXPECT_EQ(info.master_port, 0);
}

TEST(RankInfo, Torchrun) {
  const RankInfo info = read(torchrun());
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(info.world_size, 8);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_world_size, 4);
  EXPECT_EQ(info.master_addr, "node1");
  EXPECT_EQ(info.master_port, 29500);
  EXPECT_EQ(info.job_id, "run7");
  EXPECT_TRUE(info.has_launcher_store);
  EXPECT_FALSE(info.is_one_host());
}

TEST(RankInfo, AStartAfterARestartIsAnotherOne) {
  EXPECT_EQ(
      read(with(torchrun(), {{"TORCHELASTIC_RESTART_COUNT", "0"}})).job_id,
      "run7");
  const Variables again =
      with(torchrun(), {{"TORCHELASTIC_RESTART_COUNT", "2"}});
  EXPECT_EQ(read(again).job_id, "run7 restart 2");
  EXPECT_EQ(
      read(with(again, {{"DS_JOB_ID", "x"}, {"DS_RESTART_COUNT", "1"}})).job_id,
      "x restart 1");
  // Without a job the launchers of several hosts count for themselves.
  EXPECT_EQ(
      read(with(again, {{"DS_RESTART_COUNT", "1"}})).job_id, "run7 restart 2");
}

TEST(RankInfo, DeepSpeed) {
  const RankInfo info = read(
      {{"RANK", "1"},
       {"WORLD_SIZE", "2"},
       {"LOCAL_RANK", "1"},
       {"LOCAL_SIZE", "2"},
       {"MASTER_ADDR", "127.0.0.1"},
       {"MASTER_PORT", "29500"},
       {"DS_JOB_ID", "abc"}});
  EXPECT_TRUE(info.is_one_host());
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.job_id, "abc");
  EXPECT_FALSE(info.has_launcher_store);
}

TEST(RankInfo, FourVariablesByHand) {
  const Variables loopback = {
      {"RANK", "1"},
      {"WORLD_SIZE", "2"},
      {"MASTER_ADDR", "localhost"},
      {"MASTER_PORT", "1"}};
  EXPECT_TRUE(read(loopback).is_one_host());
  EXPECT_EQ(read(loopback).local_rank, 1);
  const RankInfo hosts = read(with(loopback, {{"MASTER_ADDR", "10.0.0.1"}}));
  EXPECT_EQ(hosts.local_world_size, 1);
  EXPECT_EQ(hosts.local_rank, 0);
}

TEST(RankInfo, OneRankNeedsNoAddress) {
  const RankInfo info = read({{"RANK", "0"}, {"WORLD_SIZE", "1"}});
  EXPECT_EQ(info.world_size, 1);
  EXPECT_EQ(info.master_addr, "");
}

Variables open_mpi() {
  return {
      {"OMPI_COMM_WORLD_RANK", "1"},
      {"OMPI_COMM_WORLD_SIZE", "2"},
      {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
      {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
      {"PMIX_NAMESPACE", "prterun-host-77@1"}};
}

TEST(RankInfo, OpenMpiDerivesThePort) {
  const RankInfo info = read(open_mpi());
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.master_addr, "127.0.0.1");
  EXPECT_GE(info.master_port, 20000);
  EXPECT_LT(info.master_port, 32000);
  EXPECT_EQ(read(open_mpi()).master_port, info.master_port);
  EXPECT_NE(
      read(with(open_mpi(), {{"PMIX_NAMESPACE", "prterun-host-78@1"}}))
          .master_port,
      info.master_port);
  EXPECT_EQ(
      read(with(open_mpi(), {{"MASTER_PORT", "1234"}})).master_port, 1234);
}

TEST(RankInfo, MpiOverHostsNeedsAnAddress) {
  const Variables hosts = with(open_mpi(), {{"OMPI_COMM_WORLD_SIZE", "4"}});
  EXPECT_THAT(rank_error(hosts), HasSubstr("MASTER_ADDR is not set"));
  EXPECT_EQ(read(with(hosts, {{"MASTER_ADDR", "n1"}})).master_addr, "n1");
}

TEST(RankInfo, Mpich) {
  const Variables variables = {
      {"PMI_RANK", "0"},
      {"PMI_SIZE", "3"},
      {"MPI_LOCALRANKID", "0"},
      {"MPI_LOCALNRANKS", "3"}};
  EXPECT_THAT(rank_error(variables), HasSubstr("MASTER_PORT is not set"));
  EXPECT_EQ(read(with(variables, {{"MASTER_PORT", "9"}})).world_size, 3);
}

Variables slurm() {
  return {
      {"SLURM_PROCID", "6"},
      {"SLURM_STEP_NUM_TASKS", "7"},
      {"SLURM_LOCALID", "0"},
      {"SLURM_NODEID", "3"},
      {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
      {"SLURM_STEP_NODELIST", "gpu[07-08,12]-ib,other1"},
      {"SLURM_JOB_ID", "99"},
      {"SLURM_STEP_ID", "0"}};
}

TEST(RankInfo, Slurm) {
  const RankInfo info = read(slurm());
  EXPECT_EQ(info.rank, 6);
  EXPECT_EQ(info.local_world_size, 1);
  EXPECT_EQ(info.master_addr, "gpu07-ib");
  EXPECT_EQ(info.job_id, "slurm-99.0");
  EXPECT_EQ(read(with(slurm(), {{"SLURM_NODEID", "1"}})).local_world_size, 2);
  for (const char* list : {"", "x", "2(x", "2(x3", "2(x3),", "2(x3)1"}) {
    EXPECT_THAT(
        rank_error(with(slurm(), {{"SLURM_STEP_TASKS_PER_NODE", list}})),
        HasSubstr("SLURM_STEP_TASKS_PER_NODE"))
        << list;
  }
}

TEST(RankInfo, ContradictionsNameTheVariables) {
  const auto fails = [](const Variables& changes, const std::string& text) {
    EXPECT_THAT(rank_error(with(torchrun(), changes)), HasSubstr(text));
  };
  fails({{"RANK", ""}}, "WORLD_SIZE is set, but RANK is not");
  fails({{"WORLD_SIZE", ""}}, "RANK is set, but WORLD_SIZE is not");
  fails({{"MASTER_ADDR", ""}}, "MASTER_ADDR is not");
  fails({{"MASTER_PORT", ""}}, "MASTER_PORT is not");
  fails({{"RANK", "8"}}, "RANK=8 does not fit WORLD_SIZE=8");
  fails({{"WORLD_SIZE", "0"}}, "RANK=5 does not fit WORLD_SIZE=0");
  fails({{"RANK", "-1"}}, "RANK=-1 is not a number");
  fails({{"RANK", "1x"}}, "RANK=1x is not a number");
  fails({{"RANK", "99999999999"}}, "RANK=99999999999 is not a number");
  fails({{"LOCAL_RANK", "4"}}, "LOCAL_RANK=4 does not fit LOCAL_WORLD_SIZE=4");
  fails({{"LOCAL_WORLD_SIZE", "9"}}, "LOCAL_WORLD_SIZE=9 is more than");
  fails({{"LOCAL_SIZE", "2"}}, "LOCAL_WORLD_SIZE=4 contradicts LOCAL_SIZE=2");
  fails({{"RANK", "0"}}, "LOCAL_RANK=1 is more than RANK=0");
  fails({{"LOCAL_WORLD_SIZE", "8"}}, "LOCAL_RANK=1 contradicts RANK=5");
  fails({{"MASTER_PORT", "65536"}}, "MASTER_PORT=65536 is not a port");
  fails({{"MASTER_PORT", "http"}}, "MASTER_PORT=http is not a number");
}

} // namespace
} // namespace deepspeed::comm
