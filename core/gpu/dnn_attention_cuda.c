/* Attention by cuDNN. Forward is one operation; backward is composed of products, sums and pointwise operations as in
 * FlashAttention-2 (Dao 2023), which the library recognises. Of its two known forms, the one that writes dq at once: it
 * sums in a fixed order. The other adds up dq in f32 in any order, though its engines carry no note of that, so the
 * form decides and not the note; for the same reason the library's single backward operation is not used. */
#include <string.h>

#include "gpu/dnn_graph_cuda.h"

enum { Q = 1, K, V, O, LSE, DOUT, DQ, DK, DV, DELTA, SCALE, ONE }; /* backward; forward's scale follows O or LSE */

static const cudnnDataType_t f32 = CUDNN_DATA_FLOAT, bf16 = CUDNN_DATA_BFLOAT16;

/* --- shapes: the library's order is sample, head, token, channel --- */

static sl_dnn_shape heads(const sl_dnn_attention *a, int64_t T, const sl_dnn_heads *s) {
  return (sl_dnn_shape){{a->N, a->H, T, a->D}, {s->sample, s->head, s->token, 1}};
}

static sl_dnn_shape transposed(sl_dnn_shape s) {
  return (sl_dnn_shape){{s.dim[0], s.dim[1], s.dim[3], s.dim[2]}, {s.stride[0], s.stride[1], s.stride[3], s.stride[2]}};
}

static sl_dnn_shape rows(const sl_dnn_attention *a) {
  return (sl_dnn_shape){{a->N, a->H, a->Tq, 1}, {a->H * a->Tq, a->Tq, 1, 1}};
}

static sl_dnn_shape scores(const sl_dnn_attention *a) {
  int64_t n = a->Tq * a->Tk;
  return (sl_dnn_shape){{a->N, a->H, a->Tq, a->Tk}, {a->H * n, n, a->Tk, 1}};
}

/* --- forward --- */

static void build_forward(sl_dnn_graph *g, const sl_dnn_recipe *r) {
  const sl_dnn_attention *a = &r->of.attention;
  sl_dnn_desc q = sl__dnn_tensor(g, Q, bf16, heads(a, a->Tq, &a->q)),
              k = sl__dnn_tensor(g, K, bf16, heads(a, a->Tk, &a->k));
  sl_dnn_desc v = sl__dnn_tensor(g, V, bf16, heads(a, a->Tk, &a->v)),
              o = sl__dnn_tensor(g, O, bf16, heads(a, a->Tq, &a->o));
  sl_dnn_desc op = sl__dnn_make(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, q);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, k);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, v);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, o);
  if (a->statistics) sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, sl__dnn_tensor(g, LSE, f32, rows(a)));
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, sl__dnn_scalar(g, a->statistics ? LSE + 1 : O + 1));
  sl__dnn_add(g, op, "attention");
}

/* --- backward --- */

