// One vector of T as wide as the level allows, on the compiler's own vector type.
//
// No include guard: cpu/each_level.h includes this file once for every SIMD level, with
// GEOKERNELS_LEVEL naming the namespace and GEOKERNELS_VECTOR_BYTES the width. Arithmetic,
// comparison and `mask ? a : b` are the vector type's operators; a * b + c contracts to one FMA
// where the level has it. Sums run in an order that depends on the width alone, so results
// repeat from run to run and do not depend on the number of threads.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct Vector {
  static constexpr int64_t width = GEOKERNELS_VECTOR_BYTES / sizeof(T);
  using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef T type __attribute__((vector_size(GEOKERNELS_VECTOR_BYTES)));
  typedef Integer mask __attribute__((vector_size(GEOKERNELS_VECTOR_BYTES)));
};

template <class T>
using vec = typename Vector<T>::type;

template <class T>
inline vec<T> load(const T* p) {
  vec<T> v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

template <class T>
inline void store(T* p, vec<T> v) {
  __builtin_memcpy(p, &v, sizeof(v));
}

// Whether vectors from here on can be written past the caches: with no need to read what was there. Whole
// cache lines should be, one vector soon after the other, and end_stream() be called before others read them.
inline bool can_stream([[maybe_unused]] const void* p) {
#if defined(__x86_64__) && GEOKERNELS_VECTOR_BYTES >= 32
  return reinterpret_cast<uintptr_t>(p) % GEOKERNELS_VECTOR_BYTES == 0;
#else
  return false;
#endif
}

template <class T>
inline void stream(T* p, vec<T> v) {
#if defined(__x86_64__) && GEOKERNELS_VECTOR_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__x86_64__) && GEOKERNELS_VECTOR_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#else
  store(p, v);
#endif
}

inline void end_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

template <class T>
inline vec<T> broadcast(T value) {
  return value - vec<T>{};
}

// The first `count` lanes from memory, the others zero; reads nothing beyond them.
template <class T>
inline vec<T> load_first(const T* p, int64_t count) {
  vec<T> v = {};
  __builtin_memcpy(&v, p, count * sizeof(T));
  return v;
}

template <class T>
inline void store_first(T* p, vec<T> v, int64_t count) {
  __builtin_memcpy(p, &v, count * sizeof(T));
}

// Lanes summed pairwise: halves first, as a tree.
template <class T>
inline T sum(vec<T> v) {
  T lane[Vector<T>::width];
  store(lane, v);
  for (int64_t half = Vector<T>::width / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

template <class T>
inline T largest(vec<T> v) {
  T best = v[0];
  for (int64_t i = 1; i < Vector<T>::width; ++i) best = v[i] > best ? v[i] : best;
  return best;
}

template <class T>
inline vec<T> max(vec<T> a, vec<T> b) {
  return a > b ? a : b;
}

// Square roots of all lanes.
template <class T>
inline vec<T> root(vec<T> v) {
  T lane[Vector<T>::width];
  store(lane, v);
  for (T& x : lane) x = std::sqrt(x);
  return load<T>(lane);
}

// Lanes of a and b by number; those of b follow those of a.
template <class T, int... From>
inline vec<T> shuffle(vec<T> a, [[maybe_unused]] vec<T> b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, From...);
#else
  constexpr int width = Vector<T>::width;
  return vec<T>{(From < width ? a[From % width] : b[From % width])...};
#endif
}

// Within every group of `Group` lanes, half `Half` of a and then the same half of b.
template <class T, int Group, int Half, int... Lane>
inline vec<T> halves(vec<T> a, vec<T> b, std::integer_sequence<int, Lane...>) {
  constexpr int width = Vector<T>::width, half = Group / 2;
  return shuffle<T, (Lane % Group < half ? Lane + Half * half : Lane + Half * half - half + width)...>(a, b);
}

template <class T, int Group, int Half>
inline vec<T> halves(vec<T> a, vec<T> b) {
  return halves<T, Group, Half>(a, b, std::make_integer_sequence<int, int(Vector<T>::width)>());
}

// Within every group of `Group` lanes, each lane from the next, the last from the first.
template <class T, int Group, int... Lane>
inline vec<T> next_lane(vec<T> v, std::integer_sequence<int, Lane...>) {
  return shuffle<T, (Lane / Group * Group + (Lane + 1) % Group)...>(v, v);
}

template <class T, int Group>
inline vec<T> next_lane(vec<T> v) {
  return next_lane<T, Group>(v, std::make_integer_sequence<int, int(Vector<T>::width)>());
}

// Lane r of the result is the sum over the lanes of x[r], r below the vector's width.
template <class T, int Group = Vector<T>::width>
__attribute__((always_inline)) inline vec<T> sum_each(vec<T>* x) {
  if constexpr (Group == 1) {
    return x[0];
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < Group / 2; ++r)
      x[r] = halves<T, Group, 0>(x[r], x[r + Group / 2]) + halves<T, Group, 1>(x[r], x[r + Group / 2]);
    return sum_each<T, Group / 2>(x);
  }
}

// Row r of the result is lane r of each x: a square of numbers is turned in place.
template <class T, int Group = Vector<T>::width>
inline void transpose_block(vec<T>* x) {
  if constexpr (Group > 1) {
#pragma GCC unroll 16
    for (int r = 0; r < Group / 2; ++r) {
      const vec<T> first = halves<T, Group, 0>(x[r], x[r + Group / 2]);
      x[r + Group / 2] = halves<T, Group, 1>(x[r], x[r + Group / 2]);
      x[r] = first;
    }
    transpose_block<T, Group / 2>(x);
    transpose_block<T, Group / 2>(x + Group / 2);
  }
}

template <class T>
inline bool any(typename Vector<T>::mask m) {
  bool found = false;
  for (int lane = 0; lane < Vector<T>::width; ++lane) found |= m[lane] != 0;
  return found;
}

// A bit for every lane, the first the lowest.
template <class T>
inline unsigned bits(typename Vector<T>::mask m) {
#if defined(__x86_64__) && GEOKERNELS_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 8) return _mm512_movepi64_mask((__m512i)m);
  return _mm512_movepi32_mask((__m512i)m);
#elif defined(__x86_64__) && GEOKERNELS_VECTOR_BYTES == 32
  if constexpr (sizeof(T) == 8) return _mm256_movemask_pd((__m256d)m);
  return _mm256_movemask_ps((__m256)m);
#elif defined(__x86_64__)
  if constexpr (sizeof(T) == 8) return _mm_movemask_pd((__m128d)m);
  return _mm_movemask_ps((__m128)m);
#else
  unsigned found = 0;
  for (int lane = 0; lane < Vector<T>::width; ++lane) found |= unsigned(m[lane] != 0) << lane;
  return found;
#endif
}

}  // namespace geokernels::GEOKERNELS_LEVEL
