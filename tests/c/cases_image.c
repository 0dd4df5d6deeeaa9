/* Convolution, pooling, resampling and GroupNorm. */
#include <math.h>

#include "op_table.h"

static double at4(const double *v, const sl_shape *s, int64_t n, int64_t c, int64_t i, int64_t j) {
  if (i < 0 || j < 0 || i >= s->dim[2] || j >= s->dim[3]) return 0;
  return v[((n * s->dim[1] + c) * s->dim[2] + i) * s->dim[3] + j];
}

/* A list attribute of one or two numbers, d-th. */
static int64_t pair(const int64_t *list, int d, int64_t fallback) {
  return list[0] == 0 ? fallback : list[0] == 1 ? list[1] : list[1 + d];
}

/* Padding before rows (0) or columns (1), and after. */
static int64_t pad_of(const int64_t *list, int d, bool after) {
  return list[0] == 0 ? 0 : list[0] == 1 ? list[1] : list[0] == 2 ? list[1 + d] : list[1 + 2 * d + after];
}

static void naive_conv2d(const op_run *r) {
  const int64_t *a = r->attrs->i, *stride = a, *pad = a + SL_ATTR_LIST, *dilation = a + 2 * SL_ATTR_LIST;
  const sl_shape *x = &r->in_shape[0], *w = &r->in_shape[1], *y = &r->out_shape[0];
  int64_t groups = a[3 * SL_ATTR_LIST], per = w->dim[1], index[4];
  for (int64_t o = 0; o < sl_shape_numel(y); o++) {
    op_unflatten(y, o, index);
    int64_t group = index[1] / (w->dim[0] / groups);
    double sum = r->in[2] ? r->in[2][index[1]] : 0;
    for (int64_t c = 0; c < per; c++)
      for (int64_t i = 0; i < w->dim[2]; i++)
        for (int64_t j = 0; j < w->dim[3]; j++)
          sum += at4(r->in[1], w, index[1], c, i, j) *
                 at4(r->in[0], x, index[0], group * per + c,
                     index[2] * pair(stride, 0, 1) + i * pair(dilation, 0, 1) - pad_of(pad, 0, false),
                     index[3] * pair(stride, 1, 1) + j * pair(dilation, 1, 1) - pad_of(pad, 1, false));
    r->out[0][o] = sum;
  }
}

static void pool(const op_run *r, bool max) {
  const int64_t *a = r->attrs->i, *kernel = a, *stride = a + SL_ATTR_LIST, *pad = a + 2 * SL_ATTR_LIST;
  const sl_shape *x = &r->in_shape[0], *y = &r->out_shape[0];
  int64_t index[4];
  for (int64_t o = 0; o < sl_shape_numel(y); o++) {
    op_unflatten(y, o, index);
    double best = -INFINITY, sum = 0, count = 0;
    for (int64_t i = 0; i < pair(kernel, 0, 1); i++)
      for (int64_t j = 0; j < pair(kernel, 1, 1); j++) {
        int64_t row = index[2] * pair(stride, 0, pair(kernel, 0, 1)) + i - pad_of(pad, 0, false);
        int64_t col = index[3] * pair(stride, 1, pair(kernel, 1, 1)) + j - pad_of(pad, 1, false);
        bool inside = row >= 0 && col >= 0 && row < x->dim[2] && col < x->dim[3];
        bool padded = row < x->dim[2] + pad_of(pad, 0, true) && col < x->dim[3] + pad_of(pad, 1, true);
        double v = at4(r->in[0], x, index[0], index[1], row, col);
        if (inside && v > best) best = v;
        sum += v;
        count += max || a[3 * SL_ATTR_LIST] ? padded : inside;
      }
    r->out[0][o] = max ? best : sum / count;
  }
}
static void naive_max_pool2d(const op_run *r) { pool(r, true); }
static void naive_avg_pool2d(const op_run *r) { pool(r, false); }

