/* Runs a formula's kernel over tensors: everything that does not depend on the formula.
 *
 * Compiled once a machine, per precision (REAL, SINGLE as in c_math.h). A tensor is walked in
 * memory order as [outer, channels, inner]; blocks of about a thousand elements are loaded to REAL,
 * go through the kernel and are stored with one rounding. Sums are taken per chunk, in double, and
 * added up in order: chunks depend on the shape alone, so a result is the same to the last bit for
 * every number of threads. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

#define LANES 16
#define BLOCK 512
#define PLACE (2048 / (long)sizeof(REAL)) /* as in c_math.h */
#define LARGEST_BLOCK 4096
#define CHUNK 32768
#define MOST_CHUNKS 64
#define PARALLEL 65536
#define MOST 64 /* values a stage may read and write */

enum { NATIVE, BFLOAT16, FLOAT16 };
enum { ONE, CHANNEL, FEATURES, SAMPLE };   /* which elements share one value */
enum { SUM, MEAN, VAR, STD, RMS };         /* what becomes of a sum */

/* Returns whether some x is NaN or beyond FAR. */
typedef int (*Kernel)(long n, const REAL *const *in, const REAL *scalars, REAL *const *out);
typedef int (*Wide)(long n, const double *const *in, const double *scalars, double *const *out);

typedef struct {
  Kernel kernel;
  int streams, scalars, vectors, written, summed;
  int x; /* the stream that is x, or -1 */
  const int *finish; /* of every sum */
  Wide wide; /* the kernel in double, for inputs far from zero; may be missing */
} Stage;

typedef struct {
  long size, channels, inner, sample;
} Layout;

typedef struct {
  const Stage *stage;
  const Layout *layout;
  void *const *streams, *const *vectors, *const *written;
  REAL scalars[MOST];
  double wide_scalars[MOST];
  int *missing; /* set when `wide` was needed and is not there */
  const int *vector_patterns, *sum_patterns;
  int io, constants; /* constants: bit s is set when stream s is one value */
  long block, chunk;
  double *sums[MOST], *squares[MOST]; /* [chunks][values], or [values] where chunks are disjoint */
  const double *centre[MOST];
  long values[MOST], stride[MOST]; /* stride: values, or 0 where chunks are disjoint */
} Walk;

/* --- elements that share a value ------------------------------------------------------------- */

typedef struct {
  long index, length;
  int along; /* 1: the value's index goes with the element, 0: it stays */
} Segment;

static Segment segment(const Layout *l, int pattern, long i) {
  switch (pattern) {
  case CHANNEL:
    if (l->inner == 1)
      return (Segment){i % l->channels, l->channels - i % l->channels, 1};
    return (Segment){i / l->inner % l->channels, l->inner - i % l->inner, 0};
  case FEATURES:
    if (l->inner == 1)
      return (Segment){i / l->channels, l->channels - i % l->channels, 0};
    return (Segment){i / (l->channels * l->inner) * l->inner + i % l->inner,
                     l->inner - i % l->inner, 1};
  case SAMPLE:
    return (Segment){i / l->sample, l->sample - i % l->sample, 0};
  default:
    return (Segment){0, l->size - i, 0};
  }
}

static long count_values(const Layout *l, int pattern) {
  switch (pattern) {
  case CHANNEL: return l->channels;
  case FEATURES: return l->size / l->channels;
  case SAMPLE: return l->size / l->sample;
  default: return 1;
  }
}

static void spread(const Layout *l, int pattern, long i, long n, const REAL *value, REAL *block) {
  for (long j = 0; j < n;) {
    Segment s = segment(l, pattern, i + j);
    long m = s.length < n - j ? s.length : n - j;
    if (s.along)
      memcpy(block + j, value + s.index, m * sizeof(REAL));
    else
      for (long k = 0; k < m; k++) block[j + k] = value[s.index];
    j += m;
  }
}

/* Sums in an order of their own, whatever the compiler does: partial sums, added up in order; so
 * many that an addition need not wait for the one before. Values are doubles already where `centre`
 * is taken off. */
#define SUMS (4 * LANES)
static void add_lanes(const REAL *g, long n, double *lanes) {
  REAL parts[SUMS] = {0};
  long j = 0;
  for (; j + SUMS <= n; j += SUMS)
    for (int k = 0; k < SUMS; k++) parts[k] += g[j + k];
  for (int k = 0; k < LANES; k++)
    lanes[k] += ((double)parts[k] + parts[k + LANES]) +
                ((double)parts[k + 2 * LANES] + parts[k + 3 * LANES]);
  for (; j < n; j++) lanes[j % LANES] += g[j];
}

