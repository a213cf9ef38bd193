// Opening a file that somebody else may have put there: a pipe, a device or a
// link in its place neither blocks nor leads elsewhere.
#pragma once

#include <string>

#include "deepspeed/file/descriptor.h"

namespace deepspeed::file {

// A regular file. A pipe, a device, a
// socket or a folder is an Error(no_input), at once. /dev/null reads as an
// empty file; a descriptor that the caller was given (/dev/stdin, /dev/fd/N) is
// taken as it is.
Descriptor open_to_read(const std::string& path);

// Opens or makes a regular file to write at its end. A symbolic link is not
// followed. Error(cannot_create).
Descriptor open_to_append(const std::string& path);

} // namespace deepspeed::file
