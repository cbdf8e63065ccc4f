// The searches of cpu/assignment_kernel.h where rows of costs are long: of each row some columns are kept
// that were the nearest when it was last looked at whole, and how near another one was. Prices of columns
// only fall, so that others are no nearer now, and the row is looked at again only where they might matter.
// What is decided is what whole rows would decide, to the bit. Where most rows have to be looked at again, as
// every search moves most prices, none are kept any more, and what is read is memory: costs that are numbers
// of float32 are copied as such.
//
// No include guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

template <class T>
class NearRows {
 public:
  template <class Number>
  NearRows(Workspace<Number>& from, const AssignmentState<T>& state)
      : s(state),
        blocks(int(round_up(state.columns, kBlock) / kBlock)),
        block_least(from.template take_as<double>(round_up(blocks, kWide))),
        rows(from.template take_as<Row>(state.rows)),
        waiting(from.template take_as<Look>(state.rows)) {
    if (rows)
      for (int i = 0; i < s.rows; ++i) rows[i].count = -1, rows[i].idle = rows[i].rest = 0;
  }
  NearRows(const NearRows&) = delete;
  NearRows& operator=(const NearRows&) = delete;
  ~NearRows() { std::free(narrow); }

  Offers<int> cheapest_two(int i) {
    for (int looks = 0; looks < 2; ++looks) {
      if (looks == 1 || rows[i].count < 0) look(i);
      const Row& row = rows[i];
      Offers<int> found;
      for (int k = 0; k < row.count; ++k)
        found.take(row.column[k], row.cost[k] - s.column_price[row.column[k]]);
      if (found.next < row.others) return found;
    }
    return geokernels::GEOKERNELS_LEVEL::cheapest_two(s.row(i), s.column_price, s.columns);
  }

  void cheapest_rows(double* least, int64_t* cheapest) const {
    std::fill_n(least, s.columns, kForbidden);
    for (int i = 0; i < s.rows; ++i) {
      const T* const cost = s.row(i);
      const auto take = [&](int j) {
        const Wide costs = costs_of(cost + j), known = load(least + j);
        store_numbers(cheapest + j, costs < known ? i - Numbers{} : load_numbers(cheapest + j));
        store(least + j, smaller(costs, known));
      };
      int j = 0;
      for (; j + kWide <= s.columns; j += kWide) take(j);
      if (j < s.columns) take(s.columns - kWide);
    }
  }

  int lengthen(int number, int i, double reached) {
    if (number == 0) begin();
    ++asked;
    if (in_vain) {
      const Look whole{0, reached, i, number};
      if (narrow)
        lengthen_all(whole, narrow + int64_t(i) * s.columns);
      else
        lengthen_all(whole, s.row(i));
      return nearest_column(nearest());
    }
    if (rows[i].count < 0) look(i);
    Row& row = rows[i];
    ++row.uses;
    const double price = s.row_price[i];
    for (int k = 0; k < row.count; ++k) {
      const int j = row.column[k];
      reach(j, reached + ((row.cost[k] - s.column_price[j]) - price), number);
    }
    await({reached + (row.others - price), reached, i, number});
    double least = nearest();
    while (looks > 0 && waiting[0].distance <= least) {
      const Look next = waiting[0];
      std::pop_heap(waiting, waiting + looks--, later);
      ++looked_again;
      lengthen_all(next, s.row(next.row));
      look_again(next.row);
      least = nearest();
    }
    return nearest_column(least);
  }

  void settle(int column) {
    settle_distance(s.distance, column);
    renew(column / kBlock);
  }

  int64_t work() const { return kMost; }

 private:
  static constexpr int kGroups = 32, kRank = 16, kMost = 64;
  static constexpr int64_t kTrial = 8;  // rows asked, of each row, before it shows whether keeping pays

  struct Row {
    double others;   // no column that is not kept offers less
    int count;       // of columns kept; -1 before the first look
    int uses;        // since the last look, as far as it sufficed
    int idle, rest;  // looks to leave out, and those that are left of them
    int column[kMost];
    double cost[kMost];
  };

  // A row of the search whose other columns may be as near as `distance`.
  struct Look {
    double distance, reached;
    int row, number;
  };

  static bool later(const Look& a, const Look& b) { return a.distance > b.distance; }

