// Ends a program whose current folder was deleted, with words: MKL inside
// libtorch would end it before main() with "Cannot load libtorch_cpu.so".
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

namespace {

// Runs before any library's constructor: system calls alone.
void check_folder() {
  char folder[4096];
  errno = 0;
  if (::syscall(SYS_getcwd, folder, sizeof(folder)) < 0 && errno == ENOENT) {
    constexpr std::string_view kText =
        "error: the current folder was deleted\n"
        "  hint: change to one that exists: cd\n";
    [[maybe_unused]] const ssize_t n =
        ::write(STDERR_FILENO, kText.data(), kText.size());
    ::_exit(66); // base::ExitCode::no_input
  }
}

// The linker's list of what runs first, which only executables have.
[[gnu::section(".preinit_array"),
  gnu::used]] void (*const run_first)() = check_folder;

} // namespace
