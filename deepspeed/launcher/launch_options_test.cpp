// The launcher's command line.
#include "deepspeed/launcher/launch_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(LaunchOptions, EverythingBehindTheScriptIsTheScripts) {
  const LaunchOptions options = parse_launch_options(
      {"--num_gpus=2", "train.py", "--num_gpus", "3", "-h", "--", "--bad="});
  EXPECT_EQ(options.filter.num_gpus, 2);
  EXPECT_EQ(options.script, "train.py");
  EXPECT_THAT(
      options.arguments, ElementsAre("--num_gpus", "3", "-h", "--", "--bad="));
  EXPECT_FALSE(options.help);
}

TEST(LaunchOptions, Defaults) {
  const LaunchOptions options = parse_launch_options({"p"});
  EXPECT_EQ(options.hostfile, "/job/hostfile");
  EXPECT_TRUE(options.filter.empty());
  EXPECT_EQ(options.master_port, 0);
  EXPECT_EQ(options.max_restarts, 0);
  EXPECT_FALSE(options.grace_period);
  EXPECT_EQ(options.log_level, LogLevel::info);
  EXPECT_EQ(options.backend, Backend::ssh);
}

TEST(LaunchOptions, EveryFlag) {
  const LaunchOptions options = parse_launch_options(
      {"-H",
       "hosts",
       "--include=w0:1",
       "--master-addr",
       "10.0.0.1",
       "--master_port=1234",
       "--launcher=SSH",
       "--launcher_args",
       "-o 'A B' -v",
       "--ssh-port=2222",
       "--no_ssh_check",
       "--force_multi",
       "--module",
       "--no_local_rank",
       "--bind_cores_to_rank",
       "--bind_core_list=1,3-5",
       "--enable_each_rank_log=logs",
       "--grace-period=0.5",
       "--max-restarts=3",
       "--save_pid",
       "--log_level=debug",
       "p"});
  EXPECT_EQ(options.hostfile, "hosts");
  EXPECT_EQ(options.filter.include, "w0:1");
  EXPECT_EQ(options.master_addr, "10.0.0.1");
  EXPECT_EQ(options.master_port, 1234);
  EXPECT_THAT(options.launcher_args, ElementsAre("-o", "A B", "-v"));
  EXPECT_EQ(options.ssh_port, 2222);
  EXPECT_TRUE(options.no_ssh_check);
  EXPECT_TRUE(options.force_multi);
  EXPECT_TRUE(options.module);
  EXPECT_TRUE(options.no_local_rank);
  EXPECT_TRUE(options.bind_cores);
  EXPECT_EQ(options.bind_core_list, "1,3-5");
  EXPECT_EQ(options.rank_log_folder, "logs");
  EXPECT_DOUBLE_EQ(options.grace_period.value(), 0.5);
  EXPECT_EQ(options.max_restarts, 3);
  EXPECT_TRUE(options.save_pid);
  EXPECT_EQ(options.log_level, LogLevel::debug);
}

TEST(LaunchOptions, ShortFlagsAndSynonyms) {
  const LaunchOptions options =
      parse_launch_options({"-Hfile", "-e", "w1", "-q", "--", "-odd-name"});
  EXPECT_EQ(options.hostfile, "file");
  EXPECT_EQ(options.filter.exclude, "w1");
  EXPECT_EQ(options.log_level, LogLevel::error);
  EXPECT_EQ(options.script, "-odd-name");
  EXPECT_EQ(
      parse_launch_options({"--num-accelerators=4", "p"}).filter.num_gpus, 4);
  EXPECT_EQ(
      parse_launch_options({"--num_gpus", "-1", "p"}).filter.num_gpus, -1);
}

struct BadRow {
  std::vector<std::string> arguments;
  const char* what;
  const char* hint;
};

TEST(LaunchOptions, BadRows) {
  const BadRow table[] = {
      {{}, "no program", "--help"},
      {{"--num_gpus=2"}, "no program", "--help"},
      {{"--num_gpu=2", "p"}, "unknown flag --num_gpu", "--num_gpus?"},
      {{"--master-prt=2", "p"}, "unknown flag", "--master_port?"},
      {{"-x", "p"}, "unknown flag -x", ""},
      {{"--zzzzzzzz", "p"}, "unknown flag", "behind its name"},
      {{"--hostfile"}, "--hostfile needs a value", "FILE"},
      {{"--num_gpus=2.5", "p"}, "not '2.5'", ""},
      {{"--num_gpus=", "p"}, "not ''", ""},
      {{"--num_gpus=9999999999", "p"}, "--num_gpus takes", ""},
      {{"--master_port=65536", "p"}, "1 to 65535", ""},
      {{"--module=1", "p"}, "takes no value", ""},
      {{"--grace_period=-1", "p"}, "seconds", ""},
      {{"--grace_period=nan", "p"}, "seconds", ""},
      {{"--log_level=loud", "p"}, "loud", "debug"},
      {{"--module", "--no_python", "p"}, "do not go together", ""},
      {{"--bind_core_list=1", "p"}, "--bind_core_list without", "add"},
      {{"--no_ssh", "p"}, "--no_ssh needs", "--node_rank"},
      {{"--node_rank=1", "p"}, "--node_rank is for", ""},
      {{"--no_ssh", "--node_rank=0", "--max_restarts=1", "p"},
       "--max_restarts does not go",
       "by hand"},
      {{"--launcher=pdsh", "p"}, "--launcher 'pdsh'", "ssh directly"},
      {{"--launcher=OpenMPI", "p"}, "--launcher 'OpenMPI'", "mpirun"},
      {{"--launcher=fork", "p"}, "--launcher 'fork'", "ssh or slurm"},
      {{"--launcher_args='x", "p"}, "not closed", ""},
      {{"--venv_script=v", "p"}, "--venv_script is not", "activate"},
      {{"--autotuning", "run", "p"}, "--autotuning is not", ""},
      {{"--elastic_training", "p"}, "--elastic_training is not", "removed"},
      {{"-H", "", "p"}, "-H '' is not supported", "this machine alone"},
      {{"--min_elastic_nodes=1", "p"}, "is not supported", "removed"},
  };
  for (const BadRow& row : table) {
    SCOPED_TRACE(row.what);
    try {
      parse_launch_options(row.arguments);
      ADD_FAILURE() << "accepted";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ExitCode::usage);
      EXPECT_THAT(error.what(), HasSubstr(row.what));
      EXPECT_THAT(error.hint(), HasSubstr(row.hint));
    }
  }
}

TEST(LaunchOptions, HelpNamesEveryFlagThatIsSupported) {
  EXPECT_TRUE(parse_launch_options({"--help"}).help);
  EXPECT_TRUE(parse_launch_options({"-h", "p"}).help);
  EXPECT_TRUE(parse_launch_options({"--version"}).version);
  const std::string help = launch_help();
  EXPECT_THAT(help, HasSubstr("--num_gpus --num_accelerators N"));
  EXPECT_THAT(help, HasSubstr("--bind_core_list LIST"));
  EXPECT_THAT(help, testing::Not(HasSubstr("--venv_script")));
}

TEST(SplitWords, QuotesAndBackslashes) {
  EXPECT_THAT(
      split_words("  a 'b c'\"d\" \\\"e '' $(id)", ""),
      ElementsAre("a", "b cd", "\"e", "", "$(id)"));
  EXPECT_THAT(split_words("", ""), ElementsAre());
}

} // namespace
} // namespace deepspeed::launcher
