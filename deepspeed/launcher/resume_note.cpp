// The file that DS_RESUME_FILE names.
#include "deepspeed/launcher/resume_note.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {

ResumeNote::ResumeNote(const std::string& text)
    : file_(::memfd_create("ds_resume_note", MFD_CLOEXEC)), last_(text) {
  const auto size = static_cast<ssize_t>(text.size());
  if (!file_.is_open() ||
      ::pwrite(file_.get(), text.data(), text.size(), 0) != size) {
    throw base::system_error(
        base::ExitCode::internal,
        "cannot make a file in memory",
        "memfd_create",
        errno);
  }
}

std::string ResumeNote::path() const {
  return "/proc/" + std::to_string(::getpid()) + "/fd/" +
      std::to_string(file_.get());
}

const std::string& ResumeNote::read() {
  constexpr size_t kMost = 4096;
  std::array<char, kMost + 2> buffer;
  const ssize_t n = ::pread(file_.get(), buffer.data(), buffer.size(), 0);
  std::string text(buffer.data(), n > 0 ? static_cast<size_t>(n) : 0);
  if (text.ends_with('\n')) {
    text.pop_back();
  }
  if (!text.empty() && text.size() <= kMost &&
      text.find('\n') == std::string::npos) {
    last_ = text;
  }
  return last_;
}

} // namespace deepspeed::launcher
