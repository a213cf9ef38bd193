// The module against stand-ins for CUDA and NCCL that do as they are told: what
// it calls, how long it waits, and what it leaves behind.
#include "deepspeed/cuda/module.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <nccl.h>

#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Fake {
  std::vector<std::string> calls;
  std::deque<ncclResult_t> results; // of the next calls; ncclSuccess after them
  std::deque<ncclResult_t> states; // of ncclCommGetAsyncError
  std::deque<cudaError_t> queries; // of cudaEventQuery
  ncclResult_t last_state = ncclSuccess; // when `states` is empty
  cudaError_t last_query = cudaSuccess;
  int nccl_version = NCCL_VERSION_CODE;
  int device = 3;

  static std::string text(const void* pointer) {
    return std::to_string(reinterpret_cast<intptr_t>(pointer));
  }
  ncclResult_t note(const std::string& call) {
    calls.push_back(call);
    return next(results, ncclSuccess);
  }
  template <typename T>
  static T next(std::deque<T>& queue, T last) {
    if (queue.empty()) {
      return last;
    }
    const T value = queue.front();
    queue.pop_front();
    return value;
  }
} fake;

void* const kStream = reinterpret_cast<void*>(77);

std::string part(size_t count, int rank) {
  return " " + std::to_string(count) + " @" + std::to_string(rank);
}

} // namespace

// What the module asks of CUDA and NCCL.
ncclResult_t ncclGetVersion(int* version) {
  *version = fake.nccl_version;
  return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id, 5, sizeof *id);
  return fake.note("id");
}
ncclResult_t ncclCommInitRankConfig(
    ncclComm_t* comm,
    int size,
    ncclUniqueId id,
    int rank,
    ncclConfig_t* config) {
  EXPECT_EQ(id.internal[127], 5);
  EXPECT_EQ(config->blocking, 0);
  EXPECT_EQ(fake.device, 1);
  *comm = reinterpret_cast<ncclComm_t>(9);
  return fake.note("init" + part(size, rank));
}
ncclResult_t ncclCommFinalize(ncclComm_t) {
  return fake.note("finalize");
}
ncclResult_t ncclCommDestroy(ncclComm_t) {
  return fake.note("destroy");
}
ncclResult_t ncclCommAbort(ncclComm_t) {
  return fake.note("abort");
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* state) {
  *state = Fake::next(fake.states, fake.last_state);
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote" : "other";
}
const char* ncclGetLastError(ncclComm_t) {
  return "details";
}
ncclResult_t ncclGroupStart() {
  return fake.note("start");
}
ncclResult_t ncclGroupEnd() {
  return fake.note("end");
}
ncclResult_t ncclSend(
    const void* data,
    size_t count,
    ncclDataType_t,
    int peer,
    ncclComm_t,
    cudaStream_t stream) {
  EXPECT_EQ(stream, kStream);
  return fake.note("send " + Fake::text(data) + part(count, peer));
}
ncclResult_t ncclRecv(
    void* data,
    size_t count,
    ncclDataType_t,
    int peer,
    ncclComm_t,
    cudaStream_t) {
  return fake.note("receive " + Fake::text(data) + part(count, peer));
}
ncclResult_t ncclBroadcast(
    const void* from,
    void* data,
    size_t count,
    ncclDataType_t,
    int root,
    ncclComm_t,
    cudaStream_t) {
  EXPECT_EQ(from, data);
  return fake.note("broadcast " + Fake::text(data) + part(count, root));
}
ncclResult_t ncclAllGather(
    const void* from,
    void* data,
    size_t count,
    ncclDataType_t,
    ncclComm_t,
    cudaStream_t) {
  return fake.note(
      "gather " + Fake::text(from) + " " + Fake::text(data) + part(count, 0));
}
cudaError_t cudaGetDevice(int* device) {
  *device = fake.device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  fake.device = device;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) {
  return "cuda";
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  *event = reinterpret_cast<cudaEvent_t>(11);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) {
  fake.calls.push_back("free");
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  fake.calls.push_back("record");
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) {
  return Fake::next(fake.queries, fake.last_query);
}

namespace deepspeed::cuda {
namespace {

using testing::ElementsAre;
using testing::StartsWith;

class CudaModule : public testing::Test {
 protected:
  void SetUp() override {
    fake = Fake();
  }
  void TearDown() override {
    EXPECT_EQ(fake.device, 3) << "the caller's device";
  }

  // As rank 1 of 3 on device 1.
  const char* join(double seconds = 100) {
    const std::vector<char> id(kIdBytes, 5);
    const Module::Place place{1, 3, 1, seconds};
    return module_.join(id.data(), &place, &communicator_);
  }
  std::vector<std::string> taken() {
    return std::exchange(fake.calls, {});
  }
  static void* at(intptr_t place) {
    return reinterpret_cast<void*>(place);
  }

