-- From a resolved recipe to the options of a trainer and the plan of a run.
local core = require "sluice.core"
local fields = require "sluice.fields"
local schedule = require "sluice.schedule"
local sluice = require "sluice"
local timesteps = require "sluice.timesteps"
local weight = require "sluice.weight"

local get = fields.get

local train_options = {}

-- Raises for a function of `makers` that was given in the place of what it makes.
local function uncalled(v, makers, prefix, field, call)
  local name = fields.maker(v, makers, prefix)
  if name then error(("%s is %s itself, which makes one: call it, as %s"):format(field, name, call), 0) end
end

local function schedule_table(f, steps)
  if f == nil then return nil end
  if type(f) ~= "function" then
    error(("recipe.optimizer: schedule is %s, expected a function(step, total)"):format(fields.what(f)), 0)
  end
  uncalled(f, schedule, "sluice.schedule.", "recipe.optimizer: schedule", "sluice.schedule.cosine { warmup = 100 }")
  local values = {}
  for i = 1, steps do
    local v = f(i - 1, steps)
    if type(v) ~= "number" or v ~= v or v < 0 or v == math.huge then
      error(("recipe.optimizer: schedule(%d, %d) gives %s, expected a finite number not below 0"):format(i - 1, steps, tostring(v)), 0)
    end
    values[i] = v
  end
  return values
end

local function loss_parts(loss, d)
  if loss == nil then return nil, nil end
  if weight.is(loss) then return loss:table(d), nil end
  uncalled(loss, weight, "sluice.weight.", "recipe.loss", "sluice.weight.min_snr(5)")
  if type(loss) == "function" then return nil, loss end
  if type(loss) == "table" and type(loss[1]) == "function" then -- a loss of its own and a weight for it to use
    fields.check(loss, { 1, "weight" }, "recipe.loss", 0)
    if loss.weight and not weight.is(loss.weight) then
      uncalled(loss.weight, weight, "sluice.weight.", "recipe.loss: weight", "sluice.weight.min_snr(5)")
      error(("recipe.loss: weight is %s, expected one of sluice.weight"):format(fields.what(loss.weight)), 0)
    end
    return loss.weight and loss.weight:table(d), loss[1]
  end
  error(("recipe.loss: expected a sluice.weight, a function(s), or { function(s), weight = … }, got %s"):format(fields.what(loss)), 0)
end

local function count(t, name, default, what, least)
  local v = get(t, name, "integer", default, what, 0)
  if v and v < (least or 0) then error(("%s: %s is %d, expected at least %d"):format(what, name, v, least or 0), 0) end
  return v
end

