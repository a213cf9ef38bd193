// Where the flat weights and gradients of a param group are kept, on this rank.
#include "deepspeed/zero/stores.h"

#include <utility>

#include "deepspeed/flat/large_tensor.h"

namespace deepspeed::zero {
namespace {

using checkpoint::Shard;

at::Tensor part(const at::Tensor& flat, int64_t begin, int64_t end) {
  return flat.narrow(0, begin, end - begin);
}

// Of a sum over [begin, end), the own part to the shard.
void copy_own(
    const Shard& shard,
    int64_t begin,
    int64_t end,
    const at::Tensor& summed,
    const at::Tensor& to) {
  const checkpoint::Overlap own =
      checkpoint::overlap_of(shard, begin, end - begin);
  if (own.numel > 0) {
    to.narrow(0, own.in_shard, own.numel)
        .copy_(summed.narrow(0, own.in_parameter, own.numel));
  }
}

// One buffer in host memory, which the ranks of a host share: the module
// computes with it, and the own shard is a part of it.
class HostWeights : public WeightStore {
 public:
  HostWeights(at::Tensor memory, const Shard& shard)
      : memory_(std::move(memory)),
        own_(memory_.narrow(0, shard.offset, shard.size)) {}

  const at::Tensor& module_weights() const override {
    return memory_;
  }
  const at::Tensor& exchanged() const override {
    return memory_;
  }
  const at::Tensor& own() const override {
    return own_;
  }
  at::Tensor in_host_memory(int64_t begin, int64_t end) const override {
    return part(memory_, begin, end);
  }
  void push_own() override {}
  void push_all() override {}
  void pull(int64_t, int64_t) override {}

 private:
  at::Tensor memory_;
  at::Tensor own_;
};

// The same, and a copy where the module computes.
class OffloadedWeights : public HostWeights {
 public:
  OffloadedWeights(at::Tensor memory, const Shard& shard, at::Device device)
      : HostWeights(std::move(memory), shard),
        copy_(exchanged().to(device, /*non_blocking=*/false, /*copy=*/true)) {}

  const at::Tensor& module_weights() const override {
    return copy_;
  }
  void push_all() override {
    copy_.copy_(exchanged());
  }
  void pull(int64_t begin, int64_t end) override {
    part(exchanged(), begin, end).copy_(part(copy_, begin, end));
  }

 private:
  at::Tensor copy_;
};

// One buffer where the module computes, and a copy of the own shard in host
// memory.
class DeviceWeights : public WeightStore {
 public:
  DeviceWeights(at::Tensor memory, at::Tensor own, const Shard& shard)
      : memory_(std::move(memory)), own_(std::move(own)), shard_(shard) {}

  const at::Tensor& module_weights() const override {
    return memory_;
  }
  const at::Tensor& exchanged() const override {
    return memory_;
  }
  const at::Tensor& own() const override {
    return own_;
  }
  at::Tensor in_host_memory(int64_t begin, int64_t end) const override {
    return part(memory_, begin, end).cpu();
  }
  void push_own() override {
    memory_.narrow(0, shard_.offset, shard_.size).copy_(own_);
  }
  void push_all() override {}
  void pull(int64_t begin, int64_t end) override {
    copy_own(shard_, begin, end, part(memory_, begin, end), own_);
  }

 private:
  at::Tensor memory_;
  at::Tensor own_;
  Shard shard_;
};

// All gradients have a place all the time. Where sums are made in host memory,
// the own shard is a part of them.
class WholeGradients : public GradientStore {
 public:
  WholeGradients(at::Tensor written, at::Tensor exchanged, const Shard& shard)
      : written_(std::move(written)), exchanged_(std::move(exchanged)) {
    shard_ = exchanged_.narrow(0, shard.offset, shard.size);
  }

  at::Tensor whole() const override {
    return written_;
  }
  at::Tensor open(int64_t begin, int64_t end) override {
    return part(written_, begin, end);
  }
  at::Tensor to_exchange(int64_t begin, int64_t end, const at::Tensor& opened)
      override {
    const at::Tensor summed = part(exchanged_, begin, end);
    if (!exchanged_.is_same(written_)) {
      summed.copy_(opened);
    }
    return summed;
  }
  void keep(int64_t, int64_t, const at::Tensor&) override {}

