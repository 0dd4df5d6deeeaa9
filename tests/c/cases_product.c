/* Products and attention. */
#include <math.h>

#include "op_table.h"
#include "ops/elementwise.h"

static void naive_matmul(const op_run *r) {
  const sl_shape *a = &r->in_shape[0], *b = &r->in_shape[1], *y = &r->out_shape[0];
  int64_t M = a->dim[a->rank - 2], K = a->dim[a->rank - 1], P = b->dim[b->rank - 1], index[SL_MAX_RANK];
  sl_shape la = *a, lb = *b, ly = *y;
  la.rank -= 2, lb.rank -= 2, ly.rank -= 2;
  for (int64_t n = 0; n < sl_shape_numel(&ly); n++) {
    op_unflatten(&ly, n, index);
    const double *x = r->in[0] + op_broadcast_at(&la, &ly, index) * M * K;
    const double *w = r->in[1] + op_broadcast_at(&lb, &ly, index) * K * P;
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j < P; j++) {
        double sum = 0;
        for (int64_t k = 0; k < K; k++) sum += x[i * K + k] * w[k * P + j];
        r->out[0][(n * M + i) * P + j] = sum;
      }
  }
}

static void naive_dot(const op_run *r) {
  r->out[0][0] = 0;
  for (int64_t i = 0; i < r->in_shape[0].dim[0]; i++) r->out[0][0] += r->in[0][i] * r->in[1][i];
}

static double activate(int64_t act, double x) {
  if (act == SL_ACT_GELU) return x / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
  if (act == SL_ACT_GELU_ERF) return x / 2 * (1 + erf(x / sqrt(2)));
  return act == SL_ACT_SILU ? x / (1 + exp(-x)) : x;
}

static void naive_linear(const op_run *r) {
  int64_t P = r->in_shape[1].dim[0], K = r->in_shape[1].dim[1], rows = sl_shape_numel(&r->in_shape[0]) / K;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < P; j++) {
      double sum = r->in[2] ? r->in[2][j] : 0;
      for (int64_t k = 0; k < K; k++) sum += r->in[0][i * K + k] * r->in[1][j * K + k];
      r->out[0][i * P + j] = activate(r->attrs->i[0], sum);
      r->out[1][i * P + j] = sum;
    }
}

/* (a b) fn'(x), fn silu or gelu; the derivative by central differences. */
static void naive_unary_product(const op_run *r) {
  int64_t n = sl_shape_numel(&r->out_shape[0]), act = r->attrs->i[0] == SL_UNARY_gelu ? SL_ACT_GELU : SL_ACT_SILU;
  naive_matmul(r);
  for (int64_t i = 0; i < n; i++) {
    double x = r->in[2][i], h = 1e-5;
    r->out[0][i] *= (activate(act, x + h) - activate(act, x - h)) / (2 * h);
  }
}

typedef struct heads {
  int64_t N, Tq, Tk, H, D, q_step, k_step; /* steps between tokens */
  const double *q, *k, *v, *mask;
  double scale;
  bool causal;
} heads;

static void attend(const heads *h, double *out, double *lse) {
  for (int64_t n = 0; n < h->N; n++)
    for (int64_t a = 0; a < h->H; a++)
      for (int64_t i = 0; i < h->Tq; i++) {
        const double *q = h->q + (n * h->Tq + i) * h->q_step + a * h->D;
        double *o = out + ((n * h->Tq + i) * h->H + a) * h->D, sum = 0;
        for (int64_t d = 0; d < h->D; d++) o[d] = 0;
        for (int64_t j = 0; j < h->Tk; j++) {
          if (h->mask && h->mask[n * h->Tk + j] == 0) continue;
          if (h->causal && j > i + h->Tk - h->Tq) continue;
          const double *k = h->k + (n * h->Tk + j) * h->k_step + a * h->D,
                       *v = h->v + (n * h->Tk + j) * h->k_step + a * h->D;
          double s = 0;
          for (int64_t d = 0; d < h->D; d++) s += q[d] * k[d];
          double p = exp(s * h->scale);
          sum += p;
          for (int64_t d = 0; d < h->D; d++) o[d] += p * v[d];
        }
        for (int64_t d = 0; d < h->D && sum > 0; d++) o[d] /= sum;
        if (lse) lse[(n * h->H + a) * h->Tq + i] = log(sum);
      }
}

static double scale_of(const op_run *r, int64_t D) {
  return r->attrs->f[0] != 0 ? r->attrs->f[0] : 1 / sqrt((double)D);
}

static void naive_attention(const op_run *r) {
  const sl_shape *q = &r->in_shape[0];
  int64_t H = q->dim[2], D = q->dim[3];
  heads h = {q->dim[0],
             q->dim[1],
             r->in_shape[1].dim[1],
             H,
             D,
             H * D,
             H * D,
             r->in[0],
             r->in[1],
             r->in[2],
             r->n_in > 3 ? r->in[3] : NULL,
             scale_of(r, D),
             r->attrs->i[0] != 0};
  attend(&h, r->out[0], r->out[1]);
}

