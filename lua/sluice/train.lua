-- sluice.train: a recipe, run; and a run, gone on with.
local checkpoint = require "sluice.checkpoint"
local code = require "sluice.code"
local core = require "sluice.core"
local fields = require "sluice.fields"
local files = require "sluice.files"
local progress = require "sluice.progress"
local recipe = require "sluice.recipe"
local run_folder = require "sluice.run_folder"
local sample = require "sluice.sample"
local settings = require "sluice.settings"
local sluice = require "sluice"
local train_options = require "sluice.train_options"

local function say(run, text)
  if run.line then run.line:clear() end
  if not run.quiet then io.stderr:write(text, "\n") end
end

local function warn(run, text)
  if run.line then run.line:clear() end
  io.stderr:write("sluice: warning: ", text, "\n")
end

-- Where the run's weights of now lie on disk, for what pictures say of themselves; nil if nowhere.
local function saved_checkpoint(run)
  if run.saved ~= run.steps or run.steps == 0 then return nil end
  local path = run.folder:checkpoint_path(run.steps)
  return core.exists(path) and checkpoint.describe(path) or nil
end

--- sluice.Run
--- A run of a recipe: what sluice.train gives back.
--- @field dir string  its folder
--- @field name string
--- @field model sluice.Model
--- @field diffusion sluice.Diffusion
--- @field ema {decay: number, weights: sluice.Tensor}[]  the averages of the weights
--- @field steps integer  done
--- @field seconds number  spent in steps
--- @field last? table  the last step's result, as of trainer:step; nil if there was nothing left to do
--- @field parameters table  what the recipe's function was called with
--- @field settings table<string, any>  every resolved setting by a flat name
--- @field trainer sluice.Trainer
--- @setup
--- local recipe = sluice.recipe { function()
---   return {
---     data = sluice.data.tensors { images = sluice.rand({ 8, 1, 8, 8 }, { seed = 1 }) },
---     model = sluice.dit { input = { 1, 8, 8 }, classes = 1, patch = 4, hidden = 16, depth = 1, heads = 2 },
---     diffusion = sluice.diffusion {}, train = { steps = 2, batch = 4 },
---   }
--- end }
--- local run = sluice.train(recipe, { quiet = true, out = "runs/example" })
--- @example
--- print(run.steps, run.last.step, run.settings["optimizer.lr"])  --> 2 2 0.0001
local Run = {}
Run.__index = Run
Run.__name = "sluice.run"

--- run:sample(options?) -> images, labels?
--- Draws with the recipe's own `sample` settings and the first EMA.
--- @param options? table  fields of sluice.sample that go over the settings; ema is a decay, "none", or weights
--- @return sluice.Tensor images
--- @return sluice.Tensor? labels
--- @example print(run:sample({ n = 2, steps = 2 }):shape()[1])  --> 2
function Run:sample(o)
  self.checkpoint = saved_checkpoint(self)
  return checkpoint.sample(self, self.sample_settings, o)
end

-- --- what is written ---

local function save(run)
  local path = run.folder:checkpoint_path(run.steps)
  run.folder:event { event = "checkpoint begins", step = run.steps, path = path }
  checkpoint.save(path, {
    model = run.model, diffusion = run.diffusion, weights = run.trainer:flat "params", ema = run.ema,
    exp_avg = run.trainer:flat "exp_avg", exp_avg_sq = run.trainer:flat "exp_avg_sq", weight = run.options.weight,
    step = run.steps, seconds = run.seconds, seed = run.options.seed, batch = run.options.batch, sample = run.sample_settings,
    parameters = run.parameters, settings = run.settings, recipe = run.source, name = run.name,
  })
  run.folder:event { event = "checkpoint written", step = run.steps, path = path }
  run.saved = run.steps
  run.folder:prune(run.plan.keep)
end

