// Reading loss scalers.
#include "deepspeed/checkpoint/zero_load_scaler.h"

#include <cmath>

#include "deepspeed/checkpoint/zero_keys.h"

namespace deepspeed::checkpoint::zero_load {
namespace {

using namespace zero_keys;

void read(const formats::Field& from, std::string_view key, double* out) {
  if (const auto found = from.find(key); found && !found->is_none()) {
    *out = found->real();
    if (!std::isfinite(*out) || *out <= 0) {
      found->fail("expected a positive number");
    }
  }
}

void read(const formats::Field& from, std::string_view key, int64_t* out) {
  if (const auto found = from.find(key); found && !found->is_none()) {
    *out = found->integer();
  }
}

void read(const formats::Field& from, std::string_view key, bool* out) {
  if (const auto found = from.find(key); found && !found->is_none()) {
    *out = found->boolean();
  }
}

void read_common(const formats::Field& from, LossScalerState* out) {
  read(from, kCurScale, &out->scale);
  read(from, kCurIter, &out->iteration);
  read(from, kLastOverflowIter, &out->last_overflow);
  read(from, kScaleFactor, &out->factor);
  read(from, kScaleWindow, &out->window);
}

void read_hysteresis(const formats::Field& from, LossScalerState* out) {
  read(from, kMinScale, &out->min_scale);
  read(from, kDelayedShift, &out->hysteresis);
  read(from, kCurHysteresis, &out->hysteresis_left);
  read(from, kConsecutiveHysteresis, &out->consecutive_hysteresis);
}

} // namespace

LossScalerState read_loss_scaler(const formats::Field& field) {
  const formats::Object* object = field.value().object();
  if (object == nullptr ||
      (object->name != kLossScalerClass &&
       object->name != kDynamicLossScalerClass)) {
    field.fail(
        "expected a loss scaler, found " + formats::describe(field.value()));
  }
  const formats::Field state(
      object->state, field.file() + ": " + field.place());
  LossScalerState out;
  out.dynamic = object->name == kDynamicLossScalerClass;
  read_common(state, &out);
  read_hysteresis(state, &out);
  return out;
}

LossScalerState read_stage0_scaler(
    const formats::Field& optimizer,
    const std::optional<formats::Field>& own) {
  LossScalerState out;
  read(optimizer, kDynamicLossScale, &out.dynamic);
  read_common(optimizer, &out);
  if (own) {
    read_hysteresis(*own, &out);
  }
  return out;
}

} // namespace deepspeed::checkpoint::zero_load
