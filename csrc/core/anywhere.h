// Functions that the CPU's and the GPU's kernels share.

#pragma once

#ifdef __CUDACC__
#define GEOKERNELS_ANYWHERE __host__ __device__
#else
#define GEOKERNELS_ANYWHERE
#endif
