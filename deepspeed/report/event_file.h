// TensorBoard event files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "deepspeed/file/append_file.h"

namespace deepspeed::report {

// Appends scalars to FOLDER/events.out.tfevents.TIME.HOST.PID.0. The file is a
// TFRecord file (tensorflow/core/lib/io/record_writer.h) of Event messages
// (tensorflow/core/util/event.proto), encoded by hand. A resumed run makes a
// new file, as SummaryWriter does. Not thread-safe.
//
// A curve is not worth a training run: a failed write gives one warning on
// standard error, and later calls do nothing.
class EventFile {
 public:
  // Makes the folder, if it is not there. Error(cannot_create) if the file
  // cannot be made, or the folder is a symbolic link.
  explicit EventFile(const std::string& folder);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  // The run has done `step` steps, or begins (0): what older files of the
  // folder hold of later ones was cut off, and TensorBoard drops it.
  void start_after(int64_t step);
  // TensorBoard keeps single precision.
  void add_scalar(std::string_view tag, double value, int64_t step);
  // Hands what was added to the kernel, so that TensorBoard sees it.
  void flush();

  const std::string& path() const {
    return file_.path();
  }

 private:
  bool has_older_ = false; // files in the folder
  file::AppendFile file_;
  std::string buffer_;
};

} // namespace deepspeed::report
