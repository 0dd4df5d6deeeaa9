-- Recipes: defaults that --set changes, and a function of them that describes a run.
local fields = require "sluice.fields"

local Recipe = {}
Recipe.__index = Recipe
Recipe.__name = "sluice.recipe"

local TOP = fields.share("recipe", { "name", "data", "model", "diffusion", "loss", "optimizer", "ema", "train", "sample" })
local PARTS = {
  optimizer = { "lr", "betas", "eps", "weight_decay", "clip", "schedule" },
  ema = { "decays", "warmup" },
  train = {
    "steps", "batch", "micro_batch", "precision", "residual", "seed", "flip", "t_sampler", "recompute", "holdout", "every", "keep",
    "loader",
  },
  sample = {
    "n", "labels", "cfg", "cfg_channels", "cfg_interval", "sampler", "steps", "eta", "clip", "seed", "batch", "columns", "ema",
    "precision",
  },
}

for part, names in pairs(PARTS) do fields.share("recipe." .. part, names) end

local TRAIN_PARTS = { every = { "metric", "checkpoint", "sample", "holdout" }, keep = { "last", "every" } }
for part, names in pairs(TRAIN_PARTS) do fields.share("recipe.train." .. part, names) end

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

-- The defaults with `set` over them. Values may be text (from the command line); types come from the defaults.
function Recipe:parameters(set)
  local p, names = {}, {}
  for k, v in pairs(self.defaults) do
    p[k] = v
    names[#names + 1] = k
  end
  table.sort(names)
  for key, v in pairs(set or {}) do
    local default = self.defaults[key]
    if default == nil then
      local near = fields.nearest(tostring(key), names)
      error(("set: the recipe has no %s%s"):format(tostring(key),
        near and (', did you mean "%s"?'):format(near) or ("; there are " .. table.concat(names, ", "))), 0)
    end
    if type(v) == "string" and type(default) ~= "string" then v = parse(v, default, key) end
    if type(v) ~= type(default) then
      error(("set: %s is a %s, expected a %s"):format(key, type(v), type(default)), 0)
    end
    p[key] = v
  end
  return p
end

-- The description of a run with `set` over the defaults: the function's table, checked.
function Recipe:resolve(set)
  local p = self:parameters(set)
  local d = self.describe(p)
  if type(d) ~= "table" then error(("recipe: the function returned %s, expected a table"):format(tostring(d)), 0) end
  fields.check(d, TOP, "recipe", 1)
  for part, names in pairs(PARTS) do
    if d[part] ~= nil then fields.check(d[part], names, "recipe." .. part, 1) end
  end
  for part, names in pairs(TRAIN_PARTS) do
    if d.train and d.train[part] ~= nil then fields.check(d.train[part], names, "recipe.train." .. part, 1) end
  end
  for _, need in ipairs { "data", "model", "diffusion", "train" } do
    if d[need] == nil then error(("recipe: %s is missing"):format(need), 0) end
  end
  return d, p
end

local recipe = {}

local ARGUMENT = fields.share("sluice.recipe", { 1, "defaults" })

function recipe.is(v)
  return getmetatable(v) == Recipe
end

-- sluice.recipe { defaults = {…}, function(p) return {…} end }
function recipe.new(t)
  fields.check(t, ARGUMENT, "sluice.recipe", 2)
  if type(t[1]) ~= "function" then error("sluice.recipe: expected a function(p) as its first element", 2) end
  if t.defaults ~= nil and type(t.defaults) ~= "table" then error("sluice.recipe: defaults must be a table", 2) end
  local info = debug.getinfo(t[1], "S")
  return setmetatable({ defaults = t.defaults or {}, describe = t[1], source = info.source }, Recipe)
end

return recipe
