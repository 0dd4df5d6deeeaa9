/* Convolution as a product of matrices that are gathered from images while they are read. Blocks of 256 threads have
 * tiles of T x T results, of which a thread has M x M = (T / 16)^2; a step adds DEPTH products to each. The next step's
 * operands are read before this step's are multiplied. Every sum has one order. */
#include "gpu/gpu.h"

#include "ops/conv_kernels_cuda.h"

namespace {

constexpr int THREADS = 256, DEPTH = 16, FAR = 1 << 30;
constexpr int FLUSH = 64; /* steps after which partial sums are added up: error grows slower than with one long sum */

/* FORWARD and DATA: rows are pixels of the result `to`, columns its channels; sums go over the window and the channels
 * of `from`. Channels are those of one group. */
struct pixel_args {
  const float *from, *filter, *bias;
  float *to;
  int64_t pixels, rows, columns;                /* rows, columns of tiles */
  int64_t depth;                                /* products in a sum */
  int64_t filter_group, filter_from, filter_to; /* strides of the filter along groups and channels */
  int from_h, from_w, to_h, to_w, from_channels, to_channels, groups;
  int kernel[2], stride[2], dilation[2], before[2];
  bool bf16;
};

/* WEIGHTS: rows are channels of the output, columns places of the window and channels of the image; sums go over the
 * output's pixels. */
struct weight_args {
  const float *image, *output;
  float *filter, *bias;
  int64_t pixels, rows, columns;
  int h, w, out_h, out_w, in_channels, out_channels, groups, width; /* width: places times channels */
  int kernel[2], stride[2], dilation[2], before[2];
  bool bf16;
};

/* Of a block: its tile, and its group. */
struct tile {
  int64_t row, column, group;
};

/* What a sum of FORWARD or DATA is at: a channel, and a place of the window. */
struct place {
  int channel, s, r;
};

/* A pixel of the result as the window sees it. */
struct corner {
  int64_t image; /* offset of its image in `from` */
  int y, x;
};

struct pixel {
  int64_t n;
  int y, x;
};

} // namespace

SL_DEVICE float operand(float x, bool bf16) { return bf16 ? sl_gpu_from_bf16(sl_gpu_to_bf16(x)) : x; }

SL_DEVICE void advance(place &p, int by, int channels, int width) {
  p.channel += by;
  while (p.channel >= channels) {
    p.channel -= channels;
    if (++p.s == width) p.s = 0, p.r++;
  }
}

SL_DEVICE void advance(pixel &p, int by, int h, int w) {
  p.x += by;
  while (p.x >= w) {
    p.x -= w;
    if (++p.y == h) p.y = 0, p.n++;
  }
}

/* Neighbouring blocks have the same rows: they read the same pixels. */
SL_DEVICE tile tile_of_block(int64_t rows, int64_t columns) {
  const int64_t block = blockIdx.x;
  return {block / columns % rows, block % columns, block / columns / rows};
}

/* acc += one step; a and b lie [DEPTH, T + 4]. */
template <int T, int M>
SL_DEVICE void multiply(const float *a, const float *b, int row, int column, float (&acc)[M][M]) {
  for (int k = 0; k < DEPTH; k++) {
    const sl_pack<float, M> x = *(const sl_pack<float, M> *)(a + k * (T + 4) + row);
    const sl_pack<float, M> y = *(const sl_pack<float, M> *)(b + k * (T + 4) + column);
    for (int i = 0; i < M; i++)
      for (int j = 0; j < M; j++) acc[i][j] += x.v[i] * y.v[j];
  }
}

/* A thread holds M values of a [DEPTH, T] matrix: by depth, at one depth and M places 16 apart; else at one place and M
 * depths. The first and the distance between two: */
template <int T>
SL_DEVICE int first_place(bool by_depth) {
  return by_depth ? (int)threadIdx.x / DEPTH : (int)threadIdx.x % T;
}
template <int T>
SL_DEVICE int first_depth(bool by_depth) {
  return by_depth ? (int)threadIdx.x % DEPTH : (int)threadIdx.x / T;
}

