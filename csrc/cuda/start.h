// Starts kernels, and makes each ready once a device before its first start.
//
// Ready: loaded, and allowed all the shared memory that a block can have. That allowance is a state of the
// kernel, not of a launch: were it what each launch needs, a thread could lower it between another thread's
// setting and launch. Code is loaded at first use; a stream that is being captured forbids what that may need
// of its thread, unless the thread says that it is sure.
//
// Knows of CUDA's runtime alone, for which tests have a stand-in.

#pragma once

#ifndef GEOKERNELS_CUDA_ON_HOST
#include <cuda_runtime.h>
#endif

#include <cstddef>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

namespace geokernels {

// Does what a capture that goes on might otherwise forbid this thread.
template <class Work>
cudaError_t during_capture(const Work& work) {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  if (const cudaError_t status = cudaThreadExchangeStreamCaptureMode(&mode); status != cudaSuccess)
    return status;
  const cudaError_t done = work(), back = cudaThreadExchangeStreamCaptureMode(&mode);
  return done != cudaSuccess ? done : back;
}

inline cudaError_t load_and_allow(const void* kernel, int device) {
  cudaFuncAttributes own;
  int most = 0;
  cudaError_t status = cudaFuncGetAttributes(&own, kernel);
  if (status == cudaSuccess)
    status = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (status == cudaSuccess)
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  most - int(own.sharedSizeBytes));
  return status;
}

// On the current device.
inline cudaError_t make_ready(const void* kernel) {
  static std::mutex one_at_a_time;
  static std::set<std::pair<const void*, int>> ready;
  int device = 0;
  if (const cudaError_t status = cudaGetDevice(&device); status != cudaSuccess) return status;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  if (ready.count({kernel, device})) return cudaSuccess;
  const cudaError_t status = during_capture([&] { return load_and_allow(kernel, device); });
  if (status == cudaSuccess) ready.insert({kernel, device});
  return status;
}

// What came of a start.
struct Started {
  cudaError_t status;
  bool before;  // whether it was the last error already when the start began
};

// Failures of a kernel that ran: whoever calls CUDA next is told.
inline bool is_of_running(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorLaunchFailure:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
      return true;
    default:
      return false;
  }
}

template <class... Parameters, class... Arguments>
Started start(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, size_t memory,
              cudaStream_t stream, const Arguments&... arguments) {
  // what others have left undone, and not asked after, is not ours to report, unless it stops us
  const cudaError_t left = cudaPeekAtLastError();
  const void* const code = reinterpret_cast<const void*>(kernel);
  cudaError_t status = make_ready(code);
  if (status == cudaSuccess) {
    std::tuple<Parameters...> values(arguments...);
    status = std::apply(
        [&](auto&... value) {
          void* addresses[] = {&value...};
          return cudaLaunchKernel(code, dim3(blocks), dim3(threads), addresses, memory, stream);
        },
        values);
  }
  const bool before = status != cudaSuccess && (status == left || is_of_running(status));
  // our failure is told by us, and nobody else is to find it
  if (status != cudaSuccess && !before) cudaGetLastError();
  return {status, before};
}

}  // namespace geokernels
