// Leading directions of feature rows, CUDA.
//
//   x = sum_i s_i u_i b_i^T      s descending; b_i the directions, u_i the left vectors
//
// x           [B, N, D]
// left        [B, R, N]   u_i as rows, R = min(N, D)
// directions  [B, R, D]   b_i as rows, largest component positive; zero where s_i <= rtol * s_0
// values      [B, R]      s_i
//
// One block a problem makes the rows orthonormal (cuda/orthonormal.h), which leaves coefficients of at most N
// x N, turns these until they are orthogonal (cuda/jacobi.h), and writes the directions once, as the same
// turns of the orthonormal rows.
//
// Rows that a block cannot hold are cut into chunks of features, one a block: each is made orthonormal, x =
// a_c q_c, and the bases of [ a_1 a_2 .. ], N rows of fewer features, are those of x but for a factor q_c a
// chunk (cuda/subspace_plan.h). Three launches then; more where the rows of coefficients are cut in turn.
//
// No Gram matrix squares the condition. x is scaled by a power of two first, so that squares neither overflow
// nor vanish. NaN and infinities reach the values. Sums and products are in T; the order of every sum depends
// on the sizes, and on how they are cut. The host never waits.
//
// Limits: N <= 128 (beyond, blocked library solvers win).

#pragma once

#include "cuda/subspace_directions.h"
#include "cuda/subspace_room.h"

namespace geokernels {

template <class T>
struct BasisBatch {
  const T* x;
  T *left, *directions, *values;
  int64_t problems, N, D;
  double rtol;

  int64_t room() const { return BasisRoom<T>::room(N, D, true); }
};

// Lengths in descending order and left vectors, of problem b, whose signs are not yet known.
template <class T>
__device__ void write_values(const BasisBatch<T>& batch, int64_t b, const BasisRoom<T>& room, int count,
                             int exponent) {
  const int N = int(batch.N), R = N < batch.D ? N : int(batch.D);
  for (int i = warp(); i < R; i += int(blockDim.x) / kWarp) {
    const int from = i < count ? room.order()[i] : 0;
    const T length = i < count ? std::sqrt(room.squares()[from]) : T(0);
    for (int n = lane(); n < N; n += kWarp)
      batch.left[(b * R + i) * N + n] = length > 0 ? room.a()[from * room.ld + n] / length : T(0);
    if (lane() == 0) batch.values[b * R + i] = std::ldexp(length, exponent);
  }
}

template <class T, class Room>
__global__ void __launch_bounds__(kMostSubspaceThreads, Room::kBlocks)
    subspace_basis_kernel(BasisBatch<T> batch, Room memory) {
  const int N = int(batch.N), R = N < batch.D ? N : int(batch.D);
  const int64_t D = batch.D;
  const BasisRoom<T> room(memory.get(), N, R, D);
  for (int64_t b = blockIdx.x; b < batch.problems; b += gridDim.x) {
    int exponent = 0;
    const int count = decompose_rows(batch.x + b * N * D, N, R, D, D, room, exponent);
    set_identity(room.j(), count, room.ld);
    __syncthreads();
    orthogonalise_rows(room.a(), room.j(), count, N, room.ld, room.squares());
    sort_rows(room.squares(), count, room.order());
    write_values(batch, b, room, count, exponent);
    __syncthreads();  // what held coefficients is spare from here on
    T* const directions = batch.directions + b * R * D;
    const T least = count > 0 ? T(batch.rtol) * std::sqrt(room.squares()[room.order()[0]]) : T(0);
    const auto is_noise = [&](int i) {
      const T length = std::sqrt(room.squares()[room.order()[i]]);
      return !(length > 0) || length <= least;
    };
    for (int begin = 0; begin < count; begin += kSigns) {
      const int end = begin + kSigns < count ? begin + kSigns : count;
      const DirectionWriter<T> writer{begin, end, D, directions, room.a()};
      writer.write(DirectionsOfRoom<T>{room, count, room.stride}, is_noise);
      for (int i = threadIdx.x; i < (end - begin) * N; i += blockDim.x)
        batch.left[(b * R + begin) * N + i] *= writer.sign(begin + i / N);
      __syncthreads();
    }
    for (int64_t i = count * D + threadIdx.x; i < R * D; i += blockDim.x) directions[i] = 0;
  }
}

// Rows of features in chunks of them.
template <class T>
struct ChunkBatch {
  const T* x;  // [B, N, D]
  T* q;        // [B, chunks, N, width]    orthonormal rows of each chunk, or zero
  T* a;        // [B, N, chunks, padded]   coefficients of x in them
  int64_t problems, N, D, chunks, width, padded;

