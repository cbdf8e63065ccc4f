#include "cpu/level.h"

#include <atomic>
#include <stdexcept>

namespace geokernels {
namespace {

bool processor_has(Level level) {
#if defined(__x86_64__)
  switch (level) {
    case Level::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             processor_has(Level::avx2);
    case Level::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Level::baseline:
      return true;
  }
#endif
  return level == Level::baseline;
}

Level widest() {
  if (processor_has(Level::avx512)) return Level::avx512;
  if (processor_has(Level::avx2)) return Level::avx2;
  return Level::baseline;
}

std::atomic<Level>& in_force() {
  static std::atomic<Level> level{widest()};
  return level;
}

constexpr Level kLevels[] = {Level::baseline, Level::avx2, Level::avx512};

}  // namespace

Level level() { return in_force().load(std::memory_order_relaxed); }

std::string level_name(Level level) {
  switch (level) {
    case Level::avx512:
      return "avx512";
    case Level::avx2:
      return "avx2";
    case Level::baseline:
      break;
  }
#if defined(__aarch64__)
  return "neon";
#else
  return "baseline";
#endif
}

std::vector<std::string> available_levels() {
  std::vector<std::string> names;
  for (Level level : kLevels)
    if (processor_has(level)) names.push_back(level_name(level));
  return names;
}

void set_level(const std::string& name) {
  for (Level level : kLevels)
    if (processor_has(level) && level_name(level) == name) {
      in_force().store(level, std::memory_order_relaxed);
      return;
    }
  throw std::invalid_argument("this processor has no SIMD level '" + name + "'");
}

}  // namespace geokernels