template <int T, int M>
SL_DEVICE void put(float *matrix, bool by_depth, const float (&v)[M]) {
  const int at = first_place<T>(by_depth), depth = first_depth<T>(by_depth);
  for (int i = 0; i < M; i++) {
    const int k = by_depth ? depth : depth + i * (THREADS / T);
    matrix[k * (T + 4) + (by_depth ? at + 16 * i : at)] = v[i];
  }
}

/* --- forward and data --- */

/* The row or column of `from` that the window's place r reads; negative: none. */
template <bool DATA>
SL_DEVICE int source(const pixel_args &g, int d, int corner, int r) {
  if (!DATA) return corner + r * g.dilation[d];
  const int at = corner - r * g.dilation[d];
  return at < 0 || at % g.stride[d] ? -1 : at / g.stride[d];
}

template <bool DATA>
SL_DEVICE corner corner_of(const pixel_args &g, int64_t row) {
  if (row >= g.pixels) return {0, -FAR, -FAR};
  const int64_t size = (int64_t)g.to_h * g.to_w, n = row / size, at = row % size;
  const int y = (int)(at / g.to_w), x = (int)(at % g.to_w);
  return {n * g.from_h * g.from_w * g.from_channels * g.groups, DATA ? y + g.before[0] : y * g.stride[0] - g.before[0],
          DATA ? x + g.before[1] : x * g.stride[1] - g.before[1]};
}

template <bool LAST, bool DATA>
SL_DEVICE float read_pixel(const pixel_args &g, int64_t group, const corner &c, const place &p) {
  if (p.r >= g.kernel[0]) return 0.0f;
  const int y = source<DATA>(g, 0, c.y, p.r), x = source<DATA>(g, 1, c.x, p.s);
  if (y < 0 || x < 0 || y >= g.from_h || x >= g.from_w) return 0.0f;
  const int64_t all = (int64_t)g.from_channels * g.groups, channel = group * g.from_channels + p.channel;
  const int64_t at = LAST ? ((int64_t)y * g.from_w + x) * all + channel : (channel * g.from_h + y) * g.from_w + x;
  return operand(g.from[c.image + at], g.bf16);
}

SL_DEVICE float read_filter(const pixel_args &g, int64_t group, const place &p, int64_t column) {
  if (p.r >= g.kernel[0] || column >= g.to_channels) return 0.0f;
  const int64_t at = group * g.filter_group + p.channel * g.filter_from + column * g.filter_to;
  return operand(g.filter[at + (int64_t)p.r * g.kernel[1] + p.s], g.bf16);
}

template <bool LAST>
SL_DEVICE void write_pixel(const pixel_args &g, int64_t group, int64_t row, int64_t column, float v) {
  if (row >= g.pixels || column >= g.to_channels) return;
  const int64_t all = (int64_t)g.to_channels * g.groups, channel = group * g.to_channels + column;
  const int64_t size = (int64_t)g.to_h * g.to_w;
  if (g.bias) v += g.bias[channel];
  g.to[LAST ? row * all + channel : (row / size * all + channel) * size + row % size] = v;
}

/* Channels last: neighbouring threads read neighbouring channels; in planes, neighbouring pixels. Of the filter forward
 * reads along its input channels, data along those of the result: as near as they lie. */
