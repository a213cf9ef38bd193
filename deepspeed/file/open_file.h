// Opening a file that somebody else may have put there: a pipe, a device or a
// link in its place neither blocks nor leads elsewhere.
#pragma once

#include <sys/types.h>

#include <string>

namespace deepspeed::file {

// A descriptor of a regular file, for the caller to close. A pipe, a device, a
// socket or a folder is an Error(no_input), at once. /dev/null reads as an
// empty file; a descriptor that the caller was given (/dev/stdin, /dev/fd/N) is
// taken as it is.
int open_to_read(const std::string& path);

// Opens or makes a regular file to write at its end; `flags` as O_EXCL are
// added. A symbolic link is not followed. Error(cannot_create).
int open_to_append(const std::string& path, int flags = 0);

} // namespace deepspeed::file
