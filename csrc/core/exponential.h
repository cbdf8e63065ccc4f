// Exponential and logarithm of a vector, on the compiler's own vector type.
//
//   exp(x) = 2^n exp(r),  n = round(x / ln 2),  |r| <= ln(2)/2, Taylor's series for exp(r)
//   log(x) = e ln 2 + 2 artanh(s),  s = (m - 1)/(m + 1), m in [sqrt(1/2), sqrt(2)), its series in s^2
//
// Largest error, in units of the last place, as tests/kernels/test_exponential.py measures it in float32
// and float64: exp 0.9 with FMA and 1.2 without, log 2.
// exp is 0 below its least normal result and +inf above its largest; log takes positive normal
// numbers, and is -inf below them. NaN passes through both.
//
// No include guard: see core/simd.h.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct Binary;

template <>
struct Binary<float> {
  typedef uint32_t bits __attribute__((vector_size(GEOKERNELS_VECTOR_BYTES)));
  typedef int32_t integer __attribute__((vector_size(GEOKERNELS_VECTOR_BYTES)));
  static constexpr int mantissa = 23;
  static constexpr uint32_t one = 0x3f800000, root_half = 0x3f3504f3;
  static constexpr float least = -87.0f, most = 88.0f;
  static constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.428606765330187e-6f;
  static constexpr int exp_terms = 7, log_terms = 5;
};

template <>
struct Binary<double> {
  typedef uint64_t bits __attribute__((vector_size(GEOKERNELS_VECTOR_BYTES)));
  typedef int64_t integer __attribute__((vector_size(GEOKERNELS_VECTOR_BYTES)));
  static constexpr int mantissa = 52;
  static constexpr uint64_t one = 0x3ff0000000000000, root_half = 0x3fe6a09e667f3bcd;
  static constexpr double least = -708.0, most = 709.0;
  static constexpr double rounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_high = 0.693147180369123816490, ln2_low = 1.90821492927058770002e-10;
  static constexpr int exp_terms = 13, log_terms = 11;
};

// Inlined wherever it is called: a call would spill every vector, and load the coefficients anew.
template <class T>
inline __attribute__((always_inline)) vec<T> exp(vec<T> x) {
  using B = Binary<T>;
  constexpr T inverse_ln2 = T(1.442695040888963407359924681001892137);
  vec<T> shifted = x * inverse_ln2 + B::rounder;
  vec<T> n = shifted - B::rounder;
  vec<T> r = x - n * B::ln2_high;
  r = r - n * B::ln2_low;
  T coefficient[B::exp_terms + 1] = {1};
  for (int k = 1; k <= B::exp_terms; ++k) coefficient[k] = coefficient[k - 1] / k;
  vec<T> sum = broadcast<T>(coefficient[B::exp_terms]);
#pragma GCC unroll 16
  for (int k = B::exp_terms - 1; k >= 0; --k) sum = sum * r + coefficient[k];
  // the low bits of `shifted` are n: moved to the exponent's place they make 2^n
  typename B::bits scale = (reinterpret_cast<typename B::bits>(shifted) << B::mantissa) + B::one;
  sum = sum * reinterpret_cast<vec<T>>(scale);
  sum = x < B::least ? vec<T>{} : sum;
  return x > B::most ? broadcast<T>(std::numeric_limits<T>::infinity()) : sum;
}

template <class T>
inline vec<T> log(vec<T> x) {
  using B = Binary<T>;
  typename B::bits raw = reinterpret_cast<typename B::bits>(x);
  auto e = reinterpret_cast<typename B::integer>(raw - B::root_half) >> B::mantissa;
  vec<T> m = reinterpret_cast<vec<T>>(raw - (reinterpret_cast<typename B::bits>(e) << B::mantissa));
  vec<T> n = __builtin_convertvector(e, vec<T>);
  vec<T> s = (m - T(1)) / (m + T(1));
  vec<T> z = s * s;
  vec<T> sum = broadcast<T>(T(2) / (2 * B::log_terms - 1));
#pragma GCC unroll 16
  for (int k = B::log_terms - 2; k >= 1; --k) sum = sum * z + T(2) / (2 * k + 1);
  sum = n * B::ln2_high + (T(2) * s + (sum * z * s + n * B::ln2_low));
  sum = x < std::numeric_limits<T>::min() ? broadcast<T>(-std::numeric_limits<T>::infinity()) : sum;
  return x <= std::numeric_limits<T>::max() ? sum : x;
}

}  // namespace geokernels::GEOKERNELS_LEVEL
