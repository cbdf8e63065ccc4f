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

}  // namespace geokernels::GEOKERNELS_LEVEL
