/* What the C texts of the table of primitives are written in.
 *
 * Compiled once per precision with REAL = float or double (SINGLE = 1 or 0). Every function is
 * branchless, so that a loop over it becomes vector code; NaN stays NaN. Polynomials are Chebyshev
 * fits of this project, with their largest error noted. Where libmvec is at hand (LIBMVEC = 1) its
 * vector functions are declared; without it those calls are scalar. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define R(literal) ((REAL)(literal))

#if LIBMVEC
#define VECTOR _Pragma("omp declare simd notinbranch")
#else
#define VECTOR
#endif

#if SINGLE
#define LIBM(name) name##f
#else
#define LIBM(name) name
#endif
#define DECLARE(name) VECTOR extern REAL LIBM(name)(REAL) __attribute__((const));
#define DECLARE2(name) VECTOR extern REAL LIBM(name)(REAL, REAL) __attribute__((const));
DECLARE(exp) DECLARE(exp2) DECLARE(expm1) DECLARE(log) DECLARE(log1p) DECLARE(sin) DECLARE(cos)
DECLARE(sinh) DECLARE(cosh) DECLARE(tanh) DECLARE(asinh) DECLARE(atan) DECLARE(asin)
DECLARE(erf) DECLARE(erfc) DECLARE2(pow) DECLARE2(atan2)

#define EXP2(a) LIBM(exp2)(a)
#define LOG(a) LIBM(log)(a)
#define LOG1P(a) LIBM(log1p)(a)
#define SIN(a) LIBM(sin)(a)
#define COS(a) LIBM(cos)(a)
#define SINH(a) LIBM(sinh)(a)
#define COSH(a) LIBM(cosh)(a)
#define ASINH(a) LIBM(asinh)(a)
#define ERF(a) LIBM(erf)(a)
#define ERFC(a) LIBM(erfc)(a)
#define POW(a, b) LIBM(pow)(a, b)
#define SQRT(a) LIBM(sqrt)(a)
#define ABS(a) LIBM(fabs)(a)

#define ALIGNED __attribute__((aligned(64)))
#define INLINE static inline __attribute__((always_inline)) REAL

/* The bits of |a|: as whole numbers in the order of the numbers, NaN above all. */
#if SINGLE
typedef int32_t Bits;
#define WITHOUT_SIGN 0x7FFFFFFF
#else
typedef int64_t Bits;
#define WITHOUT_SIGN 0x7FFFFFFFFFFFFFFF
#endif
static inline __attribute__((always_inline)) Bits size_bits(REAL a) {
  Bits bits;
  memcpy(&bits, &a, sizeof bits);
  return bits & WITHOUT_SIGN;
}
#define FAR R(1e4) /* beyond, c_blocks.c looks at inputs one by one */

/* Where the arrays of what loops keep lie, by the last 12 bits of their addresses. A processor that
 * reads what it writes to the same 12 bits a few vectors before waits for it, and the nearest cache
 * has few places for one value of them: an arctan-arcsin backward in the cache took 57 cycles of 16
 * elements, or up to 90 as chance laid its arrays out, and over 2^22 64 to 70; 64 so. Tensors begin
 * at about the same bits and go on in blocks of 2 kB: the first array begins 768 bytes beyond, every
 * other one 512 bytes beyond the last but one, and what c_blocks.c sums up 1792. */
#define PLACE (2048 / (long)sizeof(REAL))
#define KEPT(k, n) ((k) * (((n) + PLACE - 1) & -PLACE) + (k) / 2 * (PLACE / 4))
#define ROOM(count, longest) (KEPT(count, longest) + 2 * PLACE)
static inline REAL *beside(REAL *space, const REAL *tensor) {
  uintptr_t behind = (uintptr_t)tensor + 768 - (uintptr_t)space;
  return space + (behind % 2048 & ~63) / sizeof(REAL);
}

/* NaN stays NaN. Written as choices alone: gcc 12 makes no vector code of (a > b) | (a != a). */
INLINE maximum(REAL a, REAL b) { return a < b ? b : (b != b ? b : a); }
INLINE minimum(REAL a, REAL b) { return a > b ? b : (b != b ? b : a); }
INLINE at_most(REAL a, REAL bound) { return a > bound ? bound : a; }
INLINE at_least(REAL a, REAL bound) { return a < bound ? bound : a; }