  int64_t room() const { return BasisRoom<T>::room(N, width, false); }
};

template <class T, class Room>
__global__ void __launch_bounds__(kMostSubspaceThreads, 2)
    orthonormal_chunks_kernel(ChunkBatch<T> batch, Room memory) {
  const int N = int(batch.N);
  const int64_t W = batch.width;
  const BasisRoom<T> room(memory.get(), N, N, W);
  for (int64_t at = blockIdx.x; at < batch.problems * batch.chunks; at += gridDim.x) {
    const int64_t b = at / batch.chunks, chunk = at % batch.chunks;
    const int64_t features = batch.D - chunk * W < W ? batch.D - chunk * W : W;
    int exponent = 0;
    const int count = decompose_rows(batch.x + b * N * batch.D + chunk * W, N,
                                     int(features < N ? features : N), features, batch.D, room, exponent);
    for (int64_t i = threadIdx.x; i < N * W; i += blockDim.x)
      batch.q[at * N * W + i] = i < count * W ? room.q[i] : T(0);
    for (int i = threadIdx.x; i < N * batch.padded; i += blockDim.x) {
      const int n = i / int(batch.padded), k = i % int(batch.padded);
      batch.a[(b * N + n) * batch.chunks * batch.padded + chunk * batch.padded + k] =
          k < count ? std::ldexp(room.a()[k * room.ld + n], exponent) : T(0);
    }
    __syncthreads();  // the room is free again
  }
}

// Directions of x from those of its coefficients; left vectors change their sign with them.
template <class T>
struct ExpandBatch {
  const T *turns, *q;    // [B, R, chunks, padded], [B, chunks, N, width]
  T *left, *directions;  // [B, R, N], [B, R, D], R = N
  int64_t problems, N, D, chunks, width, padded;

  __host__ __device__ int64_t parts() const { return (N + kSigns - 1) / kSigns; }
  static int64_t room() { return kSignRoom; }
};

template <class T>
__global__ void __launch_bounds__(kMostSubspaceThreads, 2)
    expand_directions_kernel(ExpandBatch<T> batch, Near<T> memory) {
  const int N = int(batch.N);
  const int64_t parts = batch.parts();
  for (int64_t at = blockIdx.x; at < batch.problems * parts; at += gridDim.x) {
    const int64_t b = at / parts;
    const int begin = int(at % parts) * kSigns, end = begin + kSigns < N ? begin + kSigns : N;
    const DirectionWriter<T> writer{begin, end, batch.D, batch.directions + b * N * batch.D, memory.get()};
    const DirectionsOfChunks<T> from{batch.turns + b * N * batch.chunks * batch.padded,
                                     batch.q + b * batch.chunks * N * batch.width,
                                     N,
                                     int(batch.width),
                                     int(batch.chunks),
                                     int(batch.padded)};
    writer.write(from, [](int) { return false; });
    for (int i = threadIdx.x; i < (end - begin) * N; i += blockDim.x)
      batch.left[(b * N + begin) * N + i] *= writer.sign(begin + i / N);
    __syncthreads();  // the room is free again
  }
}

}  // namespace geokernels
