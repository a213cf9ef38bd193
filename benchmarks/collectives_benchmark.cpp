// Sums and gathers between the ranks of one host, against c10d's Gloo and
// against one copy of the same memory.
//
// usage: collectives_benchmark [RANKS] [MEBIBYTES] [ROUNDS]
//
// Every round runs each line once, so that all meet the same neighbours on the
// machine. Times are of rank 0, medians over the rounds. The sums of all ways
// are compared with each other before anything is printed.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
// Without this, c10d's header is empty.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/comm/process_group.h"

namespace deepspeed::comm {
namespace {

struct Settings {
  int ranks = 2;
  int64_t mebibytes = 32;
  int rounds = 25;
};

int free_port() {
  const int number = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const plain = reinterpret_cast<sockaddr*>(&address);
  ::bind(number, plain, length);
  ::getsockname(number, plain, &length);
  ::close(number);
  return ntohs(address.sin_port);
}

// c10d's own process group, as PyTorch programs use it.
class Peer {
 public:
  Peer(int rank, int size, int port) {
    c10d::TCPStoreOptions store;
    store.port = static_cast<uint16_t>(port);
    store.isServer = rank == 0;
    store.waitWorkers = false;
    auto options = c10d::ProcessGroupGloo::Options::create();
    options->devices = {
        c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")};
    gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::TCPStore>("127.0.0.1", store),
        rank,
        size,
        options);
  }
  void all_reduce(const at::Tensor& data) {
    std::vector<at::Tensor> tensors{data};
    gloo_->allreduce(tensors)->wait();
  }
  void reduce_scatter(at::Tensor out, at::Tensor data) {
    gloo_->_reduce_scatter_base(out, data)->wait();
  }
  void all_gather(at::Tensor data, at::Tensor part) {
    gloo_->_allgather_base(data, part)->wait();
  }

