// The transport over NCCL: its arithmetic with a stand-in for NCCL in host
// memory, and all of it where there are GPUs.
#include "deepspeed/comm/nccl_transport.h"

#include <filesystem>
#include <numeric>
#include <span>

#include "deepspeed/comm/rendezvous.h"
#include "deepspeed/comm/shared_memory_transport.h"
#include "deepspeed/comm/test_gpu.h"
#include "deepspeed/comm/test_stress.h"

namespace deepspeed::comm {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr milliseconds kTimeout = std::chrono::seconds(100);

// What NCCL does, between processes without GPUs.
struct StandIn {
  std::unique_ptr<Transport> wire;
  RankInfo info;
  const char* id_error = nullptr;
  const char* error = nullptr; // of collectives
  int communicators = 0;
} stand_in;

Buffer bytes_at(void* data, int64_t size) {
  return {static_cast<std::byte*>(data), size, at::kByte};
}

const char* make_id(void* id) {
  std::memset(id, 7, cuda::kIdBytes);
  return stand_in.id_error;
}

const char* join(
    const void* id,
    const cuda::Module::Place* place,
    cuda::Communicator** made) {
  const std::vector<char> expected(cuda::kIdBytes, 7);
  EXPECT_EQ(std::memcmp(id, expected.data(), expected.size()), 0);
  EXPECT_EQ(place->rank, stand_in.info.rank);
  EXPECT_EQ(place->size, stand_in.info.world_size);
  EXPECT_EQ(place->seconds, 100);
  *made = reinterpret_cast<cuda::Communicator*>(&stand_in);
  ++stand_in.communicators;
  return nullptr;
}

void leave(cuda::Communicator* communicator) {
  if (communicator != nullptr) {
    --stand_in.communicators;
  }
}

// All ranks get what all ranks send, and take what is for them.
const char* exchange(
    cuda::Communicator*,
    const cuda::Message* messages,
    int64_t count,
    void*) {
  const int size = stand_in.info.world_size;
  const int own = stand_in.info.rank;
  std::vector<int64_t> sent(size * size); // [sender, receiver]
  std::string data;
  for (const cuda::Message& one : std::span(messages, count)) {
    EXPECT_NE(one.peer, own);
    sent[own * size + one.peer] = one.send_bytes;
    data.append(static_cast<const char*>(one.send), one.send_bytes);
  }
  stand_in.wire->all_gather(
      {reinterpret_cast<std::byte*>(sent.data()), size * size, at::kLong},
      even_bounds(size * size, size));
  std::vector<int64_t> bounds{0};
  for (int rank = 0; rank < size; ++rank) {
    const auto row = sent.begin() + rank * size;
    bounds.push_back(bounds.back() + std::accumulate(row, row + size, 0L));
  }
  std::string all(bounds.back(), '\0');
  std::copy(data.begin(), data.end(), all.begin() + bounds[own]);
  stand_in.wire->all_gather(bytes_at(all.data(), bounds.back()), bounds);
  for (const cuda::Message& one : std::span(messages, count)) {
    const auto row = sent.begin() + one.peer * size;
    EXPECT_EQ(one.receive_bytes, row[own]) << "from " << one.peer;
    const int64_t begin =
        bounds[one.peer] + std::accumulate(row, row + own, 0L);
    std::copy_n(
        all.data() + begin, one.receive_bytes, static_cast<char*>(one.receive));
  }
  return stand_in.error;
}

const char* gather(
    cuda::Communicator*,
    void* data,
    const int64_t* bounds,
    void*) {
  const int size = stand_in.info.world_size;
  stand_in.wire->all_gather(
      bytes_at(data, bounds[size]), std::span(bounds, size + 1));
  return stand_in.error;
}

const char* broadcast(
    cuda::Communicator*,
    void* data,
    int64_t bytes,
    int root,
    void*) {
  stand_in.wire->broadcast(bytes_at(data, bytes), root);
  return stand_in.error;
}

constexpr cuda::Module kStandIn = {
    cuda::kModuleVersion,
    [] { return static_cast<const char*>(nullptr); },
    make_id,
    join,
    leave,
    exchange,
    gather,
    broadcast,
    [](cuda::Communicator*, void*) { return stand_in.error; }};

void connect_stand_in(const RankInfo& info) {
  stand_in.info = info;
  stand_in.wire = make_single_transport();
  if (info.world_size > 1) {
    Rendezvous rendezvous(info, kTimeout);
    stand_in.wire =
        make_shared_memory_transport(info, kTimeout, rendezvous).transport;
    stand_in.wire->barrier(); // rank 0 holds the rendezvous until all joined
  }
}

std::unique_ptr<Transport> make_stand_in_transport(const RankInfo& info) {
  NcclOptions options{info.rank, info.world_size, kTimeout};
  options.staging_bytes = 1 << 20; // so that there are several chunks
  return make_nccl_transport(kStandIn, options, *stand_in.wire);
}

class NcclStandIn : public testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Ranks, NcclStandIn, testing::Values(1, 2, 3, 4));

