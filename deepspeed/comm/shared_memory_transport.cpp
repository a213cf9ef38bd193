// Every rank reads the memory of its peers; nothing is sent.
//
// Tensors from allocate() lie in segments that all ranks map: a collective on
// them is one meeting, the work, and one meeting more. Other tensors go through
// a staging area in chunks, in two halves by turns: a rank that has met the
// others for chunk j knows that all are done with chunk j - 1, so it may write
// chunk j + 1 into the half of chunk j - 1.
#include "deepspeed/comm/shared_memory_transport.h"

#include <ATen/Functions.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/comm/rank_sync.h"
#include "deepspeed/comm/rendezvous.h"
#include "deepspeed/comm/shared_segment.h"

namespace deepspeed::comm {
namespace {

constexpr size_t kHalfBytes = size_t{1} << 20; // stays in the cache
constexpr int64_t kPieceBytes = 32 << 10; // is written while it is in the cache
constexpr size_t kHeaderBytes = 4096;
constexpr int64_t kAlignment = 64; // of the pieces in the staging area

enum class Operation : int32_t {
  all_reduce,
  reduce_scatter,
  all_gather,
  broadcast,
  barrier,
  allocate,
};

const char* name_of(Operation operation) {
  constexpr std::array<const char*, 6> kNames{
      "all_reduce",
      "reduce_scatter",
      "all_gather",
      "broadcast",
      "barrier",
      "allocate"};
  const auto index = static_cast<size_t>(operation);
  return index < kNames.size() ? kNames[index] : "unknown collective";
}

// What a rank is about to do. The first part must be equal on all ranks.
struct Call {
  Operation operation{};
  int32_t dtype = 0;
  int64_t numel = 0;
  int64_t argument = 0; // root, or ReduceOp
  uint64_t bounds_hash = 0;
  // Where the data lies: the index of a segment, or -1 for private memory.
  int32_t segment = -1;
  int32_t descriptor = -1; // of a new segment
  int64_t offset = 0; // bytes

  bool agrees_with(const Call& other) const {
    return is_like(other) && bounds_hash == other.bounds_hash;
  }
  // But for the ranges.
  bool is_like(const Call& other) const {
    return operation == other.operation && dtype == other.dtype &&
        numel == other.numel && argument == other.argument;
  }
  std::string text() const {
    std::string result = name_of(operation);
    if (operation != Operation::barrier) {
      result += " of " + std::to_string(numel) + " " +
          c10::toString(static_cast<at::ScalarType>(dtype));
    }
    return result;
  }
};

// The start of each rank's first segment; its staging area follows. Two calls
// by turns: a rank may announce the next while a peer still reads this one.
struct Header {
  RankCounter counter;
  std::array<Call, 2> calls;
};
static_assert(sizeof(Header) <= kHeaderBytes);

uint64_t hash_of(std::span<const int64_t> bounds) {
  uint64_t hash = 14695981039346656037u; // FNV-1a, by words
  for (const int64_t bound : bounds) {
    hash = (hash ^ static_cast<uint64_t>(bound)) * 1099511628211u;
  }
  return hash;
}

// One segment of each rank, all of the same size.
using Segments = std::vector<std::shared_ptr<SharedSegment>>;

class SharedMemoryTransport : public Transport {
 public:
  SharedMemoryTransport(Segments staging, SyncOptions options)
      : rank_(options.rank),
        segments_{std::move(staging)},
        processes_(options.processes),
        sync_(counters(segments_[0]), std::move(options)) {}

  std::string name() const override {
    return "shared memory";
  }
  void all_reduce(const Buffer& data, ReduceOp op) override;
  void reduce_scatter(
      const Buffer& data,
      std::span<const int64_t> bounds,
      ReduceOp op) override;
  void all_gather(const Buffer& data, std::span<const int64_t> bounds) override;
  void broadcast(const Buffer& data, int root) override;
  void barrier() override;
  at::Tensor allocate(int64_t numel, at::ScalarType dtype) override;