static double sum_of_lanes(const double *lanes) {
  double halves[LANES / 2];
  for (int k = 0; k < LANES / 2; k++) halves[k] = lanes[k] + lanes[k + LANES / 2];
  for (int width = LANES / 4; width > 0; width /= 2)
    for (int k = 0; k < width; k++) halves[k] += halves[k + width];
  return halves[0];
}

static double lane_sum(const REAL *g, long n) {
  double lanes[LANES] = {0};
  add_lanes(g, n, lanes);
  return sum_of_lanes(lanes);
}

static double lane_squares(const REAL *g, long n, double centre) {
  double lanes[LANES] = {0};
  long j = 0;
  for (; j + LANES <= n; j += LANES)
    for (int k = 0; k < LANES; k++) {
      double d = g[j + k] - centre;
      lanes[k] += d * d;
    }
  double sum = 0;
  for (int k = 0; k < LANES; k++) sum += lanes[k];
  for (; j < n; j++) sum += (g[j] - centre) * (g[j] - centre);
  return sum;
}

static void gather(const Layout *l, int pattern, long i, long n, const REAL *g, double *sum,
                   double *square, const double *centre) {
  for (long j = 0; j < n;) {
    Segment s = segment(l, pattern, i + j);
    long m = s.length < n - j ? s.length : n - j;
    if (s.along) {
      if (sum)
        for (long k = 0; k < m; k++) sum[s.index + k] += g[j + k];
      if (square)
        for (long k = 0; k < m; k++) {
          double d = g[j + k] - (centre ? centre[s.index + k] : 0.0);
          square[s.index + k] += d * d;
        }
    } else {
      if (sum) sum[s.index] += lane_sum(g + j, m);
      if (square) square[s.index] += lane_squares(g + j, m, centre ? centre[s.index] : 0.0);
    }
    j += m;
  }
}

/* --- load and store ---------------------------------------------------------------------------- */

#if SINGLE
static void load_bfloat16(const uint16_t *from, long n, float *to) {
  for (long j = 0; j < n; j++) {
    uint32_t bits = (uint32_t)from[j] << 16;
    memcpy(to + j, &bits, 4);
  }
}

/* To the nearest, ties to even; NaN stays NaN. */
static void store_bfloat16(const float *from, long n, uint16_t *to) {
  for (long j = 0; j < n; j++) {
    uint32_t bits;
    memcpy(&bits, from + j, 4);
    uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    to[j] = (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? (bits >> 16) | 0x40u : rounded);
  }
}

#ifdef __F16C__
static void load_float16(const uint16_t *from, long n, float *to) {
  long j = 0;
  for (; j + 8 <= n; j += 8)
    _mm256_storeu_ps(to + j, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + j))));
  for (; j < n; j++) to[j] = _cvtsh_ss(from[j]);
}

static void store_float16(const float *from, long n, uint16_t *to) {
  long j = 0;
  for (; j + 8 <= n; j += 8)
    _mm_storeu_si128((__m128i *)(to + j), _mm256_cvtps_ph(_mm256_loadu_ps(from + j), 0));
  for (; j < n; j++) to[j] = _cvtss_sh(from[j], 0);
}
int has_float16(void) { return 1; }
#else
static void load_float16(const uint16_t *from, long n, float *to) {}
static void store_float16(const float *from, long n, uint16_t *to) {}
int has_float16(void) { return 0; }
#endif
#endif

static void load(int io, const void *from, long i, long n, REAL *to) {
#if SINGLE
  if (io == BFLOAT16) return load_bfloat16((const uint16_t *)from + i, n, to);
  if (io == FLOAT16) return load_float16((const uint16_t *)from + i, n, to);
#endif
  memcpy(to, (const REAL *)from + i, n * sizeof(REAL));
}

static void store(int io, const REAL *from, long n, void *to, long i) {
#if SINGLE
  if (io == BFLOAT16) return store_bfloat16(from, n, (uint16_t *)to + i);
  if (io == FLOAT16) return store_float16(from, n, (uint16_t *)to + i);
#endif
  memcpy((REAL *)to + i, from, n * sizeof(REAL));
}

/* --- far from zero -----------------------------------------------------------------------------
 *
 * x = 1e20 in float32 overflows in x * x, and at x = ±inf a formula is often 0 * inf where the
 * function has a limit. Inputs beyond FAR are looked at one by one: those beyond ALWAYS, and those
 * whose result is not finite, are computed in double; at ±inf a NaN becomes the limit. */

#define FAR 1e4 /* as in c_math.h */
#define ALWAYS 1e9

