// How a kernel file is compiled for several instruction sets and called.
//
// A kernel file includes this first, then (with HWY_TARGET_INCLUDE naming the
// file itself) hwy/foreach_target.h, then simd_inl.h (or
// float16_inl.h, for fp16 too). Highway's targets that
// are not worth their compile time are left out.
#pragma once

#if defined(__aarch64__)
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#else
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#include <hwy/targets.h>

namespace deepspeed::kernels {

// Obeys DS_CPU_ISA, once. Throws base::Error when it cannot be obeyed.
void choose_isa();

} // namespace deepspeed::kernels

// Like HWY_DYNAMIC_DISPATCH, for functions after HWY_EXPORT.
#define DS_DISPATCH(function) \
  (deepspeed::kernels::choose_isa(), HWY_DYNAMIC_DISPATCH(function))

// For a template `NAME_range(const Args<T>&, int64_t begin, int64_t end)` in
// HWY_NAMESPACE: DS_RANGE_KERNEL, there, makes functions that can be exported;
// DS_RANGE_ENTRY, after the namespaces, defines NAME of the public header, for
// float, BFloat16 and Float16.
#define DS_RANGE_KERNEL(name, Args)                                        \
  void name##_float(const Args<float>& args, int64_t begin, int64_t end) { \
    name##_range(args, begin, end);                                        \
  }                                                                        \
  void name##_bfloat16(                                                    \
      const Args<base::BFloat16>& args, int64_t begin, int64_t end) {      \
    name##_range(args, begin, end);                                        \
  }                                                                        \
  void name##_float16(                                                     \
      const Args<base::Float16>& args, int64_t begin, int64_t end) {       \
    name##_range(args, begin, end);                                        \
  }
#define DS_RANGE_ENTRY(name, Args)                                          \
  HWY_EXPORT(name##_float);                                                 \
  HWY_EXPORT(name##_bfloat16);                                              \
  HWY_EXPORT(name##_float16);                                               \
  template <>                                                               \
  void name(const Args<float>& args, int64_t begin, int64_t end) {          \
    DS_DISPATCH(name##_float)(args, begin, end);                            \
  }                                                                         \
  template <>                                                               \
  void name(const Args<base::BFloat16>& args, int64_t begin, int64_t end) { \
    DS_DISPATCH(name##_bfloat16)(args, begin, end);                         \
  }                                                                         \
  template <>                                                               \
  void name(const Args<base::Float16>& args, int64_t begin, int64_t end) {  \
    DS_DISPATCH(name##_float16)(args, begin, end);                          \
  }
