-- Recipes: defaults that --set changes, and a function of them that describes a run.
local fields = require "sluice.fields"
local sample_fields = require "sluice.sample_fields"

--- sluice.Recipe
--- A recipe: its defaults, and a function of them that describes a run.
--- @field defaults table
--- @field describe fun(p: table): sluice.Description
--- @field source string  where the function was written, as debug.getinfo tells it
--- @setup
--- local recipe = sluice.recipe { defaults = { lr = 1e-4, steps = 2 }, function(p)
---   local images = sluice.rand({ 8, 1, 8, 8 }, { seed = 1 }) * 2 - 1
---   return {
---     data = sluice.data.tensors { images = images },
---     model = sluice.dit { input = { 1, 8, 8 }, classes = 1, patch = 4, hidden = 16, depth = 1, heads = 2 },
---     diffusion = sluice.diffusion {}, optimizer = { lr = p.lr }, train = { steps = p.steps, batch = 4 },
---   }
--- end }
local Recipe = {}
Recipe.__index = Recipe
Recipe.__name = "sluice.recipe"

--- sluice.Description
--- What a recipe's function returns.
--- @field name? string  "run"; of the run's folder
--- @field data sluice.Dataset
--- @field model sluice.Model
--- @field diffusion sluice.Diffusion
--- @field loss? sluice.Weight|function|table  diffusion:losses, with this weight; or a function(s) of s.out, s.x0, s.xt, s.t, s.noise,
---   s.weight and s.diffusion that gives one loss per sample; or both: { f, weight = w }
--- @field optimizer? table  of AdamW
--- @field optimizer.lr? number  1e-4
--- @field optimizer.betas? number[]  {0.9, 0.999}
--- @field optimizer.eps? number  1e-8
--- @field optimizer.weight_decay? number  0; of every trainable parameter
--- @field optimizer.clip? number  0: none; the largest global norm of a gradient
--- @field optimizer.schedule? fun(step: integer, total: integer): number  constant; multiplies lr, step from 0
--- @field ema? table
--- @field ema.decays? number[]  {0.9999}; at most four averages of the weights
--- @field ema.warmup? boolean  true: min(decay, (1+n)/(10+n)) at step n
--- @field train table
--- @field train.steps integer
--- @field train.batch? integer  32
--- @field train.micro_batch? integer|"auto"  0: the whole batch; gradients are summed over parts of this size; "auto": the largest that
---   fits
--- @field train.precision? "f32"|"tf32"|"bf16"  the model's
--- @field train.residual? "f32"|"bf16"  the model's
--- @field train.seed? integer  0; of data order, timesteps, noise, dropout
--- @field train.flip? boolean  false; mirrors half of the images left to right
--- @field train.t_sampler? sluice.Timesteps  uniform
--- @field train.recompute? boolean|"auto"|"none"|"light"|"blocks"  "auto"; what backward computes again: less memory, more time; true
---   is "blocks"
--- @field train.holdout? integer  0; images kept back, whose loss is reported
--- @field train.loader? integer  1 where images must be decoded, else 0; threads that read ahead
--- @field train.every? table  steps between events; 0: not
--- @field train.every.metric? integer  a twentieth of the steps, 1 … 100; at least 1
--- @field train.every.checkpoint? integer  a tenth of the steps, 1 … 5000; 0: only at the end
--- @field train.every.sample? integer  as checkpoint where `sample` is given, else 0
--- @field train.every.holdout? integer  as checkpoint
--- @field train.keep? table  checkpoints that stay
--- @field train.keep.last? integer  3
--- @field train.keep.every? integer  0; those at multiples of so many steps stay too
--- @field sample? table  fields of sluice.sample, for previews, run:sample and `sluice sample`
--- @field sample.n? integer
--- @field sample.labels? integer|integer[]|"balanced"|"uniform"
--- @field sample.cfg? number
--- @field sample.cfg_channels? integer
--- @field sample.cfg_interval? number[]
--- @field sample.sampler? string
--- @field sample.steps? integer
--- @field sample.eta? number
--- @field sample.clip? boolean
--- @field sample.seed? integer
--- @field sample.batch? integer
--- @field sample.columns? integer  of the picture
--- @field sample.ema? number|"none"  the first decay
--- @field sample.precision? string
local TOP = { "name", "data", "model", "diffusion", "loss", "optimizer", "ema", "train", "sample" }
local PARTS = {
  optimizer = { "lr", "betas", "eps", "weight_decay", "clip", "schedule" },
  ema = { "decays", "warmup" },
  train = {
    "steps", "batch", "micro_batch", "precision", "residual", "seed", "flip", "t_sampler", "recompute", "holdout", "every", "keep",
    "loader",
  },
  sample = sample_fields.names "recipe",
}
table.insert(PARTS.sample, "columns") -- of the previews

local TRAIN_PARTS = { every = { "metric", "checkpoint", "sample", "holdout" }, keep = { "last", "every" } }