/* What far points say of the limit: a common value, a growth without bound, or nothing. */
static double limit_of(const double *values) {
  double low = values[0], high = values[0];
  for (int k = 0; k < LANES; k++) {
    if (values[k] != values[k]) return NAN;
    low = fmin(low, values[k]);
    high = fmax(high, values[k]);
  }
  if (low >= 1e9) return INFINITY;
  if (high <= -1e9) return -INFINITY;
  double size = fmax(fabs(low), fabs(high));
  return high - low <= 1e-6 * fmax(size, 1.0) ? values[0] : NAN;
}

/* The outputs at x in double; at ±inf, where they are NaN, what the kernel gives at ±1e18 and
 * LANES - 1 points nearby, if these agree (those of x * cos(x) do not: it stays NaN), or at ±1e9:
 * x * (1 + x / sqrt(1 + x * x)) is 1e18 times a rounding at the first. */
__attribute__((cold, noinline)) /* not amid the loops that are timed */
static void far_values(const Walk *w, const double *in, double *out) {
  const Stage *s = w->stage;
  int inputs = s->streams + s->vectors, outputs = s->written + s->summed;
  double space[2 * MOST][LANES];
  const double *one_in[MOST];
  double *one_out[MOST];
  for (int k = 0; k < inputs; k++) {
    one_in[k] = space[k];
    for (int lane = 0; lane < LANES; lane++) space[k][lane] = in[k];
  }
  for (int k = 0; k < outputs; k++) one_out[k] = space[MOST + k];
  s->wide(LANES, one_in, w->wide_scalars, one_out);
  int undefined = 0;
  for (int k = 0; k < outputs; k++) {
    out[k] = one_out[k][0];
    undefined |= out[k] != out[k];
  }
  if (!undefined || !isinf(in[s->x])) return;
  for (double size = 1e18; size >= 1e9; size *= 1e-9) {
    for (int lane = 0; lane < LANES; lane++)
      space[s->x][lane] = copysign(size * (1 - 0.053 * lane), in[s->x]);
    s->wide(LANES, one_in, w->wide_scalars, one_out);
    for (int k = 0; k < outputs; k++)
      if (out[k] != out[k]) out[k] = limit_of(one_out[k]);
  }
}

static void mend(const Walk *w, long n, const REAL *const *in, REAL *const *out) {
  const Stage *s = w->stage;
  int inputs = s->streams + s->vectors, outputs = s->written + s->summed;
  double one_in[MOST], one_out[MOST];
  for (long j = 0; j < n; j++) {
    REAL x = in[s->x][j];
    if (!(fabs(x) > FAR)) continue;
    int finite = 1;
    for (int k = 0; k < outputs; k++) finite &= isfinite(out[k][j]) != 0;
    if (finite && (!SINGLE || fabs(x) <= ALWAYS)) continue;
    if (!s->wide) {
      *w->missing = 1;
      return;
    }
    for (int k = 0; k < inputs; k++) one_in[k] = in[k][j];
    far_values(w, one_in, one_out);
    for (int k = 0; k < outputs; k++) out[k][j] = (REAL)one_out[k];
  }
}

/* --- the walk ---------------------------------------------------------------------------------- */

static long padded(long n) { return (n + LANES - 1) / LANES * LANES; }

/* A sum over all elements: its lanes are added up once a chunk, which takes longer (120 cycles) than
 * the additions of a block (40). */
static int is_whole(const Walk *w, int k) {
  return w->sum_patterns[k] == ONE && w->sums[k] && !w->squares[k];
}

/* The outputs that are no tensors lie apart from what a kernel reads: see KEPT of c_math.h. */
static REAL *beside(REAL *space, const REAL *tensor) {
  uintptr_t behind = (uintptr_t)tensor + 1792 - (uintptr_t)space;
  return space + (behind % 2048 & ~63) / sizeof(REAL);
}

