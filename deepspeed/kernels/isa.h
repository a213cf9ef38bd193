// Which instruction set the kernels run on.
//
// Every kernel is compiled for several instruction sets; the best one of the
// machine is chosen at the first call. The environment variable DS_CPU_ISA
// (scalar, avx2, avx512, avx512_bf16, amx, neon) forces one; one that the
// machine lacks is an error, never a silent downgrade.
//
// avx512_bf16 is avx512 with products of pairs of bfloat16, wherever there are
// products; amx is avx512 with matrix products of pairs in tile registers.
#pragma once

#include <string>
#include <vector>

namespace deepspeed::kernels {

// The names of the instruction sets that this build has kernels for and this
// machine can run, best first; "scalar" is always among them on x86.
std::vector<std::string> available_isas();

// The name of the one in use. Throws base::Error for a bad DS_CPU_ISA.
std::string active_isa();

// Whether the one in use has vdpbf16ps.
bool multiplies_bfloat16();
// Whether the one in use has vcvtneps2bf16; for inner loops, which run after
// the choice.
extern bool rounds_in_hardware;
// Whether the one in use has tiles.
bool has_tiles();

// Uses this one from now on, for all threads. Not while kernels run. Throws
// base::Error when the machine or the build lacks it.
void force_isa(const std::string& name);

} // namespace deepspeed::kernels