  // Keeps the columns below the median of the smallest offers of groups of columns.
  void look(int i) {
    const T* const cost = s.row(i);
    double smallest_of[kGroups];
    std::fill_n(smallest_of, kGroups, kForbidden);
    each_offer(cost, s.column_price, s.columns, [&](int j, Wide offers) {
      double* const group = smallest_of + j / kWide * kWide % kGroups;
      store(group, smaller(offers, load(group)));
    });
    std::nth_element(smallest_of, smallest_of + kRank, smallest_of + kGroups);
    const Wide most = broadcast(smallest_of[kRank]);
    Row& row = rows[i];
    row.count = row.uses = 0;
    Wide others = broadcast(kForbidden);
    each_offer(cost, s.column_price, s.columns, [&](int j, Wide offers) {
      const auto near = (offers <= most) & (offers < broadcast(kForbidden));
      others = smaller(near ? broadcast(kForbidden) : offers, others);
      for (unsigned lanes = bits<double>(near); lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        if (row.count < kMost) {
          row.column[row.count] = j + lane;
          row.cost[row.count++] = double(cost[j + lane]);
        } else {
          others[lane] = std::min(others[lane], offers[lane]);
        }
      }
    });
    row.others = smallest(others)[0];
  }

  // Looking at a row whose last look was of no use pays later, if ever.
  void look_again(int i) {
    Row& row = rows[i];
    --row.uses;
    if (row.rest > 0) {
      --row.rest;
      return;
    }
    row.idle = row.uses > 0 ? 0 : 2 * row.idle + 1;
    row.rest = row.idle;
    look(i);
  }

  void begin() {
    std::fill_n(s.distance, blocks * kBlock, kForbidden);
    std::fill_n(block_least, round_up(blocks, kWide), kForbidden);
    looks = 0;
    if (in_vain || asked <= kTrial * s.rows || looked_again <= asked / 2) return;
    in_vain = true;
    if constexpr (sizeof(T) > sizeof(float)) make_narrow();
  }

  // Copies the costs in half of their bytes, if that changes none, and there is room.
  void make_narrow() {
    const int64_t count = int64_t(s.rows) * s.columns;
    narrow = static_cast<float*>(std::malloc(count * sizeof(float)));
    for (int64_t first = 0; narrow && first < count; first += s.columns) {
      bool same = true;
      for (int64_t k = first; k < first + s.columns; ++k) {
        narrow[k] = float(s.cost[k]);
        same &= double(narrow[k]) == s.cost[k];
      }
      if (!same) std::free(std::exchange(narrow, nullptr));
    }
  }

  // The column at this distance, or -1 where that is infinite.
  int nearest_column(double least) const {
    if (!(least < kForbidden)) return -1;
    NearestColumn found{s.owner};
    for (int b = 0; b < blocks; ++b)
      if (block_least[b] == least && found.look(s.distance, b, broadcast(least))) break;
    return found.column;
  }

  void reach(int j, double length, int number) {
    const double known = s.distance[j];
    if (!(length < known || (length == known && number < s.before[j]))) return;
    s.distance[j] = length, s.before[j] = number;
    block_least[j / kBlock] = std::min(block_least[j / kBlock], length);
  }

  void await(const Look& look) {
    if (!(look.distance < kForbidden)) return;
    waiting[looks++] = look;
    std::push_heap(waiting, waiting + looks, later);
  }

  // The same by all columns of a row, of which later ones of the search have been looked at.
  template <class Cost>
  void lengthen_all(const Look& look, const Cost* cost) {
    const double reached = look.reached, price = s.row_price[look.row];
    const Numbers number = look.number - Numbers{};
    const auto take = [&](int j, Wide least) {
      const Wide length = reached + ((costs_of(cost + j) - load(s.column_price + j)) - price);
      const Wide known = load(s.distance + j);
      const Numbers before = load_numbers(s.before + j);
      const Numbers sooner = (length < known) | ((length == known) & (number < before));
      store_numbers(s.before + j, sooner ? number : before);
      const Wide shortest = smaller(length, known);
      store(s.distance + j, shortest);
      return smaller(shortest, least);
    };
    for (int b = 0; b < blocks; ++b) {
      Wide least = broadcast(kForbidden);
      int j = b * kBlock;
      const int end = std::min(j + kBlock, s.columns);
      for (; j + kWide <= end; j += kWide) least = take(j, least);
      block_least[b] = smallest(least)[0];
      if (j == end) continue;
      take(end - kWide, least);  // some of the block before once more
      renew(b);
    }
  }

  double nearest() const {
    Wide least = broadcast(kForbidden);
    for (int b = 0; b < blocks; b += kWide) least = smaller(load(block_least + b), least);
    return smallest(least)[0];
  }

  void renew(int block) {
    Wide least = broadcast(kForbidden);
    for (int j = block * kBlock; j < (block + 1) * kBlock; j += kWide)
      least = smaller(load(s.distance + j), least);
    block_least[block] = smallest(least)[0];
  }

  const AssignmentState<T>& s;
  const int blocks;
  double* block_least;  // of distances
  Row* rows;
  Look* waiting;  // a heap, the nearest first
  int looks = 0;
  int64_t asked = 0, looked_again = 0;
  bool in_vain = false;
  float* narrow = nullptr;  // [rows, columns], or null
};

}  // namespace geokernels::GEOKERNELS_LEVEL
