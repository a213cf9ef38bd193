// A file mapped into memory for reading.
#include "deepspeed/file/mapped_file.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/file/open_file.h"

namespace deepspeed::file {

// Never freed, but used again: the handler walks the list at any time.
struct MappedRegion {
  std::atomic<bool> taken{true};
  std::atomic<uintptr_t> begin{0}; // 0: no mapping
  std::atomic<size_t> size{0};
  std::atomic<int> watches{0};
  std::atomic<size_t> fault{0}; // 1 + the first byte that could not be read
  std::array<char, 1024> path{}; // as much as a message needs
  MappedRegion* next = nullptr;
};

namespace {

std::atomic<MappedRegion*> regions{nullptr};
struct sigaction previous_action {};
size_t page_bytes = 4096;
static_assert(std::atomic<uintptr_t>::is_always_lock_free);

void say(const char* text) {
  [[maybe_unused]] const ssize_t n =
      ::write(STDERR_FILENO, text, std::strlen(text));
}

[[noreturn]] void end_with_words(const MappedRegion& region) {
  say("error: a part of the file cannot be read: the disk fails, or the file "
      "was cut short\n  ");
  say(region.path.data());
  say("\n  hint: look at the disk (dmesg), or take the file from another "
      "place\n");
  ::_exit(static_cast<int>(base::ExitCode::io));
}

// Puts a page of zeros where the file could not be read, and notes it.
bool mend(MappedRegion& region, uintptr_t address) {
  const uintptr_t begin = region.begin;
  const uintptr_t page = address / page_bytes * page_bytes;
  void* const zeros = ::mmap(
      reinterpret_cast<void*>(page),
      page_bytes,
      PROT_READ,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
      -1,
      0);
  size_t none = 0;
  region.fault.compare_exchange_strong(none, page - begin + 1);
  return zeros != MAP_FAILED;
}

// Only async-signal-safe calls: atomics, mmap, write, _exit, sigaction.
void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (MappedRegion* region = regions; region != nullptr;
       region = region->next) {
    const uintptr_t begin = region->begin;
    if (begin == 0 || address < begin || address - begin >= region->size) {
      continue;
    }
    if (region->watches == 0 || !mend(*region, address)) {
      end_with_words(*region);
    }
    errno = saved_errno;
    return;
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else {
    ::sigaction(SIGBUS, &previous_action, nullptr); // the read faults again
  }
}

bool install_handler() {
  page_bytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, &previous_action) == 0;
}

MappedRegion* take_region() {
  for (MappedRegion* region = regions; region != nullptr;
       region = region->next) {
    bool free = false;
    if (region->taken.compare_exchange_strong(free, true)) {
      return region;
    }
  }
  auto* region = new MappedRegion;
  region->next = regions;
  while (!regions.compare_exchange_weak(region->next, region)) {
  }
  return region;
}

MappedRegion* add_region(
    const std::string& path,
    const std::byte* data,
    size_t size) {
  [[maybe_unused]] static const bool installed = install_handler();
  MappedRegion* region = take_region();
  region->path.fill('\0');
  std::copy_n(
      path.data(),
      std::min(path.size(), region->path.size() - 1),
      region->path.data());
  region->fault = 0;
  region->watches = 0;
  region->size = size;
  region->begin = reinterpret_cast<uintptr_t>(data);
  return region;
}

} // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor file = open_to_read(path);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    throw base::Error(base::ExitCode::no_input, "not a regular file", path, "");
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* address =
        ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address == MAP_FAILED) {
      throw base::system_error(
          base::ExitCode::no_input, "cannot map", path, errno);
    }
    data_ = static_cast<const std::byte*>(address);
    region_ = add_region(path, data_, size_);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    region_->begin = 0;
    region_->taken = false;
    ::munmap(const_cast<std::byte*>(data_), size_);
  }
}

void MappedFile::check() const {
  const size_t fault = region_ == nullptr ? 0 : region_->fault.load();
  if (fault != 0) {
    throw base::Error(
        base::ExitCode::data,
        "cannot read the file at byte " + std::to_string(fault - 1) +
            ": the disk fails, or the file was cut short",
        path_,
        "look at the disk (dmesg), or take the file from another place");
  }
}

MappedFile::Watch::Watch(const MappedFile& file) : region(file.region_) {
  if (region != nullptr) {
    ++region->watches;
  }
}

MappedFile::Watch::~Watch() {
  if (region != nullptr) {
    --region->watches;
  }
}

void MappedFile::release_pages() const {
  if (data_ != nullptr) {
    ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      region_(std::exchange(other.region_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(region_, other.region_);
  return *this;
}

} // namespace deepspeed::file