-- What previews are sampled with: the same noise and labels each time; nil where the model's channels are no picture's.
local function preview_options(run)
  local channels, s = run.model:info().in_channels, run.sample_settings
  if channels ~= 1 and channels ~= 3 then return nil end
  local n = type(s.labels) ~= "table" and math.min(s.n or 16, 100) or nil
  return checkpoint.sample_options(run, s, { n = n, seed = s.seed or run.options.seed })
end

-- The model's pictures at this step.
local function preview(run)
  local options, s = preview_options(run), run.sample_settings
  if not options then return false end
  run.checkpoint = saved_checkpoint(run)
  local origin = checkpoint.origin(run, options, { stop = function() return not (core.stop_asked and core.stop_asked()) end })
  local images, _, made = sample.run(options, origin)
  if core.stop_asked and core.stop_asked() then return false end
  local path = run.folder:sample_path(run.steps)
  sluice.save_png(path, images, { columns = s.columns, text = made:text { columns = s.columns } })
  if core.isatty() and not run.quiet and core.draw then
    run.line:clear()
    core.draw(images, s.columns)
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
    if core.stop_asked and core.stop_asked() then return "asked" end
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

local function go_on_line(run)
  if run.source == "" then return ('sluice.train(recipe, { resume = "%s" })'):format(run.dir) end
  local typed = require("sluice.faults").at_prompt() and 'sluice.train(nil, { resume = "%s" })' or "sluice train --resume %s"
  return typed:format(run.dir)
end

-- Runs to the end, to a Ctrl-C or to an error; what was reached is saved unless it is what went wrong.
local function run_steps(run)
  run.line = run.line or progress.new {
    total = run.plan.steps, first = run.steps, per = run.options.batch, now = core.clock, tty = core.isatty(), quiet = run.quiet,
  }
  if core.stop_on_interrupt then core.stop_on_interrupt(true) end
  -- Where the program's own handling of Ctrl-C is not there, an error comes out of the core, and once more from Lua a moment later,
  -- one level up: hence two calls, one around the other.
  local _, ok, outcome = pcall(function()
    local fine, result = pcall(loop, run)
    return fine, result
  end)
  run.line:finish()
  if ok ~= true then outcome = outcome or ok end
  run.steps = run.trainer:steps_done()
  local interrupted = outcome == "asked" or (ok ~= true and tostring(outcome):match("interrupted") ~= nil)
    or (ok ~= true and tostring(outcome):match("cancelled") ~= nil)
  if interrupted and run.saved ~= run.steps and run.steps > 0 then save(run) end
  if core.stop_on_interrupt then core.stop_on_interrupt(false) end
  run.folder:event { event = interrupted and "interrupted" or ok == true and "ended" or "failed", step = run.steps,
    reason = ok ~= true and not interrupted and tostring(outcome) or nil }
  if interrupted then
    error(("interrupted after step %d of %d; go on with: %s"):format(run.steps, run.plan.steps, go_on_line(run)), 0)
  elseif ok ~= true then
    local list = run.folder:checkpoints()
    error(("%s\n%s"):format(tostring(outcome), list[1]
      and ("the last checkpoint is %s; go on from there with: %s"):format(list[1].path, go_on_line(run))
      or "there was no checkpoint yet"), 0)
  end
end

-- --- starting and going on ---

-- The recipe's model on the device that was asked for; where the recipe puts it, if none was.
local function place(d, device)
  if device == nil then return end
  if type(device) ~= "string" then
    error(("sluice.train: device is %s, expected a name"):format(tostring(device)), 0)
  end
  d.model:to(device)
end

-- The recipe's text and modules, as they are now; "" for one that was not made in a file.
local function code_of(r)
  local path = r.source:match("^@(.*)")
  local text = path and files.read(path)
  if not text then return "", {}, nil end
  return text, code.required(files.folder_of(path)), core.absolute(path)
end