 private:
  int size() const override {
    return static_cast<int>(segments_[0].size());
  }
  static std::vector<RankCounter*> counters(const Segments& segments);
  static Header& header(const Segments& segments, int rank) {
    return *reinterpret_cast<Header*>(segments[rank]->data());
  }
  // Announces a call and meets the other ranks. Throws when they differ.
  void begin(Call call, const Buffer& data);
  const Call& call_of(int rank) const {
    return header(segments_[0], rank).calls[calls_ % 2];
  }
  void locate(const Buffer& data, Call& call) const;
  // The data of each rank where all lie in shared memory, else nothing.
  std::vector<std::byte*> shared_data() const;
  // The half of the staging area that is in turn.
  std::byte* half(int rank) const {
    return segments_[0][rank]->data() + kHeaderBytes +
        (chunks_ % 2) * kHalfBytes;
  }
  // Elements of a piece when `pieces` of them share a half.
  int64_t piece_length(const Buffer& data, int pieces) const;

  int rank_;
  std::vector<Segments> segments_; // [0] is the staging area
  std::vector<PeerProcess> processes_;
  RankSync sync_;
  uint64_t calls_ = 0;
  uint64_t chunks_ = 0;
};

std::vector<RankCounter*> SharedMemoryTransport::counters(
    const Segments& segments) {
  std::vector<RankCounter*> result;
  for (int rank = 0; rank < static_cast<int>(segments.size()); ++rank) {
    result.push_back(&header(segments, rank).counter);
  }
  return result;
}

void SharedMemoryTransport::locate(const Buffer& data, Call& call) const {
  for (size_t i = 1; i < segments_.size(); ++i) {
    const SharedSegment& own = *segments_[i][rank_];
    if (data.data >= own.data() && data.data < own.data() + own.size()) {
      call.segment = static_cast<int32_t>(i);
      call.offset = data.data - own.data();
    }
  }
}

void SharedMemoryTransport::begin(Call call, const Buffer& data) {
  call.numel = data.numel;
  call.dtype = static_cast<int32_t>(data.dtype);
  locate(data, call);
  ++calls_;
  header(segments_[0], rank_).calls[calls_ % 2] = call;
  sync_.meet(name_of(call.operation));
  for (int rank = 0; rank < size(); ++rank) {
    const Call& other = call_of(rank);
    if (!other.agrees_with(call)) {
      const std::string differs = other.is_like(call)
          ? other.text() + " in other ranges"
          : other.text();
      throw base::Error(
          base::ExitCode::internal,
          "ranks do not agree: rank " + std::to_string(rank_) + " calls " +
              call.text() + ", rank " + std::to_string(rank) + " calls " +
              differs,
          "",
          "all ranks must call the same collectives in the same order");
    }
  }
}

std::vector<std::byte*> SharedMemoryTransport::shared_data() const {
  std::vector<std::byte*> result;
  for (int rank = 0; rank < size(); ++rank) {
    const Call& call = call_of(rank);
    if (call.segment < 0) {
      return {};
    }
    result.push_back(segments_[call.segment][rank]->data() + call.offset);
  }
  return result;
}

int64_t SharedMemoryTransport::piece_length(const Buffer& data, int pieces)
    const {
  const int64_t bytes =
      static_cast<int64_t>(kHalfBytes) / pieces / kAlignment * kAlignment;
  return std::max<int64_t>(bytes, kAlignment) / data.element_size();
}

// Each rank reduces its part and writes it into the memory of all: nobody else
// reads that part.
void SharedMemoryTransport::all_reduce(const Buffer& data, ReduceOp op) {
  Call call{Operation::all_reduce};
  call.argument = static_cast<int64_t>(op);
  begin(call, data);
  const std::vector<std::byte*> shared = shared_data();
  if (shared.empty()) {
    Transport::all_reduce(data, op);
    return;
  }
  const std::vector<int64_t> bounds = even_bounds(data.numel, size());
  const int64_t element = data.element_size();
  const int64_t length = kPieceBytes / element;
  std::vector<const std::byte*> inputs(size());
  for (int64_t i = bounds[rank_]; i < bounds[rank_ + 1]; i += length) {
    const int64_t numel = std::min(length, bounds[rank_ + 1] - i);
    for (int rank = 0; rank < size(); ++rank) {
      inputs[rank] = shared[rank] + i * element;
    }
    reduce(inputs, numel, data.dtype, op, data.at(i));
    for (int rank = 0; rank < size(); ++rank) {
      if (rank != rank_) {
        std::memcpy(shared[rank] + i * element, data.at(i), numel * element);
      }
    }
  }
  sync_.meet("all_reduce");
}

void SharedMemoryTransport::reduce_scatter(
    const Buffer& data,
    std::span<const int64_t> bounds,
    ReduceOp op) {
  Call call{Operation::reduce_scatter};
  call.argument = static_cast<int64_t>(op);
  call.bounds_hash = hash_of(bounds);
  begin(call, data);
  std::vector<const std::byte*> inputs(size());
  if (const std::vector<std::byte*> shared = shared_data(); !shared.empty()) {
    const int64_t first = bounds[rank_] * data.element_size();
    for (int rank = 0; rank < size(); ++rank) {
      inputs[rank] = shared[rank] + first;
    }
    const int64_t numel = bounds[rank_ + 1] - bounds[rank_];
    reduce(inputs, numel, data.dtype, op, data.at(bounds[rank_]));
    sync_.meet("reduce_scatter");
    return;
  }
  const int64_t length = piece_length(data, size());
  const int64_t count = chunk_count(bounds, length);
  for (int64_t chunk = 0; chunk < count; ++chunk, ++chunks_) {
    const int64_t stride = length * data.element_size();
    for (int rank = 0; rank < size(); ++rank) {
      const Piece piece = piece_of(bounds, rank, chunk, length);
      if (rank != rank_) {
        std::memcpy(
            half(rank_) + rank * stride,
            data.at(piece.begin),
            piece.size * data.element_size());
      }
    }
    sync_.meet("reduce_scatter");
    const Piece own = piece_of(bounds, rank_, chunk, length);
    for (int rank = 0; rank < size(); ++rank) {
      inputs[rank] =
          rank == rank_ ? data.at(own.begin) : half(rank) + rank_ * stride;
    }
    reduce(inputs, own.size, data.dtype, op, data.at(own.begin));
  }
}

void SharedMemoryTransport::all_gather(
    const Buffer& data,
    std::span<const int64_t> bounds) {
  Call call{Operation::all_gather};
  call.bounds_hash = hash_of(bounds);
  begin(call, data);
  const int64_t element = data.element_size();
  if (const std::vector<std::byte*> shared = shared_data(); !shared.empty()) {
    for (int rank = 0; rank < size(); ++rank) {
      if (rank != rank_) {
        std::memcpy(
            data.at(bounds[rank]),
            shared[rank] + bounds[rank] * element,
            (bounds[rank + 1] - bounds[rank]) * element);
      }
    }
    sync_.meet("all_gather");
    return;
  }
  const int64_t length = piece_length(data, 1);
  const int64_t count = chunk_count(bounds, length);
  for (int64_t chunk = 0; chunk < count; ++chunk, ++chunks_) {
    const Piece own = piece_of(bounds, rank_, chunk, length);
    std::memcpy(half(rank_), data.at(own.begin), own.size * element);
    sync_.meet("all_gather");
    for (int rank = 0; rank < size(); ++rank) {
      const Piece piece = piece_of(bounds, rank, chunk, length);
      if (rank != rank_) {
        std::memcpy(data.at(piece.begin), half(rank), piece.size * element);
      }
    }
  }
}

// The root's data are the range of the root, those of the others are empty.
void SharedMemoryTransport::broadcast(const Buffer& data, int root) {
  Call call{Operation::broadcast};
  call.argument = root;
  begin(call, data);
  const int64_t element = data.element_size();
  if (const std::vector<std::byte*> shared = shared_data(); !shared.empty()) {
    if (rank_ != root) {
      std::memcpy(data.data, shared[root], data.numel * element);
    }
    sync_.meet("broadcast");
    return;
  }
  const int64_t length = piece_length(data, 1);
  const std::array<int64_t, 2> bounds{0, data.numel};
  const int64_t count = chunk_count(bounds, length);
  for (int64_t chunk = 0; chunk < count; ++chunk, ++chunks_) {
    const Piece piece = piece_of(bounds, 0, chunk, length);
    if (rank_ == root) {
      std::memcpy(half(root), data.at(piece.begin), piece.size * element);
    }
    sync_.meet("broadcast");
    if (rank_ != root) {
      std::memcpy(data.at(piece.begin), half(root), piece.size * element);
    }
  }
}

void SharedMemoryTransport::barrier() {
  begin(Call{Operation::barrier}, Buffer{});
}

at::Tensor SharedMemoryTransport::allocate(
    int64_t numel,
    at::ScalarType dtype) {
  const Buffer shape{nullptr, numel, dtype};
  const size_t bytes = std::max<int64_t>(numel * shape.element_size(), 1);
  Segments segments(size());
  std::exception_ptr failure;
  Call call{Operation::allocate};
  try {
    segments[rank_] = SharedSegment::create(bytes);
    call.descriptor = segments[rank_]->descriptor();
  } catch (const base::Error&) {
    failure = std::current_exception();
  }
  begin(call, shape);
  for (int rank = 0; rank < size() && !failure; ++rank) {
    const int descriptor = call_of(rank).descriptor;
    if (descriptor < 0) {
      failure = std::make_exception_ptr(base::Error(
          base::ExitCode::unavailable,
          "rank " + std::to_string(rank) + " cannot get " +
              std::to_string(bytes) + " bytes of shared memory",
          "",
          "its own last lines say why"));
    } else if (rank != rank_) {
      segments[rank] = SharedSegment::open(processes_[rank], descriptor, bytes);
    }
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
  sync_.meet("allocate");
  segments[rank_]->close_descriptor();
  const std::shared_ptr<SharedSegment> own = segments[rank_];
  segments_.push_back(std::move(segments));
  return at::from_blob(
      own->data(), {numel}, [own](void*) {}, at::TensorOptions(dtype));
}

// Each rank's own segment, and those of the others.
Segments open_staging(
    const RankInfo& rank_info,
    const std::vector<PeerProcess>& processes,
    Rendezvous& rendezvous,
    std::string& problem) {
  constexpr size_t kBytes = kHeaderBytes + 2 * kHalfBytes;
  Segments segments(rank_info.world_size);
  std::string descriptor = "-1";
  try {
    segments[rank_info.rank] = SharedSegment::create(kBytes);
    new (segments[rank_info.rank]->data()) Header();
    descriptor = std::to_string(segments[rank_info.rank]->descriptor());
  } catch (const base::Error& error) {
    problem = error.what();
  }
  const std::vector<std::string> descriptors =
      rendezvous.exchange("shm_descriptor", descriptor);
  try {
    for (int rank = 0; rank < rank_info.world_size; ++rank) {
      if (rank != rank_info.rank && problem.empty()) {
        segments[rank] = SharedSegment::open(
            processes[rank], std::stoi(descriptors[rank]), kBytes);
      }
    }
  } catch (const base::Error& error) {
    problem = error.what();
  }
  return segments;
}

} // namespace

SharedMemoryResult make_shared_memory_transport(
    const RankInfo& rank_info,
    std::chrono::milliseconds timeout,
    Rendezvous& rendezvous) {
  SyncOptions options{rank_info.rank, timeout, {}};
  const PeerProcess self = PeerProcess::self();
  for (const std::string& text :
       rendezvous.exchange("process", self.to_text())) {
    options.processes.push_back(PeerProcess::from_text(text));
    if (options.processes.back().scope != options.processes.front().scope) {
      return {
          nullptr, "the ranks are on several hosts, or in several containers"};
    }
  }
  std::string problem;
  Segments segments =
      open_staging(rank_info, options.processes, rendezvous, problem);
  const std::vector<std::string> problems =
      rendezvous.exchange("shm_problem", problem);
  for (int rank = 0; rank < rank_info.world_size; ++rank) {
    if (!problems[rank].empty()) {
      return {nullptr, "rank " + std::to_string(rank) + ": " + problems[rank]};
    }
  }
  segments[rank_info.rank]->close_descriptor();
  return {
      std::make_unique<SharedMemoryTransport>(
          std::move(segments), std::move(options)),
      ""};
}

} // namespace deepspeed::comm
