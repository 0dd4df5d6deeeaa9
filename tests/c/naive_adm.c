#include "naive_adm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct image {
  int c, s; /* channels, side */
  double *v;
} image;

typedef struct naive {
  const sl_model *m;
  const sl_adm_config *k;
  const double *params;
  int64_t t;
  double *emb; /* SiLU of the embedding */
  int place;
} naive;

static image image_new(int c, int s) {
  image i = {c, s, calloc((size_t)(c * s * s), sizeof(double))};
  if (!i.v) abort();
  return i;
}

static image copy_of(image x) {
  image y = image_new(x.c, x.s);
  memcpy(y.v, x.v, (size_t)(x.c * x.s * x.s) * sizeof *x.v);
  return y;
}

static double silu(double x) { return x / (1 + exp(-x)); }

static const double *param(const naive *n, const char *block, const char *name) {
  char full[128];
  snprintf(full, sizeof full, "%s%s", block, name);
  int i = sl_params_find(n->m->params, full);
  if (i < 0) {
    fprintf(stderr, "naive_adm: there is no parameter %s\n", full);
    abort();
  }
  return n->params + sl_params_get(n->m->params, i)->offset;
}

static void linear(const double *w, const double *b, const double *x, int in, int out, double *y) {
  for (int o = 0; o < out; o++) {
    y[o] = b[o];
    for (int i = 0; i < in; i++) y[o] += w[o * in + i] * x[i];
  }
}

static image conv(const double *w, const double *b, image x, int out, int side, int stride) {
  image y = image_new(out, (x.s - 1) / stride + 1);
  for (int o = 0; o < out; o++)
    for (int r = 0; r < y.s; r++)
      for (int q = 0; q < y.s; q++) {
        double sum = b[o];
        for (int c = 0; c < x.c; c++)
          for (int i = 0; i < side; i++)
            for (int j = 0; j < side; j++) {
              int row = r * stride + i - side / 2, column = q * stride + j - side / 2;
              if (row < 0 || row >= x.s || column < 0 || column >= x.s) continue;
              sum += w[((o * x.c + c) * side + i) * side + j] * x.v[(c * x.s + row) * x.s + column];
            }
        y.v[(o * y.s + r) * y.s + q] = sum;
      }
  return y;
}

static image conv_of(const naive *n, const char *block, const char *name, image x, int out, int side, int stride) {
  char weight[64], bias[64];
  snprintf(weight, sizeof weight, "%s.weight", name);
  snprintf(bias, sizeof bias, "%s.bias", name);
  return conv(param(n, block, weight), param(n, block, bias), x, out, side, stride);
}

/* In place: 32 groups, epsilon 1e-5; then * (1 + scale) + shift, SiLU, mask, if there are any. */
static void norm(image x, const double *w, const double *b, const double *scale, const double *shift, bool act,
                 const uint8_t *mask) {
  int per = x.c / 32, all = x.s * x.s;
  for (int g = 0; g < 32; g++) {
    double mean = 0, variance = 0;
    for (int i = g * per * all; i < (g + 1) * per * all; i++) mean += x.v[i] / (per * all);
    for (int i = g * per * all; i < (g + 1) * per * all; i++) variance += pow(x.v[i] - mean, 2) / (per * all);
    for (int i = g * per * all; i < (g + 1) * per * all; i++) {
      int c = i / all;
      double z = (x.v[i] - mean) / sqrt(variance + 1e-5) * w[c] + b[c];
      if (scale) z = z * (1 + scale[c]) + shift[c];
      if (act) z = silu(z);
      x.v[i] = mask ? z * mask[c] : z;
    }
  }
}

static const uint8_t *next_mask(naive *n, bool here, int channels) {
  if (!here) return NULL;
  int place = n->place++;
  if (!n->m->masks) return NULL;
  if (sl_tensor_shape(n->m->masks[place])->dim[1] != channels) abort();
  return (const uint8_t *)sl_tensor_data(n->m->masks[place]) + n->t * channels;
}

static image halve(image x) {
  image y = image_new(x.c, x.s / 2);
  for (int c = 0; c < x.c; c++)
    for (int r = 0; r < x.s; r++)
      for (int q = 0; q < x.s; q++) y.v[(c * y.s + r / 2) * y.s + q / 2] += x.v[(c * x.s + r) * x.s + q] / 4;
  return y;
}

static image repeat(image x) {
  image y = image_new(x.c, x.s * 2);
  for (int c = 0; c < x.c; c++)
    for (int r = 0; r < y.s; r++)
      for (int q = 0; q < y.s; q++) y.v[(c * y.s + r) * y.s + q] = x.v[(c * x.s + r / 2) * x.s + q / 2];
  return y;
}

