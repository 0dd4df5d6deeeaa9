-- Runs: what their folder holds, how they go on, and what becomes of them when they are killed, damaged or out of disk.
local sluice = require "sluice"
local core = require "sluice.core"
local files = require "files"

local program = os.getenv "SLUICE_BINARY" or "build/sluice"
local long = os.getenv "SLUICE_TEST_LONG"

local dir

local function shell(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  local ok, _, status = pipe:close()
  return text, ok, status
end

local function train(arguments)
  return shell(("%s train %s --threads 2"):format(program, arguments))
end

local function tiny(out, more)
  local text, ok = train(("tests/recipes/tiny.lua --out %s/%s %s"):format(dir, out, more or ""))
  assert(ok, text)
  return dir .. "/" .. out
end

local read, write = files.read, files.write

local function records(path)
  local list = {}
  for line in io.lines(path) do list[#list + 1] = sluice.json.decode(line) end
  return list
end

local function checkpoints(run)
  local list = {}
  for _, name in ipairs(core.list(run .. "/checkpoints")) do list[#list + 1] = name end
  return list
end

-- A digest of every tensor of a run's last checkpoint, but no metadata, which has times in it.
local function bits(run)
  local list = checkpoints(run)
  local tensors = sluice.io.load(run .. "/checkpoints/" .. list[#list])
  local lines = {}
  for name, t in pairs(tensors) do lines[#lines + 1] = name .. " " .. core.digest(t) end
  table.sort(lines)
  return list[#list] .. "\n" .. table.concat(lines, "\n")
end

local function refused(text, ...)
  for _, part in ipairs { ... } do assert.truthy(text:find(part, 1, true), text .. "\n   lacks: " .. part) end
end

setup(function()
  dir = files.temporary()
end)
teardown(function() os.execute("rm -r " .. dir) end)

describe("a run's folder", function()
  local run
  setup(function() run = tiny("whole", "--set sample=20") end)

  it("holds the recipe, its modules, settings, machine and seeds", function()
    assert.equal(read "tests/recipes/tiny.lua", read(run .. "/recipe.lua"))
    assert.equal(read "tests/recipes/tiny_parts/loss.lua", read(run .. "/code/tiny_parts/loss.lua"))
    local info = sluice.json.decode(read(run .. "/run.json"))
    assert.same({ 20, 3, 2 }, { info.parameters.sample, info.settings["train.seed"], info.machine.threads })
    assert.same({ ["tiny_parts.loss"] = "tiny_parts/loss.lua" }, info.modules)
    assert.equal(sluice.version, info.machine.sluice)
    assert.equal(0.8, info.settings["model.routing.beta"])
  end)

  it("holds metrics that tell what happened", function()
    local steps, held = {}, 0
    for _, r in ipairs(records(run .. "/metrics.jsonl")) do
      if r.holdout then
        held = held + 1
        assert(r.holdout > 0 and r.holdout_ema > 0)
      else
        steps[#steps + 1] = r.step
        assert(r.loss > 0 and r.grad_norm > 0 and r.lr >= 0 and r.images_per_second > 0 and r.memory > 1e6)
        assert.equal(10, #r.loss_by_t)
        assert.equal(r.step * 16, r.images)
      end
    end
    assert.same({ 2, 4, 6 }, { steps[1], steps[2], steps[3] })
    assert.equal(20, #steps)
    assert.equal(10, held)
  end)

  it("keeps the last checkpoints and every so manieth", function()
    assert.same({ "step-0000016.safetensors", "step-0000032.safetensors", "step-0000036.safetensors", "step-0000040.safetensors" },
      checkpoints(run))
  end)

  it("holds pictures of the same noise", function()
    assert.same({ "step-0000020.png", "step-0000040.png" }, core.list(run .. "/samples"))
  end)

  it("is sampled by its newest checkpoint, with the EMA that is named", function()
    local images = {}
    for i, more in ipairs { "", "--ema 0.999", "--ema 0.5", "--ema none", "--precision bf16" } do
      local text, ok = shell(("%s sample %s -n 2 -o %s/s.npz %s"):format(program, run, dir, more))
      assert(ok, text)
      images[i] = core.digest(sluice.io.load(dir .. "/s.npz").arr_0)
    end
    assert.equal(images[1], images[2]) -- the recipe's own choice
    assert(images[1] ~= images[3] and images[1] ~= images[4] and images[3] ~= images[4])
    refused(shell(("%s sample %s --ema 0.7"):format(program, run)), "ema is 0.7, there are 0.5, 0.999 or none")
  end)

  it("is not overwritten, and tells what differs", function()
    refused(train(("tests/recipes/tiny.lua --out %s --set beta=0.5 --set lr=0.1"):format(run)), "holds a run already, 40 of 40 steps",
      "optimizer.lr: 0.002 -> 0.1", "model.routing.beta: 0.8 -> 0.5", "sluice train --resume " .. run)
    refused(train(("tests/recipes/tiny.lua --out %s --set sample=20"):format(run)), "with the same settings")
  end)

  it("is exported, in bf16 too", function()
    for _, dtype in ipairs { "f32", "bf16" } do
      local out = dir .. "/export.safetensors"
      local text, ok = shell(("%s export %s %s --ema 0.5 --dtype %s"):format(program, run, out, dtype))
      assert(ok, text)
      local loaded, whole = sluice.load(out), sluice.load(run)
      local a = loaded.model:flatten(loaded.model:state())
      local b = whole.ema[1].weights
      assert((a - b):abs():max():item() <= (dtype == "f32" and 0 or 0.004) * b:abs():max():item())
      assert.equal(0, #loaded.ema)
    end
  end)
end)

describe("going on", function()
  local straight
  setup(function() straight = bits(tiny("straight", "--set steps=300 --set checkpoint=100")) end)

  it("after a Ctrl-C ends with the bits of an undisturbed run", function()
    local run = dir .. "/stopped"
    -- a Ctrl-C once the steps have begun
    local command = "{ %s train tests/recipes/tiny.lua --out %s --threads 2 --set steps=300 --set checkpoint=100 & pid=$!; "
      .. "while [ ! -s %s/metrics.jsonl ] && kill -0 $pid; do sleep 0.02; done; kill -INT $pid; wait $pid; }"
    local text, _, status = shell(command:format(program, run, run))
    local step = text:match("interrupted after step (%d+) of 300; go on with: sluice train %-%-resume " .. run)
    assert.truthy(step or status == 0, text) -- a fast machine may have come to the end
    print(("interrupted after step %s of 300"):format(step or "300"))
    local ok
    text, ok = train("--resume " .. run)
    assert(ok, text)
    assert.equal(straight, bits(run))
    local seen, last = {}, 0
    for _, r in ipairs(records(run .. "/metrics.jsonl")) do
      if not r.holdout then
        assert(r.step > last and not seen[r.step])
        last, seen[r.step] = r.step, true
      end
    end
    assert.equal(300, last)
  end)

  it("says when there is nothing left to do", function()
    refused(train("--resume " .. dir .. "/stopped"), "has all of its 300 steps")
  end)

  it("refuses other settings by name, and takes those that may change", function()
    local run = tiny("changed", "--set steps=12")
    refused(train(("--resume %s --set beta=0.5 --set batch=32"):format(run)), "cannot go on with other settings",
      "model.routing.beta: 0.8 -> 0.5", "train.batch: 16 -> 32", "what may change: steps")
    refused(train(("--resume %s --set hiden=5"):format(run)), 'did you mean "hidden"?')
    local text, ok = train(("--resume %s --set steps=20 --set lr=0.001 --set checkpoint=5 --set micro=4"):format(run))
    assert(ok, text)
    refused(text, "bits may differ from an undisturbed run: train.micro_batch: 8 -> 4", "from step 12 to 20")
    assert.equal("step-0000020.safetensors", checkpoints(run)[#checkpoints(run)])
    local last = records(run .. "/events.jsonl")
    local changed
    for _, e in ipairs(last) do changed = e.changed or changed end
    refused(table.concat(changed, "\n"), "optimizer.lr: 0.002 -> 0.001", "train.steps: 12 -> 20")
    text, ok = shell(("%s train --resume %s --set steps=22 --threads 1"):format(program, run))
    assert(ok, text)
    refused(text, "bits may differ from an undisturbed run: machine.threads: 2 -> 1")
  end)

  it("needs no more than the folder: the recipe may be gone", function()
    local copy = dir .. "/elsewhere"
    core.make_dirs(copy .. "/data/digits")
    os.execute(("cp -r tests/recipes/* %s; mkdir -p %s/data/digits; cp data/digits/digits.pack %s/data/digits/"):format(copy, copy, copy))
    local binary = core.absolute(program)
    local text, ok = shell(("cd %s && %s train tiny.lua --out run --set steps=8 --threads 2"):format(copy, binary))
    assert(ok, text)
    os.execute(("rm -r %s/tiny.lua %s/tiny_parts"):format(copy, copy))
    text, ok = shell(("cd %s && %s train --resume run --set steps=12 --threads 2"):format(copy, binary))
    assert(ok, text)
    assert.equal("step-0000012.safetensors", checkpoints(copy .. "/run")[#checkpoints(copy .. "/run")])
  end)

  it("takes the recipe of a script that trains by itself", function()
    local script, run = dir .. "/own.lua", dir .. "/own"
    write(script, read "tests/recipes/tiny.lua":gsub("return recipe\n$", ("local run = sluice.train(recipe, { out = %q, quiet = true })\n"
      .. "print(run.steps)\n"):format(run)))
    os.execute("cp -r tests/recipes/tiny_parts " .. dir)
    local text, ok = shell(("%s run %s"):format(program, script))
    assert(ok and text:find "40", text)
    text, ok = train(("--resume %s --set steps=44"):format(run))
    assert(ok, text)
    refused(text, "from step 40 to 44")
  end)

  it("takes the checkpoint before a damaged one, and says so", function()
    local run = tiny("damaged", "--set steps=24")
    local newest = run .. "/checkpoints/step-0000024.safetensors"
    local text = read(newest)
    write(newest, text:sub(1, 5000) .. "x" .. text:sub(5002))
    refused(shell(("%s sample %s -n 1 -o %s/x.png"):format(program, run, dir)), newest, "it is damaged", "using " .. run
      .. "/checkpoints/step-0000020.safetensors")
    local said, ok = train(("--resume %s"):format(run))
    assert(ok, said)
    refused(said, "warning", newest, "of step 20", "from step 20 to 24")
    write(newest, text:sub(1, 100))
    for _, name in ipairs(checkpoints(run)) do write(run .. "/checkpoints/" .. name, "nothing") end
    refused(train(("--resume %s"):format(run)), "none of its 3 checkpoints can be read")
  end)

  it("keeps the file that was trained, though its recipe is put together in another", function()
    write(dir .. "/base_of_two.lua", [[
      local sluice = require "sluice"
      return function(name, width)
        return sluice.recipe { defaults = { steps = 2 }, function(p)
          return { name = name, data = sluice.data.tensors { images = sluice.rand({ 4, 1, 8, 8 }, { seed = 1 }) },
            model = sluice.dit { input = { 1, 8, 8 }, classes = 1, patch = 4, hidden = width, depth = 1, heads = 2 },
            diffusion = sluice.diffusion {}, train = { steps = p.steps, batch = 4 } }
        end }
      end]])
    write(dir .. "/one_of_two.lua", 'return require "base_of_two" ("one", 16)')
    local text, ok = train(("%s/one_of_two.lua --out %s/two --quiet"):format(dir, dir))
    assert(ok, text)
    refused(read(dir .. "/two/recipe.lua"), '"one", 16')
    text, ok = train(("--resume %s/two --set steps=3 --quiet"):format(dir))
    assert(ok, text)
    refused(text, "3 steps")
  end)

  it("is left to the process that trains it", function()
    local run, me = tiny("mine", "--set steps=2"), io.open("/proc/self/stat"):read "n"
    do
      local _ <close> = assert(core.lock_folder(run))
      assert.equal(me, core.lock_holder(run))
      refused(train(("--resume %s --set steps=4"):format(run)), ("%s is being trained by process %d"):format(run, me))
      refused(shell(("%s runs %s"):format(program, run)), "running")
    end
    assert.equal(nil, core.lock_holder(run))
    local text, ok = train(("--resume %s --set steps=4"):format(run))
    assert(ok, text)
  end)

  it("is not begun over one that another process began meanwhile", function()
    local run, real = dir .. "/raced", core.trainer
    local recipe = require("sluice.code").load_recipe "tests/recipes/tiny.lua"
    core.trainer = function(...)
      core.trainer = real
      tiny("raced", "--set steps=3")
      return real(...)
    end
    local ok, fault = pcall(sluice.train, recipe, { out = run, set = { steps = 2 }, quiet = true })
    core.trainer = real
    assert.falsy(ok)
    refused(fault, "holds a run already, 3 of 3 steps", "train.steps: 3 -> 2")
    assert.equal(nil, core.lock_holder(run))
  end)

  it("keeps what was typed, where the recipe was", function()
    write(dir .. "/typed.lua", ([[
local width = 16
recipe = sluice.recipe { function() return {
  data = sluice.data.tensors { images = sluice.zeros { 4, 1, 8, 8 } }, diffusion = sluice.diffusion {},
  model = sluice.dit { input = { 1, 8, 8 }, classes = 1, patch = 4, hidden = width, depth = 1, heads = 2 },
  train = { steps = 2, batch = 4 } } end }
run = sluice.train(recipe, { out = "%s/typed", quiet = true })
]]):format(dir))
    local text, ok = shell(("%s -i <%s/typed.lua"):format(program, dir))
    assert(ok, text)
    local kept = read(dir .. "/typed/recipe.lua")
    refused(kept, "-- typed at the prompt\n-- input 1\nlocal width = 16\n-- input 2\nrecipe = ", "-- input 3\nrun = ")
    assert.equal("", sluice.load(dir .. "/typed").meta.recipe) -- which is handed on, and need not tell all that was typed
    refused(train(("--resume %s/typed"):format(dir)), "was not in a file; call sluice.train(recipe, { resume")
  end)

  it("asks for a parameter by its name, or says which there are", function()
    write(dir .. "/misspelt.lua", [[
      return require "sluice".recipe { defaults = { steps = 2, flip = true }, function(p)
        return { train = { flip = p.flpi } }
      end }]])
    refused(train(dir .. "/misspelt.lua"), 'misspelt.lua:2: recipe: unknown parameter "flpi"; did you mean "flip"?')
  end)

  it("names what is missing", function()
    refused(train "--resume /no/such/run", "there is no run /no/such/run")
    refused(train("--resume " .. dir), "is not a run's folder")
    refused(train "--resume", "which run?")
    refused(train "", "which recipe?")
    write(dir .. "/changed/run.json", "{")
    refused(train("--resume " .. dir .. "/changed"), "run.json is damaged")
  end)
end)

describe("a run that goes wrong", function()
  it("stops at a loss that is not finite, and keeps the last good checkpoint", function()
    local run = dir .. "/burst"
    local text, ok = train(("tests/recipes/tiny.lua --out %s --set lr=1e35 --set steps=100 --set checkpoint=1"):format(run))
    assert.falsy(ok)
    refused(text, "is not finite", "the first such value is", "the last checkpoint is " .. run .. "/checkpoints/step-")
    assert(sluice.load(run).step >= 1)
  end)

  -- A file system of 3 MB where one can be mounted, else files of at most 150 kB.
  it("ends in words when the disk is full, and goes on from the checkpoint before", function()
    local run, disk = dir .. "/disk/run", dir .. "/disk"
    core.make_dirs(disk)
    local _, mounted = shell(("mount -t tmpfs -o size=3m tmpfs %s"):format(disk))
    local set = "--set keep=1000 --set checkpoint=2 --set steps=100 --set holdout=0"
    local text, ok
    if mounted then
      text, ok = train(("tests/recipes/tiny.lua --out %s %s"):format(run, set))
    else
      text, ok = train(("tests/recipes/tiny.lua --out %s %s --set steps=4"):format(run, set))
      assert(ok, text)
      text, ok = shell(("trap '' XFSZ; ulimit -f 200; %s train --resume %s --set steps=100 --threads 2"):format(program, run))
    end
    assert.falsy(ok)
    refused(text, mounted and "No space left on device" or "File too large", "the last checkpoint is", "go on from there with")
    local list = checkpoints(run)
    assert(#list >= 1)
    for _, name in ipairs(list) do assert(sluice.io.load(run .. "/checkpoints/" .. name)) end -- whole, and no leftovers
    if mounted then -- the user makes room
      shell(("mount -o remount,size=64m %s"):format(disk))
    end
    text, ok = train("--resume " .. run .. " --set steps=60")
    if mounted then shell(("umount %s"):format(disk)) end
    assert(ok, text)
    print(("full disk: %s"):format(mounted and "a tmpfs of 3 MB" or "no tmpfs could be mounted; files limited instead"))
  end)
end)

-- Kills at moments drawn anew each time, some of them while a checkpoint is being written; then the run goes on to its end.
describe("SIGKILL", function()
  local kills = long and 20 or 3

  -- moments: the shortest life and how much longer it may be, in seconds; slow: its steps take too long for as many kills.
  local function killed(name, recipe, set, moments, slow)
    local whole, run = dir .. "/whole-" .. name, dir .. "/killed-" .. name
    local text, ok = train(("%s --out %s %s"):format(recipe, whole, set))
    assert(ok, text)
    local inside, done, wanted = 0, 0, slow and kills // 2 + 1 or kills
    math.randomseed(os.time())
    local function start() -- a run that was killed before it was one begins anew
      return core.exists(run .. "/run.json") and "--resume " .. run or ("%s --out %s %s"):format(recipe, run, set)
    end
    while done < wanted or (long and not slow and inside < 5 and done < 60) do
      local life = moments[1] + moments[2] * math.random()
      local _, _, status = shell(("timeout -s KILL %.3f %s train %s --threads 2 --quiet"):format(life, program, start()))
      if status == 0 then break end
      done = done + 1
      local events = core.exists(run .. "/events.jsonl") and records(run .. "/events.jsonl") or {}
      local last = events[#events]
      if last and last.event == "checkpoint begins" then inside = inside + 1 end
      if not core.exists(run .. "/run.json") then os.execute("rm -rf " .. run) end
    end
    text, ok = train(start())
    assert(ok, text)
    assert.equal(bits(whole), bits(run))
    print(("%s: killed %d times, %d of them while a checkpoint was written; the bits are those of an undisturbed run"):format(name,
      done, inside))
    if long then assert(done >= wanted and (slow or inside >= 5)) end
  end

  for _, precision in ipairs { "f32", "bf16" } do
    it("loses nothing: " .. precision, function()
      local set = "--set hidden=128 --set depth=2 --set checkpoint=1 --set steps=%d --set holdout=0 --set precision=%s"
      killed(precision, "tests/recipes/tiny.lua", set:format(long and 600 or 60, precision), { 0.15, 0.35 })
    end)
  end

  it("loses nothing: ADM on the emoji, with dropout", function()
    local set = "--set batch=2 --set dropout=0.2 --set checkpoint=1 --set preview=0 --set steps=%d"
    killed("emoji", "recipes/emoji-adm.lua", set:format(long and 800 or 60), { 0.4, 0.5 }, true)
  end)
end)
