// A log that is not worth stopping for.
#include "deepspeed/file/append_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "deepspeed/base/log.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/file/open_file.h"

namespace deepspeed::file {

AppendFile::AppendFile(std::string path)
    : path_(std::move(path)), file_(open_to_append(path_)) {}

AppendFile::AppendFile(std::string path, Descriptor file)
    : path_(std::move(path)), file_(std::move(file)) {}

void AppendFile::append(std::string_view text) {
  if (file_.is_open() && !write_all(file_.get(), text)) {
    base::log_warning(
        "cannot write " + path_ + ": " + std::strerror(errno) +
        "; training goes on without this file");
    file_.reset();
  }
}

bool AppendFile::is_empty() const {
  return file_.is_open() && ::lseek(file_.get(), 0, SEEK_END) == 0;
}

} // namespace deepspeed::file
