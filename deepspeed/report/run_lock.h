// One run per experiment folder.
#pragma once

#include <string>

#include "deepspeed/file/file_lock.h"

namespace deepspeed::report {

// Locks FOLDER/.lock, which tells host, pid and start time of its holder.
// Error(cannot_create) if the file cannot be made, or names the holder if
// another process has the lock. A file system without locks gives a warning,
// and no protection.
file::FileLock lock_run(const std::string& folder);

} // namespace deepspeed::report