 private:
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
};

struct Line {
  std::string name;
  std::function<void()> run;
  bool is_sum = false; // of all ranks, into `data`
  at::Tensor data;
  std::vector<double> milliseconds;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void print(std::vector<Line>& lines, const Settings& settings) {
  const double copy = median(lines.front().milliseconds);
  std::printf(
      "%d ranks, %lld MiB bf16, %d rounds\n%-44s %8s %8s %7s\n",
      settings.ranks,
      static_cast<long long>(settings.mebibytes),
      settings.rounds,
      "",
      "ms",
      "least",
      "copies");
  for (const Line& line : lines) {
    const double middle = median(line.milliseconds);
    const double least =
        *std::min_element(line.milliseconds.begin(), line.milliseconds.end());
    std::printf(
        "%-44s %8.2f %8.2f %7.2f\n",
        line.name.c_str(),
        middle,
        least,
        middle / copy);
  }
}

struct Groups {
  std::shared_ptr<ProcessGroup> shared;
  std::shared_ptr<ProcessGroup> gloo;
  std::unique_ptr<Peer> peer;
};

Groups join(int rank, const Settings& settings, const int ports[3]) {
  RankInfo info;
  info.rank = info.local_rank = rank;
  info.world_size = info.local_world_size = settings.ranks;
  info.master_addr = "127.0.0.1";
  Groups groups;
  info.master_port = ports[0];
  groups.shared = make_process_group(info, {{}, "shm"});
  info.master_port = ports[1];
  groups.gloo = make_process_group(info, {{}, "gloo"});
  groups.peer = std::make_unique<Peer>(rank, settings.ranks, ports[2]);
  return groups;
}

// `numel` is a multiple of the number of ranks.
std::vector<Line> make_lines(Groups& groups, int64_t numel, int ranks) {
  std::vector<int64_t> bounds;
  for (int i = 0; i <= ranks; ++i) {
    bounds.push_back(numel / ranks * i);
  }
  ProcessGroup* const shared = groups.shared.get();
  ProcessGroup* const gloo = groups.gloo.get();
  Peer* const peer = groups.peer.get();
  const at::Tensor other = at::empty({numel}, at::kBFloat16);
  const at::Tensor own = shared->allocate(numel, at::kBFloat16);
  const at::Tensor part = at::empty({numel / ranks}, at::kBFloat16);
  const at::Tensor target = at::empty({numel}, at::kBFloat16);
  const auto copy = [=] {
    std::memcpy(target.data_ptr(), other.data_ptr(), other.nbytes());
  };
  const auto sum = [](ProcessGroup* group, const at::Tensor& data) {
    return [=] { group->all_reduce(data, ReduceOp::sum)->wait(); };
  };
  const auto scatter = [=](const at::Tensor& data) {
    return [=] { shared->reduce_scatter(data, bounds)->wait(); };
  };
  const auto gather = [=](const at::Tensor& data) {
    return [=] { shared->all_gather(data, bounds)->wait(); };
  };
  return {
      {"copy of the memory, all ranks at once", copy, false, other, {}},
      {"all_reduce, allocate()", sum(shared, own), true, own, {}},
      {"all_reduce, other memory", sum(shared, other), true, other, {}},
      {"all_reduce, ours over Gloo", sum(gloo, other), true, other, {}},
      {"all_reduce, c10d Gloo",
       [=] { peer->all_reduce(other); },
       true,
       other,
       {}},
      {"reduce_scatter, allocate()", scatter(own), false, own, {}},
      {"reduce_scatter, other memory", scatter(other), false, other, {}},
      {"reduce_scatter, c10d Gloo",
       [=] { peer->reduce_scatter(part, other); },
       false,
       other,
       {}},
      {"all_gather, allocate()", gather(own), false, own, {}},
      {"all_gather, other memory", gather(other), false, other, {}},
      {"all_gather, c10d Gloo",
       [=] { peer->all_gather(other, part); },
       false,
       other,
       {}},
  };
}

void run_rank(int rank, const Settings& settings, const int ports[3]) {
  constexpr int kWarmUps = 2;
  constexpr double kTolerance = 0.01; // Gloo rounds bf16 sums of its own
  at::set_num_threads(1);
  Groups groups = join(rank, settings, ports);
  const int64_t numel =
      (settings.mebibytes << 19) / settings.ranks * settings.ranks;
  std::vector<Line> lines = make_lines(groups, numel, settings.ranks);
  const at::Tensor content =
      (at::arange(numel, at::kFloat) + rank).to(at::kBFloat16);
  at::Tensor expected;
  for (int round = -kWarmUps; round < settings.rounds; ++round) {
    for (Line& line : lines) {
      line.data.copy_(content);
      groups.shared->barrier();
      const auto start = std::chrono::steady_clock::now();
      line.run();
      const std::chrono::duration<double, std::milli> time =
          std::chrono::steady_clock::now() - start;
      if (round >= 0) {
        line.milliseconds.push_back(time.count());
        continue;
      }
      if (line.is_sum && !expected.defined()) {
        expected = line.data.to(at::kFloat);
      }
      if (line.is_sum &&
          !at::allclose(line.data.to(at::kFloat), expected, kTolerance)) {
        throw std::runtime_error(line.name + ": another sum than the others");
      }
    }
  }
  groups.shared->barrier();
  if (rank == 0) {
    print(lines, settings);
  }
}

int run(int argc, char** argv) {
  Settings settings;
  settings.ranks = argc > 1 ? std::atoi(argv[1]) : settings.ranks;
  settings.mebibytes = argc > 2 ? std::atoi(argv[2]) : settings.mebibytes;
  settings.rounds = argc > 3 ? std::atoi(argv[3]) : settings.rounds;
  if (settings.ranks < 2 || settings.mebibytes < 1 || settings.rounds < 1) {
    throw base::Error(
        base::ExitCode::usage,
        "at least 2 ranks, 1 MiB and 1 round",
        "",
        "usage: collectives_benchmark [RANKS] [MEBIBYTES] [ROUNDS]");
  }
  const int ports[3] = {free_port(), free_port(), free_port()};
  for (int rank = 1; rank < settings.ranks; ++rank) {
    if (::fork() == 0) {
      ::_exit(base::run_program([&] {
        run_rank(rank, settings, ports);
        return 0;
      }));
    }
  }
  run_rank(0, settings, ports);
  int failures = 0;
  for (int status = 0; ::wait(&status) > 0;) {
    failures += status != 0;
  }
  return failures == 0 ? 0 : 1;
}

} // namespace
} // namespace deepspeed::comm

int main(int argc, char** argv) {
  return deepspeed::base::run_program(
      [&] { return deepspeed::comm::run(argc, argv); });
}
