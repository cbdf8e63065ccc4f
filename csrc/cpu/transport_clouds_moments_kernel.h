// What a start from normal distributions sums over points (cpu/transport_clouds_start.h): means, second
// moments, quadratic forms, and the step that leads from the one side's quadratic form to the other's.
//
// Points are packed in panels, see cpu/transport_clouds_tiles.h; a second moment is [features, features], or
// its diagonal [features] alone. Sums are made panel by panel, in registers within one.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
struct MomentsRoom {
  T *rows, *weighted;  // [panel, features] and turned; the same for the centred points and their images

  MomentsRoom(Workspace<T>& from, int64_t features) {
    rows = from.take(CloudTiles<T>::kPanel * features);
    weighted = from.take(CloudTiles<T>::kPanel * features);
  }
};

template <class T>
int64_t moments_memory(int64_t features) {
  return room_for<MomentsRoom, T>(features);
}

// Adds sum_i w_i x_i and sum_i w_i x_i x_i^T of one panel.
template <class T>
void add_moments(const T* panel, const T* weight, int64_t features, bool diagonal, T* mean, T* second,
                 Workspace<T> memory) {
  constexpr int64_t kPanel = CloudTiles<T>::kPanel, width = Vector<T>::width;
  const MomentsRoom<T> room(memory, features);
  for (int64_t d = 0; d < features; ++d) {
    vec<T> first = {}, square = {};
    for (int64_t lane = 0; lane < kPanel; lane += width) {
      const vec<T> x = load(panel + d * kPanel + lane), weighed = x * load(weight + lane);
      first += weighed, square += weighed * x;
      store(room.weighted + d * kPanel + lane, weighed);
    }
    mean[d] += sum<T>(first);
    if (diagonal) second[d] += sum<T>(square);
  }
  if (diagonal) return;
  transpose<T>(panel, kPanel, features, kPanel, room.rows, features);
  combine<T>(room.weighted, kPanel, features, room.rows, features, kPanel, features, second, features, true);
}

// form[lane] = -<linear, z> - z^T A z / 2 with z = x - centre, for the points of one panel.
template <class T>
void quadratic_form(const T* panel, int64_t features, bool diagonal, const T* centre, const T* linear,
                    const T* A, T* form, Workspace<T> memory) {
  constexpr int64_t kPanel = CloudTiles<T>::kPanel, width = Vector<T>::width;
  const MomentsRoom<T> room(memory, features);
  for (int64_t d = 0; d < features; ++d)
    for (int64_t lane = 0; lane < kPanel; lane += width) {
      const vec<T> z = load(panel + d * kPanel + lane) - centre[d];
      store(room.rows + d * kPanel + lane, z);
      if (diagonal) store(room.weighted + d * kPanel + lane, A[d] * z);
    }
  if (!diagonal)
    combine<T>(A, features, features, room.rows, kPanel, features, kPanel, room.weighted, kPanel);
  for (int64_t lane = 0; lane < kPanel; lane += width) {
    vec<T> total = {};
    for (int64_t d = 0; d < features; ++d)
      total -= load(room.rows + d * kPanel + lane) *
               (linear[d] + T(0.5) * load(room.weighted + d * kPanel + lane));
    store(form + lane, total);
  }
}

// X = (I + S A)^-1 S by elimination with pivots, all [d, d], S and A symmetric and without negative
// eigenvalues; returns log det (I + S A). `room` is [d, d] as well.
template <class T>
T answering_form(const T* S, const T* A, int64_t d, T* X, T* room) {
  combine<T>(S, d, d, A, d, d, d, room, d);
  for (int64_t i = 0; i < d; ++i) room[i * d + i] += 1;
  std::copy(S, S + d * d, X);
  T log_det = 0;
  auto subtract = [](T times, const T* from, T* to, int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) to[k] -= times * from[k];
  };
  for (int64_t i = 0; i < d; ++i) {
    int64_t pivot = i;
    for (int64_t k = i + 1; k < d; ++k)
      if (std::abs(room[k * d + i]) > std::abs(room[pivot * d + i])) pivot = k;
    std::swap_ranges(room + i * d, room + i * d + d, room + pivot * d);
    std::swap_ranges(X + i * d, X + i * d + d, X + pivot * d);
    const T here = room[i * d + i];
    log_det += std::log(std::abs(here));
    for (int64_t k = i + 1; k < d; ++k) {
      const T times = room[k * d + i] / here;
      subtract(times, room + i * d, room + k * d, i, d);
      subtract(times, X + i * d, X + k * d, 0, d);
    }
  }
  for (int64_t i = d; i-- > 0;) {
    for (int64_t k = i + 1; k < d; ++k) subtract(room[i * d + k], X + k * d, X + i * d, 0, d);
    for (int64_t k = 0; k < d; ++k) X[i * d + k] /= room[i * d + i];
  }
  for (int64_t i = 0; i < d; ++i)
    for (int64_t k = 0; k < i; ++k) X[i * d + k] = X[k * d + i] = (X[i * d + k] + X[k * d + i]) / 2;
  return log_det;
}

}  // namespace geokernels::GEOKERNELS_LEVEL
