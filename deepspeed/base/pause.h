// One turn of a loop that waits without sleeping.
#pragma once

namespace deepspeed::base {

// Some 10 to 50 ns, in which the processor may do something else.
inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

} // namespace deepspeed::base