local function new_run(d, p, o)
  place(d, o.device)
  if d.sample and type(d.sample.sampler) == "function" then
    error("recipe.sample: sampler is a function, which no checkpoint can keep; give it to run:sample, and name one here", 0)
  end
  local options, plan = train_options.of(d)
  local run = setmetatable({
    model = d.model, diffusion = d.diffusion, sample_settings = d.sample or {}, parameters = p, name = d.name or "run",
    options = options, plan = plan, quiet = o.quiet, line = o.line, steps = 0, seconds = 0, saved = 0, ema = {},
  }, Run)
  run.settings = settings.of(d, options, plan)
  local machine = core.machine(d.model:device())
  run.machine, run.machine_settings = machine, settings.of_machine(machine)
  return run
end

-- Makes what runs, once it is known that it may.
local function make_trainer(run)
  run.bytes = train_options.fit(run.options)
  run.trainer = core.trainer(run.options)
  for i, decay in ipairs(run.options.ema) do run.ema[i] = { decay = decay, weights = run.trainer:flat("ema." .. i - 1) } end
  local previews = run.plan.every.sample > 0 and preview_options(run)
  if previews then run.bytes = run.bytes + sample.memory(previews) end
end

local function info_of(run, modules, source)
  local list = {}
  for name, m in pairs(modules) do list[name] = m.path end
  return {
    name = run.name, recipe = source, modules = list, parameters = run.parameters, settings = run.settings, machine = run.machine,
    machine_settings = run.machine_settings, micro_batch = run.options.micro_batch, bytes = run.bytes,
    started = os.date "%Y-%m-%d %H:%M:%S",
  }
end

local function announce(run)
  local parts = run.options.micro_batch > 0 and (" in parts of %d"):format(run.options.micro_batch) or ""
  say(run, ("%s: %s parameters, %s of %d images%s, %.0f MiB, into %s"):format(run.name,
    core.thousands(select(2, run.model:count())), run.steps > 0 and ("from step %d to %d"):format(run.steps, run.plan.steps)
    or ("%d steps"):format(run.plan.steps), run.options.batch, parts, run.bytes / 1048576, run.dir))
end

