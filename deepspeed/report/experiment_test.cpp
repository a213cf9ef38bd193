// The experiment folder, its lock, and what git says.
#include "deepspeed/report/experiment.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <regex>
#include <set>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/report/git_state.h"
#include "deepspeed/settings/hparams.h"

namespace {

int flock_error = 0; // what flock() answers, if not 0

} // namespace

// In place of the C library's: file systems without locks are rare in tests.
extern "C" int flock(int fd, int operation) noexcept {
  if (flock_error != 0) {
    errno = flock_error;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_flock, fd, operation));
}

namespace deepspeed::report {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

ExitCode code_of(const std::function<void()>& action, std::string* report) {
  try {
    action();
  } catch (const Error& error) {
    *report = error.report();
    return error.code();
  }
  return ExitCode::ok;
}

// The exit status of `action` in a child process.
int status_in_child(const std::function<int()>& action) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::_exit(action());
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ExperimentName, HasNoLeadingZeros) {
  // 2026-03-08 03:00:00 in Los Angeles.
  EXPECT_EQ(
      experiment_name(1772964000, "abcdefgh"),
      "bert_pretrain.2026.3.8.3.0.0.abcdefgh");
}

TEST(RandomIdentifier, UsesTheWholeAlphabet) {
  std::set<char> seen;
  std::set<std::string> identifiers;
  for (int i = 0; i < 200; ++i) {
    const std::string identifier = random_identifier();
    EXPECT_TRUE(std::regex_match(identifier, std::regex("[a-z0-9]{8}")));
    identifiers.insert(identifier);
    seen.insert(identifier.begin(), identifier.end());
  }
  EXPECT_EQ(identifiers.size(), 200u);
  EXPECT_EQ(seen.size(), 36u);
}

TEST(Experiment, CreatesWhatHelloDeepSpeedCreates) {
  const file::TemporaryFolder folder;
  settings::Settings settings;
  settings.model.h_dim = 64;
  std::string path;
  {
    const Experiment experiment = Experiment::create(
        new_experiment_path(folder.path() + "/a/b"), settings);
    path = experiment.path();
    EXPECT_TRUE(fs::is_directory(experiment.events_path()));
    EXPECT_EQ(experiment.metrics_path(), path + "/metrics.jsonl");
    EXPECT_EQ(experiment.report_path(), path + "/report.html");
  }
  EXPECT_TRUE(std::regex_match(
      fs::path(path).filename().string(),
      std::regex(R"(bert_pretrain(\.\d+){6}\.[a-z0-9]{8})")));
  EXPECT_EQ(settings::read_hparams(path + "/hparams.json").model.h_dim, 64);
  EXPECT_TRUE(fs::is_directory(path + "/tb_dir"));

  Experiment experiment = Experiment::open(path + "/");
  EXPECT_EQ(experiment.path(), path);
  settings.run.num_iterations = 7;
  experiment.save_settings(settings);
  EXPECT_EQ(
      settings::read_hparams(experiment.hparams_path()).run.num_iterations, 7);
}

Experiment create_in(const std::string& folder) {
  return Experiment::create(new_experiment_path(folder), settings::Settings());
}

// A name that the user has chosen: the folder may be there already.
TEST(Experiment, TakesAFolderThatAKilledStartLeft) {
  const file::TemporaryFolder folder;
  const std::string path = folder.path() + "/name";
  fs::create_directories(path + "/tb_dir");
  file::write_file_atomically(path + "/.lock", "");
  EXPECT_EQ(Experiment::create(path, settings::Settings()).path(), path);
  EXPECT_TRUE(fs::exists(path + "/hparams.json"));
  std::string report;
  const auto create = [&] { Experiment::create(path, settings::Settings()); };
  EXPECT_EQ(code_of(create, &report), ExitCode::cannot_create);
  fs::remove(path + "/hparams.json");
  file::write_file_atomically(path + "/notes.txt", "mine");
  EXPECT_EQ(code_of(create, &report), ExitCode::cannot_create);
  EXPECT_NE(report.find("it holds "), std::string::npos);
}

TEST(Experiment, OneRunPerFolder) {
  const file::TemporaryFolder folder;
  const Experiment first = create_in(folder.path());
  EXPECT_TRUE(first.is_locked());
  const auto open_again = [&] {
    std::string report;
    const ExitCode code =
        code_of([&] { Experiment::open(first.path()); }, &report);
    const bool named =
        report.find("pid " + std::to_string(::getppid())) != std::string::npos;
    return code == ExitCode::cannot_create && !named ? 1
                                                     : static_cast<int>(code);
  };
  EXPECT_EQ(status_in_child(open_again), 73);
}

TEST(Experiment, AKilledRunLeavesNoLock) {
  const file::TemporaryFolder folder;
  const std::string path = create_in(folder.path()).path();
  status_in_child([&] {
    const Experiment killed = Experiment::open(path);
    ::_exit(1); // without destructors
    return 0;
  });
  std::string report;
  EXPECT_EQ(code_of([&] { Experiment::open(path); }, &report), ExitCode::ok)
      << report;
}

TEST(Experiment, AFileSystemWithoutLocksGivesAWarning) {
  const file::TemporaryFolder folder;
  for (const int error : {ENOSYS, ENOLCK, EOPNOTSUPP}) {
    flock_error = error;
    testing::internal::CaptureStderr();
    std::string report;
    const ExitCode code = code_of(
        [&] { EXPECT_FALSE(create_in(folder.path()).is_locked()); }, &report);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, ExitCode::ok) << report;
    EXPECT_NE(said.find("warning: this file system has no locks"), said.npos);
    EXPECT_NE(said.find("left there is not removed"), said.npos) << said;
    flock_error = 0;
  }
}

