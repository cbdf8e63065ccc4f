// cuda/start.h on a stand-in of CUDA's runtime, for tests/kernels/test_cuda_launch.py: what the stand-in
// remembers of kernels, devices and threads is what the documentation says that CUDA remembers.

#define GEOKERNELS_CUDA_ON_HOST

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorMemoryAllocation,
  cudaErrorInvalidDevice,
  cudaErrorStreamCaptureUnsupported,
  cudaErrorIllegalAddress,
  cudaErrorLaunchTimeout,
  cudaErrorLaunchFailure,
  cudaErrorIllegalInstruction,
  cudaErrorMisalignedAddress,
  cudaErrorInvalidAddressSpace,
  cudaErrorInvalidPc,
  cudaErrorHardwareStackError,
  cudaErrorAssert,
  cudaErrorECCUncorrectable,
};
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaStream_t = void*;
struct cudaFuncAttributes {
  size_t sharedSizeBytes;
};
struct dim3 {
  unsigned x;
  explicit dim3(unsigned x) : x(x) {}
};

namespace runtime {

constexpr int kMost = 99 * 1024, kStatic = 512, kWithoutAsking = 48 * 1024;

struct Function {
  int allowed = kWithoutAsking, settings = 0;
  bool loaded = false;
};

std::mutex mutex;
std::map<std::pair<const void*, int>, Function> functions;  // of a kernel on a device
bool capturing = false;
thread_local int device = 0;
thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
thread_local cudaError_t last = cudaSuccess;
std::atomic<cudaError_t> of_running{cudaSuccess};  // of a kernel that ran: every later call returns it
std::atomic<int64_t> sum{0};                       // what kernels were given
std::function<void(size_t memory)> before_launch;

cudaError_t told(cudaError_t status) {
  if (of_running != cudaSuccess) status = of_running;
  if (status != cudaSuccess) last = status;
  return status;
}

// What may allocate on the device is forbidden while a stream is captured, unless the thread is relaxed.
bool forbidden() { return capturing && mode != cudaStreamCaptureModeRelaxed; }

}  // namespace runtime

cudaError_t cudaGetDevice(int* device) {
  *device = runtime::device;
  return runtime::told(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = runtime::kMost;
  return runtime::told(cudaSuccess);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, runtime::mode);
  return runtime::told(cudaSuccess);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void* kernel) {
  if (runtime::forbidden()) return runtime::told(cudaErrorStreamCaptureUnsupported);
  const std::lock_guard<std::mutex> lock(runtime::mutex);
  runtime::functions[{kernel, runtime::device}].loaded = true;
  found->sharedSizeBytes = runtime::kStatic;
  return runtime::told(cudaSuccess);
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  const std::lock_guard<std::mutex> lock(runtime::mutex);
  runtime::Function& function = runtime::functions[{kernel, runtime::device}];
  if (value > runtime::kMost - runtime::kStatic) return runtime::told(cudaErrorInvalidValue);
  function.allowed = value;
  ++function.settings;
  return runtime::told(cudaSuccess);
}

cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void** values, size_t memory, cudaStream_t) {
  if (runtime::before_launch) runtime::before_launch(memory);
  const std::lock_guard<std::mutex> lock(runtime::mutex);
  runtime::Function& function = runtime::functions[{kernel, runtime::device}];
  if (!function.loaded && runtime::forbidden()) return runtime::told(cudaErrorStreamCaptureUnsupported);
  if (int64_t(memory) > function.allowed) return runtime::told(cudaErrorInvalidValue);
  runtime::sum += *static_cast<int64_t*>(values[0]) + *static_cast<int*>(values[1]);
  return runtime::told(cudaSuccess);
}

cudaError_t cudaPeekAtLastError() { return runtime::last; }

cudaError_t cudaGetLastError() { return std::exchange(runtime::last, cudaSuccess); }

#include "cuda/start.h"

namespace {

using geokernels::start;
using geokernels::Started;

template <int Which>
void kernel(int64_t, int) {}

template <int Which>
Started run(size_t memory) {
  return start(kernel<Which>, 3u, 32u, memory, nullptr, int64_t(5), short(2));
}

constexpr size_t kLarge = 90 * 1024, kSmall = 50 * 1024;

}  // namespace

// Two threads with one kernel: the second, of less memory, comes between the first's readiness and launch.
// 1 if both launched.
extern "C" int two_sizes_at_once() {
  std::mutex mutex;
  std::condition_variable changed;
  bool first_is_ready = false, second_is_done = false;
  runtime::before_launch = [&](size_t memory) {
    if (memory != kLarge) return;
    std::unique_lock<std::mutex> lock(mutex);
    first_is_ready = true;
    changed.notify_all();
    changed.wait(lock, [&] { return second_is_done; });
  };
  Started first, second;
  std::thread large([&] { first = run<0>(kLarge); });
  {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return first_is_ready; });
  }
  std::thread small([&] { second = run<0>(kSmall); });
  small.join();
  {
    const std::lock_guard<std::mutex> lock(mutex);
    second_is_done = true;
  }
  changed.notify_all();
  large.join();
  runtime::before_launch = nullptr;
  return first.status == cudaSuccess && second.status == cudaSuccess;
}

// Four threads, two devices, two kernels, many launches: how often an allowance was set; -1 where one failed.
extern "C" int settings() {
  std::atomic<bool> failed{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      runtime::device = t % 2 + 1;
      for (int i = 0; i < 200; ++i)
        if ((i % 2 ? run<1>(kLarge) : run<2>(0)).status != cudaSuccess) failed = true;
    });
  for (std::thread& thread : threads) thread.join();
  int count = 0;
  for (const auto& [key, function] : runtime::functions)
    if (key.second > 0) count += function.settings;
  return failed ? -1 : count;
}

// The first launch of a kernel inside of a capture: 1 if it worked and the thread is as strict as before.
extern "C" int first_launch_in_a_capture() {
  runtime::capturing = true;
  const Started done = run<3>(kLarge);
  runtime::capturing = false;
  return done.status == cudaSuccess && runtime::mode == cudaStreamCaptureModeGlobal;
}

// With an error that somebody else left, or a kernel that failed while it ran: status, whether it is said to
// be from before, and the error that the next to ask finds, as digits.
extern "C" int after(int left, int of_running, int memory) {
  run<4>(0);  // is ready
  runtime::last = cudaError_t(left);
  runtime::of_running = cudaError_t(of_running);
  const Started done = run<4>(size_t(memory));
  runtime::of_running = cudaSuccess;
  return done.status * 100 + done.before * 10 + cudaGetLastError();
}

// What kernels were given by one launch.
extern "C" int given() {
  const int64_t before = runtime::sum;
  run<5>(0);
  return int(runtime::sum - before);
}