TEST_P(NcclStandIn, MatchesTheDefinitionBitForBit) {
  Ranks ranks(GetParam(), [](const RankInfo& info) {
    connect_stand_in(info);
    {
      ProcessGroup group(
          info.rank, info.world_size, make_stand_in_transport(info));
      EXPECT_EQ(group.name(), "nccl");
      check_collectives(group, Memory::ordinary, kAllDtypes);
      check_maximum(group);
      stress(group, info);
      group.barrier();
    }
    EXPECT_EQ(stand_in.communicators, 0);
  });
  ranks.expect_success();
}

TEST(NcclStandIn, AFailureNamesTheRankAndTheCollective) {
  Ranks ranks(2, [](const RankInfo& info) {
    connect_stand_in(info);
    ProcessGroup group(
        info.rank, info.world_size, make_stand_in_transport(info));
    stand_in.error = "remote process exited";
    const std::string rank = std::to_string(info.rank);
    for (int i = 0; i < 2; ++i) { // the group stays failed
      EXPECT_EQ(
          error_of(
              [&] { group.all_reduce(at::ones({9}), ReduceOp::sum)->wait(); }),
          "69 rank " + rank +
              " failed in reduce_scatter over NCCL: remote process exited");
    }
  });
  ranks.expect_success();
}

TEST(NcclStandIn, AllRanksLearnThatRank0CannotStart) {
  Ranks ranks(2, [](const RankInfo& info) {
    connect_stand_in(info);
    stand_in.id_error = info.rank == 0 ? "no network interface" : nullptr;
    const std::string rank = std::to_string(info.rank);
    EXPECT_EQ(
        error_of([&] { make_stand_in_transport(info); }),
        "69 rank " + rank + " failed in joining over NCCL: " +
            (info.rank == 0 ? "no network interface"
                            : "rank 0 cannot start it"));
    EXPECT_EQ(stand_in.communicators, 0);
  });
  ranks.expect_success();
}

// RTLD_LAZY: what it takes from CUDA need not be there.
TEST(CudaModule, HasTheVersionOfItsHeader) {
  const std::filesystem::path file =
      std::filesystem::path(DS_BINARY_DIR) / "lib" / cuda::kModuleFile;
  // CI builds it; a build without the headers of CUDA and NCCL does without.
  if (!std::filesystem::exists(file)) {
    GTEST_SKIP() << "libdeepspeed_cuda.so is not built here";
  }
  void* const module = ::dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL);
  ASSERT_NE(module, nullptr) << ::dlerror();
  const auto entry = reinterpret_cast<decltype(&deepspeed_cuda_module)>(
      ::dlsym(module, cuda::kModuleEntry));
  ASSERT_NE(entry, nullptr) << ::dlerror();
  EXPECT_EQ(entry()->version, cuda::kModuleVersion);
  EXPECT_NE(entry()->finish, nullptr);
  entry()->leave(nullptr);
  ::dlclose(module);
}