static void naive_upsample(const op_run *r) {
  int64_t s = r->attrs->i[0], index[4];
  for (int64_t o = 0; o < sl_shape_numel(&r->out_shape[0]); o++) {
    op_unflatten(&r->out_shape[0], o, index);
    r->out[0][o] = at4(r->in[0], &r->in_shape[0], index[0], index[1], index[2] / s, index[3] / s);
  }
}

static void naive_downsample(const op_run *r) {
  int64_t s = r->attrs->i[0], index[4];
  for (int64_t o = 0; o < sl_shape_numel(&r->out_shape[0]); o++) {
    op_unflatten(&r->out_shape[0], o, index);
    double sum = 0;
    for (int64_t k = 0; k < s * s; k++)
      sum += at4(r->in[0], &r->in_shape[0], index[0], index[1], index[2] * s + k / s, index[3] * s + k % s);
    r->out[0][o] = sum / (double)(s * s);
  }
}

/* Inputs x, w, b, scale, shift, mask. */
static void naive_group_norm(const op_run *r) {
  const sl_shape *s = &r->in_shape[0];
  int64_t N = s->dim[0], C = s->dim[1], groups = r->attrs->i[0], per = C / groups, S = sl_shape_numel(s) / (N * C);
  for (int64_t g = 0; g < N * groups; g++) {
    const double *x = r->in[0] + g * per * S;
    double mean = 0, var = 0, count = (double)(per * S);
    for (int64_t i = 0; i < per * S; i++) mean += x[i] / count;
    for (int64_t i = 0; i < per * S; i++) var += (x[i] - mean) * (x[i] - mean) / count;
    double rstd = 1 / sqrt(var + r->attrs->f[0]);
    for (int64_t i = 0; i < per * S; i++) {
      int64_t c = g % groups * per + i / S, nc = g / groups * C + c;
      double y = (x[i] - mean) * rstd * (r->in[1] ? r->in[1][c] : 1) + (r->in[2] ? r->in[2][c] : 0);
      if (r->in[3]) y = y * (1 + r->in[3][nc]) + r->in[4][nc];
      if (r->attrs->i[1]) y = y / (1 + exp(-y));
      r->out[0][g * per * S + i] = y * (r->in[5] ? r->in[5][nc] : 1);
    }
  }
}

