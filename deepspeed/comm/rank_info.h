// Where this process stands among the processes of a run.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace deepspeed::comm {

struct RankInfo {
  int rank = 0; // 0 <= rank < world_size
  int world_size = 1;
  int local_rank = 0; // among the ranks of this host
  int local_world_size = 1; // ranks on this host
  // Where rank 0 listens while the ranks find each other. Empty and 0 when
  // there is one rank.
  std::string master_addr;
  int master_port = 0;
  // The same on all ranks of one start of a run, another one in every other run
  // and after a restart, so that a rank of another is refused. Empty when the
  // launcher gives none.
  std::string job_id;
  // The launcher holds the store already (torchrun); rank 0 starts none.
  bool has_launcher_store = false;

  // No other host takes part.
  bool is_one_host() const {
    return local_world_size == world_size;
  }
};

// The value of a variable, if it is set.
using Environment =
    std::function<std::optional<std::string>(const std::string& name)>;

// Reads the variables of the first launcher that set its two first ones:
//   deepspeed, torchrun  RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE (or
//                        LOCAL_SIZE), MASTER_ADDR, MASTER_PORT, DS_JOB_ID,
//                        DS_RESTART_COUNT, TORCHELASTIC_RUN_ID,
//                        TORCHELASTIC_RESTART_COUNT,
//                        TORCHELASTIC_USE_AGENT_STORE
//   Open MPI             OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE,
//                        PMIX_NAMESPACE
//   MPICH, Intel MPI     PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS
//   Slurm (srun)         SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID,
//                        SLURM_NODEID, SLURM_STEP_TASKS_PER_NODE,
//                        SLURM_STEP_NODELIST, SLURM_JOB_ID, SLURM_STEP_ID
// None of them set is one rank. MPI and Slurm run without MASTER_ADDR on one
// host (Slurm on any number), and without MASTER_PORT where the launcher names
// the job: the port, 20000 to 31999, is then derived from that name.
//
// Throws base::Error(config) naming the variables when one is missing, is no
// number, or contradicts another.
RankInfo rank_from_environment(const Environment& environment);

// The same for the environment of this process.
RankInfo rank_from_environment();

} // namespace deepspeed::comm
