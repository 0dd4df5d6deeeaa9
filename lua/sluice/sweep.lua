-- sluice.sweep: the runs of a grid of parameters and seeds, one after another, each a run's folder.
local code = require "sluice.code"
local core = require "sluice.core"
local fields = require "sluice.fields"
local interrupt = require "sluice.interrupt"
local progress = require "sluice.progress"
local quote = require "sluice.quote"
local recipe = require "sluice.recipe"
local results = require "sluice.sweep_results"
local run_folder = require "sluice.run_folder"
local sweep_plan = require "sluice.sweep_plan"

local get = fields.get
local NAMES = { "base", "grid", "seeds", "out", "set", "dry", "measure", "retry", "device", "quiet" }

local sweep = {}

-- --- one line for the whole ---

-- Stands in for a run's own progress line: counts the steps of the whole sweep.
local Line = {}
Line.__index = Line

function Line:update(done, text, more)
  local where = ("run %d/%d %s  %s"):format(self.number, self.count, self.name, text or "")
  self.whole:update(self.before + done - self.begins, where, more)
end

function Line:clear() self.whole:clear() end
function Line.finish() end

local function steps_left(plan, retry)
  local n, runs = 0, 0
  for _, run in ipairs(plan.runs) do
    if sweep_plan.pending(run, retry) then n, runs = n + run.steps - run.step, runs + 1 end
  end
  return n, runs
end

-- --- words ---

