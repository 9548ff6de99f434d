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
DECLARE(erf) DECLARE(erfc) DECLARE2(pow)

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

#define INLINE static inline __attribute__((always_inline)) REAL

/* NaN stays NaN. Written as choices alone: gcc 12 makes no vector code of (a > b) | (a != a). */
INLINE maximum(REAL a, REAL b) { return a < b ? b : (b != b ? b : a); }
INLINE minimum(REAL a, REAL b) { return a > b ? b : (b != b ? b : a); }
INLINE at_most(REAL a, REAL bound) { return a > bound ? bound : a; }
INLINE at_least(REAL a, REAL bound) { return a < bound ? bound : a; }
INLINE relu(REAL a) { return a < 0 ? R(0) : a; }
INLINE step(REAL a) { return (a > 0 ? R(1) : R(0)) + (a != a ? a : R(0)); }
INLINE sign(REAL a) { return a > 0 ? R(1) : (a < 0 ? R(-1) : a); }

#if SINGLE
/* exp on |r| <= log(2)/2: 1 + r + r^2 q(r), |error of q| < 7e-8. */
INLINE exp_tail(float r) {
  float q = 0.001392691806f;
  q = q * r + 0.008363767023f;
  q = q * r + 0.04166655016f;
  q = q * r + 0.1666657342f;
  return q * r + 0.5f;
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
  a = at_most(at_least(a, -105.0f), 89.0f);
  int32_t bits;
  float r = reduce(a, 0.0f, &bits);
  float p = 1.0f + (r + r * r * exp_tail(r));
  int32_t n = WHOLE(bits), half = n >> 1;
  return p * power_of_two(half) * power_of_two(n - half);
}

/* For a <= 43, as in gates: the whole part, plus 64, goes straight into the exponent, and one
 * product takes the 2^64 off again, through the subnormal numbers to 0. */
INLINE exp_low(float a) {
  int32_t bits, scaled;
  float r = reduce(at_least(a, -105.0f), 64.0f, &bits);
  float p = 1.0f + (r + r * r * exp_tail(r));
  memcpy(&scaled, &p, sizeof scaled);
  scaled += (int32_t)((uint32_t)bits << 23);
  memcpy(&p, &scaled, sizeof p);
  return p * 5.42101086243e-20f;
}

INLINE EXPM1(float a) {
  a = at_most(at_least(a, -25.0f), 89.0f);
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
  float r = reduce(at_least(-2.0f * ABS(a), -20.0f), 0.0f, &bits);
  float p = r + r * r * exp_tail(r), scale;
  scaled += (int32_t)((uint32_t)bits << 23);
  memcpy(&scale, &scaled, sizeof scale);
  float m = p * scale + (scale - 1.0f);
  float t = m / (m + 2.0f);
  return a < 0 ? t : -t;
}

/* Odd polynomial on [0, 1], relative error 4e-9; beyond 1, pi/2 - atan(1/|a|). */
INLINE ATAN(float a) {
  float z = ABS(a), inverse = 1.0f / z;
  float t = z > 1.0f ? inverse : z, s = t * t;
  float p = -0.001701170064f;
  p = p * s + 0.01048764925f;
  p = p * s - 0.03035186479f;
  p = p * s + 0.05708955593f;
  p = p * s - 0.08349724968f;
  p = p * s + 0.109323415f;
  p = p * s - 0.1426001608f;
  p = p * s + 0.1999807528f;
  p = p * s - 0.3333327629f;
  p = p * s + 0.9999999972f;
  p = p * t;
  p = z > 1.0f ? 1.57079632679f - p : p;
  return copysignf(p, a);
}

/* Odd polynomial on [0, 1/2], relative error 5e-9; beyond, pi/2 - 2 asin(sqrt((1 - |a|) / 2)). */
INLINE ASIN(float a) {
  float z = ABS(a), half = 0.5f - 0.5f * z, root = SQRT(half);
  float t = z > 0.5f ? root : z, s = z > 0.5f ? half : z * z;
  float p = 0.04241737376f;
  p = p * s + 0.02399399965f;
  p = p * s + 0.04552063563f;
  p = p * s + 0.07494696687f;
  p = p * s + 0.1666678201f;
  p = p * s + 0.999999996f;
  p = p * t;
  p = z > 0.5f ? 1.57079632679f - 2.0f * p : p;
  return copysignf(p, a);
}