/* A bound is a constant whose value the compiler does not see: gcc makes one vmaxps of a choice
 * between values that it does not know; of one with a literal a comparison and a blend, four cycles
 * longer, and then all that follows once for inside and once for every end. */
#ifdef __ELF__
#if SINGLE
#define DATA(value) ".float " #value
#else
#define DATA(value) ".double " #value
#endif
#define BOUND(name, value) \
  extern const REAL name __attribute__((visibility("hidden"))); \
  __asm__(".pushsection .rodata\n.balign 8\n.globl " #name "\n" \
          #name ": " DATA(value) "\n.popsection");
#else
#define BOUND(name, value) static const REAL name = R(value);
#endif
BOUND(exp_lowest, -105) BOUND(exp_highest, 89) BOUND(expm1_lowest, -25) BOUND(tanh_lowest, -20)
BOUND(bell_highest, 20) BOUND(gompertz_lowest, -7) BOUND(steepest, 1e6) BOUND(flattest, 1e-6)
BOUND(minus_one, -1) BOUND(plus_one, 1)
#if SINGLE
BOUND(exp_least, -88.02968597412109) BOUND(exp_most, 88.72283935546875)
BOUND(mish_highest, 40) BOUND(largest, 3e38) BOUND(exp2_lowest, -127) BOUND(exp2_highest, 128)
#else
BOUND(exp_most, 800) BOUND(mish_highest, 300) BOUND(largest, 1e308)
#endif

INLINE relu(REAL a) { return a < 0 ? R(0) : a; }
INLINE step(REAL a) { return (a > 0 ? R(1) : R(0)) + (a != a ? a : R(0)); }
INLINE sign(REAL a) { return a > 0 ? R(1) : (a < 0 ? R(-1) : a); }

#if SINGLE
/* Polynomials are summed as two or more short chains: a loop of vectors waits for the longest one,
 * not for the number of its products. */

/* exp on |r| <= log(2)/2: 1 + r + r^2 q(r), relative error 9e-9. */
INLINE exp_tail(float r) {
  float s = r * r;
  float low = 0.1666657342f * r + 0.5f;
  float high = 0.008363767023f * r + 0.04166655016f;
  return (0.001392691806f * s + high) * s + low;
}

INLINE power_of_two(int32_t n) { /* -126 <= n <= 127 */
  int32_t bits = (n + 127) << 23;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* n with a = n log 2 + r. Adding 1.5 * 2^23 rounds to a whole number and leaves it in the bits,
 * together with `offset`, itself whole. */
INLINE reduce(float a, float offset, int32_t *bits) {
  float shifted = a * 1.44269504089f + (12582912.0f + offset);
  memcpy(bits, &shifted, sizeof *bits);
  float whole = shifted - (12582912.0f + offset);
  return (a - whole * 0.693359375f) + whole * 2.12194440055e-4f;
}
#define WHOLE(bits) ((bits) - 0x4B400000)

/* 1 ulp; the scale is applied in two steps, for subnormal results and for overflow to inf. */
INLINE EXP(float a) {
  a = at_most(at_least(a, exp_lowest), exp_highest);
  int32_t bits;
  float r = reduce(a, 0.0f, &bits);
  float p = 1.0f + (r + r * r * exp_tail(r));
  int32_t n = WHOLE(bits), half = n >> 1;
  return p * power_of_two(half) * power_of_two(n - half);
}

/* exp(a) * 2^lift, to 2e-7, and 2e-9 |a| more: one polynomial of degree 5, one step of the
 * argument's reduction; the whole part goes straight into the exponent. The bits of a NaN are held
 * to a number that leaves none of them to be added to its own. */
INLINE exp_lifted(float a, float lift) {
  uint32_t bits, scaled;
  float shifted = a * 1.44269504089f + (12582912.0f + lift);
  memcpy(&bits, &shifted, sizeof bits);
  float r = a - (shifted - (12582912.0f + lift)) * 0.693147180560f, s = r * r;
  float low = 0.16667115f * r + 0.49999231f, high = 0.00831252f * r + 0.0418902f;
  float p = (high * s + low) * s + (1.0f + r);
  memcpy(&scaled, &p, sizeof scaled);
  scaled += (bits < 0x4B400200u ? bits : 0x4B400200u) << 23;
  memcpy(&p, &scaled, sizeof p);
  return p;
}

/* For a <= 43: one product takes 2^64 off again, through the subnormal numbers to 0. */
INLINE exp_low(float a) { return exp_lifted(at_least(a, exp_lowest), 64.0f) * 5.42101086243e-20f; }

/* For a <= 128 log 2, where it is inf; 7e-44, not 0, from -127 log 2 down: without the product. */
INLINE exp_wide(float a) { return exp_lifted(at_least(a, exp_least), 0.0f); }

/* 2^a, inf from 128 on, 6e-39 from -127 down, to 2e-7: of an argument that came as a product, which
 * takes log2(e) in and spares the reduction's own. */
INLINE exp2_wide(float a) {
  a = at_most(at_least(a, exp2_lowest), exp2_highest);
  uint32_t bits, scaled;
  float shifted = a + 12582912.0f;
  memcpy(&bits, &shifted, sizeof bits);
  float r = a - (shifted - 12582912.0f);
  float p = (0.001327406149f * r + 0.009671952575f) * r + 0.05550680682f;
  p = ((p * r + 0.2402223498f) * r + 0.6931470633f) * r + 1.0f;
  memcpy(&scaled, &p, sizeof scaled);
  scaled += (bits < 0x4B400200u ? bits : 0x4B400200u) << 23;
  memcpy(&p, &scaled, sizeof p);
  return p;
}

INLINE EXPM1(float a) {
  a = at_most(at_least(a, expm1_lowest), exp_highest);
  int32_t bits;
  float r = reduce(a, 0.0f, &bits);
  float p = r + r * r * exp_tail(r);
  int32_t n = WHOLE(bits), half = n >> 1;
  float low = power_of_two(half), high = power_of_two(n - half);
  return (p * low + (low - power_of_two(half - n))) * high;
}

/* (1 - e) / (1 + e) with e = exp(-2|a|) from expm1, exact near 0; beyond 9.1 it is 1. */
INLINE TANH(float a) {
  int32_t bits, scaled = 0x3F800000;
  float r = reduce(at_least(-2.0f * ABS(a), tanh_lowest), 0.0f, &bits);
  float p = r + r * r * exp_tail(r), scale;
  scaled += (int32_t)((uint32_t)bits << 23);
  memcpy(&scale, &scaled, sizeof scale);
  float m = p * scale + (scale - 1.0f);
  return copysignf(m / (m + 2.0f), a);
}

/* Odd polynomial on [0, 1], relative error 1.7e-8; beyond 1, pi/2 - atan(1/|a|). */
INLINE ATAN(float a) {
  float z = ABS(a), inverse = 1.0f / z;
  float t = z > 1.0f ? inverse : z, s = t * t, q = s * s;
  float even = (-0.01636793f * q - 0.07552215f) * q - 0.14211055f;
  float odd = ((0.00292069f * q + 0.04321187f) * q + 0.10666005f) * q + 0.19993773f;
  float p = ((odd + even * s) * s - 0.33333153f) * s + 1.0f;
  p = z > 1.0f ? 1.57079632679f - p * t : p * t;
  return copysignf(p, a);
}

/* Odd polynomial on [0, 1/2], relative error 5e-9; beyond, pi/2 - 2 asin(sqrt((1 - |a|) / 2)). */
INLINE ASIN(float a) {
  float z = ABS(a), half = 0.5f - 0.5f * z, root = SQRT(half);
  float t = z > 0.5f ? root : z, s = z > 0.5f ? half : z * z, q = s * s;
  float high = 0.04241737376f * s + 0.02399399965f;
  float middle = 0.04552063563f * s + 0.07494696687f;
  float p = (high * q + middle) * q + (0.1666678201f * s + 0.999999996f);
  p = p * t;
  p = z > 0.5f ? 1.57079632679f - 2.0f * p : p;
  return copysignf(p, a);
}

/* sqrt(1 - a^2); one rounding of 1 - a^2 where a multiply-add has it, else of exact factors. */
INLINE root_of_unit(float a) {
#ifdef FP_FAST_FMAF
  return SQRT(fmaf(-a, a, 1.0f));
#else
  return SQRT((1.0f - a) * (1.0f + a));
#endif
}

/* The angle of (x, y), y first as in atan2, not both 0: an odd polynomial of the smaller side over
 * the larger, relative error 1.1e-7, then the eighth of the circle it lies in. One chain, a product
 * less than two: a loop of its own hides what it waits. */
INLINE angle(float y, float x) {
  float a = ABS(x), b = ABS(y), high = a > b ? a : b, low = a > b ? b : a;
  float t = low / high, s = t * t;
  float p = (-0.00482253304f * s + 0.0247340589f) * s - 0.0602031238f;
  p = ((p * s + 0.0996847265f) * s - 0.140413276f) * s + 0.199742141f;
  p = (p * s - 0.333323916f) * (s * t) + t;
  p = a > b ? p : 1.57079632679f - p;
  p = x < 0 ? 3.14159265359f - p : p;
  return copysignf(p, y);
}

/* 1 / sqrt(1 - a^2), at most 1e6, with ASIN's root: 1 / sqrt(1 - s) to 4e-9, and beyond 1/2, where
 * 1 - a^2 = 4 h (1 - h) of h = (1 - |a|) / 2, the same over 2 sqrt(h). */
INLINE arcsin_slope(float a) {
  float z = ABS(a), half = 0.5f - 0.5f * z, root = SQRT(half);
  float s = z > 0.5f ? half : z * z, q = s * s;
  float even = ((0.55678212f * q + 0.29843024f) * q + 0.37509924f) * q + 1.0f;
  float odd = (0.11130354f * q + 0.3101986f) * q + 0.49999841f;
  float p = odd * s + even, far = p * (0.5f / root);
  far = far < steepest ? far : steepest; /* beyond 1, where the root is NaN, too */
  return z > 0.5f ? far : p;
}

/* log1p on [0, 1], relative error 5e-9. */
INLINE log1p_unit(float e) {
  float s = e * e;
  float even = ((-0.0136315f * s - 0.08307413f) * s - 0.16129337f) * s - 0.24988579f;
  float odd = ((0.00207295f * s + 0.04198141f) * s + 0.12467126f) * s + 0.19897932f;
  odd = odd * s + 0.3333269f;
  return ((odd * e + (even * s - 0.49999987f)) * e + 1.0f) * e;
}

/* exp(-a^2 / 2); the rounding of a^2, worth 5e-6 at a = 13, is put back to first order. */
INLINE bell(float a) {
  a = at_most(ABS(a), bell_highest);
  float square = a * a;
  float lost = fmaf(a, a, -square);
  float e = exp_low(-0.5f * square);
  return e - e * (0.5f * lost);
}

/* exp(a^2/2) * normal_cdf(-a), a >= 0, in t = 1/(1 + a/4); relative error 1e-7. */
INLINE mills(float a) {
  float t = 1.0f / (1.0f + 0.25f * a), s = t * t;
  float odd = (((0.02081488816f * s + 0.103798855f) * s + 0.06827399372f) * s + 0.08188963156f) * s;
  float even = ((-0.08538922873f * s - 0.03974686045f) * s + 0.05744625909f) * s + 0.09343951474f;
  return ((odd + 0.09973739677f) * t + (even * s + 0.09973556104f)) * t;
}

INLINE normal_cdf(float a) {
  float tail = bell(a) * mills(ABS(a));
  return a > 0 ? 1.0f - tail : tail;
}
#else
#define EXP(a) exp(a)
#define exp_low(a) exp(a)
#define exp_wide(a) exp(a)
#define exp2_wide(a) exp2(a)
#define EXPM1(a) expm1(a)
#define TANH(a) tanh(a)
#define ATAN(a) atan(a)
#define ASIN(a) asin(a)
#define log1p_unit(e) log1p(e)
INLINE bell(double a) { return exp(-0.5 * a * a); }
INLINE normal_cdf(double a) { return 0.5 * erfc(-0.70710678118654752440 * a); }
#endif

#if !SINGLE
INLINE root_of_unit(double a) { return sqrt((1 - a) * (1 + a)); }
INLINE angle(double y, double x) { return atan2(y, x); }
INLINE arcsin_slope(double a) {
  double rest = (1 - a) * (1 + a);
  return 1 / sqrt(rest < 1e-12 ? 1e-12 : rest);
}
#endif

/* The root that the slope of arcsin is 1 over: at least 1e-6; of NaN, the root beyond 1, too. */
INLINE held_root(REAL root) { return root > flattest ? root : flattest; }

/* A quotient by that root, and 0 beyond arcsin's clip, where the root is 0. */
INLINE over_root(REAL a, REAL root) {
  REAL quotient = a / held_root(root);
  return root == 0 ? R(0) : quotient;
}

#define PI R(3.14159265358979323846)

INLINE normal_pdf(REAL a) { return bell(a) * R(0.39894228040143267794); }
INLINE rsqrt(REAL a) { return R(1) / SQRT(a); }
INLINE softplus(REAL a) { return relu(a) + log1p_unit(exp_wide(-ABS(a))); }

/* 1 / (1 + e) with e = exp(-a), inf from exp_most on. */
INLINE falling(REAL a) { return exp_wide(at_most(-a, exp_most)); }
INLINE sigmoid(REAL a) { return R(1) / (R(1) + falling(a)); }

/* e = exp(-a) as a factor of sigmoid(a) sigmoid(-a) = (e r) r, r = 1 / (1 + e): not inf, where r
 * is 0. */
INLINE not_infinite(REAL e) { return at_most(e, largest); }

/* gompertz(a) = exp(-power): below -7 it is 0 in float64 too; the clamp keeps inf out of its
 * density, power * exp(-power). */
INLINE gompertz_power(REAL a) { return exp_low(-at_least(a, gompertz_lowest)); }
INLINE gompertz(REAL a) { return exp_low(-gompertz_power(a)); }
INLINE gumbel_pdf(REAL a) {
  REAL power = gompertz_power(a);
  return power * exp_low(-power);
}

/* No call inside a choice: a compiler may leave it in a branch. */
INLINE sinc(REAL a) { return SIN(a) / (a == 0 ? R(1) : a) + (a == 0 ? R(1) : R(0)); }
INLINE arctan_gate(REAL a) {
  REAL t = ATAN(R(1) / ABS(a)) * (R(1) / PI);
  return a > 0 ? R(1) - t : t;
}
INLINE arcsin_gate(REAL a) {
  return R(0.5) + ASIN(at_most(at_least(a, minus_one), plus_one)) * (R(1) / PI);
}

/* tanh(softplus(a)) = n (n + 2) / d, d = n (n + 2) + 2, n = exp(a), and its derivative
 * 4 n (n + 1) / d^2. Beyond the bound they are 1 and below 1e-34, and d does not overflow. */
INLINE mish_power(REAL a) { return exp_wide(at_most(a, mish_highest)); }
INLINE mish_gate(REAL a) {
  REAL n = mish_power(a), w = n * (n + R(2));
  return w * (R(1) / (w + R(2)));
}
INLINE mish_slope(REAL a) {
  REAL n = mish_power(a), r = R(1) / (n * (n + R(2)) + R(2));
  REAL share = n * r, slope = (R(4) * share) * (share + r);
  return !SINGLE && a > mish_highest ? R(0) : slope; /* float32 leaves infinity to double */
}

/* A factor times the slope of a clip; one comparison where the ends are literals -c and c. */
INLINE kept_inside(REAL factor, REAL a, REAL b, REAL c) {
  if (__builtin_constant_p(b == -c) && b == -c) return ABS(a) >= c ? R(0) : factor;
  return a <= b ? R(0) : (a >= c ? R(0) : factor);
}

/* The slope of a clip: 1 inside, 0 at and beyond the ends, NaN for NaN. */
INLINE inside_of(REAL a, REAL b, REAL c) {
  return (a > b ? (a < c ? R(1) : R(0)) : R(0)) + (a != a ? a : R(0));
}