TEST(Experiment, AFailedStartLeavesNoFolder) {
  const file::TemporaryFolder folder;
  flock_error = EIO;
  std::string report;
  EXPECT_EQ(
      code_of([&] { create_in(folder.path()); }, &report),
      ExitCode::cannot_create);
  flock_error = 0;
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Experiment, ALockThatIsALinkOrAPipeIsRefused) {
  const file::TemporaryFolder folder;
  const std::string path = create_in(folder.path()).path();
  const std::string lock = path + "/.lock";
  const std::string target = folder.path() + "/target";
  file::write_file_atomically(target, "mine");
  std::string report;
  for (const bool link : {true, false}) {
    fs::remove(lock);
    if (link) {
      fs::create_symlink(target, lock);
    } else {
      ASSERT_EQ(::mkfifo(lock.c_str(), 0600), 0);
    }
    EXPECT_EQ(
        code_of([&] { Experiment::open(path); }, &report),
        ExitCode::cannot_create);
  }
  EXPECT_EQ(file::read_file(target, 10), "mine");
}

TEST(Experiment, AnotherUsersLockMayBeReadOnly) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root, to be two users";
  }
  const file::TemporaryFolder folder;
  const std::string path = create_in(folder.path()).path();
  fs::permissions(folder.path(), fs::perms::all);
  fs::permissions(path, fs::perms::all);
  fs::permissions(path + "/.lock", fs::perms(0644));
  const auto open_as_nobody = [&] {
    if (::setuid(65534) != 0) {
      return 1;
    }
    std::string report;
    return static_cast<int>(code_of([&] { Experiment::open(path); }, &report));
  };
  EXPECT_EQ(status_in_child(open_as_nobody), 0);
}

TEST(Experiment, MovingKeepsTheLock) {
  const file::TemporaryFolder folder;
  Experiment first = create_in(folder.path());
  const Experiment moved = std::move(first);
  std::string report;
  EXPECT_EQ(
      code_of([&] { Experiment::open(moved.path()); }, &report),
      ExitCode::cannot_create);
}

TEST(Experiment, ErrorsNameTheFolder) {
  const file::TemporaryFolder folder;
  std::string report;
  EXPECT_EQ(
      code_of([&] { Experiment::open(folder.path() + "/x"); }, &report),
      ExitCode::no_input);
  EXPECT_EQ(
      code_of([&] { Experiment::open(folder.path()); }, &report),
      ExitCode::no_input);
  EXPECT_NE(report.find("hparams.json"), std::string::npos);
  file::write_file_atomically(folder.path() + "/file", "");
  EXPECT_EQ(
      code_of([&] { create_in(folder.path() + "/file/x"); }, &report),
      ExitCode::cannot_create);
  EXPECT_NE(report.find(folder.path() + "/file/x"), std::string::npos);
  if (::geteuid() != 0) {
    fs::permissions(
        folder.path(), fs::perms::owner_read | fs::perms::owner_exec);
    EXPECT_EQ(
        code_of([&] { create_in(folder.path()); }, &report),
        ExitCode::cannot_create);
    fs::permissions(folder.path(), fs::perms::owner_all);
  }
}

// In a child, because the current folder belongs to the whole process.
TEST(Git, StoresHashAndDiff) {
  // A user's machine may have no git; `make test` installs it.
  if (!git_output({"--version"})) {
    GTEST_SKIP() << "git is not installed";
  }
  const file::TemporaryFolder folder;
  const auto with_repository = [&] {
    fs::current_path(folder.path());
    file::write_file_atomically("code.txt", "one\n");
    const bool made = git_output({"init", "-q"}) && git_output({"add", "."}) &&
        git_output(
                          {"-c",
                           "user.name=n",
                           "-c",
                           "user.email=e",
                           "commit",
                           "-q",
                           "-m",
                           "m"});
    file::write_file_atomically("code.txt", "two\n");
    const std::string path = create_in("out").path();
    const std::string hash = file::read_file(path + "/githash.log", 100);
    const std::string diff = file::read_file(path + "/gitdiff.log", 10000);
    return made && std::regex_match(hash, std::regex("[0-9a-f]{40}\n")) &&
            diff.find("-one\n+two\n") != std::string::npos &&
            fs::status(path + "/gitdiff.log").permissions() == fs::perms(0600)
        ? 0
        : 1;
  };
  EXPECT_EQ(status_in_child(with_repository), 0);
}

TEST(Git, NoRepositoryAndNoGitAreFine) {
  const file::TemporaryFolder folder;
  const auto without = [&] {
    ::setenv("GIT_CEILING_DIRECTORIES", "/", 1);
    fs::current_path(folder.path());
    const std::string path = create_in("out").path();
    return fs::exists(path + "/githash.log") ||
            fs::exists(path + "/gitdiff.log")
        ? 1
        : 0;
  };
  EXPECT_EQ(status_in_child(without), 0);
  EXPECT_EQ(
      status_in_child([&] {
        ::setenv("PATH", folder.path().c_str(), 1);
        return git_output({"--version"}) ? 1 : without();
      }),
      0);
}

} // namespace
} // namespace deepspeed::report
