// Anonymous memory files, opened by peers through /proc.
#include "deepspeed/comm/shared_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "deepspeed/base/error.h"
#include "deepspeed/file/descriptor.h"

namespace deepspeed::comm {
namespace {

[[noreturn]] void fail(const std::string& action, const std::string& what) {
  throw base::system_error(base::ExitCode::unavailable, action, what, errno);
}

std::string in_mebibytes(size_t bytes) {
  return std::to_string((bytes + 0xfffff) >> 20) + " MiB of shared memory";
}

} // namespace

SharedSegment::SharedSegment(int descriptor, size_t bytes)
    : descriptor_(descriptor), size_(bytes) {
  void* const address =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (address == MAP_FAILED) {
    const int error = errno;
    close_descriptor();
    errno = error;
    fail("cannot map", in_mebibytes(bytes));
  }
  data_ = static_cast<std::byte*>(address);
}

SharedSegment::~SharedSegment() {
  close_descriptor();
  ::munmap(data_, size_);
}

void SharedSegment::close_descriptor() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    descriptor_ = -1;
  }
}

std::shared_ptr<SharedSegment> SharedSegment::create(size_t bytes) {
  file::Descriptor file(
      ::memfd_create("deepspeed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (file.get() < 0) {
    fail("cannot create", in_mebibytes(bytes));
  }
  if (const int error =
          ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes))) {
    errno = error;
    fail("cannot get", in_mebibytes(bytes));
  }
  // A peer that cut it short would kill the others with SIGBUS.
  if (::fcntl(
          file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) !=
      0) {
    fail("cannot seal", in_mebibytes(bytes));
  }
  return std::shared_ptr<SharedSegment>(
      new SharedSegment(file.release(), bytes));
}

std::shared_ptr<SharedSegment> SharedSegment::open(
    const PeerProcess& owner,
    int descriptor,
    size_t bytes) {
  const std::string path = "/proc/" + std::to_string(owner.pid) + "/fd/" +
      std::to_string(descriptor);
  file::Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (file.get() < 0) {
    fail("cannot open", path);
  }
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) {
    fail("cannot read", path);
  }
  if (status.st_size != static_cast<off_t>(bytes)) {
    throw base::Error(
        base::ExitCode::unavailable,
        path + " has " + std::to_string(status.st_size) + " bytes, not " +
            std::to_string(bytes),
        "",
        "start all ranks with the same version of the program");
  }
  std::shared_ptr<SharedSegment> segment(
      new SharedSegment(file.release(), bytes));
  segment->close_descriptor();
  return segment;
}

} // namespace deepspeed::comm