static sl_dnn_desc product(sl_dnn_graph *g, sl_dnn_desc a, sl_dnn_desc b, sl_dnn_desc c) {
  sl_dnn_desc how = sl__dnn_make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  sl__dnn_set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
  sl__dnn_seal(g, how, "a product's type");
  sl_dnn_desc op = sl__dnn_make(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
  sl__dnn_add(g, op, "a product");
  return c;
}

static sl_dnn_desc reshape(sl_dnn_graph *g, sl_dnn_desc x, sl_dnn_desc y) {
  sl_dnn_desc op = sl__dnn_make(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
  sl__dnn_add(g, op, "a reshape");
  return y;
}

static sl_dnn_desc sum(sl_dnn_graph *g, sl_dnn_desc x, sl_dnn_desc y) {
  const cudnnReduceTensorOp_t add = CUDNN_REDUCE_TENSOR_ADD;
  sl_dnn_desc how = sl__dnn_make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  sl__dnn_set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &add);
  sl__dnn_set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
  sl__dnn_seal(g, how, "a sum's type");
  sl_dnn_desc op = sl__dnn_make(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
  sl__dnn_link(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
  sl__dnn_add(g, op, "a sum");
  return y;
}

static sl_dnn_desc score(sl_dnn_graph *g, const sl_dnn_attention *a, cudnnPointwiseMode_t mode, sl_dnn_desc x,
                         sl_dnn_desc b) {
  return sl__dnn_pointwise(g, mode, x, b, sl__dnn_tensor(g, SL_DNN_VIRTUAL, f32, scores(a)));
}

/* delta = sum over D of dout o. It lies in memory, which the library wants. */
static sl_dnn_desc build_delta(sl_dnn_graph *g, const sl_dnn_attention *a, sl_dnn_desc dout) {
  sl_dnn_desc o = sl__dnn_tensor(g, O, bf16, heads(a, a->Tq, &a->o)), one = sl__dnn_scalar(g, ONE);
  const int64_t row = a->H * a->D;
  sl_dnn_shape all = {{a->N, a->H, a->Tq, a->D}, {a->Tq * row, a->Tq * a->D, row, 1}}; /* virtual: any strides */
  sl_dnn_desc t = sl__dnn_pointwise(g, CUDNN_POINTWISE_MUL, dout, o, sl__dnn_tensor(g, SL_DNN_VIRTUAL, f32, all));
  t = sum(g, t, sl__dnn_tensor(g, SL_DNN_VIRTUAL, f32, rows(a)));
  return sl__dnn_pointwise(g, CUDNN_POINTWISE_MUL, t, one, sl__dnn_tensor(g, DELTA, f32, rows(a)));
}

static sl_dnn_desc turned(sl_dnn_graph *g, const sl_dnn_attention *a, sl_dnn_desc x) {
  return reshape(g, x, sl__dnn_tensor(g, SL_DNN_VIRTUAL, bf16, transposed(scores(a))));
}

static void build_backward(sl_dnn_graph *g, const sl_dnn_recipe *r) {
  const sl_dnn_attention *a = &r->of.attention;
  sl_dnn_desc q = sl__dnn_tensor(g, Q, bf16, heads(a, a->Tq, &a->q));
  sl_dnn_desc kt = sl__dnn_tensor(g, K, bf16, transposed(heads(a, a->Tk, &a->k)));
  sl_dnn_desc vt = sl__dnn_tensor(g, V, bf16, transposed(heads(a, a->Tk, &a->v)));
  sl_dnn_desc dout = sl__dnn_tensor(g, DOUT, bf16, heads(a, a->Tq, &a->dout));
  sl_dnn_desc lse = sl__dnn_tensor(g, LSE, f32, rows(a)), scale = sl__dnn_scalar(g, SCALE);
  sl_dnn_desc delta = build_delta(g, a, dout);
  /* p = exp(scale q k^T - lse); dv = p^T dout */
  sl_dnn_desc p = product(g, q, kt, sl__dnn_tensor(g, SL_DNN_VIRTUAL, f32, scores(a)));
  p = score(g, a, CUDNN_POINTWISE_MUL, p, scale);
  p = score(g, a, CUDNN_POINTWISE_SUB, p, lse);
  p = score(g, a, CUDNN_POINTWISE_EXP, p, NULL);
  product(g, turned(g, a, p), dout, sl__dnn_tensor(g, DV, bf16, heads(a, a->Tk, &a->dv)));
  /* ds = scale p (dout v^T - delta); dk = ds^T q; dq = ds k */
  sl_dnn_desc ds = product(g, dout, vt, sl__dnn_tensor(g, SL_DNN_VIRTUAL, f32, scores(a)));
  ds = score(g, a, CUDNN_POINTWISE_SUB, ds, delta);
  ds = score(g, a, CUDNN_POINTWISE_MUL, ds, p);
  ds = score(g, a, CUDNN_POINTWISE_MUL, ds, scale);
  product(g, turned(g, a, ds), q, sl__dnn_tensor(g, DK, bf16, heads(a, a->Tk, &a->dk)));
  sl_dnn_desc k = reshape(g, kt, sl__dnn_tensor(g, SL_DNN_VIRTUAL, bf16, heads(a, a->Tk, &a->k)));
  product(g, ds, k, sl__dnn_tensor(g, DQ, bf16, heads(a, a->Tq, &a->dq)));
}

/* --- plans --- */

/* Strides along sizes of 1 may be anything; the library wants them to be some. */
static sl_dnn_heads tidy(const sl_dnn_attention *a, int64_t T, sl_dnn_heads s) {
  int64_t most = a->D;
  if (a->H > 1 && s.head * a->H > most) most = s.head * a->H;
  if (T > 1 && s.token * T > most) most = s.token * T;
  if (a->N > 1 && s.sample * a->N > most) most = s.sample * a->N;
  return (sl_dnn_heads){a->N > 1 ? s.sample : most, T > 1 ? s.token : most, a->H > 1 ? s.head : most};
}

static sl_dnn_attention tidied(const sl_dnn_attention *from) {
  sl_dnn_attention a = *from;
  sl_dnn_heads *of_queries[] = {&a.q, &a.o, &a.dout, &a.dq}, *of_keys[] = {&a.k, &a.v, &a.dk, &a.dv};
  for (int i = 0; i < 4; i++) {
    *of_queries[i] = tidy(&a, a.Tq, *of_queries[i]);
    *of_keys[i] = tidy(&a, a.Tk, *of_keys[i]);
  }
  return a;
}

static bool served(const sl_dnn_attention *a) {
  const sl_dnn_heads *all[] = {&a->q, &a->k, &a->v, &a->o, &a->dout, &a->dq, &a->dk, &a->dv};
  int64_t bits = a->D;
  for (int i = 0; i < (a->backward ? 8 : 4); i++) {
    if (all[i]->sample <= 0 || all[i]->token <= 0 || all[i]->head <= 0) return false; /* broadcast */
    bits |= all[i]->sample | all[i]->token | all[i]->head;
  }
  return a->N > 0 && a->H > 0 && a->Tq > 0 && a->Tk > 0 && a->D >= 32 && a->D <= 256 && bits % 8 == 0;
}

static size_t align256(size_t n) { return (n + 255) / 256 * 256; }

static sl_dnn_recipe recipe(const sl_dnn_attention *a) {
  sl_dnn_recipe r = {.build = a->backward ? build_backward : build_forward,
                     .of.attention = *a,
                     .n_tensors = a->backward     ? ONE
                                  : a->statistics ? LSE + 1
                                                  : O + 1,
                     .value = {(float)a->scale, 1.0f},
                     .n_values = a->backward ? 2 : 1,
                     .own_bytes = a->backward ? align256((size_t)(a->N * a->H * a->Tq) * sizeof(float)) : 0};
  const sl_dnn_heads *all[] = {&a->q, &a->k, &a->v, &a->o, &a->dout, &a->dq, &a->dk, &a->dv};
  int64_t head[] = {SL_DNN_ATTENTION, a->backward, a->statistics, a->N, a->H, a->Tq, a->Tk, a->D, 0};
  memcpy(&head[8], &a->scale, sizeof a->scale);
  memcpy(r.key, head, sizeof head);
  r.n_key = 9;
  for (int i = 0; i < (a->backward ? 8 : 4); i++) {
    r.key[r.n_key++] = all[i]->sample;
    r.key[r.n_key++] = all[i]->token;
    r.key[r.n_key++] = all[i]->head;
  }
  return r;
}

/* What the library's own front end (cudnn-frontend 1.23, its support checks) refuses, or works around. On data centre
 * Blackwell (10.x) the form alone does not make the backward pass deterministic. */
static bool fits_device(const sl_dnn_attention *a, int sm, int version) {
  if (sm < 80 || version < 91301 || (a->D > 128 && sm / 10 != 9)) return false;
  if (!a->backward) return true;
  return !(sm >= 100 && sm < 120) && !(version <= 91500 && a->Tk % 128 != 0) && (a->Tq > 1 || a->Tk > 1);
}

sl_status sl_dnn_attention_plan(sl_gpu *gpu, const sl_dnn_attention *from, sl_dnn_plan **out) {
  *out = NULL;
  sl_dnn *d = NULL;
  sl_dnn_attention a = tidied(from);
  if (!served(&a)) return SL_STATUS_OK;
  SL_TRY(sl__dnn_of(gpu, &d));
  if (!d || !fits_device(&a, gpu->sm, (int)d->GetVersion())) return SL_STATUS_OK;
  sl_dnn_recipe r = recipe(&a);
  return sl__dnn_plan(gpu, &r, out);
}

/* By uid; delta lies in the workspace's own part. */
#define DATA(d, workspace)                                                                                             \
  (void *[]) { (d)->q, (d)->k, (d)->v, (d)->o, (d)->lse, (d)->dout, (d)->dq, (d)->dk, (d)->dv, (workspace) }

bool sl_dnn_attention_fits(const sl_dnn_attention_data *d) {
  void *const *data = DATA(d, NULL);
  uintptr_t bits = 0;
  for (int i = 0; i < DELTA - 1; i++) bits |= (uintptr_t)data[i];
  return bits % 16 == 0;
}

sl_status sl_dnn_attention_run(sl_dnn_plan *plan, const sl_dnn_attention_data *d, void *workspace) {
  return sl__dnn_run(plan, DATA(d, workspace), workspace);
}

sl_status sl_dnn_check_attention(sl_context *ctx, const char *device_json, const sl_dnn_attention *from,
                                 sl_dnn_report *out) {
  sl_dnn_attention a = tidied(from);
  sl_dnn_recipe r = recipe(&a);
  SL_TRY(sl__dnn_check(ctx, device_json, &r, out));
  if (out->workspace >= 0) out->workspace += (int64_t)r.own_bytes;
  if (!served(&a)) out->usable = 0; /* whatever the library says */
  return SL_STATUS_OK;
}