  const Module& module_ = *deepspeed_cuda_module();
  Communicator* communicator_ = nullptr;
};

TEST_F(CudaModule, AnswersForItsVersionAndThatOfNccl) {
  EXPECT_EQ(module_.version, kModuleVersion);
  EXPECT_EQ(module_.check(), nullptr);
  fake.nccl_version = NCCL_VERSION(2, 10, 3);
  EXPECT_THAT(module_.check(), StartsWith("NCCL is of version code 21003"));
  std::vector<char> id(kIdBytes);
  EXPECT_EQ(module_.make_id(id.data()), nullptr);
  EXPECT_EQ(id.back(), 5);
  fake.results = {ncclSystemError};
  EXPECT_STREQ(module_.make_id(id.data()), "other: details");
}

TEST_F(CudaModule, JoinsAndLeaves) {
  fake.results = {ncclInProgress};
  fake.states = {ncclInProgress, ncclInProgress};
  ASSERT_EQ(join(), nullptr);
  EXPECT_THAT(taken(), ElementsAre("init 3 @1"));
  fake.results = {ncclInProgress};
  fake.states = {ncclInProgress};
  module_.leave(communicator_);
  EXPECT_THAT(taken(), ElementsAre("finalize", "destroy", "free"));
  module_.leave(nullptr);
}

TEST_F(CudaModule, AFailureOfJoiningLeavesNothing) {
  fake.results = {ncclInProgress};
  fake.states = {ncclInProgress, ncclRemoteError};
  EXPECT_STREQ(join(), "remote: details");
  EXPECT_EQ(communicator_, nullptr);
  EXPECT_THAT(taken(), ElementsAre("init 3 @1", "abort", "free"));
  fake.results = {ncclInProgress};
  fake.last_state = ncclInProgress;
  EXPECT_STREQ(
      join(0.01), "no answer from the other ranks within 0.01 seconds");
  EXPECT_THAT(taken(), ElementsAre("init 3 @1", "abort", "free"));
}

TEST_F(CudaModule, ExchangesAsOneGroup) {
  ASSERT_EQ(join(), nullptr);
  taken();
  const std::vector<Message> messages = {
      {0, at(100), 8, at(200), 4}, {2, at(300), 0, at(400), 6}};
  // The end is under way for a time.
  fake.results = {ncclSuccess, ncclSuccess, ncclSuccess, ncclInProgress};
  fake.results.push_back(ncclInProgress);
  fake.states = {ncclInProgress};
  EXPECT_EQ(
      module_.exchange(communicator_, messages.data(), 2, kStream), nullptr);
  EXPECT_TRUE(fake.states.empty());
  EXPECT_THAT(
      taken(),
      ElementsAre(
          "start",
          "send 100 8 @0",
          "receive 200 4 @0",
          "receive 400 6 @2",
          "end"));
  module_.leave(communicator_);
}

TEST_F(CudaModule, AFailureEndsTheGroupAndTheCommunicator) {
  ASSERT_EQ(join(), nullptr);
  taken();
  const std::vector<Message> messages = {{0, at(100), 8, at(200), 4}};
  fake.results = {ncclSuccess, ncclRemoteError};
  EXPECT_STREQ(
      module_.exchange(communicator_, messages.data(), 1, kStream),
      "remote: details");
  EXPECT_THAT(taken(), ElementsAre("start", "send 100 8 @0", "end", "abort"));
  EXPECT_STREQ(
      module_.finish(communicator_, kStream),
      "the communicator has failed before");
  module_.leave(communicator_);
  EXPECT_THAT(taken(), ElementsAre("free"));
}

TEST_F(CudaModule, GathersEvenAndUnevenRanges) {
  ASSERT_EQ(join(), nullptr);
  taken();
  const std::vector<int64_t> even = {10, 14, 18, 22};
  EXPECT_EQ(
      module_.gather(communicator_, at(1000), even.data(), kStream), nullptr);
  EXPECT_THAT(taken(), ElementsAre("start", "gather 1014 1010 4 @0", "end"));
  const std::vector<int64_t> uneven = {0, 4, 4, 9};
  EXPECT_EQ(
      module_.gather(communicator_, at(1000), uneven.data(), kStream), nullptr);
  EXPECT_THAT(
      taken(),
      ElementsAre(
          "start", "broadcast 1000 4 @0", "broadcast 1004 5 @2", "end"));
  const std::vector<int64_t> empty = {3, 3, 3, 3};
  EXPECT_EQ(
      module_.gather(communicator_, at(1000), empty.data(), kStream), nullptr);
  EXPECT_EQ(module_.broadcast(communicator_, at(1000), 0, 2, kStream), nullptr);
  EXPECT_THAT(taken(), ElementsAre("start", "end", "start", "end"));
  EXPECT_EQ(module_.broadcast(communicator_, at(1000), 6, 2, kStream), nullptr);
  EXPECT_THAT(taken(), ElementsAre("start", "broadcast 1000 6 @2", "end"));
  module_.leave(communicator_);
}

TEST_F(CudaModule, FinishWaitsForTheStream) {
  ASSERT_EQ(join(), nullptr);
  fake.queries = {cudaErrorNotReady, cudaErrorNotReady, cudaSuccess};
  EXPECT_EQ(module_.finish(communicator_, kStream), nullptr);
  EXPECT_TRUE(fake.queries.empty());
  module_.leave(communicator_);
}

TEST_F(CudaModule, FinishSeesWhatFailsMeanwhile) {
  ASSERT_EQ(join(), nullptr);
  fake.last_query = cudaErrorNotReady;
  fake.states = {ncclSuccess, ncclRemoteError};
  EXPECT_STREQ(module_.finish(communicator_, kStream), "remote: details");
  module_.leave(communicator_);

  ASSERT_EQ(join(0.01), nullptr);
  taken();
  EXPECT_THAT(
      module_.finish(communicator_, kStream), StartsWith("no answer from"));
  EXPECT_THAT(taken(), ElementsAre("record", "abort"));
  module_.leave(communicator_);

  ASSERT_EQ(join(), nullptr);
  fake.last_query = cudaErrorIllegalAddress;
  EXPECT_STREQ(module_.finish(communicator_, kStream), "cuda");
  module_.leave(communicator_);
}

} // namespace
} // namespace deepspeed::cuda
