// What a program needs of its process before it opens the first file.
#include "deepspeed/base/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <new>
#include <system_error>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::base {
namespace {

// Each in a process of its own: `test` returns what the process ends with.
template <typename Test>
void in_child(int code, Test test) {
  EXPECT_EXIT(::_exit(test()), testing::ExitedWithCode(code), "");
}

TEST(Process, ClosedStandardStreamsAreNoFiles) {
  in_child(0, [] {
    ::close(0);
    ::close(1);
    ::close(2);
    return run_program([] {
      const int fd = ::open("/dev/zero", O_RDONLY);
      return fd > 2 && ::write(1, "x", 1) == 1 && ::write(2, "x", 1) == 1 ? 0
                                                                          : 1;
    });
  });
}

TEST(Process, OutputThatNobodyReadsFailsTheWrite) {
  in_child(0, [] {
    std::signal(SIGPIPE, SIG_DFL);
    int ends[2];
    if (::pipe(ends) != 0) {
      return 2;
    }
    ::close(ends[0]);
    return run_program(
        [&] { return ::write(ends[1], "x", 1) < 0 && errno == EPIPE ? 0 : 1; });
  });
}

TEST(Process, LimitOnFileSizesIsAnError) {
  in_child(74, [] {
    const file::TemporaryFolder folder;
    std::signal(SIGXFSZ, SIG_DFL);
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    return run_program([&] {
      file::write_file_atomically(
          folder.path() + "/x", std::string(10000, 'x'));
      return 0;
    });
  });
}

TEST(Process, DeletedFolderIsNamed) {
  EXPECT_EXIT(
      {
        const file::TemporaryFolder folder;
        std::filesystem::create_directory(folder.path() + "/gone");
        std::filesystem::current_path(folder.path() + "/gone");
        std::filesystem::remove(folder.path() + "/gone");
        ::_exit(run_program([] { return 0; }));
      },
      testing::ExitedWithCode(66),
      "current folder was deleted");
}

TEST(Process, NoMemoryAndNoThreadAreAdvised) {
  const auto ends_with_advice = [](auto fail, const char* words) {
    EXPECT_EXIT(
        ::_exit(run_program([&]() -> int { return fail(); })),
        testing::ExitedWithCode(70),
        words);
  };
  ends_with_advice(
      []() -> int { throw std::bad_alloc(); }, "error: out of memory\n  hint");
  ends_with_advice(
      []() -> int {
        throw std::runtime_error(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. "
            "DefaultCPUAllocator: can't allocate memory: you tried");
      },
      "error: out of memory\n  hint");
  ends_with_advice(
      []() -> int {
        throw std::system_error(
            EAGAIN, std::generic_category(), "thread constructor");
      },
      "error: no more threads.*\n  hint: .*ulimit -u");
  ends_with_advice(
      []() -> int {
        throw std::system_error(ENOMEM, std::generic_category(), "mmap");
      },
      "error: out of memory");
}

} // namespace
} // namespace deepspeed::base
