// Curves of a training run: the blocks "tensorboard" and "csv_monitor".
#include "deepspeed/engine/monitor.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/file/file_system.h"

namespace deepspeed {
namespace {

// Python's os.path.join(output_path, job_name).
std::string make_folder(const char* key, const config::Monitor& monitor) {
  const std::filesystem::path folder =
      std::filesystem::path(monitor.output_path) / monitor.job_name;
  if (const std::error_code error = file::try_make_folders(folder)) {
    throw base::Error(
        base::ExitCode::cannot_create,
        "cannot make the folder " + folder.string() + ": " + error.message(),
        std::string(key) + ".output_path",
        "name a folder that you may write to");
  }
  return folder.string();
}

// The shortest text that reads back as the same number.
std::string text_of(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return {text, end};
}

} // namespace

Monitor::Monitor(
    const config::Monitor& tensorboard,
    const config::Monitor& csv) {
  if (csv.enabled) {
    csv_folder_ = make_folder("csv_monitor", csv);
  }
  if (tensorboard.enabled) {
    events_ = std::make_unique<report::EventFile>(
        make_folder("tensorboard", tensorboard));
  }
}

Monitor::CsvFile& Monitor::csv_file(const std::string& name) {
  for (CsvFile& file : csv_files_) {
    if (file.name == name) {
      return file;
    }
  }
  std::string file_name = name;
  std::replace(file_name.begin(), file_name.end(), '/', '_');
  std::replace(file_name.begin(), file_name.end(), ' ', '_');
  const std::string path = csv_folder_ + "/" + file_name + ".csv";
  CsvFile file{name, {}};
  try {
    file.file = file::AppendFile(path);
  } catch (const base::Error& error) {
    base::log_warning(
        std::string(error.what()) + ": " + path +
        "; training goes on without this file");
  }
  if (file.file.is_empty()) {
    const std::string header = name.substr(name.find_last_of('/') + 1);
    file.file.append("step," + header + "\r\n");
  }
  csv_files_.push_back(std::move(file));
  return csv_files_.back();
}

void Monitor::add(const std::string& name, double value, int64_t samples) {
  if (!is_started_) {
    start_after(0);
  }
  if (events_) {
    events_->add_scalar(name, value, samples);
  }
  if (!csv_folder_.empty()) {
    // Lines end as Python's csv module ends them.
    csv_file(name).file.append(
        std::to_string(samples) + "," + text_of(value) + "\r\n");
  }
}

void Monitor::start_after(int64_t samples) {
  is_started_ = true;
  if (events_) {
    events_->start_after(samples);
  }
}

void Monitor::flush() {
  if (events_) {
    events_->flush();
  }
}

} // namespace deepspeed
