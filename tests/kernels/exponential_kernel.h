// Runs core/exponential.h over an array; compiled by test_exponential.py.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
void map(const T* x, T* y, int64_t count, bool logarithm) {
  for (int64_t i = 0; i < count; i += Vector<T>::width) {
    vec<T> v = load(x + i);
    store(y + i, logarithm ? log<T>(v) : exp<T>(v));
  }
}

}  // namespace geokernels::GEOKERNELS_LEVEL