 private:
  at::Tensor written_;
  at::Tensor exchanged_;
};

// The same where sums are made on the device: the own shard is copied.
class DeviceGradients : public GradientStore {
 public:
  DeviceGradients(at::Tensor memory, at::Tensor own, const Shard& shard)
      : memory_(std::move(memory)), place_(shard) {
    shard_ = std::move(own);
  }

  at::Tensor whole() const override {
    return memory_;
  }
  at::Tensor open(int64_t begin, int64_t end) override {
    return part(memory_, begin, end);
  }
  at::Tensor to_exchange(int64_t, int64_t, const at::Tensor& opened) override {
    return opened;
  }
  void keep(int64_t begin, int64_t end, const at::Tensor& summed) override {
    copy_own(place_, begin, end, summed, shard_);
  }

 private:
  at::Tensor memory_;
  Shard place_;
};

// A gradient has a place from its first write until its bucket is summed.
class BucketGradients : public GradientStore {
 public:
  BucketGradients(
      at::Device written,
      at::Device exchanged,
      at::Tensor own,
      const Shard& shard)
      : written_(written), exchanged_(exchanged), place_(shard) {
    shard_ = std::move(own);
  }

  at::Tensor whole() const override {
    return {};
  }
  at::Tensor open(int64_t begin, int64_t end) override {
    return at::empty(
        {end - begin}, at::TensorOptions(at::kFloat).device(written_));
  }
  at::Tensor to_exchange(int64_t, int64_t, const at::Tensor& opened) override {
    return opened.to(exchanged_); // itself, if it is there already
  }
  void keep(int64_t begin, int64_t end, const at::Tensor& summed) override {
    copy_own(place_, begin, end, summed, shard_);
  }

 private:
  at::Device written_;
  at::Device exchanged_;
  Shard place_;
};

at::Tensor zeros_on_device(
    const Placement& placement,
    int64_t padded,
    at::ScalarType dtype) {
  return at::zeros({padded}, at::TensorOptions(dtype).device(placement.device));
}

// What one rank alone uses, beside a module on a GPU or not.
at::Tensor own_host_zeros(
    const Placement& placement,
    int64_t numel,
    at::ScalarType dtype) {
  return placement.device.is_cpu() || !placement.pin_memory
      ? flat::large_zeros(numel, dtype)
      : at::zeros({numel}, at::TensorOptions(dtype).pinned_memory(true));
}

// What the ranks exchange in host memory.
at::Tensor shared_host_zeros(
    const Placement& placement,
    int64_t padded,
    at::ScalarType dtype) {
  return placement.device.is_cpu() || placement.ranks->size() > 1
      ? placement.ranks->allocate(padded, dtype)
      : own_host_zeros(placement, padded, dtype);
}

} // namespace

std::unique_ptr<WeightStore> make_weight_store(
    const Placement& placement,
    int64_t padded,
    const Shard& shard) {
  const at::ScalarType dtype = placement.compute_dtype;
  if (placement.exchange_on_device) {
    return std::make_unique<DeviceWeights>(
        zeros_on_device(placement, padded, dtype),
        own_host_zeros(placement, shard.size, dtype),
        shard);
  }
  at::Tensor host = shared_host_zeros(placement, padded, dtype);
  if (placement.device.is_cpu()) {
    return std::make_unique<HostWeights>(std::move(host), shard);
  }
  return std::make_unique<OffloadedWeights>(
      std::move(host), shard, placement.device);
}

std::unique_ptr<GradientStore> make_gradient_store(
    const Placement& placement,
    int64_t padded,
    const Shard& shard) {
  if (!placement.whole_gradients) {
    return std::make_unique<BucketGradients>(
        placement.device,
        placement.exchange_on_device ? placement.device : at::kCPU,
        own_host_zeros(placement, shard.size, at::kFloat),
        shard);
  }
  if (placement.exchange_on_device) {
    return std::make_unique<DeviceGradients>(
        zeros_on_device(placement, padded, at::kFloat),
        own_host_zeros(placement, shard.size, at::kFloat),
        shard);
  }
  const at::Tensor host = shared_host_zeros(placement, padded, at::kFloat);
  return std::make_unique<WholeGradients>(
      host.to(placement.device), host, shard);
}

} // namespace deepspeed::zero