template <int T, bool LAST, bool DATA>
__global__ void __launch_bounds__(THREADS, 2) conv_pixels_kernel(const pixel_args g) {
  constexpr int M = T / 16, APART = THREADS / T;
  SL_SHARED(float, left, DEPTH *(T + 4));
  SL_SHARED(float, right, DEPTH *(T + 4));
  const tile b = tile_of_block(g.rows, g.columns);
  const int channels = g.from_channels, width = g.kernel[1];
  corner rows[LAST ? M : 1];
  for (int i = 0; i < (LAST ? M : 1); i++) rows[i] = corner_of<DATA>(g, b.row * T + first_place<T>(LAST) + 16 * i);
  const int64_t column = b.column * T + first_place<T>(!DATA);
  place at = {0, 0, 0}, filter_at = {0, 0, 0};
  advance(at, first_depth<T>(LAST), channels, width);
  advance(filter_at, first_depth<T>(!DATA), channels, width);
  const int tx = (int)threadIdx.x % 16 * M, ty = (int)threadIdx.x / 16 * M, row = LAST ? ty : tx, col = LAST ? tx : ty;
  float acc[M][M] = {}, x[M], w[M];
  const int64_t steps = (g.depth + DEPTH - 1) / DEPTH;
  for (int64_t step = 0; step <= steps; step++) {
    place p = at, q = filter_at;
    for (int i = 0; i < M; i++) { /* past the end these are zeros */
      x[i] = read_pixel<LAST, DATA>(g, b.group, rows[LAST ? i : 0], p);
      w[i] = read_filter(g, b.group, q, DATA ? column : column + 16 * i);
      if (!LAST) advance(p, APART, channels, width);
      if (DATA) advance(q, APART, channels, width);
    }
    advance(at, DEPTH, channels, width);
    advance(filter_at, DEPTH, channels, width);
    if (step > 0) multiply<T, M>(left, right, row, col, acc);
    __syncthreads();
    put<T, M>(left, LAST, x);
    put<T, M>(right, !DATA, w);
    __syncthreads();
  }
  for (int i = 0; i < M; i++)
    for (int j = 0; j < M; j++) write_pixel<LAST>(g, b.group, b.row * T + row + i, b.column * T + col + j, acc[i][j]);
}

/* --- weights --- */

template <bool LAST>
SL_DEVICE float read_output(const weight_args &g, int64_t group, const pixel &p, int64_t row, int64_t images) {
  if (p.n >= images || row >= g.out_channels) return 0.0f;
  const int64_t all = (int64_t)g.out_channels * g.groups, channel = group * g.out_channels + row;
  const int64_t at = LAST ? ((p.n * g.out_h + p.y) * g.out_w + p.x) * all + channel
                          : ((p.n * all + channel) * g.out_h + p.y) * g.out_w + p.x;
  return operand(g.output[at], g.bf16);
}

template <bool LAST>
SL_DEVICE float read_image(const weight_args &g, int64_t group, const pixel &p, const place &c, int64_t images) {
  if (p.n >= images || c.r >= g.kernel[0]) return 0.0f;
  const int y = p.y * g.stride[0] - g.before[0] + c.r * g.dilation[0];
  const int x = p.x * g.stride[1] - g.before[1] + c.s * g.dilation[1];
  if (y < 0 || x < 0 || y >= g.h || x >= g.w) return 0.0f;
  const int64_t all = (int64_t)g.in_channels * g.groups, channel = group * g.in_channels + c.channel;
  const int64_t at = LAST ? ((p.n * g.h + y) * g.w + x) * all + channel : ((p.n * all + channel) * g.h + y) * g.w + x;
  return operand(g.image[at], g.bf16);
}

SL_DEVICE place place_of(const weight_args &g, int64_t column) {
  if (column >= g.width) return {0, 0, FAR};
  const int at = (int)column, spot = at / g.in_channels;
  return {at % g.in_channels, spot % g.kernel[1], spot / g.kernel[1]};
}

SL_DEVICE void write_filter(const weight_args &g, int64_t group, int64_t row, int64_t column, float v) {
  if (row >= g.out_channels || column >= g.width) return;
  const place c = place_of(g, column);
  const int64_t places = (int64_t)g.kernel[0] * g.kernel[1];
  g.filter[((group * g.out_channels + row) * g.in_channels + c.channel) * places + (int64_t)c.r * g.kernel[1] + c.s] =
      v;
}

template <int M>
SL_DEVICE void flush(float (&from)[M][M], float (&to)[M][M]) {
  for (int i = 0; i < M; i++)
    for (int j = 0; j < M; j++) to[i][j] += from[i][j], from[i][j] = 0.0f;
}

/* Channels last: neighbouring threads read neighbouring channels; in planes, neighbouring pixels. The blocks of the
 * first column also make the gradient of the bias: a thread adds up a row. */