/* log1p on [0, 1], relative error 2e-9. */
INLINE log1p_unit(float e) {
  float p = 0.001986696594f;
  p = p * e - 0.01318782657f;
  p = p * e + 0.04100657369f;
  p = p * e - 0.08188040924f;
  p = p * e + 0.1237799587f;
  p = p * e - 0.1608762301f;
  p = p * e + 0.1988582029f;
  p = p * e - 0.2498649646f;
  p = p * e + 0.3333249754f;
  p = p * e - 0.4999997949f;
  p = p * e + 0.9999999992f;
  return p * e;
}

/* exp(-a^2 / 2); the rounding of a^2, worth 5e-6 at a = 13, is put back to first order. */
INLINE bell(float a) {
  a = at_most(ABS(a), 20.0f);
  float square = a * a;
  float lost = fmaf(a, a, -square);
  float e = exp_low(-0.5f * square);
  return e - e * (0.5f * lost);
}

/* exp(a^2/2) * normal_cdf(-a), a >= 0, in t = 1/(1 + a/4); relative error 1e-7. */
INLINE mills(float a) {
  float t = 1.0f / (1.0f + 0.25f * a);
  float p = 0.02081488816f;
  p = p * t - 0.08538922873f;
  p = p * t + 0.103798855f;
  p = p * t - 0.03974686045f;
  p = p * t + 0.06827399372f;
  p = p * t + 0.05744625909f;
  p = p * t + 0.08188963156f;
  p = p * t + 0.09343951474f;
  p = p * t + 0.09973739677f;
  p = p * t + 0.09973556104f;
  return p * t;
}

INLINE normal_cdf(float a) {
  float tail = bell(a) * mills(ABS(a));
  return a > 0 ? 1.0f - tail : tail;
}
#else
#define EXP(a) exp(a)
#define exp_low(a) exp(a)
#define EXPM1(a) expm1(a)
#define TANH(a) tanh(a)
#define ATAN(a) atan(a)
#define ASIN(a) asin(a)
#define log1p_unit(e) log1p(e)
INLINE bell(double a) { return exp(-0.5 * a * a); }
INLINE normal_cdf(double a) { return 0.5 * erfc(-0.70710678118654752440 * a); }
#endif

#define PI R(3.14159265358979323846)

INLINE normal_pdf(REAL a) { return bell(a) * R(0.39894228040143267794); }
INLINE rsqrt(REAL a) { return R(1) / SQRT(a); }
INLINE softplus(REAL a) { return relu(a) + log1p_unit(exp_low(-ABS(a))); }

/* One exponential and one division for sigmoid(a) and sigmoid(-a) together. */
INLINE sigmoid(REAL a) {
  REAL e = exp_low(-ABS(a)), r = R(1) / (R(1) + e);
  return a < 0 ? e * r : r;
}

/* Below -7 the gate is 0 in float64 too; the clamp keeps inf out of its density. */
INLINE gompertz(REAL a) { return exp_low(-exp_low(-at_least(a, R(-7)))); }
INLINE gumbel_pdf(REAL a) {
  REAL e = exp_low(-at_least(a, R(-7)));
  return e * exp_low(-e);
}

/* No call inside a choice: a compiler may leave it in a branch. */
INLINE sinc(REAL a) { return SIN(a) / (a == 0 ? R(1) : a) + (a == 0 ? R(1) : R(0)); }
INLINE arctan_gate(REAL a) {
  REAL t = ATAN(R(1) / ABS(a)) * (R(1) / PI);
  return a > 0 ? R(1) - t : t;
}
INLINE arcsin_gate(REAL a) {
  return R(0.5) + ASIN(at_most(at_least(a, R(-1)), R(1))) * (R(1) / PI);
}

/* tanh(softplus(a)) = w / (w + 2), w = n (n + 2), n = exp(a); its distance from 1; sigmoid(a) from
 * the same exponential. Beyond 20 all are 1 (0) to 2e-9 (9e-18), and
 * w does not overflow. */
INLINE mish_power(REAL a) { return exp_low(at_most(a, R(20))); }
INLINE mish_gate(REAL a) {
  REAL n = mish_power(a), w = n * (n + R(2));
  return w * (R(1) / (w + R(2)));
}
INLINE mish_rest(REAL a) {
  REAL n = mish_power(a), w = n * (n + R(2));
  return a > R(20) ? R(0) : R(2) * (R(1) / (w + R(2)));
}
INLINE mish_sigmoid(REAL a) {
  REAL n = mish_power(a);
  return n / (n + R(1));
}