local function parse(text, default, key)
  local kind = type(default)
  if kind == "number" then
    local v = tonumber(text)
    if v and (math.type(default) ~= "integer" or v == math.floor(v)) then
      return math.type(default) == "integer" and math.tointeger(v) or v
    end
  elseif kind == "boolean" then
    if text == "true" or text == "1" then return true end
    if text == "false" or text == "0" then return false end
  elseif kind == "string" then
    return text
  else
    error(("set: %s is a %s and cannot be set from text"):format(key, kind), 0)
  end
  local want = kind == "number" and (math.type(default) == "integer" and "an integer" or "a number") or "true or false"
  error(('set: %s is "%s", expected %s (as its default %s)'):format(key, text, want, tostring(default)), 0)
end

--- recipe:parameters(set?) -> parameters
--- The defaults with changes over them. Text, as of the command line, becomes a value of the default's type; unknown names are refused.
--- @param set? table
--- @return table
--- @example print(recipe:parameters({ steps = "50" }).steps)  --> 50
function Recipe:parameters(set)
  local p = fields.merged(self.defaults)
  for key, v in pairs(set or {}) do
    local default = self.defaults[key]
    if default == nil then
      error(("set: the recipe has no %s%s"):format(tostring(key), fields.hint(tostring(key), fields.keys(self.defaults))), 0)
    end
    if type(v) == "string" and type(default) ~= "string" then v = parse(v, default, key) end
    if type(v) ~= type(default) then
      error(("set: %s is a %s, expected a %s"):format(key, type(v), type(default)), 0)
    end
    p[key] = v
  end
  return p
end

-- { field, a method that it has, what makes it }
local NEEDED = {
  { "data", "digest", "sluice.data.pack(path), .folder, .npz or .tensors gives" }, { "model", "forward", "sluice.dit or sluice.adm gives" },
  { "diffusion", "q_sample", "sluice.diffusion gives" }, { "train" },
}

-- The parameters for the recipe's function: a name that is none of them raises there. The library and C functions, which are handed p as
-- a table of options, find nil.
local function strict(p)
  return setmetatable(fields.merged(p), {
    __index = function(_, key)
      local caller = debug.getinfo(2, "S")
      if not caller or caller.what == "C" or caller.short_src:match "^%[sluice" then return nil end
      error(("recipe: unknown parameter \"%s\"%s"):format(tostring(key), fields.hint(tostring(key), fields.keys(p))), 2)
    end,
  })
end

--- recipe:resolve(set?) -> description, parameters
--- What the recipe's function returns for these parameters, checked.
--- @param set? table
--- @return sluice.Description description
--- @return table parameters
--- @example print(recipe:resolve({ lr = 3e-4 }).optimizer.lr)  --> 0.0003
function Recipe:resolve(set)
  local p = self:parameters(set)
  local d = self.describe(strict(p))
  if type(d) ~= "table" then error(("recipe: the function returned %s, expected a table"):format(tostring(d)), 0) end
  fields.check(d, TOP, "recipe", 0)
  for part, names in pairs(PARTS) do
    if d[part] ~= nil then fields.check(d[part], names, "recipe." .. part, 0) end
  end
  for part, names in pairs(TRAIN_PARTS) do
    if d.train and d.train[part] ~= nil then fields.check(d.train[part], names, "recipe.train." .. part, 0) end
  end
  for _, need in ipairs(NEEDED) do
    local name, method, makers = table.unpack(need)
    if d[name] == nil then error(("recipe: %s is missing"):format(name), 0) end
    if method and not (type(d[name]) == "userdata" and d[name][method]) then
      error(("recipe: %s is %s, expected what %s"):format(name, fields.what(d[name]), makers), 0)
    end
  end
  return d, p
end

local recipe = {}

function recipe.is(v)
  return getmetatable(v) == Recipe
end

--- sluice.recipe { defaults = {…}, function(p) … end } -> recipe
--- A recipe. `--set key=value`, and `set` in sluice.train, change the defaults before the function is called with them. A parameter that
--- is not among the defaults cannot be read: p.flpi is an error, not nil.
--- @param options table
--- @field [1] fun(p: table): sluice.Description
--- @field defaults? table  numbers, booleans, text
--- @return sluice.Recipe
--- @example
--- local recipe = sluice.recipe { defaults = { hidden = 16 }, function(p)
---   return {
---     data = sluice.data.pack "data/digits/digits.pack",
---     model = sluice.dit { input = { 1, 28, 28 }, classes = 10, patch = 7, hidden = p.hidden, depth = 1, heads = 2 },
---     diffusion = sluice.diffusion {},
---     train = { steps = 2, batch = 4 },
---   }
--- end }
--- print(recipe:parameters({ hidden = "32" }).hidden)  --> 32
function recipe.new(t)
  fields.check(t, { 1, "defaults" }, "sluice.recipe", 2)
  if type(t[1]) ~= "function" then error("sluice.recipe: expected a function(p) as its first element", 2) end
  if t.defaults ~= nil and type(t.defaults) ~= "table" then error("sluice.recipe: defaults must be a table", 2) end
  local info = debug.getinfo(t[1], "S")
  return setmetatable({ defaults = t.defaults or {}, describe = t[1], source = info.source }, Recipe)
end

return recipe