template <int T, bool LAST>
__global__ void __launch_bounds__(THREADS, 2) conv_weights_kernel(const weight_args g) {
  constexpr int M = T / 16, APART = THREADS / T;
  SL_SHARED(float, left, DEPTH *(T + 4));
  SL_SHARED(float, right, DEPTH *(T + 4));
  const tile b = tile_of_block(g.rows, g.columns);
  const int64_t images = g.pixels / ((int64_t)g.out_h * g.out_w), first = first_place<T>(!LAST);
  const bool sums_bias = g.bias && b.column == 0 && threadIdx.x < T;
  place columns[LAST ? 1 : M];
  for (int i = 0; i < (LAST ? 1 : M); i++) columns[i] = place_of(g, b.column * T + first + 16 * i);
  pixel at = {0, 0, 0};
  advance(at, first_depth<T>(!LAST), g.out_h, g.out_w);
  const int col = (int)threadIdx.x % 16 * M, row = (int)threadIdx.x / 16 * M;
  float acc[M][M] = {}, total[M][M] = {}, dy[M], x[M], bias = 0.0f, bias_total = 0.0f;
  const int64_t steps = (g.pixels + DEPTH - 1) / DEPTH;
  for (int64_t step = 0; step <= steps; step++) {
    pixel p = at;
    for (int i = 0; i < M; i++) { /* past the end these are zeros */
      dy[i] = read_output<LAST>(g, b.group, p, b.row * T + (LAST ? first : first + 16 * i), images);
      x[i] = read_image<LAST>(g, b.group, p, columns[LAST ? 0 : i], images);
      if (LAST) advance(p, APART, g.out_h, g.out_w);
    }
    advance(at, DEPTH, g.out_h, g.out_w);
    if (step > 0) {
      multiply<T, M>(left, right, row, col, acc);
      for (int k = 0; sums_bias && k < DEPTH; k++) bias += left[k * (T + 4) + threadIdx.x];
    }
    if (step % FLUSH == 0) flush<M>(acc, total), bias_total += bias, bias = 0.0f;
    __syncthreads();
    put<T, M>(left, !LAST, dy);
    put<T, M>(right, !LAST, x);
    __syncthreads();
  }
  flush<M>(acc, total);
  const int64_t channel = b.row * T + threadIdx.x;
  if (sums_bias && channel < g.out_channels) g.bias[b.group * g.out_channels + channel] = bias_total + bias;
  for (int i = 0; g.filter && i < M; i++)
    for (int j = 0; j < M; j++) write_filter(g, b.group, b.row * T + row + i, b.column * T + col + j, total[i][j]);
}

/* --- launching --- */

static sl_status check_sizes(const sl_conv *c) {
  const sl_window *w = &c->window;
  const int64_t sides[] = {c->C, c->H, c->W, c->K, c->OH, c->OW, w->kernel[0] * w->kernel[1] * (c->C + c->K)};
  for (int64_t side : sides)
    SL_REQUIRE(side < FAR, UNSUPPORTED, "conv2d: a side of %lld, expected below %d", (long long)side, FAR);
  for (int d = 0; d < 2; d++) {
    const int64_t reach = (w->kernel[d] - 1) * w->dilation[d] + w->pad[2 * d] + w->pad[2 * d + 1];
    SL_REQUIRE(reach < FAR && w->stride[d] < FAR, UNSUPPORTED, "conv2d: a window of %lld pixels, expected below %d",
               (long long)reach, FAR);
  }
  return SL_STATUS_OK;
}

template <class A>
static void set_window(A *a, const sl_window *w) {
  for (int d = 0; d < 2; d++) {
    a->kernel[d] = (int)w->kernel[d], a->stride[d] = (int)w->stride[d], a->dilation[d] = (int)w->dilation[d];
    a->before[d] = (int)w->pad[2 * d];
  }
}

/* Small tiles where large ones would leave most of the GPU idle. */
template <class A>
static bool small_tiles(const A &a, int64_t rows, int64_t columns) {
  enum { FEW = 2 * 132 };
  return ((rows + 63) / 64) * ((columns + 63) / 64) * a.groups < FEW;
}

template <class A>
static sl_status set_tiles(A *a, int64_t rows, int64_t columns, int T, dim3 *grid) {
  a->rows = (rows + T - 1) / T, a->columns = (columns + T - 1) / T;
  const int64_t blocks = a->rows * a->columns * a->groups;
  SL_REQUIRE(blocks <= INT32_MAX, UNSUPPORTED, "conv2d: %lld blocks of threads, expected at most %d", (long long)blocks,
             INT32_MAX);
  *grid = dim3((unsigned)blocks);
  return SL_STATUS_OK;
}

