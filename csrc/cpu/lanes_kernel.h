// The smallest of a vector's lanes in float64, as searches through rows of costs ask for it.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

using Wide = vec<double>;
constexpr int kWide = Vector<double>::width;

// The smaller and the larger in each lane, and a bit for each lane that is equal. Where one is NaN, b.
#if defined(__x86_64__) && GEOKERNELS_VECTOR_BYTES == 64
inline Wide smaller(Wide a, Wide b) { return (Wide)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b); }
inline Wide larger(Wide a, Wide b) { return (Wide)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b); }
inline uint64_t equal_lanes(Wide a, Wide b) { return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ); }
#elif defined(__x86_64__) && GEOKERNELS_VECTOR_BYTES == 32
inline Wide smaller(Wide a, Wide b) { return (Wide)_mm256_min_pd((__m256d)a, (__m256d)b); }
inline Wide larger(Wide a, Wide b) { return (Wide)_mm256_max_pd((__m256d)a, (__m256d)b); }
inline uint64_t equal_lanes(Wide a, Wide b) { return bits<double>(a == b); }
#else
inline Wide smaller(Wide a, Wide b) { return a < b ? a : b; }
inline Wide larger(Wide a, Wide b) { return a > b ? a : b; }
inline uint64_t equal_lanes(Wide a, Wide b) { return bits<double>(a == b); }
#endif

template <int Half, int... Lane>
inline Wide across(Wide v, std::integer_sequence<int, Lane...>) {
  return shuffle<double, (Lane ^ Half)...>(v, v);
}

// Each lane from that whose number differs in one bit.
template <int Half>
inline Wide across(Wide v) {
  return across<Half>(v, std::make_integer_sequence<int, kWide>());
}

// The smallest of all lanes, in each.
template <int Half = kWide / 2>
inline Wide smallest(Wide v) {
  if constexpr (Half == 0)
    return v;
  else
    return smallest<Half / 2>(smaller(v, across<Half>(v)));
}

}  // namespace geokernels::GEOKERNELS_LEVEL