/* Takes x over. */
static image turn(image x, image (*how)(image)) {
  image y = how ? how(x) : x;
  if (how) free(x.v);
  return y;
}

/* Takes x over, as all blocks do. */
static image res_block(naive *n, const char *block, image x, int out, image (*how)(image)) {
  bool in_mask = n->k->mask_at != SL_ADM_MASK_OUT_NORM;
  bool out_mask = n->k->mask_at == SL_ADM_MASK_OUT_NORM || n->k->mask_at == SL_ADM_MASK_BOTH;
  const uint8_t *first = next_mask(n, in_mask, x.c), *second = next_mask(n, out_mask, out);
  image h = copy_of(x);
  norm(h, param(n, block, ".in_layers.0.weight"), param(n, block, ".in_layers.0.bias"), NULL, NULL, true, first);
  h = turn(h, how);
  x = turn(x, how);
  image mid = conv_of(n, block, ".in_layers.2", h, out, 3, 1);
  int width = (int)n->k->model_channels * 4, parts = n->k->use_scale_shift_norm ? 2 : 1;
  double *e = calloc((size_t)(parts * out), sizeof *e);
  linear(param(n, block, ".emb_layers.1.weight"), param(n, block, ".emb_layers.1.bias"), n->emb, width, parts * out, e);
  for (int i = 0; parts == 1 && i < out * mid.s * mid.s; i++) mid.v[i] += e[i / (mid.s * mid.s)];
  norm(mid, param(n, block, ".out_layers.0.weight"), param(n, block, ".out_layers.0.bias"), parts == 2 ? e : NULL,
       e + out, true, second);
  image y = conv_of(n, block, ".out_layers.3", mid, out, 3, 1);
  image skip = x.c == out ? copy_of(x) : conv_of(n, block, ".skip_connection", x, out, 1, 1);
  for (int i = 0; i < out * y.s * y.s; i++) y.v[i] += skip.v[i];
  free(e), free(h.v), free(mid.v), free(x.v), free(skip.v);
  return y;
}

/* Where number `part` (q, k, v) of channel ch of head h stands among the 3C channels. */
static int place_of(const naive *n, int part, int h, int ch, int heads, int width) {
  return n->k->use_new_attention_order ? (part * heads + h) * width + ch : (h * 3 + part) * width + ch;
}

static void attend(const naive *n, image qkv, image a, int heads) {
  int all = a.s * a.s, width = a.c / heads;
  double *p = calloc((size_t)all, sizeof *p);
  for (int h = 0; h < heads; h++)
    for (int t = 0; t < all; t++) {
      double sum = 0;
      for (int s = 0; s < all; s++) {
        double dot = 0;
        for (int c = 0; c < width; c++)
          dot +=
              qkv.v[place_of(n, 0, h, c, heads, width) * all + t] * qkv.v[place_of(n, 1, h, c, heads, width) * all + s];
        sum += p[s] = exp(dot / sqrt(width));
      }
      for (int c = 0; c < width; c++)
        for (int s = 0; s < all; s++)
          a.v[(h * width + c) * all + t] += p[s] / sum * qkv.v[place_of(n, 2, h, c, heads, width) * all + s];
    }
  free(p);
}

static image attention_block(naive *n, const char *block, image x) {
  int heads = (int)(n->k->num_head_channels ? x.c / n->k->num_head_channels : n->k->num_heads);
  image z = copy_of(x), a = image_new(x.c, x.s);
  norm(z, param(n, block, ".norm.weight"), param(n, block, ".norm.bias"), NULL, NULL, false, next_mask(n, true, x.c));
  image qkv = conv_of(n, block, ".qkv", z, 3 * x.c, 1, 1);
  attend(n, qkv, a, heads);
  image y = conv_of(n, block, ".proj_out", a, x.c, 1, 1);
  for (int i = 0; i < y.c * y.s * y.s; i++) y.v[i] += x.v[i];
  free(z.v), free(a.v), free(qkv.v), free(x.v);
  return y;
}

