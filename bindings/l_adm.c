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
  c->out_channels = slL_field_integer(L, 1, what, "out_channels", 0); /* 0: the constructor's affair */
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

/*** sluice.adm { name?, image_size =, model_channels =, … } -> model
guided-diffusion's U-Net (ADM), under its own names of options and parameters. A name gives a released architecture:
"ADM-64", "ADM-128", "ADM-256", "ADM-512", each with 1000 classes, or without labels as "ADM-64-uncond"; what is
given beside it goes over it. Without a name image_size, model_channels, num_res_blocks and attention_resolutions
must be given. The mask of a routing follows the first GroupNorm and SiLU of every residual block and the GroupNorm
of every attention block.
@param options table
@field [1]? string  a name like "ADM-64"
@field image_size? integer  pixels on a side
@field in_channels? integer  3
@field out_channels? integer  twice in_channels: the second half is the variance
@field model_channels? integer  channels of the first level
@field num_res_blocks? integer  residual blocks of each level
@field attention_resolutions? integer[]  sizes at which blocks attend, in pixels; {}: in the middle block alone
@field channel_mult? number[]  channels of each level over model_channels; known for sizes 64, 128, 256 and 512
@field classes? integer  0: takes no labels
@field class_dropout? number  0; above it there is a null class, as guidance needs
@field num_heads? integer  1
@field num_head_channels? integer  channels of a head; where given it decides, not num_heads
@field use_scale_shift_norm? boolean  false
@field resblock_updown? boolean  false
@field use_new_attention_order? boolean  false
@field conv_resample? boolean  true
@field dropout? number  0; in residual blocks, while training
@field mask_at? "in_silu"|"in_norm"|"out_norm"|"both"  "in_silu"; where a residual block's mask stands
@field routing? sluice.Routing  none
@field timesteps? integer  1000
@field seed? integer  0; of the weights, if nothing is loaded
@field device? string  "auto": the first GPU, else the CPU; SLUICE_DEVICE names another
@field precision? "f32"|"tf32"|"bf16"  "f32"; of convolutions and products
@field residual? "f32"  "f32"; blocks always add in it
@return sluice.Model
@example
local unet = sluice.adm { image_size = 32, model_channels = 32, num_res_blocks = 1, channel_mult = { 1, 2 },
  attention_resolutions = { 16 }, num_head_channels = 16, classes = 10, class_dropout = 0.1 }
print(unet:info().null_class)  --> true */
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

void slL_open_adm(lua_State *L) { slL_model_kind(L, "adm", l_adm); }
