// The SIMD level that runs: the widest this processor has, unless a test asked for another.

#pragma once

#include <string>
#include <vector>

namespace geokernels {

enum class Level { baseline, avx2, avx512 };

// The level in use.
Level level();

// Levels this processor can run, narrowest first, by name; on ARM the baseline is "neon".
std::vector<std::string> available_levels();
std::string level_name(Level level);

// Insists on one of available_levels(); throws std::invalid_argument for another.
void set_level(const std::string& name);

}  // namespace geokernels

// Calls the copy of `function` compiled for the level in use.
#if defined(__x86_64__)
#define GEOKERNELS_AT_LEVEL(function, ...)                             \
  [&] {                                                                \
    switch (::geokernels::level()) {                                   \
      case ::geokernels::Level::avx512:                                \
        return ::geokernels::GEOKERNELS_AVX512::function(__VA_ARGS__); \
      case ::geokernels::Level::avx2:                                  \
        return ::geokernels::avx2::function(__VA_ARGS__);              \
      default:                                                         \
        return ::geokernels::baseline::function(__VA_ARGS__);          \
    }                                                                  \
  }()
#else
#define GEOKERNELS_AT_LEVEL(function, ...) ::geokernels::baseline::function(__VA_ARGS__)
#endif
