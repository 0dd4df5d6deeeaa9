-- Sweeps: what is checked before anything is trained, what is done again and what is not, and what is written.
local sluice = require "sluice"
local core = require "sluice.core"
local files = require "files"

local program = os.getenv "SLUICE_BINARY" or "build/sluice"
local dir

local function shell(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  local ok, _, status = pipe:close()
  return text, ok, status
end

local function refused(text, ...)
  for _, part in ipairs { ... } do assert.truthy(text:find(part, 1, true), text .. "\n   lacks: " .. part) end
end

local function load_recipe()
  return require("sluice.code").load_recipe "tests/recipes/tiny.lua"
end

local quick = { steps = 4, batch = 4, micro = 0, holdout = 8, checkpoint = 2 }

-- A sweep of runs of a moment; more: options over its own, which false takes away.
local function sweep(out, more)
  local o = { base = load_recipe(), grid = { beta = { 0.5, 0.8 } }, seeds = { 0, 1 }, set = quick, out = dir .. "/" .. out, quiet = true }
  for k, v in pairs(more or {}) do o[k] = v end
  for k, v in pairs(o) do
    if v == false then o[k] = nil end
  end
  return sluice.sweep(o)
end

local function fails(out, more, ...)
  local ok, message = pcall(sweep, out, more)
  assert.falsy(ok)
  refused(tostring(message), ...)
end

-- A digest of every tensor of a run's newest checkpoint.
local function bits(run)
  local list = core.list(run .. "/checkpoints")
  local lines = {}
  for name, t in pairs(sluice.io.load(run .. "/checkpoints/" .. list[#list])) do lines[#lines + 1] = name .. " " .. core.digest(t) end
  table.sort(lines)
  return list[#list] .. "\n" .. table.concat(lines, "\n")
end

-- RFC 4180, as a state machine: rows of fields.
local function parse_csv(text)
  local rows, row, field, quoted, i = {}, {}, "", false, 1
  while i <= #text do
    local c = text:sub(i, i)
    if quoted then
      if c == '"' and text:sub(i + 1, i + 1) == '"' then
        field, i = field .. '"', i + 1
      elseif c == '"' then
        quoted = false
      else
        field = field .. c
      end
    elseif c == '"' then
      quoted = true
    elseif c == "," or c == "\n" then
      row[#row + 1], field = field, ""
      if c == "\n" then rows[#rows + 1], row = row, {} end
    else
      field = field .. c
    end
    i = i + 1
  end
  assert.equal("", field)
  return rows
end

-- The rows of results.csv, by column.
local function csv(out)
  local lines = parse_csv(files.read(dir .. "/" .. out .. "/results.csv"))
  local rows = {}
  for i = 2, #lines do
    assert.equal(#lines[1], #lines[i])
    rows[i - 1] = {}
    for k, name in ipairs(lines[1]) do rows[i - 1][name] = lines[i][k] end
  end
  return rows
end

local function records(path)
  local list = {}
  for line in io.lines(path) do list[#list + 1] = sluice.json.decode(line) end
  return list
end

setup(function() dir = files.temporary() end)
teardown(function() os.execute("rm -r " .. dir) end)

describe("before a sweep", function()
  it("every combination is listed, and a dry run leaves nothing behind", function()
    local rows = sweep("dry/below", { dry = true })
    assert.equal(4, #rows)
    local seen = {}
    for i, row in ipairs(rows) do
      assert.same({ "to do", 4, 4 }, { row.state, row.steps, row.batch })
      assert(row.memory_mib > 0 and row.disk_mib > 0)
      seen[i] = { row.beta, row.seed, row.run }
    end
    assert.same({ { 0.5, 0, dir .. "/dry/below/beta=0.5,seed=0" }, { 0.8, 0, dir .. "/dry/below/beta=0.8,seed=0" },
      { 0.5, 1, dir .. "/dry/below/beta=0.5,seed=1" }, { 0.8, 1, dir .. "/dry/below/beta=0.8,seed=1" } }, seen)
    refused(tostring(rows), "beta=0.8,seed=1", "4 runs (4 to do); 4 to train, 16 steps", "after the first run")
    assert.falsy(core.exists(dir .. "/dry"))
  end)

  it("what cannot run is refused in words", function()
    fails("no", { out = false }, "out is missing")
    fails("no", { gird = {} }, 'unknown field "gird"; did you mean "grid"?')
    fails("no", { grid = { hiden = { 1 } } }, "grid", "the recipe has no hiden", 'did you mean "hidden"?')
    fails("no", { grid = { hidden = { 32, "wide" } } }, 'grid.hidden: hidden is "wide", expected an integer')
    fails("no", { grid = { hidden = 32 } }, "grid.hidden is 32, expected a list")
    fails("no", { grid = { hidden = { 32, 32 } } }, "grid.hidden has the value 32 twice")
    fails("no", { grid = { steps = { 1 } } }, "steps is in grid and in set")
    fails("no", { grid = { seed = { 1 } } }, "seeds = {")
    fails("no", { base = {} }, "base is table", "expected a recipe")
    fails("no", { base = dir .. "/none.lua" }, dir .. "/none.lua")
    fails("no", { grid = { batch = { 4, 0 }, lr = { 1e-3, -1 } }, seeds = { 0 }, set = { steps = 4, micro = 0 } },
      "3 of 4 combinations cannot run", "batch=0,lr=0.001,seed=0", "batch is 0", "lr is -1")
    assert.falsy(core.exists(dir .. "/no"))
    fails("", { out = "/dev/null/sweep" }, "/dev/null")
  end)

  it("memory is foreseen", function()
    local text, ok = shell(("%s sweep %s/memory.lua --memory 24M --dry"):format(program, dir))
    assert.falsy(ok, text) -- there is no such file
    local returns = 'return { base = "tests/recipes/tiny.lua", grid = { batch = { 4, 4000 } }, set = { micro = 0 }, out = %q }'
    files.write(dir .. "/memory.lua", returns:format(dir .. "/memory"))
    text, ok = shell(("%s sweep %s/memory.lua --memory 24M --dry"):format(program, dir))
    assert.falsy(ok)
    refused(text, "1 of 2 combinations cannot run", "batch=4000", "the largest that fits is")
  end)

  it("a recipe without a seed says what to do", function()
    local tiny = load_recipe()
    local function without(p)
      local all = { seed = 3 }
      for k, v in pairs(p) do all[k] = v end
      return tiny.describe(all)
    end
    local defaults = {}
    for k, v in pairs(tiny.defaults) do defaults[k] = v end
    fails("deaf", { base = sluice.recipe { defaults = defaults, function(p)
      local d = without(p)
      d.train.seed = 7
      return d
    end } }, "train = { …, seed = p.seed }")
    defaults.seed = nil
    local base = sluice.recipe { defaults = defaults, without }
    fails("seedless", { base = base }, "no default named seed: add seed = 0")
    assert.equal(2, #sweep("seedless", { base = base, seeds = false, dry = true }))
  end)

  it("combinations that are the same run are told", function()
    local rows = sweep("same", { grid = { loader = { 1, 2 } }, seeds = { 0 }, dry = true })
    assert.equal("loader=1,seed=0", rows[2].same_as)
  end)
end)

describe("a sweep", function()
  local rows
  setup(function() rows = sweep("whole", { measure = function(run) return { weights = run.model:count(), at = run.steps } end }) end)

  it("is a run's folder for each combination, and a row", function()
    assert.equal(4, #rows)
    for _, row in ipairs(rows) do
      assert.same({ "done", 4, 4 }, { row.state, row.steps, row.at })
      assert(row.last_loss > 0 and row.holdout > 0 and row.holdout_ema > 0 and row.images_per_second > 0 and row.seconds > 0)
      assert.equal(row.weights, (sluice.load(row.run).model:count()))
      local info = sluice.json.decode(files.read(row.run .. "/run.json"))
      assert.same({ row.beta, row.seed }, { info.parameters.beta, info.settings["train.seed"] })
    end
    refused(tostring(rows), "holdout_ema", "done")
  end)

  it("is in results.csv to the bit", function()
    local lines = csv "whole"
    assert.equal(4, #lines)
    for i, line in ipairs(lines) do
      for _, name in ipairs { "beta", "seed", "steps", "last_loss", "holdout", "holdout_ema", "images_per_second", "seconds", "at" } do
        assert.equal(rows[i][name], tonumber(line[name]))
      end
      assert.same({ "done", rows[i].run, "" }, { line.state, line.run, line.error })
    end
  end)

  it("pairs the runs of a seed: they see the same images, timesteps and noise", function()
    local set = { steps = 4, micro = 0, batch = 4, holdout = 0 }
    local first = {} -- means of two steps, between which the weights hardly move
    for i, row in ipairs(sweep("paired", { grid = { lr = { 1e-12, 2e-12 } }, set = set })) do
      first[i] = records(row.run .. "/metrics.jsonl")[1].loss
    end
    for _, pair in ipairs { { 1, 2 }, { 3, 4 } } do assert(math.abs(first[pair[1]] - first[pair[2]]) < 1e-6 * first[pair[1]]) end
    assert(math.abs(first[1] - first[3]) > 1e-3 * first[1])
  end)

  it("is not done again; a grid may gain values and seeds", function()
    local before = {}
    for i, row in ipairs(rows) do before[i] = files.read(row.run .. "/events.jsonl") end
    local again = sweep("whole", { grid = { beta = { 0.3, 0.5, 0.8 } }, seeds = { 1, 0, 2 } })
    assert.equal(9, #again)
    for i, row in ipairs(rows) do assert.equal(before[i], files.read(row.run .. "/events.jsonl")) end
    local was, now = {}, {}
    for _, row in ipairs(rows) do was[row.run] = row.last_loss end
    for _, row in ipairs(again) do
      assert.equal("done", row.state)
      now[row.run] = was[row.run] and row.last_loss
    end
    assert.same(was, now)
    fails("whole", nil, "holds runs that the grid does not have", "beta=0.3,seed=2")
  end)

  it("whose recipe or parameters changed says where", function()
    fails("paired", { grid = { lr = { 1e-12, 2e-12 } }, set = { steps = 6, micro = 0, batch = 4, holdout = 0 } },
      "the recipe or the grid has changed", "lr=1e-12,seed=0: train.steps: 4 -> 6")
    fails("paired", { grid = { lr = { 1e-12, 2e-12 }, beta = { 0.8 } }, set = { steps = 4, micro = 0, batch = 4, holdout = 0 } },
      "holds runs that the grid does not have", "lr=2e-12,seed=1")
  end)

  it("measures what has not been measured", function()
    local calls, runs = 0, sweep("unmeasured", { seeds = { 0 } })
    assert.equal(nil, runs[1].answer)
    local function measure(run)
      calls = calls + 1
      return { answer = run.model:count(), text = 'a "quoted", text', inf = math.huge }
    end
    for _ = 1, 2 do runs = sweep("unmeasured", { seeds = { 0 }, measure = measure }) end
    assert.equal(2, calls)
    assert.same({ 'a "quoted", text', "inf" }, { csv("unmeasured")[2].text, csv("unmeasured")[2].inf })
    assert(runs[1].answer > 0 and runs[2].answer > 0)
  end)

  it("goes on when a measure fails, and says so", function()
    local runs = sweep("mistaken", { seeds = { 0 }, measure = function(run)
      if run.parameters.beta == 0.5 then error("no number", 0) end
      return { beta = 1 }
    end })
    assert.same({ "done", "measure: no number" }, { runs[1].state, runs[1].error })
    refused(runs[2].error, "measure returned the name beta, which another column has")
  end)

  it("names a parameter that a result has too", function()
    local runs = sweep("holdout", { grid = { holdout = { 0, 8 } }, seeds = { 0 }, set = { steps = 2, batch = 4, micro = 0 } })
    assert.same({ 0, 8 }, { runs[1]["set.holdout"], runs[2]["set.holdout"] })
    assert(runs[1].holdout == nil and runs[2].holdout > 0)
  end)

  it("goes on when a run fails, and takes it up again when told to", function()
    local o = { grid = { lr = { 1e35, 1e-3 } }, seeds = { 0 }, set = { steps = 12, micro = 0, batch = 4, checkpoint = 1 } }
    local run = dir .. "/burst/lr=1e+35,seed=0"
    local function events()
      local n = {}
      for _, e in ipairs(records(run .. "/events.jsonl")) do n[e.event] = (n[e.event] or 0) + 1 end
      return n
    end
    local runs = sweep("burst", o)
    assert.same({ "failed", "done" }, { runs[1].state, runs[2].state })
    refused(runs[1].error, "is not finite")
    refused(csv("burst")[1].error, "is not finite")
    assert.same({ 1, nil }, { events().failed, events().resumed })
    sweep("burst", o)
    assert.equal(1, events().failed)
    o.retry = true
    assert.equal("failed", sweep("burst", o)[1].state)
    assert.same({ 2, 1 }, { events().failed, events().resumed })
  end)

  it("that cannot be kept fails in words, run by run", function()
    local disk = dir .. "/disk"
    core.make_dirs(disk)
    local _, mounted = shell(("mount -t tmpfs -o size=600k tmpfs %s"):format(disk))
    if not mounted then return pending "no tmpfs can be mounted here" end
    local ok, message = pcall(sweep, "disk/small", { set = { steps = 40, checkpoint = 1, micro = 0, batch = 4, holdout = 0, keep = 100 } })
    shell("umount " .. disk)
    assert.falsy(ok)
    refused(message, "the checkpoints of 4 runs take", "train.keep")
    assert.falsy(core.exists(disk .. "/small"))
  end)
end)

describe("a sweep that was stopped", function()
  local file, straight

  local function start(out, more)
    return ("%s sweep %s --out %s/%s --threads 1 %s"):format(program, file, dir, out, more or "")
  end

  local function all_bits(out)
    local list = {}
    for i, row in ipairs(csv(out)) do
      assert.equal("done", row.state)
      list[i] = bits(row.run)
    end
    assert.equal(4, #list)
    return table.concat(list, "\n")
  end

  setup(function()
    file = dir .. "/tiny-sweep.lua"
    files.write(file, [[local sluice = require "sluice"
local rows = sluice.sweep {
  base = "tests/recipes/tiny.lua", grid = { beta = { 0.5, 0.8 } }, seeds = { 0, 1 }, set = { steps = 100, checkpoint = 4 }, out = "nowhere",
}
print(rows)
]])
    local text, ok = shell(start "straight")
    assert(ok, text)
    straight = all_bits "straight"
  end)

  it("by SIGKILL ends with the bits of an undisturbed one", function()
    local second = dir .. "/killed/beta=0.8,seed=0/metrics.jsonl"
    -- in the midst of the second run, then wherever the third life comes to
    local kill = "%s & pid=$!; while [ ! -s '%s' ] && kill -0 $pid; do sleep 0.01; done; kill -KILL $pid; wait $pid"
    shell(kill:format(start "killed", second))
    assert.equal("done", csv("killed")[1].state)
    local first = files.read(dir .. "/killed/beta=0.5,seed=0/events.jsonl")
    shell("timeout -s KILL 0.5 " .. start "killed")
    local text, ok = shell(start("killed", "--json --quiet"))
    assert(ok, text)
    local told = sluice.json.decode(text:match "{.*}")
    assert.equal(4, #told.runs)
    assert.equal(straight, all_bits "killed")
    assert.equal(first, files.read(dir .. "/killed/beta=0.5,seed=0/events.jsonl")) -- what was done was not touched
    refused(files.read(dir .. "/killed/beta=0.8,seed=0/events.jsonl"), '"resumed"')
  end)

  it("by Ctrl-C has saved, and goes on", function()
    local second = dir .. "/stopped/beta=0.8,seed=0/metrics.jsonl"
    local text, _, status = shell(("{ %s & pid=$!; while [ ! -s '%s' ] && kill -0 $pid; do sleep 0.01; done; kill -INT $pid; wait $pid; }")
      :format(start "stopped", second))
    if status ~= 0 then
      assert.equal(130, status)
      refused(text, "interrupted in beta=", "the same call goes on: ")
    end
    local ok
    text, ok = shell(start "stopped")
    assert(ok, text)
    refused(text, "results.csv")
    assert.equal(straight, all_bits "stopped")
  end)

  it("has runs that sluice train takes as its own", function()
    local text, ok = shell(("%s train --resume '%s/straight/beta=0.5,seed=0' --set steps=104 --threads 1"):format(program, dir))
    assert(ok, text)
    refused(text, "from step 100 to 104")
    text, ok = shell(start "straight")
    assert.falsy(ok)
    refused(text, "train.steps: 104 -> 100")
  end)

  it("may be a script that sluice run runs, and one that trains is told apart", function()
    files.write(dir .. "/script.lua", files.read(file):gsub('"nowhere"', ("%q, quiet = true, dry = true"):format(dir .. "/script")))
    local text, ok = shell(("%s run %s/script.lua"):format(program, dir))
    assert(ok, text)
    refused(text, "4 runs (4 to do)")
    files.write(dir .. "/trains.lua", [[local sluice = require "sluice"
sluice.train(require("sluice.code").load_recipe "tests/recipes/tiny.lua")
]])
    text, ok = shell(("%s sweep %s/trains.lua"):format(program, dir))
    assert.falsy(ok)
    refused(text, "is of one recipe; sluice train")
    text, ok = shell(("%s sweep recipes/digits.lua"):format(program))
    assert.falsy(ok)
    refused(text, "sluice train recipes/digits.lua")
  end)
end)

describe("the example's sweep", function()
  it("is resolved and listed", function()
    local text, ok = shell(("%s sweep recipes/sweep-digits.lua --dry --json --out %s/digits"):format(program, dir))
    assert(ok, text)
    local told = sluice.json.decode(text)
    assert.same({ 12, true }, { #told.runs, told.dry })
  end)
end)
