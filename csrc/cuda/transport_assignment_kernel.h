// The cheapest one-to-one assignment of rows to columns, exactly, on the GPU: cpu/assignment_kernel.h, step
// for step.
//
// cost    [problems, rows, columns]   float64, row-major; +inf forbids a pair; rows <= columns
// chosen  [problems, rows]            -1 throughout where every assignment uses a forbidden pair
//
// A block solves a problem after another. Its threads share every search along a row: each has every
// kThreads-th column, and only it writes what is known of that column while a row is searched. What they find
// is merged by the order of columns, so that prices, ties and the assignment are those of the CPU, to the
// bit. The search itself is a chain of such steps. Few columns have a warp, which waits for nobody.
//
// State is in shared memory, costs are read from device memory: a step reads a row. More columns than shared
// memory has room for keep their state in device memory as well.

#pragma once

#include "core/assignment_steps.h"
#include "cuda/device.h"

namespace geokernels {

struct AssignmentBatch {
  const double* cost;
  int64_t problems;
  int rows, columns;
  int64_t* chosen;
};

// Where a block keeps what it knows of a problem.
struct AssignmentState {
  double *row_price, *column_price, *distance;
  int *owner, *before, *path;  // owner of a column, the column before it on the path; columns on the path
  int* waiting;                // rows without a column
  unsigned char* settled;

  __host__ __device__ static int64_t bytes(int64_t rows, int64_t columns) {
    const int64_t doubles = rows + 2 * columns, ints = 3 * columns + rows;
    return (doubles * int64_t(sizeof(double)) + ints * int64_t(sizeof(int)) + columns + 15) / 16 * 16;
  }

  __device__ AssignmentState(unsigned char* memory, int64_t rows, int64_t columns)
      : row_price(reinterpret_cast<double*>(memory)),
        column_price(row_price + rows),
        distance(column_price + columns),
        owner(reinterpret_cast<int*>(distance + columns)),
        before(owner + columns),
        path(before + columns),
        waiting(path + columns),
        settled(reinterpret_cast<unsigned char*>(waiting + rows)) {}
};

// What warps show each other.
template <int kThreads>
struct AssignmentShared {
  static constexpr int kWarps = kThreads / kWarp;

  // two sets in turn: who writes one has passed the barrier after which the other was read
  Offers<int> offers[2][kWarps];
  Nearest<int> nearest[2][kWarps];
  int waiting;
};

__device__ inline Offers<int> of_lane(const Offers<int>& mine, int lanes) {
  Offers<int> other;
  other.first = __shfl_xor_sync(kAllLanes, mine.first, lanes);
  other.second = __shfl_xor_sync(kAllLanes, mine.second, lanes);
  other.least = __shfl_xor_sync(kAllLanes, mine.least, lanes);
  other.next = __shfl_xor_sync(kAllLanes, mine.next, lanes);
  return other;
}

__device__ inline Nearest<int> of_lane(const Nearest<int>& mine, int lanes) {
  Nearest<int> other;
  other.distance = __shfl_xor_sync(kAllLanes, mine.distance, lanes);
  other.owned = __shfl_xor_sync(kAllLanes, int(mine.owned), lanes);
  other.column = __shfl_xor_sync(kAllLanes, mine.column, lanes);
  return other;
}

template <int kThreads>
class BlockAssignment {
 public:
  __device__ BlockAssignment(const double* cost, int rows, int columns, const AssignmentState& state,
                             AssignmentShared<kThreads>& shared)
      : cost(cost), rows(rows), columns(columns), s(state), shared(shared) {}

  __device__ void solve(int64_t* chosen) {
    reset();
    if (rows == columns) start_with_columns();
    for (int turn = 0; turn < kBiddingTurns; ++turn) bid();
    bool found = true;
    for (int k = 0; k < waiting && found; ++k) found = enter(s.waiting[k]);
    if (!found)
      for (int i = thread(); i < rows; i += kThreads) chosen[i] = -1;
    else
      for (int j = thread(); j < columns; j += kThreads)
        if (s.owner[j] >= 0) chosen[s.owner[j]] = j;
  }

 private:
  static constexpr double inf = std::numeric_limits<double>::infinity();
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kAtOnce = 4;  // columns of a thread whose costs are waited for together

  __device__ static int thread() { return int(threadIdx.x); }
  __device__ static bool has(int column) { return column % kThreads == thread(); }

  __device__ static void sync() {
    if (kWarps == 1)
      __syncwarp();
    else
      __syncthreads();
  }

  __device__ void reset() {
    for (int j = thread(); j < columns; j += kThreads)
      s.column_price[j] = 0, s.owner[j] = -1, s.before[j] = 0;
    for (int i = thread(); i < rows; i += kThreads) s.row_price[i] = 0, s.waiting[i] = i;
    waiting = rows;
    sync();
  }

  // Calls take(column, cost) for this thread's columns of a row, in ascending order.
  template <class Take>
  __device__ void each_cost(int row, const Take& take) const {
    const double* const c = cost + int64_t(row) * columns;
    for (int first = thread(); first < columns; first += kAtOnce * kThreads) {
      double costs[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
        costs[k] = first + k * kThreads < columns ? c[first + k * kThreads] : inf;
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
        if (first + k * kThreads < columns) take(first + k * kThreads, costs[k]);
    }
  }

  // What all threads have found together, known to each, which have then passed a barrier.
  template <class Found>
  __device__ Found of_block(Found mine, Found (&spare)[2][kWarps]) {
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) mine.merge(of_lane(mine, lanes));
    if (kWarps == 1) {
      sync();
      return mine;
    }
    turn ^= 1;
    if (lane() == 0) spare[turn][warp()] = mine;
    sync();
    for (int w = 0; w < kWarps; ++w)
      if (w != warp()) mine.merge(spare[turn][w]);
    return mine;
  }