-- Steps and what happens at which of them.
local function plan_of(d)
  local t = d.train
  local steps = count(t, "steps", nil, "recipe.train", 1) or error("recipe.train: steps is missing", 0)
  local often = math.max(1, math.min(steps // 10, 5000))
  local every, keep = t.every or {}, t.keep or {}
  local checkpoint = count(every, "checkpoint", often, "recipe.train.every")
  return {
    steps = steps, holdout = count(t, "holdout", 0, "recipe.train"),
    every = {
      metric = count(every, "metric", math.max(1, math.min(steps // 20, 100)), "recipe.train.every", 1),
      checkpoint = checkpoint, -- 0: only at the end
      sample = count(every, "sample", d.sample and (checkpoint > 0 and checkpoint or often) or 0, "recipe.train.every"),
      holdout = count(every, "holdout", checkpoint > 0 and checkpoint or often, "recipe.train.every"),
    },
    keep = { last = count(keep, "last", 3, "recipe.train.keep", 1), every = count(keep, "every", 0, "recipe.train.keep") },
  }
end

-- d: a resolved recipe -> options of core.trainer, plan { steps, holdout, every, keep }
function train_options.of(d)
  local o, e, t = d.optimizer or {}, d.ema or {}, d.train
  local plan = plan_of(d)
  local betas = get(o, "betas", "table", { 0.9, 0.999 }, "recipe.optimizer", 0)
  if t.t_sampler ~= nil and not timesteps.is(t.t_sampler) then
    uncalled(t.t_sampler, timesteps, "sluice.timesteps.", "recipe.train: t_sampler", "sluice.timesteps.uniform()")
    error(("recipe.train: t_sampler is %s, expected one of sluice.timesteps"):format(fields.what(t.t_sampler)), 0)
  end
  local table_of_weights, loss = loss_parts(d.loss, d.diffusion)
  local data, held = d.data, nil
  if plan.holdout > 0 then data, held = d.data:split(plan.holdout) end
  local micro = t.micro_batch
  if micro ~= "auto" then micro = count(t, "micro_batch", 0, "recipe.train") end
  return {
    model = d.model, diffusion = d.diffusion, data = data, holdout = held, weight = table_of_weights, loss = loss,
    density = t.t_sampler and t.t_sampler:density(d.diffusion),
    lr = get(o, "lr", "number", 1e-4, "recipe.optimizer", 0), beta1 = betas[1], beta2 = betas[2],
    eps = get(o, "eps", "number", 1e-8, "recipe.optimizer", 0),
    weight_decay = get(o, "weight_decay", "number", 0, "recipe.optimizer", 0),
    clip = get(o, "clip", "number", 0, "recipe.optimizer", 0),
    schedule = schedule_table(o.schedule, plan.steps),
    ema = get(e, "decays", "table", { 0.9999 }, "recipe.ema", 0),
    ema_warmup = get(e, "warmup", "boolean", true, "recipe.ema", 0),
    batch = get(t, "batch", "integer", 32, "recipe.train", 0),
    micro_batch = micro,
    seed = get(t, "seed", "integer", 0, "recipe.train", 0),
    flip = get(t, "flip", "boolean", false, "recipe.train", 0),
    recompute = t.recompute or false, -- a word or a boolean: checked by the trainer
    precision = get(t, "precision", "string", nil, "recipe.train", 0),
    residual = get(t, "residual", "string", nil, "recipe.train", 0),
    loader_threads = count(t, "loader", nil, "recipe.train"),
  }, plan
end

-- --- memory ---

-- Bytes that training takes, all told; math.huge where even describing it takes more than there is.
local function forecast(options, batch, micro)
  return core.forecast(fields.merged(options, { batch = batch, micro_batch = micro }))
end

local function mib(bytes)
  return ("%s MiB"):format(core.thousands(math.ceil(bytes / 1048576)))
end

-- The largest batch below `batch` that fits into `room`, whole; 0 if none does.
local function largest_batch(options, batch, room)
  local lo, hi = 0, batch -- lo fits, hi does not
  while hi - lo > 1 do
    local mid = (lo + hi) // 2
    if forecast(options, mid, 0) <= room then lo = mid else hi = mid end
  end
  return lo
end

-- The divisors of n, the largest first.
local function divisors(n)
  local list = {}
  for k = n, 1, -1 do
    if n % k == 0 then list[#list + 1] = k end
  end
  return list
end

-- Bytes that may still be taken where the model runs, and of how many, in words; math.huge: no limit. The limit is of the host's memory.
local function room_of(model)
  local device = model:device()
  if device ~= "cpu" then
    local there = sluice.memory(device)
    return there.available, ("the %s of %s"):format(mib(there.total), device)
  end
  local memory = sluice.memory()
  local limit = memory.limit > 0 and memory.limit or math.huge
  return limit - memory.bytes, ("the limit of %s"):format(limit < math.huge and mib(limit) or "none")
end

-- Settles micro_batch = "auto", and refuses what will not fit before anything is allocated. -> bytes foreseen
function train_options.fit(options)
  local room, whole = room_of(options.model)
  local batch, auto = options.batch, options.micro_batch == "auto"
  if auto then
    options.micro_batch = 0
    if type(batch) ~= "number" or batch < 1 then return forecast(options, batch, 0) end -- refused in its own words
    for _, micro in ipairs(divisors(batch)) do
      local bytes = forecast(options, batch, micro)
      if bytes <= room then
        options.micro_batch = micro < batch and micro or 0
        return bytes
      end
    end
  end
  local bytes = forecast(options, batch, options.micro_batch)
  if bytes <= room then return bytes end
  local largest = largest_batch(options, options.micro_batch > 0 and options.micro_batch or batch, room)
  local kept = options.recompute == "none" or not options.recompute
  local advice = largest > 0
    and ('the largest that fits is %d; train.micro_batch = "auto" computes a larger batch in parts'):format(largest)
    or "not even one image fits; a smaller model, train.recompute = true or fewer EMAs need less"
  if largest > 0 and (auto or options.micro_batch > 0) then
    advice = ("the largest micro_batch that fits is %d"):format(largest)
  end
  if kept and forecast(fields.merged(options, { recompute = "light" }), batch, options.micro_batch) <= room then
    advice = advice .. '; train.recompute = "light" computes norms and activations again and fits'
  end
  error(("train: a batch of %d%s needs %s, %s of %s are free: %s"):format(batch,
    options.micro_batch > 0 and (" in parts of %d"):format(options.micro_batch) or "", mib(bytes), mib(math.max(0, room)),
    whole, advice), 0)
end

return train_options