static void walk_chunk(const Walk *w, long chunk) {
  const Stage *s = w->stage;
  long begin = chunk * w->chunk, end = begin + w->chunk;
  long width = (padded(w->block) + PLACE - 1) / PLACE * PLACE;
  if (end > w->layout->size) end = w->layout->size;
  int inputs = s->streams + s->vectors, outputs = s->written + s->summed;
  REAL *space = aligned_alloc(64, ((inputs + outputs) * width + PLACE) * sizeof(REAL));
  memset(space, 0, inputs * width * sizeof(REAL));
  const REAL *in[MOST];
  REAL *out[MOST];
  double lanes[MOST][LANES];
  memset(lanes, 0, s->summed * sizeof lanes[0]);
  for (int k = 0; k < s->streams; k++)
    if (w->constants >> k & 1) {
      load(w->io, w->streams[k], 0, 1, space + k * width);
      for (long j = 1; j < width; j++) space[k * width + j] = space[k * width];
    }
  int periodic = w->block % (w->layout->channels * w->layout->inner) == 0;
  for (long i = begin; i < end; i += w->block) {
    long n = end - i < w->block ? end - i : w->block;
    int direct = w->io == NATIVE && n % LANES == 0;
    for (int k = 0; k < s->streams; k++) {
      in[k] = space + k * width;
      if (w->constants >> k & 1) continue;
      if (direct) in[k] = (const REAL *)w->streams[k] + i;
      else load(w->io, w->streams[k], i, n, space + k * width);
    }
    for (int k = 0; k < s->vectors; k++) {
      REAL *block = space + (s->streams + k) * width;
      int pattern = w->vector_patterns[k];
      int again = i == begin || !(pattern == ONE || (pattern == CHANNEL && periodic));
      if (again) spread(w->layout, pattern, i, n, w->vectors[k], block);
      in[s->streams + k] = block;
    }
    REAL *own = beside(space + inputs * width, inputs ? in[0] : space);
    for (int k = 0; k < outputs; k++) {
      int there = direct && k < s->written && w->written[k];
      out[k] = there ? (REAL *)w->written[k] + i : own + k * width;
    }
    if (s->kernel(padded(n), in, w->scalars, out)) mend(w, n, in, out);
    for (int k = 0; k < s->written; k++)
      if (!direct && w->written[k]) store(w->io, out[k], n, w->written[k], i);
    for (int k = 0; k < s->summed; k++) {
      long at = chunk * w->stride[k];
      const REAL *values = out[s->written + k];
      if (is_whole(w, k)) add_lanes(values, n, lanes[k]);
      else
        gather(w->layout, w->sum_patterns[k], i, n, values, w->sums[k] ? w->sums[k] + at : NULL,
               w->squares[k] ? w->squares[k] + at : NULL, w->centre[k]);
    }
  }
  for (int k = 0; k < s->summed; k++)
    if (is_whole(w, k)) w->sums[k][chunk * w->stride[k]] = sum_of_lanes(lanes[k]);
  free(space);
}

static void walk(const Walk *w, int threads) {
  long chunks = (w->layout->size + w->chunk - 1) / w->chunk;
  int many = threads > 1 && w->layout->size >= PARALLEL;
#pragma omp parallel for schedule(static) num_threads(threads) if (parallel : many)
  for (long c = 0; c < chunks; c++) walk_chunk(w, c);
}

static long common_multiple(long a, long b) {
  long x = a, y = b;
  while (y) {
    long rest = x % y;
    x = y;
    y = rest;
  }
  return a / x * b;
}

/* Blocks of whole rows of channels where they fit, so that a parameter is spread once. Of a kernel
 * that reads one array and writes one, twice as many elements are in the nearest cache, and its
 * loops start half as often: an arctan-arcsin forward takes 38.3 cycles of 16 elements, not 39.5. */
static long block_length(const Walk *w) {
  const Stage *s = w->stage;
  int few = s->streams + s->vectors + s->written + s->summed <= 2;
  long most = few ? 2 * BLOCK : BLOCK;
  int rows = 0;
  for (int k = 0; k < s->vectors; k++) rows |= w->vector_patterns[k] != ONE;
  for (int k = 0; k < s->summed; k++) rows |= w->sum_patterns[k] != ONE;
  long row = w->layout->channels * w->layout->inner;
  if (!rows || row > LARGEST_BLOCK) return most;
  long whole = common_multiple(row, LANES);
  if (whole > LARGEST_BLOCK) whole = row;
  return whole > most ? whole : most / whole * whole;
}

/* Chunks of whole groups of elements where a sum belongs to a group of neighbours. */
static long chunk_length(const Walk *w) {
  long row = w->layout->channels * w->layout->inner;
  int grouped = 0;
  for (int k = 0; k < w->stage->summed; k++)
    grouped |= w->sum_patterns[k] == FEATURES || w->sum_patterns[k] == SAMPLE;
  long whole = grouped ? 1 : w->block;
  if (row > 1 && w->block % row == 0) whole = row;
  long most = (w->layout->size + MOST_CHUNKS - 1) / MOST_CHUNKS;
  for (int k = 0; k < w->stage->summed; k++) {
    int pattern = w->sum_patterns[k];
    if (pattern == FEATURES) whole = common_multiple(whole, row);
    if (pattern == SAMPLE) whole = common_multiple(whole, w->layout->sample);
    if (whole >= w->layout->size) return whole;
  }
  long length = most > CHUNK ? most : CHUNK;
  return (length + whole - 1) / whole * whole;
}