TEST(Nccl, IsRefusedWithoutAGpu) {
  // Where there is a GPU, NCCL is not refused. CI has none.
  if (gpu_count() > 0) {
    GTEST_SKIP() << "there is a GPU";
  }
  for (const int size : {1, 2}) {
    Ranks ranks(size, [](const RankInfo& info) {
      try {
        make_process_group(info, options_of("nccl"));
        ADD_FAILURE() << "no error";
      } catch (const base::Error& error) {
        EXPECT_EQ(error.code(), base::ExitCode::config);
        EXPECT_THAT(error.what(), StartsWith("NCCL is asked for, but "));
        EXPECT_EQ(error.where(), "DS_COMM=nccl or dist_backend");
        EXPECT_THAT(error.hint(), HasSubstr("without NCCL"));
      }
    });
    ranks.expect_success();
  }
}

// CI has no GPU: these run by hand on a machine with one, or two.
class NcclOnGpus : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    const int count = gpu_count();
    if (count < GetParam()) {
      GTEST_SKIP() << "needs " << GetParam() << " GPUs that libtorch can use, "
                   << "and there are " << count;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Ranks, NcclOnGpus, testing::Values(1, 2));

at::Device gpu_of(const RankInfo& info) {
  return {at::kCUDA, static_cast<at::DeviceIndex>(info.local_rank)};
}

TEST_P(NcclOnGpus, MatchTheDefinitionBitForBit) {
  Ranks ranks(GetParam(), [](const RankInfo& info) {
    const auto group = make_process_group(info, options_of("nccl"));
    EXPECT_TRUE(group->has_gpu());
    check_collectives(*group, Memory::ordinary, kAllDtypes, gpu_of(info));
    check_maximum(*group, gpu_of(info));
    // Host memory travels as ever.
    check_collectives(*group, Memory::ordinary, {at::kFloat});
    group->barrier();
  });
  ranks.expect_success();
}

TEST_P(NcclOnGpus, StayRightUnderStress) {
  Ranks ranks(GetParam(), [](const RankInfo& info) {
    const auto group = make_process_group(info, options_of("nccl"));
    stress(*group, info, gpu_of(info));
  });
  ranks.expect_success();
}

TEST_P(NcclOnGpus, ManyChunks) {
  Ranks ranks(GetParam(), [](const RankInfo& info) {
    const auto group = make_process_group(info, options_of("nccl"));
    constexpr int64_t kNumel = 70'000'001; // 280 MB
    at::Tensor data =
        at::full({kNumel}, info.rank + 1.0, at::device(gpu_of(info)));
    group->all_reduce(data, ReduceOp::sum)->wait();
    const double sum = info.world_size * (info.world_size + 1) / 2.0;
    EXPECT_TRUE(at::equal(data, at::full_like(data, sum)));
  });
  ranks.expect_success();
}

TEST_P(NcclOnGpus, ALostRankIsAnError) {
  // The instance for two GPUs does it.
  if (GetParam() == 1) {
    GTEST_SKIP() << "one rank cannot lose another one";
  }
  Ranks ranks(GetParam(), [](const RankInfo& info) {
    const auto group =
        make_process_group(info, options_of("nccl", std::chrono::seconds(10)));
    at::Tensor data = at::ones({1000}, at::device(gpu_of(info)));
    group->all_reduce(data, ReduceOp::sum)->wait();
    if (info.rank == 1) {
      std::fflush(nullptr);
      ::_exit(testing::Test::HasFailure() ? 1 : 0);
    }
    EXPECT_THAT(
        error_of([&] { group->all_reduce(data, ReduceOp::sum)->wait(); }),
        StartsWith("69 rank 0 failed in reduce_scatter over NCCL: "));
  });
  ranks.expect_success();
}

} // namespace
} // namespace deepspeed::comm
