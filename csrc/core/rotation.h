// The plane rotation (turn) of Jacobi's method that makes two rows orthogonal, for the CPU and the GPU.
//
//   tan(2 t) = 2 <up, down> / (|down|^2 - |up|^2),   |t| <= pi / 4
//
// V is a number, for one pair of rows, or a vector of numbers, for as many pairs.
//
// A pair is left alone when its cosine is below rounding, or when one of its rows is below the rounding of
// the largest and could not change the other beyond rounding. Turns converge quadratically: a sweep in which
// every turn was small is the last.
//
// No include guard: included once for every SIMD level after core/simd.h, and by CUDA kernels with a level
// of their own (cuda/formulas.h).

#include "core/anywhere.h"

namespace geokernels::GEOKERNELS_LEVEL {

constexpr int kSweeps = 40;  // five to ten suffice; the bound is for NaN

// The limits below which a sweep ignores a row or a turn, for so many rows, the largest of this squared
// length.
template <class T>
struct Invisible {
  T square;  // squared lengths up to here are rounding
  T turn;    // squared tangents and cosines up to here have no effect beyond rounding

  GEOKERNELS_ANYWHERE Invisible(T largest, int64_t rows) {
    constexpr T eps = std::numeric_limits<T>::epsilon(), least = std::numeric_limits<T>::min();
    const T rounding = eps * eps / 4 * largest;
    square = rounding > least ? rounding : least;
    turn = eps / (4 * T(rows));
  }
};

template <class T, class V>
struct Turn {
  V tangent, sine, half;          // half: the tangent of half the angle; all 0 where no turn is due
  decltype(V() < V()) unsettled;  // where the rows are not yet orthogonal to rounding

  // inner: the inner product; above, below: the squared lengths.
  GEOKERNELS_ANYWHERE __attribute__((always_inline)) Turn(V inner, V above, V below,
                                                          const Invisible<T>& invisible) {
    const V scale = 1 / (above + below), zero = {};
    const V apart = (below - above) * scale, twice = 2 * inner * scale;
    const V product = 4 * (above * scale) * (below * scale), square = twice * twice;
    const V size = apart < zero ? -apart : apart;
    const V steep = (apart < zero ? -twice : twice) / (size + root<T>(apart * apart + square));
    constexpr T eps = std::numeric_limits<T>::epsilon();
    const auto idle =
        (above <= invisible.square) | (below <= invisible.square) | (square <= eps * eps * product);
    tangent = idle ? zero : steep;
    unsettled = (idle == 0) & ((steep * steep > invisible.turn) | (square > invisible.turn * product));
    const V secant = root<T>(1 + tangent * tangent);
    sine = tangent / secant;
    half = tangent / (1 + secant);
  }

  // Rows after the turn. As corrections to them, small turns leave small rounding errors, and lengths do not
  // drift.
  GEOKERNELS_ANYWHERE V up(V first, V second) const { return first - sine * (second + half * first); }
  GEOKERNELS_ANYWHERE V down(V first, V second) const { return second + sine * (first - half * second); }
};

}  // namespace geokernels::GEOKERNELS_LEVEL
