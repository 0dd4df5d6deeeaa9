-- Every setting of a run under one flat name, so that two runs can be compared and what may change on resume is known.
local core = require "sluice.core"
local sluice = require "sluice"

local settings = {}

local function flatten(into, prefix, t)
  for k, v in pairs(t) do
    local name = prefix .. "." .. tostring(k)
    if type(v) == "table" then
      flatten(into, name, v)
    else
      into[name] = v
    end
  end
end

local function table_digest(list)
  return list and core.digest(sluice.tensor(list)) or nil
end

-- d: the resolved recipe; options: the trainer's; plan: steps, every, keep, holdout. -> { ["optimizer.lr"] = 1e-4 … }
function settings.of(d, options, plan)
  local s = {}
  flatten(s, "model", d.model:describe())
  for i, mask in ipairs(d.model:tables()) do s["model.mask." .. i - 1] = core.digest(mask) end
  local process, betas = d.diffusion:describe()
  flatten(s, "diffusion", process)
  if betas then s["diffusion.betas"] = core.digest(betas) end
  s["loss.weight"] = table_digest(options.weight)
  if options.loss then s["loss.function"] = core.digest(string.dump(options.loss, true)) end
  s["train.t_sampler"] = table_digest(options.density)
  for _, k in ipairs { "lr", "beta1", "beta2", "eps", "weight_decay", "clip" } do s["optimizer." .. k] = options[k] end
  s["optimizer.schedule"] = table_digest(options.schedule)
  for i, decay in ipairs(options.ema) do s["ema.decays." .. i] = decay end
  s["ema.warmup"] = options.ema_warmup
  for _, k in ipairs { "batch", "micro_batch", "seed", "flip", "recompute", "precision", "residual" } do s["train." .. k] = options[k] end
  s["train.steps"], s["train.holdout"] = plan.steps, plan.holdout
  flatten(s, "train.every", plan.every)
  flatten(s, "train.keep", plan.keep)
  s["data.images"], s["data.shape"] = #d.data, table.concat(d.data:shape(), "x")
  s["data.classes"], s["data.digest"] = d.data:classes(), d.data:digest()
  return s
end

local FREE = { "^train%.steps$", "^train%.every%.", "^train%.keep%.", "^optimizer%.lr$", "^optimizer%.schedule$" }
local WARNED = { "^train%.micro_batch$", "^train%.recompute$", "^machine%." }

local function any(name, patterns)
  for _, p in ipairs(patterns) do
    if name:match(p) then return true end
  end
  return false
end

local function text(v)
  return v == nil and "none" or tostring(v)
end

local function same(a, b)
  if type(a) == "number" and type(b) == "number" then return a == b or math.abs(a - b) <= 1e-15 * math.abs(a) end
  return a == b
end

-- What differs from `old` to `new`: lines of text in three lists, free to change, with a warning, and not to be changed.
function settings.compare(old, new)
  local names, seen = {}, {}
  for _, t in ipairs { old, new } do
    for name in pairs(t) do
      if not seen[name] then names[#names + 1] = name end
      seen[name] = true
    end
  end
  table.sort(names)
  local differ = { free = {}, warned = {}, refused = {} }
  for _, name in ipairs(names) do
    if not same(old[name], new[name]) then
      local list = any(name, FREE) and differ.free or any(name, WARNED) and differ.warned or differ.refused
      list[#list + 1] = ("%s: %s -> %s"):format(name, text(old[name]), text(new[name]))
    end
  end
  return differ
end

-- A model's description in the same form.
function settings.of_model(description)
  local s = {}
  flatten(s, "model", description)
  return s
end

-- What a run's bits may depend on, in the same form.
function settings.of_machine(machine)
  local s = {}
  for _, k in ipairs { "cpu", "kernels", "onednn", "sluice", "device", "threads" } do s["machine." .. k] = machine[k] end
  return s
end

return settings