-- What differs between a stored run and what is asked for now, in words.
local function differences(info, run)
  local differ = settings.compare(info.settings, run.settings)
  local machine = settings.compare(info.machine_settings, run.machine_settings)
  table.move(machine.warned, 1, #machine.warned, #differ.warned + 1, differ.warned)
  return differ
end

local function all_lines(differ)
  local lines = {}
  for _, kind in ipairs { "refused", "warned", "free" } do
    for _, line in ipairs(differ[kind]) do lines[#lines + 1] = "  " .. line end
  end
  return lines
end

local function refuse_existing(dir, run)
  local folder = run_folder.open(dir)
  local info, list = folder:info(), folder:checkpoints()
  local lines = all_lines(differences(info, run))
  local text = "train: %s holds a run already, %s of %d steps%s\ngo on with it: sluice train --resume %s; "
    .. "or name another folder with --out"
  error(text:format(dir, list[1] and list[1].step or "none", info.settings["train.steps"],
    #lines > 0 and "; it differs:\n" .. table.concat(lines, "\n") or ", with the same settings", dir), 0)
end

local function start(r, o)
  local d, p = r:resolve(o.set)
  local run = new_run(d, p, o)
  if o.out and run_folder.is_run(o.out) then refuse_existing(o.out, run) end
  make_trainer(run)
  local text, modules, source = code_of(r)
  run.folder = run_folder.create(o.out, run.name)
  run.dir, run.source = run.folder.dir, text
  run.folder:write_code(text, modules)
  run.folder:write_info(info_of(run, modules, source))
  run.folder:event { event = "started", step = 0 }
  return run
end

-- Sets over the stored parameters; text becomes a value by the recipe's defaults.
local function merged(stored, set)
  local all = {}
  for k, v in pairs(stored or {}) do all[k] = v end
  for k, v in pairs(set or {}) do all[k] = v end
  return all
end

local function go_on(r, o)
  local folder = run_folder.open(o.resume)
  local info = folder:info()
  if not r then
    if not info.recipe then
      error(("train: the recipe of %s was not in a file; call sluice.train(recipe, { resume = … })"):format(o.resume), 0)
    end
    r = code.load_stored(o.resume, info.recipe, info.modules or {})
    if type(r) == "table" and recipe.is(r.base) then r = r.base end -- a sweep's file
    if not recipe.is(r) then
      error(("train: %s/recipe.lua neither returns a recipe nor trains one"):format(o.resume), 0)
    end
  end
  local d, p = r:resolve(merged(info.parameters, o.set))
  local run = new_run(d, p, o)
  run.folder, run.dir = folder, folder.dir
  local differ = differences(info, run)
  if #differ.refused > 0 then
    error(("train: %s cannot go on with other settings:\n  %s\nwhat may change: steps, every, keep, lr and its schedule; "
      .. "with a warning device, threads, micro_batch, recompute"):format(folder.dir, table.concat(differ.refused, "\n  ")), 0)
  end
  if #differ.warned > 0 then
    warn(run, ("going on, but bits may differ from an undisturbed run: %s"):format(table.concat(differ.warned, "; ")))
  end
  run.source = files.read(folder.dir .. "/recipe.lua") or ""
  folder:remove_leftovers()
  make_trainer(run)
  if info.micro_batch ~= run.options.micro_batch and info.settings["train.micro_batch"] == "auto" then
    warn(run, ("memory allows other parts than before, so bits may differ: micro_batch %s -> %s"):format(tostring(info.micro_batch),
      tostring(run.options.micro_batch)))
    info.micro_batch = run.options.micro_batch
  end
  if #folder:checkpoints() > 0 then
    run.steps, run.seconds = checkpoint.restore(folder, run.trainer, run.options.ema)
    run.saved = run.steps
  end
  folder:trim_metrics(run.steps)
  info.settings, info.parameters, info.machine, info.machine_settings = run.settings, run.parameters, run.machine, run.machine_settings
  folder:write_info(info)
  folder:event { event = "resumed", step = run.steps, changed = #differ.free > 0 and differ.free or nil }
  return run
end

local train = {}

--- sluice.train(recipe, options?) -> run
--- Trains as a recipe says, and writes the run's folder. With `resume` it goes on with a run from its newest checkpoint, by the stored
--- recipe if none is given (nil), to the same bits as a run that never stopped. Ctrl-C finishes the step, saves and raises "interrupted
--- …".
--- @param recipe? sluice.Recipe
--- @param options? table
--- @field set? table  changes the recipe's defaults
--- @field out? string  runs/NAME-0001 and so on; the folder, which must hold no run
--- @field resume? string  a run's folder
--- @field device? string  as the recipe says; where the model is brought
--- @field quiet? boolean  false: progress is told on stderr
--- @field line? table  what stands in for the progress line (update, clear, finish), as a sweep's does
--- @return sluice.Run
--- @example
--- local recipe = sluice.recipe { defaults = { steps = 1000 }, function(p)
---   return {
---     data = sluice.data.pack "data/digits/digits.pack",
---     model = sluice.dit { input = { 1, 28, 28 }, classes = 10, patch = 7, hidden = 16, depth = 1, heads = 2 },
---     diffusion = sluice.diffusion {},
---     train = { steps = p.steps, batch = 4 },
---   }
--- end }
--- local run = sluice.train(recipe, { set = { steps = 2 }, out = "runs/short", quiet = true })
--- print(run.dir, run.steps)  --> runs/short 2
function train.run(r, o)
  o = fields.check(o or {}, { "set", "out", "device", "quiet", "resume", "line" }, "sluice.train", 2)
  if not recipe.is(r) and not (r == nil and o.resume) then
    error("sluice.train: expected a recipe (sluice.recipe) as its first argument", 2)
  end
  if code.capturing and r then error({ captured = r }, 0) end
  local run = o.resume and go_on(r, o) or start(r, o)
  announce(run)
  if run.steps >= run.plan.steps then
    say(run, ("%s has all of its %d steps; more of them: --set steps=…, if its recipe has such a default"):format(run.dir, run.plan.steps))
    return run
  end
  run_steps(run)
  return run
end

return train