template <int T, bool LAST>
static sl_status launch_pixels(void *stream, pixel_args *a, bool data) {
  dim3 grid;
  SL_TRY(set_tiles(a, a->pixels, a->to_channels, T, &grid));
  if (data) return SL_LAUNCH((conv_pixels_kernel<T, LAST, true>), grid, THREADS, 0, stream, *a);
  return SL_LAUNCH((conv_pixels_kernel<T, LAST, false>), grid, THREADS, 0, stream, *a);
}

static sl_status conv_pixels(void *stream, const sl_conv *c, void *image, void *filter, void *bias, void *output) {
  const bool data = c->kind == SL_CONV_DATA;
  const int64_t in = c->C / c->groups, out = c->K / c->groups, places = c->window.kernel[0] * c->window.kernel[1];
  pixel_args a = {};
  set_window(&a, &c->window);
  a.from = (const float *)(data ? output : image), a.to = (float *)(data ? image : output);
  a.filter = (const float *)filter, a.bias = data || !c->bias ? NULL : (const float *)bias;
  a.groups = (int)c->groups, a.bf16 = c->bf16;
  a.from_channels = (int)(data ? out : in), a.to_channels = (int)(data ? in : out);
  a.from_h = (int)(data ? c->OH : c->H), a.from_w = (int)(data ? c->OW : c->W);
  a.to_h = (int)(data ? c->H : c->OH), a.to_w = (int)(data ? c->W : c->OW);
  a.filter_group = out * in * places;
  a.filter_from = data ? in * places : places, a.filter_to = data ? places : in * places;
  a.pixels = c->N * a.to_h * a.to_w, a.depth = places * a.from_channels;
  if (a.pixels * a.to_channels == 0) return SL_STATUS_OK;
  if (a.depth == 0) a.from_channels = 1, a.kernel[0] = 0; /* nothing to read: sums of nothing */
  if (small_tiles(a, a.pixels, a.to_channels))
    return c->last ? launch_pixels<32, true>(stream, &a, data) : launch_pixels<32, false>(stream, &a, data);
  return c->last ? launch_pixels<64, true>(stream, &a, data) : launch_pixels<64, false>(stream, &a, data);
}

template <int T>
static sl_status launch_weights(void *stream, weight_args *a, bool last) {
  dim3 grid;
  SL_TRY(set_tiles(a, a->out_channels, a->width > 0 ? a->width : 1, T, &grid));
  if (last) return SL_LAUNCH((conv_weights_kernel<T, true>), grid, THREADS, 0, stream, *a);
  return SL_LAUNCH((conv_weights_kernel<T, false>), grid, THREADS, 0, stream, *a);
}

static sl_status conv_weights(void *stream, const sl_conv *c, void *image, void *filter, void *bias, void *output) {
  weight_args a = {};
  set_window(&a, &c->window);
  a.image = (const float *)image, a.output = (const float *)output;
  a.filter = (float *)filter, a.bias = c->bias ? (float *)bias : NULL;
  a.groups = (int)c->groups, a.bf16 = c->bf16;
  a.in_channels = (int)(c->C / c->groups), a.out_channels = (int)(c->K / c->groups);
  a.h = (int)c->H, a.w = (int)c->W, a.out_h = (int)c->OH, a.out_w = (int)c->OW;
  a.pixels = c->N * c->OH * c->OW;
  a.width = (int)(c->window.kernel[0] * c->window.kernel[1] * a.in_channels);
  if (a.pixels == 0) a.out_h = a.out_w = 1; /* no images: sums of nothing */
  if (a.out_channels == 0 || (!a.filter && !a.bias)) return SL_STATUS_OK;
  if (small_tiles(a, a.out_channels, a.width)) return launch_weights<32>(stream, &a, c->last);
  return launch_weights<64>(stream, &a, c->last);
}

extern "C" sl_status sl_gpu_conv(void *stream, const sl_conv *c, void *image, void *filter, void *bias, void *output) {
  SL_TRY(check_sizes(c));
  if (c->kind == SL_CONV_WEIGHTS) return conv_weights(stream, c, image, filter, bias, output);
  return conv_pixels(stream, c, image, filter, bias, output);
}
