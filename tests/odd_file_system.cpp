// Preloaded into a program (LD_PRELOAD), it makes every file system one that
// knows less: a sync of a folder fails with the errno in ODD_FOLDER_SYNC, and
// statvfs() answers zeros.
#include <dlfcn.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <cstdlib>

extern "C" {

int fsync(int fd) {
  static const auto next =
      reinterpret_cast<int (*)(int)>(::dlsym(RTLD_NEXT, "fsync"));
  const char* const error = std::getenv("ODD_FOLDER_SYNC");
  struct stat info {};
  if (error != nullptr && ::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    errno = std::atoi(error);
    return -1;
  }
  return next(fd);
}

int statvfs(const char*, struct statvfs* answer) noexcept {
  *answer = {};
  return 0;
}

} // extern "C"
