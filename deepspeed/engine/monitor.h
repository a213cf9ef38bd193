// Curves of a training run: the blocks "tensorboard" and "csv_monitor".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "deepspeed/config/config.h"
#include "deepspeed/file/append_file.h"
#include "deepspeed/report/event_file.h"

namespace deepspeed {

// Files as DeepSpeed's (deepspeed/monitor/csv_monitor.py and tensorboard.py),
// in OUTPUT_PATH/JOB_NAME of each block. For one rank only; not thread-safe.
//
// A curve is not worth a training run: a failed write gives one warning, and
// later points of that file are dropped.
class Monitor {
 public:
  // Error(cannot_create) if a folder or event file cannot be made.
  Monitor(const config::Monitor& tensorboard, const config::Monitor& csv);

  // One point of a curve, "Train/Samples/lr" for example. As CSV it is a line
  // "samples,value" of Train_Samples_lr.csv, which begins with "step,lr"; a
  // file that is there already is continued.
  void add(const std::string& name, double value, int64_t samples);
  // Training goes on after `samples`: what older event files of the folder hold
  // of later ones was cut off, and TensorBoard drops it. Without it the first
  // point says so, for 0. CSV files keep their lines.
  void start_after(int64_t samples);
  // Hands the points to the kernel.
  void flush();

 private:
  struct CsvFile {
    std::string name;
    file::AppendFile file;
  };
  CsvFile& csv_file(const std::string& name);

  std::unique_ptr<report::EventFile> events_; // null: no tensorboard
  bool is_started_ = false; // start_after() was called
  std::string csv_folder_; // empty: no csv_monitor
  std::vector<CsvFile> csv_files_;
};

} // namespace deepspeed