const op_case cases_image[] = {
    {"conv2d", "pad={1}", naive_conv2d, CASE_BF16, 0, 0, 3, {F32(2, 3, 6, 5), F32(4, 3, 3, 3), F32(4)}},
    {"conv2d", "stride={2} pad={0,1,0,1}", naive_conv2d, 0, 0, 0, 3, {F32(2, 3, 7, 8), F32(5, 3, 3, 3), ABSENT}},
    {"conv2d", "pad={0,3}", naive_conv2d, 0, 0, 0, 3, {F32(1, 4, 4, 9), F32(2, 4, 1, 7), F32(2)}},
    {"conv2d",
     "stride={1,2} dilation={2,1} groups=2",
     naive_conv2d,
     0,
     0,
     0,
     3,
     {F32(2, 4, 7, 6), F32(6, 2, 2, 3), F32(6)}},
    {"conv2d", "", naive_conv2d, 0, 0, 0, 3, {F32(2, 17, 5, 5), F32(33, 17, 1, 1), F32(33)}},
    {"conv2d", "pad={1}", naive_conv2d, 0, 0, 0, 3, {F32(1, 32, 8, 8), F32(16, 32, 3, 3), F32(16)}},
    {"conv2d", "pad={1} compute=bf16", naive_conv2d, 0, 0, 4e-3, 3, {F32(2, 32, 8, 8), F32(16, 32, 3, 3), F32(16)}},
    {"max_pool2d", "kernel={2}", naive_max_pool2d, 0, 0, 0, 1, {APART(2, 2, 4, 6)}},
    {"max_pool2d", "kernel={3,2} stride={2,1} pad={1}", naive_max_pool2d, 0, 0, 0, 1, {APART(1, 2, 7, 5)}},
    {"avg_pool2d", "kernel={2}", naive_avg_pool2d, CASE_BF16, 0, 0, 1, {F32(2, 2, 4, 6)}},
    {"avg_pool2d", "kernel={3} stride={2} pad={1} count_pad=1", naive_avg_pool2d, 0, 0, 0, 1, {F32(1, 2, 6, 7)}},
    {"avg_pool2d", "kernel={3} stride={1} pad={1} count_pad=0", naive_avg_pool2d, 0, 0, 0, 1, {F32(1, 2, 5, 4)}},
    {"upsample", "", naive_upsample, CASE_BF16, 0, 0, 1, {F32(2, 3, 3, 2)}},
    {"upsample", "scale=3", naive_upsample, 0, 0, 0, 1, {F32(1, 2, 2, 5)}},
    {"downsample", "", naive_downsample, CASE_BF16, 0, 0, 1, {F32(2, 3, 4, 6)}},
    {"downsample", "scale=3", naive_downsample, 0, 0, 0, 1, {F32(1, 2, 6, 3)}},
    {"group_norm",
     "groups=2",
     naive_group_norm,
     CASE_BF16,
     0,
     0,
     6,
     {F32(2, 6, 3, 4), F32(6), F32(6), ABSENT, ABSENT, ABSENT}},
    {"group_norm",
     "groups=3 act=silu",
     naive_group_norm,
     0,
     0,
     0,
     6,
     {F32(2, 6, 5), F32(6), F32(6), F32(2, 6), F32(2, 6), MASK(2, 6)}},
    {"group_norm",
     "groups=4 eps=1e-3",
     naive_group_norm,
     0,
     0,
     0,
     6,
     {F32(3, 8, 7), ABSENT, ABSENT, F32(3, 8), F32(3, 8), ABSENT}},
    {"group_norm",
     "groups=1 act=silu",
     naive_group_norm,
     0,
     0,
     0,
     6,
     {F32(1, 3, 2, 2), F32(3), ABSENT, ABSENT, ABSENT, MASK(1, 3)}},
};

const op_refusal refusals_image[] = {
    {"conv2d", "", "[4,5,3,3]", 2, {F32(2, 3, 6, 5), F32(4, 5, 3, 3)}},
    {"conv2d", "", "reaches over 7 columns", 2, {F32(2, 3, 6, 5), F32(4, 3, 3, 7)}},
    {"conv2d", "pad={1,2,3}", "pad has 3 numbers", 2, {F32(2, 3, 6, 5), F32(4, 3, 3, 3)}},
    {"conv2d", "compute=i32", "compute is i32", 2, {F32(2, 3, 6, 5), F32(4, 3, 3, 3)}},
    {"conv2d", "groups=2", "groups is 2", 2, {F32(2, 3, 6, 5), F32(4, 3, 3, 3)}},
    {"max_pool2d", "kernel={9}", "reaches over", 1, {F32(1, 2, 4, 4)}},
    {"max_pool2d", "kernel={2} pad={1}", "no pixels", 1, {F32(1, 2, 0, 4)}},
    {"max_pool2d", "kernel={2} pad={2}", "padding of 2", 1, {F32(1, 2, 4, 4)}},
    {"avg_pool2d", "kernel={2}", "[2,3]", 1, {F32(2, 3)}},
    {"upsample", "scale=0", "scale is 0", 1, {F32(1, 2, 4, 4)}},
    {"downsample", "scale=3", "do not divide by 3", 1, {F32(1, 2, 4, 4)}},
    {"group_norm", "groups=5", "groups is 5", 1, {F32(2, 6, 3)}},
    {"group_norm", "groups=2", "w is", 2, {F32(2, 6, 3), F32(5)}},
    {"group_norm", "groups=2", "come together", 4, {F32(2, 6, 3), ABSENT, ABSENT, F32(2, 6)}},
};
OP_FAMILY(image);
