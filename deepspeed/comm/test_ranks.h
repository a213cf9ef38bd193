// What the tests of comm/ share: running a function as several ranks, each in
// a process of its own.
#pragma once

#include <ATen/Parallel.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/comm/process_group.h"

namespace deepspeed::comm {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// A socket that listens on a free port of the loopback address.
class Listener {
 public:
  Listener() : number_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(number_, plain, length), 0);
    EXPECT_EQ(::listen(number_, 16), 0);
    EXPECT_EQ(::getsockname(number_, plain, &length), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() {
    close();
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  void close() {
    ::close(std::exchange(number_, -1));
  }
  int number() const {
    return number_;
  }
  int port() const {
    return port_;
  }

 private:
  int number_;
  int port_ = 0;
};

// The processes of a test. They are forked: the parent has no threads.
class Ranks {
 public:
  using Body = std::function<void(const RankInfo& info)>;

  Ranks(int size, const Body& body) {
    for (int rank = 0; rank < size; ++rank) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        run(rank, size, body);
      }
      pids_.push_back(pid);
    }
  }
  ~Ranks() {
    for (const pid_t pid : pids_) {
      if (pid > 0) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
      }
    }
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  // This process's copy of the socket of rank 0.
  void close_listener() {
    listener_.close();
  }
  // The status that waitpid() gives.
  int wait(int rank) {
    int status = 0;
    EXPECT_EQ(::waitpid(pids_[rank], &status, 0), pids_[rank]);
    pids_[rank] = 0;
    return status;
  }
  void expect_success() {
    for (int rank = 0; rank < static_cast<int>(pids_.size()); ++rank) {
      EXPECT_EQ(wait(rank), 0) << "rank " << rank;
    }
  }

 private:
  [[noreturn]] void run(int rank, int size, const Body& body) {
    constexpr unsigned kMostSeconds = 120; // on a busy machine
    ::alarm(kMostSeconds);
    at::set_num_threads(1);
    RankInfo info;
    info.rank = info.local_rank = rank;
    info.world_size = info.local_world_size = size;
    info.master_addr = "127.0.0.1";
    info.master_port = listener_.port();
    info.job_id = "test";
    if (rank == 0) {
      const std::string number = std::to_string(listener_.number());
      ::setenv("DS_MASTER_LISTEN_FD", number.c_str(), 1);
    } else {
      ::close(listener_.number());
    }
    try {
      body(info);
    } catch (const std::exception& error) {
      ADD_FAILURE() << "rank " << rank << ": " << error.what();
    }
    std::fflush(nullptr);
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }

  Listener listener_;
  std::vector<pid_t> pids_;
};

inline ProcessGroupOptions options_of(
    const std::string& transport,
    milliseconds timeout = std::chrono::seconds(100)) {
  return {timeout, transport};
}

// The base::Error that `action` throws, as "CODE WHAT"; "" when it does not.
template <typename Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const base::Error& error) {
    return std::to_string(static_cast<int>(error.code())) + " " + error.what();
  }
  return "";
}

} // namespace deepspeed::comm
