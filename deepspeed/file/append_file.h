// A log that is not worth stopping for.
#pragma once

#include <string>
#include <string_view>

#include "deepspeed/file/descriptor.h"

namespace deepspeed::file {

// A file to which lines are added. Not thread-safe.
class AppendFile {
 public:
  // Nothing is open, and append() does nothing.
  AppendFile() = default;
  // open_to_append(): Error(cannot_create).
  explicit AppendFile(std::string path);
  // A file that has just been made.
  AppendFile(std::string path, Descriptor file);

  // Writes all of `text`. If that fails: one warning with the path on standard
  // error, the file is closed, and later calls do nothing.
  void append(std::string_view text);
  bool is_empty() const;
  const std::string& path() const {
    return path_;
  }

 private:
  std::string path_;
  Descriptor file_;
};

} // namespace deepspeed::file
