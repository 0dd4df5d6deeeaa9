-- sluice.train: a recipe, run; and a run, gone on with.
local checkpoint = require "sluice.checkpoint"
local code = require "sluice.code"
local core = require "sluice.core"
local disk = require "sluice.disk"
local fields = require "sluice.fields"
local progress = require "sluice.progress"
local quote = require "sluice.quote"
local recipe = require "sluice.recipe"
local run_folder = require "sluice.run_folder"
local sample = require "sluice.sample"
local settings = require "sluice.settings"
local train_loop = require "sluice.train_loop"
local train_options = require "sluice.train_options"
local train_run = require "sluice.train_run"

local function say(run, text)
  if not run.quiet then progress.say(text, run.line) end
end

-- The recipe's model on the device that was asked for; where the recipe puts it, if none was.
local function place(d, device)
  if device == nil then return end
  if type(device) ~= "string" then
    error(("sluice.train: device is %s, expected a name"):format(tostring(device)), 0)
  end
  d.model:to(device)
end

-- Of a recipe that was typed: what was typed until then.
local function typed(r)
  local text = r.source:match "^=input %d" and require("sluice.faults").typed()
  return text and "-- typed at the prompt\n" .. text or ""
end

-- The recipe's text and modules, as they are now, and its file's path, if it was made in one.
local function code_of(r)
  local path = r.file or r.source:match("^@(.*)")
  local text = path and disk.read(path)
  if not text then return typed(r), {}, nil end
  return text, code.required(disk.folder_of(path)), core.absolute(path)
end

local function new_run(d, p, o)
  place(d, o.device)
  if d.sample and type(d.sample.sampler) == "function" then
    error("recipe.sample: sampler is a function, which no checkpoint can keep; give it to run:sample, and name one here", 0)
  end
  local options, plan = train_options.of(d)
  local run = train_run.new {
    model = d.model, diffusion = d.diffusion, sample_settings = d.sample or {}, parameters = p, name = d.name or "run",
    options = options, plan = plan, quiet = o.quiet, line = o.line, steps = 0, seconds = 0, saved = 0, ema = {},
  }
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
  local previews = run.plan.every.sample > 0 and train_loop.preview_options(run)
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
    #lines > 0 and "; it differs:\n" .. table.concat(lines, "\n") or ", with the same settings", quote.shell(dir)), 0)
end

-- A new run, with what trains it but without a folder.
local function prepare(r, o)
  local d, p = r:resolve(o.set)
  local run = new_run(d, p, o)
  if o.out and run_folder.is_run(o.out) then refuse_existing(o.out, run) end
  make_trainer(run)
  return run
end

-- folder: locked
local function start(run, r, folder)
  if run_folder.is_run(folder.dir) then refuse_existing(folder.dir, run) end -- another process has been faster
  local text, modules, source = code_of(r)
  run.folder, run.dir, run.source, run.from_file, run.in_file = folder, folder.dir, text, r.file ~= nil, source ~= nil
  folder:write_code(text, modules)
  folder:write_info(info_of(run, modules, source))
  folder:event { event = "started", step = 0 }
end

-- folder: locked
local function go_on(r, o, folder)
  local info = folder:info()
  local from_file = not r or r.file ~= nil
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
  local d, p = r:resolve(fields.merged(info.parameters, o.set))
  local run = new_run(d, p, o)
  run.folder, run.dir = folder, folder.dir
  local differ = differences(info, run)
  if #differ.refused > 0 then
    error(("train: %s cannot go on with other settings:\n  %s\nwhat may change: steps, every, keep, lr and its schedule; "
      .. "with a warning device, threads, micro_batch, recompute"):format(folder.dir, table.concat(differ.refused, "\n  ")), 0)
  end
  if #differ.warned > 0 then
    progress.warn(("going on, but bits may differ from an undisturbed run: %s"):format(table.concat(differ.warned, "; ")), run.line)
  end
  run.source, run.from_file, run.in_file = disk.read(folder.dir .. "/recipe.lua") or "", from_file, info.recipe ~= nil
  folder:remove_leftovers()
  make_trainer(run)
  if info.micro_batch ~= run.options.micro_batch and info.settings["train.micro_batch"] == "auto" then
    progress.warn(("memory allows other parts than before, so bits may differ: micro_batch %s -> %s"):format(tostring(info.micro_batch),
      tostring(run.options.micro_batch)), run.line)
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
  local run = not o.resume and prepare(r, o)
  local folder = run and run_folder.create(o.out, run.name) or run_folder.open(o.resume)
  local _ <close> = folder:lock()
  if run then start(run, r, folder) else run = go_on(r, o, folder) end
  if run.steps >= run.plan.steps then
    say(run, ("%s has all of its %d steps; more of them: --set steps=…, if its recipe has such a default"):format(run.dir, run.plan.steps))
    return run
  end
  announce(run)
  train_loop.run(run)
  return run
end

return train
