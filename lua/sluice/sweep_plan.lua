-- Before a sweep trains anything: its combinations, each of them resolved and checked, and what its folder holds already.
local core = require "sluice.core"
local disk = require "sluice.disk"
local interrupt = require "sluice.interrupt"
local quote = require "sluice.quote"
local run_folder = require "sluice.run_folder"
local settings = require "sluice.settings"
local sluice = require "sluice"
local train_options = require "sluice.train_options"

local MOST_RUNS = 10000
local sweep_plan = {}

local function fail(text, ...)
  error("sluice.sweep: " .. text:format(...), 0)
end

-- An error's text without a place in Sluice itself, which says nothing to a user.
local function words(message)
  return (tostring(message):gsub("^%[sluice[%w._]*%]:%d+: ", ""))
end

local function first_lines(lines)
  return table.concat(lines, "\n", 1, math.min(10, #lines)) .. (#lines > 10 and "\n  …" or "")
end

-- --- the grid ---

-- A value as text that gives it back, for names of folders and columns of tables.
function sweep_plan.text(v)
  return type(v) == "number" and quote.number(v) or tostring(v)
end

-- A folder's name: what is not plain in a file name becomes %2F and the like; a very long one ends in a digest.
local function folder_name(keys, p)
  local parts = {}
  for i, key in ipairs(keys) do
    parts[i] = key .. "=" .. sweep_plan.text(p[key]):gsub("[^%w%._%+%-]", function(c) return ("%%%02X"):format(c:byte()) end)
  end
  local name = table.concat(parts, ",")
  return #name <= 200 and name or name:sub(1, 180) .. "-" .. core.digest(name)
end

-- The value as the recipe has it; raises in words for one that it does not take.
local function taken(base, key, value, where)
  local ok, p = pcall(base.parameters, base, { [key] = value })
  if not ok then fail("%s: %s", where, (words(p):gsub("^set: ", ""))) end
  return p[key]
end

local function values_of(base, key, list, where)
  if type(list) ~= "table" or #list == 0 then
    local what = type(list) == "table" and "an empty list" or tostring(list)
    fail("%s is %s, expected a list of values, as in %s = { 1, 2 }", where, what, key)
  end
  local values, seen = {}, {}
  for i, v in ipairs(list) do
    values[i] = taken(base, key, v, where)
    local name = sweep_plan.text(values[i])
    if seen[name] then fail("%s has the value %s twice", where, name) end
    seen[name] = true
  end
  return values
end

local function seeds_of(base, seeds)
  if seeds == nil then return { base.defaults.seed } end
  if base.defaults.seed == nil then
    fail("seeds are given, but the recipe has no default named seed: add seed = 0 to its defaults, and train = { …, seed = p.seed } (and, "
      .. "for other initial weights, the model's seed = p.seed) to what it returns")
  end
  return values_of(base, "seed", seeds, "seeds")
end

-- The grid's keys in order, and every combination: for each seed the whole grid, so that half a sweep has compared everything once.
local function combinations(base, o)
  local keys, count = {}, 1
  for key in pairs(o.grid or {}) do
    taken(base, key, base.defaults[key], "grid")
    keys[#keys + 1] = key
  end
  table.sort(keys)
  if o.grid and o.grid.seed ~= nil then fail "grid has a seed; its values go into seeds = { … }" end
  local seeds = seeds_of(base, o.seeds)
  local sets = {}
  for i = 1, math.max(1, #seeds) do sets[i] = { seed = seeds[i] } end
  for _, key in ipairs(keys) do
    if (o.set or {})[key] ~= nil then fail("%s is in grid and in set", key) end
    local values, more = values_of(base, key, o.grid[key], "grid." .. key), {}
    count = count * #values
    if count * #sets > MOST_RUNS then fail("the grid has more than %d combinations", MOST_RUNS) end
    for _, set in ipairs(sets) do
      for _, v in ipairs(values) do
        local one = { [key] = v }
        for k, x in pairs(set) do one[k] = x end
        more[#more + 1] = one
      end
    end
    sets = more
  end
  return keys, sets
end

-- --- one combination ---

local function numel(t)
  local n = 1
  for _, d in ipairs(t:shape()) do n = n * d end
  return n
end

local function gcd(a, b)
  return b == 0 and a or gcd(b, a % b)
end

-- Bytes that the run's checkpoints will take: weights, EMAs and both moments in f32, and tables; those kept, and one that is being written.
local function disk_of(d, options, plan)
  local one = 4 * d.model:count() * (3 + #options.ema)
  for _, mask in ipairs(d.model:tables()) do one = one + numel(mask) end
  local often, every = plan.every.checkpoint, plan.keep.every
  local made = often > 0 and (plan.steps + often - 1) // often or 1
  local kept = often > 0 and every > 0 and plan.steps // (often * every // gcd(often, every)) or 0
  return one * (math.min(made, plan.keep.last + kept) + 1)
end

-- Resolves and checks; what is known of the run without anything that is large.
local function examine(base, run, o)
  local d, p = base:resolve(run.set)
  if o.device then d.model:to(o.device) end
  local options, plan = train_options.of(d)
  if p.seed ~= nil and options.seed ~= p.seed then
    error(("the recipe's default seed is %s, its train.seed %s: train = { …, seed = p.seed } must be in what it returns"):format(
      tostring(p.seed), tostring(options.seed)), 0)
  end
  run.p, run.settings, run.seed = p, settings.of(d, options, plan), options.seed
  run.bytes = train_options.fit(options)
  run.steps, run.batch, run.disk = plan.steps, options.batch, disk_of(d, options, plan)
  run.digest = core.digest(sluice.json.encode(run.settings))
end

local function examine_all(base, plan, o)
  local faults, seen = {}, {}
  for _, run in ipairs(plan.runs) do
    local ok, fault = pcall(examine, base, run, o)
    if not ok then
      if interrupt.is(fault) then error(fault, 0) end
      faults[#faults + 1] = ("  %s: %s"):format(run.name, words(fault))
    else
      run.same_as, seen[run.digest] = seen[run.digest], seen[run.digest] or run.name
    end
    collectgarbage() -- recipes may read whole data sets
  end
  if #faults == 0 then return end
  fail("%d of %d combinations cannot run:\n%s", #faults, #plan.runs, first_lines(faults))
end

-- --- what is in the folder ---

-- Where the run is: "to do", "running" (in another process), "unfinished", "failed", "done"; the step it goes on from; why it failed.
function sweep_plan.state(run)
  if not run_folder.is_run(run.dir) then return "to do", 0, nil end
  local folder = run_folder.open(run.dir)
  local newest, events = folder:checkpoints()[1], folder:records "events.jsonl"
  local last = events[#events]
  local step = newest and newest.step or 0
  if folder:is_locked() then return "running", step, nil end
  if step >= run.steps then return "done", step, nil end
  if last and last.event == "failed" then return "failed", step, last.reason end
  return "unfinished", step, nil
end

-- Lines that tell how a run that is there differs from what the combination is now; when it saves and how many it keeps may change.
local function changes(run)
  local differ, lines = settings.compare(run_folder.open(run.dir):info().settings, run.settings), {}
  for _, list in ipairs { differ.refused, differ.free } do
    for _, line in ipairs(list) do
      if not (line:match "^train%.every%." or line:match "^train%.keep%.") then
        lines[#lines + 1] = ("  %s: %s"):format(run.name, line)
      end
    end
  end
  return lines
end

local function compare_all(plan)
  local lines, known = {}, {}
  for _, run in ipairs(plan.runs) do
    known[run.name] = true
    run.state, run.step = sweep_plan.state(run)
    if run.state ~= "to do" then
      local more = changes(run)
      table.move(more, 1, #more, #lines + 1, lines)
    end
  end
  if #lines > 0 then
    fail("%s holds runs with other settings; the recipe or the grid has changed:\n%s\nname another out, or remove the folders of the "
      .. "runs that are to be done anew", plan.out, first_lines(lines))
  end
  local foreign = {}
  for _, name in ipairs(core.list(plan.out)) do
    if not known[name] and run_folder.is_run(plan.out .. "/" .. name) then foreign[#foreign + 1] = "  " .. name end
  end
  if #foreign > 0 then
    fail("%s holds runs that the grid does not have (it may gain values and seeds, not lose them, nor gain parameters):\n%s\n"
      .. "name another out, or remove their folders", plan.out, first_lines(foreign))
  end
end

-- Whether files can be made in `out`, and room for them. Folders that were made for the question are removed again.
local function check_out(plan)
  local made, path = {}, plan.out
  while path ~= "" and path ~= "." and not core.exists(path) do
    made[#made + 1] = path
    path = path:match "^(.*)/[^/]*$" or "."
  end
  core.make_dirs(plan.out)
  local obstacle = disk.obstacle(plan.out)
  local room = core.disk_room(plan.out)
  for _, folder in ipairs(made) do os.remove(folder) end
  if obstacle then fail("nothing can be written into %s: %s", plan.out, obstacle) end
  local need = 0
  for _, run in ipairs(plan.runs) do
    if run.state ~= "done" then need = need + run.disk end
  end
  plan.disk, plan.room = need, room
  if need > room then
    fail("the checkpoints of %d runs take %s MiB, %s holds %s MiB more; train.keep = { last = 1 } in the recipe keeps fewer", #plan.runs,
      core.thousands(need // 1048576), plan.out, core.thousands(room // 1048576))
  end
end

-- o: what sluice.sweep takes, base a recipe. -> { out, keys, disk, room, runs = { { name, dir, set, p, seed, steps, batch, bytes, disk,
-- settings, state, step, same_as } … } }; raises in words for whatever would stop a run before its first step.
function sweep_plan.of(base, o)
  local keys, sets = combinations(base, o)
  local names = { table.unpack(keys) }
  if base.defaults.seed ~= nil then names[#names + 1] = "seed" end
  local plan = { out = o.out, keys = keys, runs = {} }
  for i, set in ipairs(sets) do
    for k, v in pairs(o.set or {}) do
      if k == "seed" and o.seeds then fail "seed is in set and in seeds" end
      set[k] = taken(base, k, v, "set")
    end
    local name = #names > 0 and folder_name(names, set) or "run"
    plan.runs[i] = { name = name, dir = o.out .. "/" .. name, set = set }
  end
  examine_all(base, plan, o)
  compare_all(plan)
  check_out(plan)
  return plan
end

-- Whether a sweep would still train this run.
function sweep_plan.pending(run, retry)
  return run.state == "to do" or run.state == "unfinished" or (run.state == "failed" and retry) or false
end

-- The recipe of o.base, which may be its file.
function sweep_plan.base(o)
  local recipe = require "sluice.recipe"
  local base = o.base
  if type(base) == "string" then base = require("sluice.code").load_recipe(base) end
  if not recipe.is(base) then
    fail("base is %s, expected a recipe (sluice.recipe) or the path of a file that returns one", tostring(o.base))
  end
  return base
end

return sweep_plan
