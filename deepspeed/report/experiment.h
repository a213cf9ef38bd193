// The folder of one experiment, named and filled as HelloDeepSpeed does.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "deepspeed/report/run_lock.h"
#include "deepspeed/settings/settings.h"

namespace deepspeed::report {

// bert_pretrain.YEAR.MONTH.DAY.HOUR.MINUTE.SECOND.IDENTIFIER in US/Pacific
// time, without leading zeros.
std::string experiment_name(int64_t unix_seconds, std::string_view identifier);

// Eight of [a-z0-9], from the randomness of the operating system.
std::string random_identifier();

// A folder in `checkpoint_dir` that nobody has, by an experiment's name of now.
std::string new_experiment_path(const std::string& checkpoint_dir);

// A locked experiment folder. Movable; the lock goes with the object.
class Experiment {
 public:
  // Makes a new folder (all levels), or takes one that a start has left which
  // was killed before it wrote hparams.json. Writes that, githash.log,
  // gitdiff.log (of the current folder) and tb_dir/. Notes about a missing
  // repository go to standard error. Error(cannot_create) if that fails, or if
  // the folder holds anything else.
  static Experiment create(
      const std::string& folder,
      const settings::Settings& settings);

  // Locks an existing folder, to go on in it. Error(no_input) if it is not an
  // experiment folder, Error(cannot_create) if it is in use or not writable.
  // Read hparams.json after this.
  static Experiment open(const std::string& folder);

  // Error(no_input) if it is not an experiment folder. Returns its path without
  // slashes at the end.
  static std::string check_folder(const std::string& folder);

  const std::string& path() const {
    return path_;
  }
  // Whether no other run can be writing here: not so without locks.
  bool is_locked() const {
    return lock_.held();
  }
  std::string hparams_path() const;
  std::string metrics_path() const;
  std::string report_path() const; // report.html
  std::string events_path() const; // tb_dir

  // Replaces hparams.json, when a resumed run has other settings. Error(io).
  void save_settings(const settings::Settings& settings) const;

 private:
  explicit Experiment(std::string path);

  std::string path_;
  file::FileLock lock_;
};

} // namespace deepspeed::report
