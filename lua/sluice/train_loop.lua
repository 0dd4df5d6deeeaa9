-- The steps of a training, and what stands between them: metrics, checkpoints, previews, held-out losses; how it ends.
local checkpoint = require "sluice.checkpoint"
local core = require "sluice.core"
local interrupt = require "sluice.interrupt"
local progress = require "sluice.progress"
local quote = require "sluice.quote"
local sample = require "sluice.sample"
local show = require "sluice.show"
local train_run = require "sluice.train_run"

local train_loop = {}

-- --- what is written ---

local function save(run)
  local path = run.folder:checkpoint_path(run.steps)
  run.folder:event { event = "checkpoint begins", step = run.steps, path = path }
  checkpoint.save(path, {
    model = run.model, diffusion = run.diffusion, weights = run.trainer:flat "params", ema = run.ema,
    exp_avg = run.trainer:flat "exp_avg", exp_avg_sq = run.trainer:flat "exp_avg_sq", weight = run.options.weight,
    step = run.steps, seconds = run.seconds, seed = run.options.seed, batch = run.options.batch, sample = run.sample_settings,
    parameters = run.parameters, settings = run.settings, recipe = run.in_file and run.source or "",
    name = run.name,
  })
  run.folder:event { event = "checkpoint written", step = run.steps, path = path }
  run.saved = run.steps
  run.folder:prune(run.plan.keep)
end

-- What previews are sampled with: the same noise and labels each time; nil where the model's channels are no picture's.
function train_loop.preview_options(run)
  local channels, s = run.model:info().in_channels, run.sample_settings
  if channels ~= 1 and channels ~= 3 then return nil end
  local n = type(s.labels) ~= "table" and math.min(s.n or 16, 100) or nil
  return checkpoint.sample_options(run, s, { n = n, seed = s.seed or run.options.seed })
end

-- The model's pictures at this step.
local function preview(run)
  local options, s = train_loop.preview_options(run), run.sample_settings
  if not options then return false end
  run.checkpoint = train_run.saved_checkpoint(run)
  local origin = checkpoint.origin(run, options, { stop = function() return not interrupt.asked() end })
  local images, _, made = sample.run(options, origin)
  if interrupt.asked() then return false end
  local path = run.folder:sample_path(run.steps)
  made:save(path, images, { columns = s.columns })
  if core.isatty() and not run.quiet and core.draw and core.terminal() then
    run.line:clear()
    local _, n = show.some(images, s.columns)
    if n < #images then progress.say(("%d of %d images; %s has all"):format(n, #images, path), run.line) end
  end
  return true
end

-- Losses over the held-out images, of the weights and of the first EMA.
local function evaluate(run)
  local record = { step = run.steps, holdout = run.trainer:evaluate() }
  if run.ema[1] then record.holdout_ema = run.trainer:evaluate(run.ema[1].weights) end
  run.folder:metric(record)
  run.holdout = record.holdout_ema or record.holdout
end

-- Means since the last record.
local Meter = {}
Meter.__index = Meter

local function new_meter()
  return setmetatable({ n = 0, loss = 0, mse = 0, vb = 0, norm = 0, largest = 0, start = core.clock() }, Meter)
end

function Meter:add(r)
  self.n = self.n + 1
  for _, k in ipairs { "loss", "mse", "vb" } do self[k] = self[k] + r[k] end
  self.norm, self.largest = self.norm + r.grad_norm, math.max(self.largest, r.grad_norm)
end

function Meter:record(run, r)
  local n, spent = self.n, core.clock() - self.start
  return {
    step = r.step, loss = self.loss / n, mse = self.mse / n, vb = self.vb / n, grad_norm = self.norm / n, grad_norm_max = self.largest,
    lr = r.lr, images = r.step * run.options.batch, images_per_second = n * run.options.batch / spent,
    seconds = run.seconds, memory = core.resident(), loss_by_t = run.trainer:bins(),
  }