static void naive_attention_qkv(const op_run *r) {
  const sl_shape *s = &r->in_shape[0];
  int64_t T = s->dim[1], H = s->dim[3], D = s->dim[4];
  heads h = {
      s->dim[0],      T,    T, H, D, 3 * H * D, 3 * H * D, r->in[0], r->in[0] + H * D, r->in[0] + 2 * H * D, NULL,
      scale_of(r, D), false};
  attend(&h, r->out[0], NULL);
}

const op_case cases_product[] = {
    {"matmul", "", naive_matmul, CASE_BF16, 0, 0, 2, {F32(5, 7), F32(7, 3)}},
    {"matmul", "", naive_matmul, 0, 0, 0, 2, {F32(2, 3, 5, 4), F32(3, 4, 6)}},
    {"matmul", "", naive_matmul, 0, 0, 0, 2, {F32(2, 1, 5, 4), F32(3, 4, 2)}},
    {"matmul", "", naive_matmul, 0, 0, 0, 2, {F32(33, 65), F32(65, 17)}},
    {"matmul", "", naive_dot, 0, 0, 0, 2, {F32(9), F32(9)}},
    {"matmul_unary_backward",
     "fn=15",
     naive_unary_product,
     CASE_BF16 | CASE_NO_GRAD,
     0,
     0,
     3,
     {F32(2, 5, 7), F32(7, 6), F32(2, 5, 6)}},
    {"matmul_unary_backward", "fn=14", naive_unary_product, CASE_NO_GRAD, 0, 0, 3, {F32(9, 4), F32(4, 33), F32(9, 33)}},
    {"linear", "", naive_linear, CASE_BF16, 0, 0, 3, {F32(2, 5, 7), F32(4, 7), F32(4)}},
    {"linear", "act=gelu", naive_linear, CASE_BF16, 3, 0, 3, {F32(6, 9), F32(5, 9), F32(5)}},
    {"linear", "act=gelu_erf", naive_linear, 0, 0, 0, 3, {F32(3, 4), F32(5, 4), ABSENT}},
    {"linear", "act=silu", naive_linear, 0, 0, 0, 3, {F32(40, 33), F32(17, 33), F32(17)}},
    {"linear", "", naive_linear, 0, 0, 0, 3, {F32(7), F32(3, 7), F32(3)}},
    {"attention", "", naive_attention, CASE_BF16, 0, 0, 3, {F32(2, 5, 2, 8), F32(2, 5, 2, 8), F32(2, 5, 2, 8)}},
    {"attention", "scale=0.3", naive_attention, 0, 0, 0, 3, {F32(1, 3, 1, 16), F32(1, 70, 1, 16), F32(1, 70, 1, 16)}},
    {"attention", "causal=1", naive_attention, 0, 0, 0, 3, {F32(2, 6, 1, 9), F32(2, 6, 1, 9), F32(2, 6, 1, 9)}},
    {"attention", "", naive_attention, 0, 0, 0, 4, {F32(2, 4, 2, 8), F32(2, 7, 2, 8), F32(2, 7, 2, 8), MASK(2, 7)}},
    {"attention", "", naive_attention, 0, 0, 0, 3, {F32(1, 66, 1, 72), F32(1, 66, 1, 72), F32(1, 66, 1, 72)}},
    {"attention", "", naive_attention, 0, 0, 0, 3, {F32(1, 3, 1, 512), F32(1, 4, 1, 512), F32(1, 4, 1, 512)}},
    {"attention", "", naive_attention, CASE_NO_GRAD, 2, 0, 3, {F32(2, 5, 2, 8), F32(2, 6, 2, 8), F32(2, 6, 2, 8)}},
    {"attention_qkv", "", naive_attention_qkv, CASE_BF16, 0, 0, 1, {F32(2, 6, 3, 2, 8)}},
    {"attention_qkv", "", naive_attention_qkv, 0, 0, 0, 1, {F32(1, 80, 3, 1, 64)}},
};

const op_refusal refusals_product[] = {
    {"matmul", "", "[2,3]", 2, {F32(2, 3), F32(4, 5)}},
    {"matmul", "", "matmul", 2, {INDEX(3, 2, 3), INDEX(3, 3, 2)}},
    {"linear", "", "[5,4]", 2, {F32(2, 3), F32(5, 4)}},
    {"linear", "", "b is", 3, {F32(2, 3), F32(5, 3), F32(4)}},
    {"attention", "", "attention", 3, {F32(2, 5, 2, 8), F32(2, 5, 3, 8), F32(2, 5, 3, 8)}},
    {"attention", "", "mask", 4, {F32(2, 5, 2, 8), F32(2, 5, 2, 8), F32(2, 5, 2, 8), MASK(2, 4)}},
    {"attention_qkv", "", "attention_qkv", 1, {F32(2, 5, 2, 2, 8)}},
};
OP_FAMILY(product);