static void prepare_sums(Walk *w, long chunks) {
  for (int k = 0; k < w->stage->summed; k++) {
    int pattern = w->sum_patterns[k], finish = w->stage->finish[k];
    int disjoint = pattern == FEATURES || pattern == SAMPLE;
    w->values[k] = count_values(w->layout, pattern);
    w->stride[k] = disjoint ? 0 : w->values[k];
    long space = w->values[k] * (disjoint ? 1 : chunks);
    w->sums[k] = finish != RMS ? calloc(space, sizeof(double)) : NULL;
    w->squares[k] = finish == RMS ? calloc(space, sizeof(double)) : NULL;
    w->centre[k] = NULL;
  }
}

/* The chunks' sums added up, in their order, into the first. */
static void collect(double *partial, long values, long stride, long chunks) {
  if (!partial || !stride) return;
  for (long c = 1; c < chunks; c++)
    for (long v = 0; v < values; v++) partial[v] += partial[c * stride + v];
}

static REAL finished(int finish, double sum, double square, double n) {
  double variance = finish >= VAR ? square / n : 0;
  switch (finish) {
  case SUM: return (REAL)sum;
  case MEAN: return (REAL)(sum / n);
  case RMS: return (REAL)sqrt(variance);
  case VAR: return (REAL)variance;
  default: return (REAL)sqrt(variance);
  }
}

/* Squares are taken about the mean in a second walk: in one walk a mean far from zero costs digits. */
static void centre_squares(Walk *w, long chunks, int threads) {
  int needed = 0;
  double *sums[MOST];
  for (int k = 0; k < w->stage->summed; k++) {
    sums[k] = w->sums[k];
    int finish = w->stage->finish[k];
    if (finish != VAR && finish != STD) continue;
    needed = 1;
    double n = (double)(w->layout->size / w->values[k]);
    for (long v = 0; v < w->values[k]; v++) w->sums[k][v] /= n;
    w->centre[k] = w->sums[k];
    w->squares[k] = calloc(w->values[k] * (w->stride[k] ? chunks : 1), sizeof(double));
  }
  if (!needed) return;
  double *squares[MOST];
  for (int k = 0; k < w->stage->summed; k++) {
    squares[k] = w->squares[k];
    w->sums[k] = NULL;
    if (!w->centre[k]) w->squares[k] = NULL;
  }
  walk(w, threads);
  for (int k = 0; k < w->stage->summed; k++) {
    if (w->centre[k]) collect(squares[k], w->values[k], w->stride[k], chunks);
    w->sums[k] = sums[k];
    w->squares[k] = squares[k];
  }
}

/* pointers: streams, scalars, vectors, written (or null), summed; patterns: vectors, summed.
 * Returns 1 when the wide kernel was needed and missing. */
int run(const Stage *stage, long size, long channels, long inner, long sample, int threads, int io,
         int constants, void *const *pointers, const int *patterns) {
  Layout layout = {size, channels, inner, sample};
  Walk w = {.stage = stage, .layout = &layout, .io = io, .constants = constants};
  w.streams = pointers;
  w.vectors = pointers + stage->streams + stage->scalars;
  w.written = w.vectors + stage->vectors;
  w.vector_patterns = patterns;
  w.sum_patterns = patterns + stage->vectors;
  for (int k = 0; k < stage->scalars; k++) {
    w.scalars[k] = *(const REAL *)pointers[stage->streams + k];
    w.wide_scalars[k] = w.scalars[k];
  }
  int missing = 0;
  w.missing = &missing;
  w.block = block_length(&w);
  if (size < w.block && stage->summed == 0 && stage->vectors == 0) w.block = padded(size);
  w.chunk = chunk_length(&w);
  long chunks = (size + w.chunk - 1) / w.chunk;
  prepare_sums(&w, chunks);
  walk(&w, threads);
  for (int k = 0; k < stage->summed; k++) {
    collect(w.sums[k], w.values[k], w.stride[k], chunks);
    collect(w.squares[k], w.values[k], w.stride[k], chunks);
  }
  centre_squares(&w, chunks, threads);
  for (int k = 0; k < stage->summed; k++) {
    REAL *to = w.written[stage->written + k];
    double n = (double)size / (double)w.values[k];
    for (long v = 0; v < w.values[k]; v++) {
      double square = w.squares[k] ? w.squares[k][v] : 0;
      if (to) to[v] = finished(stage->finish[k], w.sums[k] ? w.sums[k][v] : 0, square, n);
    }
    free(w.sums[k]);
    free(w.squares[k]);
  }
  return missing;
}