end

-- --- the steps ---

local function due(step, every)
  return every > 0 and step % every == 0
end

-- What stands at a step beside the step itself. `last`: nothing comes after it.
local function keep_books(run, last)
  local every, step = run.plan.every, run.steps
  if run.options.holdout and (last or due(step, every.holdout)) then evaluate(run) end
  if last or due(step, every.checkpoint) then save(run) end
  if every.sample > 0 and (last or due(step, every.sample)) then preview(run) end
end

local function loop(run)
  local plan = run.plan
  local meter, shown, kept = new_meter(), 0, 0
  while run.steps < plan.steps do
    if interrupt.asked() then return "asked" end
    local began = core.clock()
    local r = run.trainer:step()
    run.steps, run.last, run.seconds = r.step, r, run.seconds + core.clock() - began
    meter:add(r)
    kept = math.min(kept + 1, 100) -- a running mean over about the last hundred steps
    shown = shown + (r.loss - shown) / kept
    if due(run.steps, plan.every.metric) or run.steps == plan.steps then
      run.folder:metric(meter:record(run, r))
      meter = new_meter()
    end
    run.line:update(run.steps, ("loss %.4f"):format(shown), ("%.0f MiB%s"):format(core.resident() / 1048576,
      run.holdout and (", held out %.4f"):format(run.holdout) or ""))
    local before = core.clock()
    keep_books(run, run.steps == plan.steps)
    meter.start = meter.start + core.clock() - before -- images/s are the training's alone
  end
  return "done"
end

-- What is typed to go on with a run that stopped.
local function go_on_line(run)
  if not run.in_file then return ("sluice.train(recipe, { resume = %s })"):format(quote.lua(run.dir)) end
  if require("sluice.faults").at_prompt() then
    -- nil stands for the stored file; what that makes may not be the recipe that a function of it made
    return ("sluice.train(%s, { resume = %s })"):format(run.from_file and "nil" or "recipe", quote.lua(run.dir))
  end
  return "sluice train --resume " .. quote.shell(run.dir)
end

-- Runs to the end, to a Ctrl-C or to an error; what was reached is saved unless it is what went wrong.
function train_loop.run(run)
  run.line = run.line or progress.new {
    total = run.plan.steps, first = run.steps, per = run.options.batch, now = core.clock, tty = core.isatty(), quiet = run.quiet,
  }
  interrupt.wait(true)
  -- Where the program's own handling of Ctrl-C is not there, an error comes out of the core, and once more from Lua a moment later,
  -- one level up: hence two calls, one around the other.
  local _, ok, outcome = pcall(function()
    local fine, result = pcall(loop, run)
    return fine, result
  end)
  run.line:finish()
  if ok ~= true then outcome = outcome or ok end
  run.steps = run.trainer:steps_done()
  local interrupted = outcome == "asked" or (ok ~= true and interrupt.is(outcome))
  if interrupted and run.saved ~= run.steps and run.steps > 0 then
    local saved, fault = pcall(save, run)
    if not saved then ok, outcome, interrupted = false, fault, false end
  end
  interrupt.wait(false)
  local noted, fault = pcall(run.folder.event, run.folder, { event = interrupted and "interrupted" or ok == true and "ended" or "failed",
    step = run.steps, reason = ok ~= true and not interrupted and tostring(outcome) or nil })
  if not noted and ok == true then ok, outcome = false, fault end -- else what went wrong before says more
  if interrupted then
    error(("interrupted after step %d of %d; go on with: %s"):format(run.steps, run.plan.steps, go_on_line(run)), 0)
  elseif ok ~= true then
    local list = run.folder:checkpoints()
    error(("%s\n%s"):format(tostring(outcome), list[1]
      and ("the last checkpoint is %s; go on from there with: %s"):format(list[1].path, go_on_line(run))
      or "there was no checkpoint yet"), 0)
  end
end

return train_loop
