/* sluice.adm: options under guided-diffusion's names. */
#include "model/adm.h"

#include <math.h>

#include "l_model.h"
#include "l_routing.h"
#include "lfields.h"

static const char *const fields[] = {"image_size",
                                     "in_channels",
                                     "out_channels",
                                     "model_channels",
                                     "num_res_blocks",
                                     "attention_resolutions",
                                     "channel_mult",
                                     "classes",
                                     "class_dropout",
                                     "num_heads",
                                     "num_head_channels",
                                     "use_scale_shift_norm",
                                     "resblock_updown",
                                     "use_new_attention_order",
                                     "conv_resample",
                                     "dropout",
                                     "mask_at",
                                     "timesteps",
                                     "routing",
                                     "seed",
                                     "device",
                                     "precision",
                                     "residual",
                                     NULL};

static const char *const what = "sluice.adm";

/* A list of at most SL_ADM_MAX_LEVELS numbers; *n stays for nil. */
static void read_list(lua_State *L, const char *name, int *n, double *out) {
  int type = lua_getfield(L, 1, name);
  if (type != LUA_TNIL) {
    if (type != LUA_TTABLE) slL_error(L, "%s: %s is %s, expected a list of numbers", what, name, slL_what(L, -1));
    if (lua_rawlen(L, -1) > SL_ADM_MAX_LEVELS)
      slL_error(L, "%s: %s has %I entries, expected at most %d", what, name, (LUAI_UACINT)lua_rawlen(L, -1),
                SL_ADM_MAX_LEVELS);
    *n = (int)lua_rawlen(L, -1);
    for (int i = 0; i < *n; i++) {
      if (lua_rawgeti(L, -1, i + 1) != LUA_TNUMBER)
        slL_error(L, "%s: %s[%d] is %s, expected a number", what, name, i + 1, slL_what(L, -1));
      out[i] = lua_tonumber(L, -1);
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
}

static void read_levels(lua_State *L, sl_adm_config *c) {
  static const char *const named[] = {"ADM-64-uncond", "ADM-128-uncond", "ADM-256-uncond", "ADM-512-uncond"};
  static const int64_t sizes[] = {64, 128, 256, 512};
  double list[SL_ADM_MAX_LEVELS];
  int n = -1;
  read_list(L, "attention_resolutions", &n, list);
  if (n < 0 && c->attentions < 0)
    slL_error(L,
              "%s: attention_resolutions is missing; give the sizes at which to attend, as in {16, 8}, or {} for the "
              "middle block alone",
              what);
  if (n >= 0) c->attentions = n;
  for (int i = 0; i < n; i++) {
    if (!(fabs(list[i]) < 1e9) || list[i] != floor(list[i]))
      slL_error(L, "%s: attention_resolutions[%d] is %f, expected an integer", what, i + 1, list[i]);
    c->attention_resolutions[i] = (int64_t)list[i];
  }
  n = -1;
  read_list(L, "channel_mult", &n, c->channel_mult);
  if (n >= 0) c->levels = n;
  for (int i = 0; i < 4 && !c->levels; i++) { /* as create_model chooses by the image's size */
    if (c->image_size != sizes[i]) continue;
    sl_adm_config like = sl_adm_defaults();
    slL_try(L, sl_adm_preset(named[i], &like));
    c->levels = like.levels;
    for (int l = 0; l < like.levels; l++) c->channel_mult[l] = like.channel_mult[l];
  }
  if (!c->levels && n < 0)
    slL_error(L, "%s: channel_mult is missing; it is known for image_size 64, 128, 256 and 512 only", what);
}

static void read_config(lua_State *L, sl_adm_config *c) {
  static const char *const masks[] = {
#define X(e, name) name,
      SL_ADM_MASKS(X)
#undef X
          NULL};
  const char *preset = slL_preset_name(L, 1, what, "ADM-64");
  *c = sl_adm_defaults();
  c->attentions = -1;
  if (preset) slL_try(L, sl_adm_preset(preset, c));
  int64_t *needed[] = {&c->image_size, &c->model_channels, &c->num_res_blocks};
  static const char *const names[] = {"image_size", "model_channels", "num_res_blocks"};
  for (int i = 0; i < 3; i++) {
    *needed[i] = slL_field_integer(L, 1, what, names[i], *needed[i]);
    if (!*needed[i]) slL_error(L, "%s: %s is missing or 0; give it, or a name like \"ADM-64\"", what, names[i]);
  }
  c->in_channels = slL_field_integer(L, 1, what, "in_channels", c->in_channels);
  c->out_channels = slL_field_integer(L, 1, what, "out_channels", 2 * c->in_channels);
  read_levels(L, c);
  c->classes = slL_field_integer(L, 1, what, "classes", c->classes);
  c->class_dropout = slL_field_number(L, 1, what, "class_dropout", c->class_dropout);
  c->num_heads = slL_field_integer(L, 1, what, "num_heads", c->num_heads);
  c->num_head_channels = slL_field_integer(L, 1, what, "num_head_channels", c->num_head_channels);
  c->use_scale_shift_norm = slL_field_boolean(L, 1, what, "use_scale_shift_norm", c->use_scale_shift_norm);
  c->resblock_updown = slL_field_boolean(L, 1, what, "resblock_updown", c->resblock_updown);
  c->use_new_attention_order = slL_field_boolean(L, 1, what, "use_new_attention_order", c->use_new_attention_order);
  c->conv_resample = slL_field_boolean(L, 1, what, "conv_resample", c->conv_resample);
  c->dropout = slL_field_number(L, 1, what, "dropout", c->dropout);
  c->mask_at = (sl_adm_mask)slL_field_choice(L, 1, what, "mask_at", masks, 0);
}

static int l_adm(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  slL_options(L, 1, what, fields);
  sl_adm_config c;
  read_config(L, &c);
  c.options = slL_field_model_options(L, 1, what);
  lua_getfield(L, 1, "routing");
  sl_routing *routing = slL_opt_routing(L, -1, what);
  sl_model **box = slL_push_model(L);
  slL_try(L, sl_adm_new(slL_context(L), &c, routing, box));
  return 1;
}

static int describe(lua_State *L) {
  const sl_adm_config *c = sl_adm_config_of(slL_check_model(L, 1));
  lua_createtable(L, 0, 16);
  lua_pushinteger(L, c->image_size), lua_setfield(L, -2, "image_size");
  lua_pushinteger(L, c->in_channels), lua_setfield(L, -2, "in_channels");
  lua_pushinteger(L, c->out_channels), lua_setfield(L, -2, "out_channels");
  lua_pushinteger(L, c->model_channels), lua_setfield(L, -2, "model_channels");
  lua_pushinteger(L, c->num_res_blocks), lua_setfield(L, -2, "num_res_blocks");
  lua_createtable(L, c->attentions, 0);
  for (int i = 0; i < c->attentions; i++) lua_pushinteger(L, c->attention_resolutions[i]), lua_rawseti(L, -2, i + 1);
  lua_setfield(L, -2, "attention_resolutions");
  lua_createtable(L, c->levels, 0);
  for (int i = 0; i < c->levels; i++) lua_pushnumber(L, c->channel_mult[i]), lua_rawseti(L, -2, i + 1);
  lua_setfield(L, -2, "channel_mult");
  if (c->classes) lua_pushinteger(L, c->classes), lua_setfield(L, -2, "classes");
  lua_pushnumber(L, c->class_dropout), lua_setfield(L, -2, "class_dropout");
  lua_pushinteger(L, c->num_heads), lua_setfield(L, -2, "num_heads");
  if (c->num_head_channels) lua_pushinteger(L, c->num_head_channels), lua_setfield(L, -2, "num_head_channels");
  lua_pushboolean(L, c->use_scale_shift_norm), lua_setfield(L, -2, "use_scale_shift_norm");
  lua_pushboolean(L, c->resblock_updown), lua_setfield(L, -2, "resblock_updown");
  lua_pushboolean(L, c->use_new_attention_order), lua_setfield(L, -2, "use_new_attention_order");
  lua_pushboolean(L, c->conv_resample), lua_setfield(L, -2, "conv_resample");
  lua_pushnumber(L, c->dropout), lua_setfield(L, -2, "dropout");
  lua_pushstring(L, sl_adm_mask_name(c->mask_at)), lua_setfield(L, -2, "mask_at");
  return 1;
}

void slL_open_adm(lua_State *L) {
  slL_model_kind(L, "adm", l_adm, describe);
  slL_share_options(L, what, fields);
}