  // Every column takes its cheapest row if that is free. All columns are owned in the end: any price will do.
  __device__ void start_with_columns() {
    for (int j = thread(); j < columns; j += kThreads) {
      const double* c = cost + j;
      double least = *c;
      int cheapest = 0;
#pragma unroll 4
      for (int i = 1; i < rows; ++i) {
        c += columns;
        if (*c < least) least = *c, cheapest = i;
      }
      if (least < inf) s.column_price[j] = least;
      s.path[j] = least < inf ? cheapest : -1;
    }
    sync();
    if (thread() == 0) {
      // before: whether a row is taken
      for (int j = 0; j < columns; ++j) {
        const int i = s.path[j];
        if (i >= 0 && !s.before[i]) s.owner[j] = i, s.before[i] = 1;
      }
      int left = 0;
      for (int i = 0; i < rows; ++i)
        if (!s.before[i]) s.waiting[left++] = i;
      shared.waiting = left;
    }
    sync();
    waiting = shared.waiting;
  }

  // One turn of bids; a row that lost its column, or has only one to choose, waits.
  __device__ void bid() {
    int64_t bids = kBidsOfRow * rows;
    int left = 0;
    for (int k = 0; k < waiting; ++k) {
      int row = s.waiting[k];
      while (row >= 0) {
        const Offers<int> offers = cheapest_two(row);
        if (!(offers.next < inf) || bids-- <= 0) {
          wait(row, left++);
          break;
        }
        const bool gains = offers.next > offers.least;
        const int to = gains || s.owner[offers.first] < 0 ? offers.first : offers.second;
        const int loser = s.owner[to];
        sync();  // all know the loser
        if (thread() == 0) s.row_price[row] = offers.next, s.owner[to] = row;
        if (has(offers.first)) s.column_price[offers.first] -= offers.next - offers.least;
        row = loser;
        if (loser >= 0 && !gains) {
          wait(loser, left++);
          break;
        }
      }
    }
    waiting = left;
    sync();
  }

  // Places of rows that have been read: every bid has passed a barrier since.
  __device__ void wait(int row, int place) {
    if (thread() == 0) s.waiting[place] = row;
  }

  // The two cheapest columns for a row at the present prices.
  __device__ Offers<int> cheapest_two(int row) {
    Offers<int> mine;
    each_cost(row, [&](int j, double c) { mine.take(j, c - s.column_price[j]); });
    return of_block(mine, shared.offers);
  }

  // Gives `row` a column; false when no path of finite cost leads to a free one.
  __device__ bool enter(int row) {
    for (int j = thread(); j < columns; j += kThreads) s.distance[j] = inf, s.settled[j] = 0;
    int i = row, last = -1, length = 0;
    double reached = 0;
    while (true) {
      const Nearest<int> nearest = relax(i, last, reached);
      if (nearest.column < 0) return false;
      reached = nearest.distance;
      last = nearest.column;
      if (has(last)) s.settled[last] = 1;
      if (!nearest.owned) break;
      if (thread() == 0) s.path[length] = last;
      ++length;
      i = s.owner[last];
    }
    sync();
    for (int k = thread(); k < length; k += kThreads) {
      const int j = s.path[k];
      const double by = reached - s.distance[j];
      s.row_price[s.owner[j]] += by;
      s.column_price[j] -= by;
    }
    if (thread() == 0) s.row_price[row] += reached;
    sync();
    if (thread() == 0) move_along(row, last);
    sync();
    return true;
  }

  // The row that owned the column before j on the path moves to j.
  __device__ void move_along(int row, int last) {
    for (int j = last; j >= 0;) {
      const int from = s.before[j];
      s.owner[j] = from < 0 ? row : s.owner[from];
      j = from;
    }
  }

  // Shortens distances by way of row i, reached through column `via`; the nearest column not settled.
  __device__ Nearest<int> relax(int i, int via, double reached) {
    const double price = s.row_price[i];
    Nearest<int> mine;
    each_cost(i, [&](int j, double c) {
      if (s.settled[j]) return;
      const double d = reached + ((c - s.column_price[j]) - price);
      if (d < s.distance[j]) s.distance[j] = d, s.before[j] = via;
      mine.take(j, s.distance[j], [&] { return s.owner[j] >= 0; });
    });
    return of_block(mine, shared.nearest);
  }

  const double* const cost;
  const int rows, columns;
  const AssignmentState s;
  AssignmentShared<kThreads>& shared;
  int waiting = 0, turn = 0;
};

// Far: the state of blocks is in device memory, at `far`.
template <int kThreads, bool Far>
__global__ void __launch_bounds__(kThreads, kThreads == kWarp ? 16 : 2)
    assignment_kernel(AssignmentBatch batch, unsigned char* far) {
  unsigned char* const memory = block_memory();
  auto& shared = *reinterpret_cast<AssignmentShared<kThreads>*>(memory);
  if (Far) far += blockIdx.x * AssignmentState::bytes(batch.rows, batch.columns);
  const AssignmentState state(Far ? far : memory + sizeof(shared), batch.rows, batch.columns);
  for (int64_t k = blockIdx.x; k < batch.problems; k += gridDim.x)
    BlockAssignment<kThreads>(batch.cost + k * batch.rows * batch.columns, batch.rows, batch.columns, state,
                              shared)
        .solve(batch.chosen + k * batch.rows);
}

}  // namespace geokernels
