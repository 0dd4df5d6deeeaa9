-- sluice.train: a recipe, run.
local core = require "sluice.core"
local checkpoint = require "sluice.checkpoint"
local fields = require "sluice.fields"
local progress = require "sluice.progress"
local recipe = require "sluice.recipe"
local sample = require "sluice.sample"
local timesteps = require "sluice.timesteps"
local weight = require "sluice.weight"

local get = fields.get

local Run = {}
Run.__index = Run
Run.__name = "sluice.run"

-- Samples with the recipe's own settings and EMA; o overrides.
function Run:sample(o)
  local all = { model = self.model, diffusion = self.diffusion, ema = self.ema[1] and self.ema[1].weights }
  for k, v in pairs(self.sample_settings) do all[k] = v end
  for k, v in pairs(o or {}) do all[k] = v end
  all.columns = nil
  return sample.run(all)
end

local function schedule_table(f, steps)
  if f == nil then return nil end
  if type(f) ~= "function" then error("recipe.optimizer: schedule must be a function(step, total)", 0) end
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
  if type(loss) == "function" then return nil, loss end
  if type(loss) == "table" and type(loss[1]) == "function" then -- a loss of its own and a weight for it to use
    fields.check(loss, { 1, "weight" }, "recipe.loss", 0)
    if loss.weight and not weight.is(loss.weight) then error("recipe.loss: weight must be a sluice.weight", 0) end
    return loss.weight and loss.weight:table(d), loss[1]
  end
  error("recipe.loss: expected a sluice.weight, a function(s), or { function(s), weight = … }", 0)
end

local function trainer_options(d)
  local o, e, t = d.optimizer or {}, d.ema or {}, d.train
  local betas = get(o, "betas", "table", { 0.9, 0.999 }, "recipe.optimizer", 0)
  local steps = get(t, "steps", "integer", nil, "recipe.train", 0) or error("recipe.train: steps is missing", 0)
  if steps < 1 then error(("recipe.train: steps is %d, expected at least 1"):format(steps), 0) end
  if t.t_sampler ~= nil and not timesteps.is(t.t_sampler) then error("recipe.train: t_sampler must be a sluice.timesteps", 0) end
  local table_of_weights, loss = loss_parts(d.loss, d.diffusion)
  return {
    model = d.model, diffusion = d.diffusion, data = d.data, weight = table_of_weights, loss = loss,
    density = t.t_sampler and t.t_sampler:density(d.diffusion),
    lr = get(o, "lr", "number", 1e-4, "recipe.optimizer", 0), beta1 = betas[1], beta2 = betas[2],
    eps = get(o, "eps", "number", 1e-8, "recipe.optimizer", 0),
    weight_decay = get(o, "weight_decay", "number", 0, "recipe.optimizer", 0),
    clip = get(o, "clip", "number", 0, "recipe.optimizer", 0),
    schedule = schedule_table(o.schedule, steps),
    ema = get(e, "decays", "table", { 0.9999 }, "recipe.ema", 0),
    ema_warmup = get(e, "warmup", "boolean", true, "recipe.ema", 0),
    batch = get(t, "batch", "integer", 32, "recipe.train", 0),
    micro_batch = get(t, "micro_batch", "integer", 0, "recipe.train", 0),
    seed = get(t, "seed", "integer", 0, "recipe.train", 0),
    flip = get(t, "flip", "boolean", false, "recipe.train", 0),
    recompute = get(t, "recompute", "boolean", false, "recipe.train", 0),
  }, steps
end

-- runs/NAME-0001, the first number that is free; or the folder asked for, which must not hold a run already.
local function make_folder(out, name)
  if out then
    if core.exists(out .. "/checkpoint.safetensors") then
      error(("train: %s holds a run already; name another folder with --out"):format(out), 0)
    end
    core.make_dirs(out)
    return out
  end
  for i = 1, 9999 do
    local dir = ("runs/%s-%04d"):format(name, i)
    if not core.exists(dir) then
      core.make_dirs(dir)
      return dir
    end
  end
  error("train: runs/ holds 9999 runs of this name", 0)
end

local function write_text(path, text)
  local f <close> = assert(io.open(path, "w"))
  assert(f:write(text))
end

local function read_source(r)
  local path = r.source:match("^@(.*)")
  local f = path and io.open(path)
  if not f then return "" end
  local text = f:read("a")
  f:close()
  return text
end

-- Runs the steps; reached.last is the last one's result.
local function loop(trainer, steps, batch, line, reached)
  local losses, kept = 0, 0
  for i = 1, steps do
    local r = trainer:step()
    reached.last = r
    kept = math.min(kept + 1, 100) -- a running mean over about the last hundred steps
    losses = losses + (r.loss - losses) / kept
    line:update(i, i * batch, ("loss %.4f"):format(losses))
  end
end

-- Steps done, the last one's result, and the error that ended them early. Ctrl-C may stop the core first and Lua a moment later,
-- one level up: hence two calls, one around the other.
local function run_steps(trainer, steps, batch, quiet)
  local line = progress.new { total = steps, now = core.clock, tty = core.isatty(), quiet = quiet }
  local reached = {}
  local _, ok, failure = pcall(function()
    local fine, message = pcall(loop, trainer, steps, batch, line, reached)
    return fine, message
  end)
  line:finish()
  if ok == true then return trainer:steps_done(), reached.last end
  return trainer:steps_done(), reached.last, failure or ok
end

local train = {}

-- sluice.train(recipe, { set = {key = value}, out = folder, device = "cpu", quiet = true }) -> run
function train.run(r, o)
  if not recipe.is(r) then error("sluice.train: expected a recipe (sluice.recipe) as its first argument", 2) end
  o = fields.check(o or {}, { "set", "out", "device", "quiet" }, "sluice.train", 2)
  if o.device ~= nil and o.device ~= "cpu" and o.device ~= "auto" then
    error(('sluice.train: device is "%s"; this build has cpu'):format(tostring(o.device)), 2)
  end
  local d, p = r:resolve(o.set)
  local options, steps = trainer_options(d)
  local trainer = core.trainer(options)
  local dir = make_folder(o.out, d.name or "run")
  write_text(dir .. "/recipe.lua", read_source(r))
  if not o.quiet then
    io.stderr:write(("%s: %s parameters, %d steps of %d images, %.0f MiB, into %s\n"):format(d.name or "run",
      core.thousands(select(2, d.model:count())), steps, options.batch, trainer:memory() / 1048576, dir))
  end
  local done, last, failure = run_steps(trainer, steps, options.batch, o.quiet)
  local run = setmetatable({
    dir = dir, model = d.model, diffusion = d.diffusion, trainer = trainer, steps = done, last = last,
    sample_settings = d.sample or {}, parameters = p, ema = {},
  }, Run)
  for i, decay in ipairs(options.ema) do run.ema[i] = { decay = decay, weights = trainer:flat("ema." .. i - 1) } end
  checkpoint.save(dir .. "/checkpoint.safetensors", run, { recipe = read_source(r), parameters = p, weight = options.weight })
  if failure then
    if done > 0 then io.stderr:write(("stopped after %d steps; what was reached is in %s\n"):format(done, dir)) end
    error(failure, 0)
  end
  return run
end

return train
