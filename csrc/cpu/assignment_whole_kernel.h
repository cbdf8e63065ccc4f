// The searches of cpu/assignment_kernel.h where rows of costs are short: they are looked at whole. No include
// guard: included once for every SIMD level.

namespace geokernels::GEOKERNELS_LEVEL {

// Whole vectors of columns: what is beyond the last column is forbidden.
class WholeRows {
 public:
  template <class Number>
  WholeRows(Workspace<Number>&, const AssignmentState<double>& state) : s(state) {}

  Offers<int> cheapest_two(int row) {
    return geokernels::GEOKERNELS_LEVEL::cheapest_two(s.row(row), s.column_price, s.columns);
  }

  // The cheapest row of each column, the first of equal ones, and its cost; +inf where there is none.
  void cheapest_rows(double* least, int64_t* cheapest) const {
    for (int j = 0; j < s.columns; j += kWide) {
      const double* cost = s.cost + j;
      Wide lowest = broadcast(kForbidden);
      Numbers row = {}, first = {};
      for (int i = 0; i < s.rows; ++i, cost += s.columns, row += 1) {
        const Wide costs = load(cost);
        first = costs < lowest ? row : first;
        lowest = smaller(costs, lowest);
      }
      store(least + j, lowest);
      store_numbers(cheapest + j, first);
    }
  }

  // Lengthens paths to column number - 1 of the search by the row that owns it; the nearest column that is
  // not settled, or -1.
  int lengthen(int number, int row, double reached) {
    const Wide least =
        number == 0 ? lengthen_all<true>(0, row, 0) : lengthen_all<false>(number, row, reached);
    if (!(least[0] < kForbidden)) return -1;
    NearestColumn nearest{s.owner};
    for (int block = 0; block * kBlock < s.columns; ++block)
      if (nearest.look(s.distance, block, least)) break;
    return nearest.column;
  }

  void settle(int column) { settle_distance(s.distance, column); }

  int64_t work() const { return s.columns; }

 private:
  template <bool First>
  Wide lengthen_all(int64_t number, int row, double reached) {
    const double *const cost = s.row(row), *const paid = s.column_price, price = s.row_price[row];
    double* const distance = s.distance;
    int64_t* const before = s.before;
    const int columns = s.columns;
    const Numbers by = number - Numbers{};
    Wide least = broadcast(kForbidden);
    for (int j = 0; j < columns; j += kWide) {
      const Wide length = reached + ((load(cost + j) - load(paid + j)) - price);
      const Wide known = First ? broadcast(kForbidden) : load(distance + j);
      const Wide shortest = smaller(length, known);
      store(distance + j, shortest);
      store_numbers(before + j, First ? by : length < known ? by : load_numbers(before + j));
      least = smaller(shortest, least);
    }
    return smallest(least);
  }

  const AssignmentState<double>& s;
};

}  // namespace geokernels::GEOKERNELS_LEVEL