local function counts(plan)
  local n, words = {}, {}
  for _, run in ipairs(plan.runs) do n[run.state] = (n[run.state] or 0) + 1 end
  for _, state in ipairs { "done", "running", "failed", "unfinished", "to do" } do
    if n[state] then words[#words + 1] = ("%d %s"):format(n[state], state) end
  end
  return table.concat(words, ", ")
end

-- Steps of the runs that are there, and the seconds that they took.
local function spent(plan)
  local seconds, steps = 0, 0
  for _, row in ipairs(results.rows(plan)) do
    if row.seconds then seconds, steps = seconds + row.seconds, steps + row.steps end
  end
  return seconds, steps
end

-- What will be done, in a few lines.
local function summary(plan, retry)
  local left, runs = steps_left(plan, retry)
  local lines = {
    ("%s: %d runs (%s); %d to train, %s steps, %s MiB of checkpoints at most, %s MiB of room"):format(plan.out, #plan.runs,
      counts(plan), runs, core.thousands(left), core.thousands(math.ceil(plan.disk / 1048576)), core.thousands(plan.room // 1048576)),
  }
  local seconds, steps = spent(plan)
  if left > 0 and steps > 0 then
    lines[2] = ("about %s, by the steps that were done"):format(progress.clock(seconds / steps * left))
  elseif left > 0 then
    lines[2] = "how long it takes is told after the first run"
  end
  return table.concat(lines, "\n")
end

-- --- running ---

local function stop(plan, run)
  plan.line:finish()
  results.write(plan)
  error(("interrupted in %s; the same call goes on: %s"):format(run.name, counts(plan)), 0)
end

-- Trains the run, or goes on with it -> the run as sluice.train returns it; nil and why not.
local function train(plan, run, line, o)
  local there = run_folder.is_run(run.dir)
  local ok, result = pcall(require("sluice.train").run, plan.base, {
    set = run.p, out = not there and run.dir or nil, resume = there and run.dir or nil, device = o.device, quiet = true, line = line,
  })
  run.state, run.step = sweep_plan.state(run)
  if ok then return result end
  if interrupt.is(result) then stop(plan, run) end
  if run.state == "running" or run.state == "done" then return nil, nil end -- another process was faster
  return nil, tostring(result)
end

local function measure(plan, run, trained, o)
  local ok, fault = pcall(function() results.keep_measures(run, plan.keys, o.measure(trained)) end)
  if ok then return end
  if interrupt.is(fault) then stop(plan, run) end
  run.measure_failure = "measure: " .. tostring(fault)
end

-- What a run still needs: to be trained, or only to be measured.
local function needs(run, o)
  if sweep_plan.pending(run, o.retry) then return "training" end
  return run.state == "done" and o.measure and not results.measured(run) and "measuring" or nil
end

local function say(o, whole, text)
  if not o.quiet then progress.say(text, whole) end
end

local function tell(run, row, o, whole)
  local parts = { ("%s: %s"):format(run.name, row.state) }
  if row.last_loss then parts[#parts + 1] = ("loss %.4f"):format(row.last_loss) end
  if row.holdout then parts[#parts + 1] = ("held out %.4f"):format(row.holdout_ema or row.holdout) end
  if row.error then parts[#parts + 1] = row.error end
  say(o, whole, table.concat(parts, ", "))
end

-- After the first run, by what it took from start to end: nil before, and where nothing is left.
local function tell_time(plan, steps, seconds, o, whole)
  local left, runs = steps_left(plan, o.retry)
  if left > 0 and steps > 0 then
    say(o, whole, ("%d more: about %s"):format(runs, progress.clock(seconds / steps * left)))
  end
end

local function go(plan, o)
  local total, count = steps_left(plan, o.retry)
  local whole = progress.new { total = total, unit = "steps", now = core.clock, tty = core.isatty(), quiet = o.quiet }
  plan.line = whole
  local rows, before, number = results.write(plan), 0, 0
  for i, run in ipairs(plan.runs) do
    local pending, step = sweep_plan.pending(run, o.retry), run.step
    run.state, run.step = sweep_plan.state(run) -- another sweep of the same folder may have taken it up, or be done with it
    local need = needs(run, o)
    if pending and need ~= "training" then before = before + run.steps - step end
    if run.state == "running" then
      rows = results.write(plan)
      tell(run, rows[i], o, whole)
    elseif need then
      local begins, start = run.step, core.clock()
      if need == "training" then number = number + 1 end
      local line = setmetatable({
        whole = whole, before = before, begins = begins, name = run.name, number = number, count = count,
      }, Line)
      local trained
      trained, run.failure = train(plan, run, line, o)
      if need == "training" then before = before + run.steps - begins end
      if trained and o.measure and not results.measured(run) then measure(plan, run, trained, o) end
      trained = nil -- luacheck: ignore
      collectgarbage() -- before the next one takes its memory
      rows = results.write(plan)
      tell(run, rows[i], o, whole)
      if need == "training" and number == 1 then tell_time(plan, run.step - begins, core.clock() - start, o, whole) end
    end
  end
  whole:finish()
  return rows
end

local function check(o)
  local what = "sluice.sweep"
  fields.check(o, NAMES, what, 3)
  get(o, "grid", "table", nil, what, 3)
  get(o, "seeds", "table", nil, what, 3)
  get(o, "set", "table", nil, what, 3)
  get(o, "measure", "function", nil, what, 3)
  get(o, "device", "string", nil, what, 3)
  for _, name in ipairs { "dry", "retry", "quiet" } do get(o, name, "boolean", nil, what, 3) end
  if get(o, "out", "string", "", what, 3) == "" then error(what .. ": out is missing, the folder of its runs, as \"sweeps/first\"", 3) end
end

--- sluice.sweep(options) -> rows
--- Trains every combination of a grid of a recipe's defaults, with every seed, one after another; each is a run's folder below `out`,
--- named by its parameters. First all of them are resolved and checked – names, types, memory, disk – and listed; nothing is trained if
--- one of them cannot run. `out/results.csv` has a row for each run and is rewritten after every one.
---
--- Called again, it skips the runs that are done and goes on with one that was interrupted or killed, from its checkpoint, to the same
--- bits. What another process trains at the moment is passed over, so that two calls share the work. A grid may gain values and seeds in
--- between; if the recipe or the grid changed otherwise, the runs that differ are named and nothing is done. A run that fails (a loss that
--- is not finite, an error) is recorded, and the others go on; `retry` takes it up again.
---
--- Runs of one seed are paired: all draws count from the seed, so that step n of each of them sees the same images in the same order,
--- with the same flips, dropped labels, timesteps and noise, whatever else differs (but the batch size). Differences between combinations
--- within a seed are therefore less noisy than those between seeds. Initial weights agree too where the recipe hands the seed to the
--- model and the shapes are the same.
---@param options table
---@field base sluice.Recipe|string  a recipe, or the path of a file that returns one
---@field grid? table  `{ name = { values } }` over the recipe's defaults; every combination is a run
---@field seeds? integer[]  values of the recipe's default named `seed`, which it must hand to train.seed (its default alone)
---@field out string  the folder of the runs, as "sweeps/first"
---@field set? table  `{ name = value }` over the recipe's defaults, for all runs
---@field dry? boolean  checks and lists, trains nothing, leaves nothing behind
---@field measure? function  `measure(run)` is called after each run and returns `{ name = number }`: further columns. run is what
---sluice.train returns (`run.model`, `run:sample {}`, `run.dir`). The values are kept in the run's measure.json; without that file a run
---is measured again.
---@field retry? boolean  takes up runs that failed, from their last checkpoint
---@field device? string  as in sluice.train
---@field quiet? boolean  prints nothing
---@return table rows  for each run `{ state, seed, steps, last_loss, holdout, holdout_ema, images_per_second, seconds, error, run }`, the
---grid's parameters and the measures; a parameter that has one of these names gets "set." before it. last_loss is the mean of the
---metrics' last record; seconds are the training steps' alone. It prints as a table. With dry: what would be done.
---@example print(sluice.sweep { base = "recipes/digits.lua", grid = { alpha = { 2, 4 } }, out = "sweeps/alpha", dry = true })
function sweep.run(o)
  check(o)
  if code.capturing then error({ captured = o.base, sweep = o }, 0) end
  local base = sweep_plan.base(o)
  local options = fields.merged(o)
  options.out = #o.out > 1 and o.out:gsub("/+$", "") or o.out
  local plan = sweep_plan.of(base, options)
  plan.base = base
  local planned = results.planned(plan, summary(plan, o.retry))
  say(o, nil, tostring(planned))
  if o.dry then return planned end
  core.make_dirs(plan.out)
  return go(plan, options)
end

-- The table of a file that returns one for sluice.sweep, or that calls it.
function sweep.load(path)
  local chunk = code.chunk(path)
  local ok, result, would = pcall(code.capture, chunk, "sweep")
  if not ok then -- a recipe's script may take the word for an argument of its own
    local fault = result
    if interrupt.is(fault) then error(fault, 0) end
    ok, result, would = pcall(code.capture, chunk, "train")
    if not ok or not (would or recipe.is(result)) then error(fault, 0) end
  end
  if would and would.sweep then return would.sweep end
  if would or recipe.is(result) then
    error(("%s is of one recipe; sluice train %s trains it"):format(path, quote.shell(path)), 0)
  end
  if type(result) ~= "table" then
    error(("%s returns %s, expected a table for sluice.sweep: return { base = …, grid = …, out = … }"):format(path, tostring(result)), 0)
  end
  return result
end

return sweep