static void embed(naive *n, int64_t y) {
  int base = (int)n->k->model_channels, width = 4 * base;
  double *freq = calloc((size_t)base, sizeof *freq), *mid = calloc((size_t)width, sizeof *mid);
  for (int i = 0; i < base / 2; i++) {
    double angle = (double)n->t * exp(-log(10000) * i / (base / 2));
    freq[i] = cos(angle);
    freq[base / 2 + i] = sin(angle);
  }
  linear(param(n, "time_embed", ".0.weight"), param(n, "time_embed", ".0.bias"), freq, base, width, mid);
  for (int i = 0; i < width; i++) mid[i] = silu(mid[i]);
  linear(param(n, "time_embed", ".2.weight"), param(n, "time_embed", ".2.bias"), mid, width, width, n->emb);
  for (int i = 0; i < width; i++) {
    if (n->k->classes) n->emb[i] += param(n, "label_emb", ".weight")[y * width + i];
    n->emb[i] = silu(n->emb[i]);
  }
  free(freq), free(mid);
}

static bool attends(const naive *n, int side) {
  for (int i = 0; i < n->k->attentions; i++)
    if (n->k->attention_resolutions[i] == side) return true;
  return false;
}

static int channels_at(const naive *n, int level) {
  return (int)(n->k->channel_mult[level] * (double)n->k->model_channels);
}

/* "input_blocks.3.1" */
static const char *named(const char *part, int block, int index) {
  static _Thread_local char text[64];
  snprintf(text, sizeof text, "%s.%d.%d", part, block, index);
  return text;
}

static image down(naive *n, int block, image x) {
  if (n->k->resblock_updown) return res_block(n, named("input_blocks", block, 0), x, x.c, halve);
  if (!n->k->conv_resample) return turn(x, halve);
  image y = conv_of(n, named("input_blocks", block, 0), ".op", x, x.c, 3, 2);
  free(x.v);
  return y;
}

static image up(naive *n, int block, int index, image x) {
  if (n->k->resblock_updown) return res_block(n, named("output_blocks", block, index), x, x.c, repeat);
  x = turn(x, repeat);
  if (!n->k->conv_resample) return x;
  image y = conv_of(n, named("output_blocks", block, index), ".conv", x, x.c, 3, 1);
  free(x.v);
  return y;
}

static image beside(image a, image b) {
  image y = image_new(a.c + b.c, a.s);
  memcpy(y.v, a.v, (size_t)(a.c * a.s * a.s) * sizeof *a.v);
  memcpy(y.v + a.c * a.s * a.s, b.v, (size_t)(b.c * b.s * b.s) * sizeof *b.v);
  free(a.v), free(b.v);
  return y;
}

void naive_adm(const sl_model *m, const double *params, const double *x, int64_t t, int64_t y, double *out) {
  naive n = {.m = m, .k = sl_adm_config_of(m), .params = params, .t = t};
  const sl_adm_config *k = n.k;
  image skip[64], h = image_new((int)k->in_channels, (int)k->image_size);
  int block = 0, kept = 0;
  n.emb = calloc((size_t)k->model_channels * 4, sizeof *n.emb);
  embed(&n, y);
  memcpy(h.v, x, (size_t)(h.c * h.s * h.s) * sizeof *x);
  image first = conv_of(&n, "input_blocks.0", ".0", h, channels_at(&n, 0), 3, 1);
  free(h.v);
  h = first;
  skip[kept++] = copy_of(h);
  for (int level = 0; level < k->levels; level++) {
    for (int i = 0; i < k->num_res_blocks; i++) {
      h = res_block(&n, named("input_blocks", ++block, 0), h, channels_at(&n, level), NULL);
      if (attends(&n, h.s)) h = attention_block(&n, named("input_blocks", block, 1), h);
      skip[kept++] = copy_of(h);
    }
    if (level == k->levels - 1) break;
    h = down(&n, ++block, h);
    skip[kept++] = copy_of(h);
  }
  h = res_block(&n, "middle_block.0", h, h.c, NULL);
  h = attention_block(&n, "middle_block.1", h);
  h = res_block(&n, "middle_block.2", h, h.c, NULL);
  block = 0;
  for (int level = k->levels; level-- > 0;)
    for (int i = 0; i <= k->num_res_blocks; i++, block++) {
      int index = 1;
      h = res_block(&n, named("output_blocks", block, 0), beside(h, skip[--kept]), channels_at(&n, level), NULL);
      if (attends(&n, h.s)) h = attention_block(&n, named("output_blocks", block, index++), h);
      if (level > 0 && i == k->num_res_blocks) h = up(&n, block, index, h);
    }
  norm(h, param(&n, "out.0", ".weight"), param(&n, "out.0", ".bias"), NULL, NULL, true, NULL);
  image o = conv_of(&n, "out.2", "", h, (int)k->out_channels, 3, 1);
  memcpy(out, o.v, (size_t)(o.c * o.s * o.s) * sizeof *out);
  free(h.v), free(o.v), free(n.emb);
}
