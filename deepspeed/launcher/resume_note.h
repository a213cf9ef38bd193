// The file that DS_RESUME_FILE names.
#pragma once

#include <string>

#include "deepspeed/file/descriptor.h"

namespace deepspeed::launcher {

// A file in memory, which is gone with this process however it ends. Ranks
// open it by its path; what they write takes the place of what was there.
class ResumeNote {
 public:
  // `text` is what an earlier start has left. Error(internal).
  explicit ResumeNote(const std::string& text);

  // For processes of this host and user, while this process lives.
  std::string path() const;
  // What stands in the file without its line end; if that is nothing, or more
  // than one line or 4096 bytes, the last text that was neither.
  const std::string& read();

 private:
  file::Descriptor file_;
  std::string last_;
};

} // namespace deepspeed::launcher
