local sluice = require "sluice"
local core = require "sluice.core"

local function small(o)
  local settings = { input = { 1, 8, 8 }, patch = 2, hidden = 16, depth = 2, heads = 2, classes = 3, learn_sigma = false }
  for k, v in pairs(o or {}) do settings[k] = v end
  return sluice.dit(settings)
end

local function images(n)
  return sluice.data.tensors { images = sluice.randn({ n, 1, 8, 8 }, { seed = 5 }), labels = sluice.arange(n):to "i64" * 0 + 1 }
end

local function options(o)
  local all = { model = small(), diffusion = sluice.diffusion { variance = "fixed_small" }, data = images(20), batch = 4, lr = 1e-3 }
  for k, v in pairs(o or {}) do all[k] = v end
  return all
end

local function weights(trainer)
  local flat = trainer:flat "params":totable()
  return table.concat(flat, ",")
end

local function trained(o, steps)
  local trainer = sluice.trainer(options(o))
  for _ = 1, steps or 3 do trainer:step() end
  return trainer
end

describe("training", function()
  it("is the same for any number of micro-batches, but for rounding", function()
    local a, b = trained { ema = {} }, trained { ema = {}, micro_batch = 2 }
    local x, y = a:flat "params", b:flat "params"
    assert((x - y):norm():item() < 1e-4 * x:norm():item())
  end)

  it("draws the same for a batch of 64 and for 4 times 16", function()
    local one, four = trained({ batch = 64, ema = {} }, 1), trained({ batch = 64, micro_batch = 16, ema = {} }, 1)
    local a, b = one:per_sample "loss", four:per_sample "loss"
    assert((a - b):abs():max():item() <= 1e-5 * a:max():item()) -- each sample's own loss: data, t, labels and noise are the same
    local x, y = one:flat "exp_avg", four:flat "exp_avg" -- a tenth of the gradient
    assert((x - y):norm():item() < 1e-5 * x:norm():item())
  end)

  it("is bit-identical when repeated, and with blocks computed again", function()
    assert.equal(weights(trained()), weights(trained()))
    local keep, again = trained { recompute = "none" }, trained { recompute = true }
    if small():device():find "^cuda" then -- a library may take other algorithms where GELU's input is kept
      local x, y = keep:flat "params", again:flat "params"
      assert((x - y):norm():item() < 1e-5 * x:norm():item())
    else
      assert.equal(weights(keep), weights(again))
    end
  end)

  it("needs less memory when blocks are computed again", function()
    local deep = function() return small { depth = 8, hidden = 64 } end
    local keep = core.forecast(options { model = deep(), batch = 16 })
    local again = core.forecast(options { model = deep(), batch = 16, recompute = true })
    assert(again < 0.8 * keep, ("%d against %d"):format(again, keep))
  end)

  it("calls no allocator after the first step", function()
    for _, o in ipairs { {}, { micro_batch = 1 }, { clip = 1, recompute = true } } do
      local trainer = trained(o, 1)
      local before = sluice.memory().calls
      for _ = 1, 3 do trainer:step() end
      assert.equal(before, sluice.memory().calls)
    end
  end)

  it("knows its memory before it starts", function()
    local o = options()
    local forecast = core.forecast(o)
    local taken = sluice.trainer(o):memory()
    assert(taken >= forecast and taken < 1.1 * forecast, ("%d, forecast %d"):format(taken, forecast)) -- checked builds add redzones
  end)

  it("learns", function()
    local trainer = sluice.trainer(options { lr = 3e-3, batch = 16 })
    local first, last = 0, 0
    for i = 1, 60 do
      local loss = trainer:step().loss
      if i <= 10 then first = first + loss end
      if i > 50 then last = last + loss end
    end
    assert(last < 0.9 * first, ("%g against %g"):format(last, first))
  end)

  it("trains in bf16 to about the same losses", function()
    local function losses(precision)
      local trainer = sluice.trainer(options { model = small { precision = precision, seed = 3 } })
      local sum = 0
      for _ = 1, 10 do sum = sum + trainer:step().loss end
      return sum
    end
    local a, b = losses "f32", losses "bf16"
    assert(math.abs(a - b) < 0.02 * a, ("%g against %g"):format(a, b))
  end)

  it("names the first value that is not finite, and changes nothing", function()
    local model = small()
    local state = model:state()
    local bad = state["blocks.1.mlp.fc1.bias"]:clone()
    bad[1] = 0 / 0
    model:load_state({ ["blocks.1.mlp.fc1.bias"] = bad }, { strict = false })
    local trainer = sluice.trainer(options { model = model })
    local before = weights(trainer)
    local ok, message = pcall(trainer.step, trainer)
    assert.falsy(ok)
    assert.truthy(tostring(message):find("blocks.1.mlp.fc1", 1, true), message)
    assert.equal(before, weights(trainer))
  end)

  it("names it in whichever micro-batch it is", function()
    local x0 = sluice.zeros { 4, 1, 8, 8 }
    local batch = { x0 = x0, t = sluice.tensor({ 5, 6, 7, 8 }, { dtype = "i64" }), y = sluice.tensor({ 0, 0, 0, 0 }, { dtype = "i64" }),
      noise = sluice.randn({ 4, 1, 8, 8 }, { seed = 1 }) }
    local messages = {}
    local function loss(s)
      local late = 7.5 - s.t:to "f32"
      local root = late:sqrt() -- of t = 8 no number
      return s.out:square():mean { 2, 3, 4 } * root
    end
    local line = debug.getinfo(loss, "S").linedefined + 2
    for i, micro in ipairs { 4, 2, 1 } do
      local trainer = sluice.trainer(options { micro_batch = micro, loss = loss })
      local ok, message = pcall(trainer.step_on, trainer, batch)
      assert.falsy(ok)
      messages[i] = tostring(message):match("the first such value is sqrt#%d+ %(sqrt%), computed at [^:]*train_spec.lua:(%d+)%.")
    end
    assert.same({ tostring(line), tostring(line), tostring(line) }, messages)
  end)

  it("names the line whose gradient is not finite", function()
    local function loss(s)
      local zero = s.out:mean { 2, 3, 4 } * 0
      return zero:sqrt()
    end
    local trainer = sluice.trainer(options { loss = loss })
    local ok, message = pcall(trainer.step, trainer)
    assert(not ok and message:find("train_spec.lua:" .. debug.getinfo(loss, "S").linedefined + 2 .. ".", 1, true), message)
  end)

  it("says when the batch itself is not finite", function()
    local function told(name, at, value)
      local batch = { x0 = sluice.zeros { 4, 1, 8, 8 }, t = sluice.tensor({ 5, 6, 7, 8 }, { dtype = "i64" }),
        noise = sluice.zeros { 4, 1, 8, 8 } }
      batch[name][at][1][8][8] = value
      local trainer = sluice.trainer(options { micro_batch = 2 })
      local ok, message = pcall(trainer.step_on, trainer, batch)
      assert.falsy(ok)
      return message
    end
    assert.truthy(told("x0", 4, 0 / 0):find("the first such value is in the batch's images: NaN in number 4 of 4", 1, true))
    assert.truthy(told("noise", 1, 1 / 0):find("in the batch's noise: an infinity in number 1 of 4", 1, true))
  end)

  it("says what was given in the place of what a constructor makes", function()
    local of = require("sluice.train_options").of
    local function refused(want, o)
      local recipe = { model = small(), diffusion = sluice.diffusion {}, train = { steps = 2, batch = 4 } }
      for k, v in pairs(o) do recipe[k] = v end
      local ok, message = pcall(of, recipe)
      assert(not ok and message:find(want, 1, true), message)
    end
    refused("recipe.loss is sluice.weight.min_snr itself, which makes one: call it, as sluice.weight.min_snr(5)",
      { loss = sluice.weight.min_snr })
    refused("recipe.loss: weight is sluice.weight.p2 itself", { loss = { function() end, weight = sluice.weight.p2 } })
    refused("expected a sluice.weight, a function(s), or { function(s), weight = … }, got \"min_snr\"", { loss = "min_snr" })
    refused("recipe.optimizer: schedule is sluice.schedule.cosine itself, which makes one: call it, as sluice.schedule.cosine {",
      { optimizer = { schedule = sluice.schedule.cosine } })
    refused("recipe.optimizer: schedule is \"cosine\", expected a function(step, total)", { optimizer = { schedule = "cosine" } })
    refused("recipe.train: t_sampler is sluice.timesteps.uniform itself",
      { train = { steps = 2, batch = 4, t_sampler = sluice.timesteps.uniform } })
    refused("recipe.optimizer: lr is a table, expected number", { optimizer = { lr = {} } })
    for _, case in ipairs {
      { "sluice.weight.min_snr: gamma is a table, expected a number above 0; as a loss weight write sluice.weight.min_snr(5)",
        sluice.weight.min_snr, {} },
      { "sluice.schedule.warmup: n is a table, expected a number of steps", sluice.schedule.warmup, { n = 3 } },
      { "sluice.schedule.cosine: expected a table, got 5", sluice.schedule.cosine, 5 },
      { "sluice.schedule.cosine: final is \"x\", expected number", sluice.schedule.cosine, { final = "x" } },
      { "sluice.routing.custom: expected a function(t, T, C, block, blocks), got \"x\"", sluice.routing.custom, "x" },
      { "sluice.routing.dtr: the options are 5, expected a table", sluice.routing.dtr, 5 },
      { "sluice.dit: routing is a function, expected one of sluice.routing, as sluice.routing.dtr {}: call it", sluice.dit,
        { input = { 1, 8, 8 }, patch = 4, hidden = 16, depth = 1, heads = 2, routing = sluice.routing.dtr } },
    } do
      local ok, message = pcall(case[2], case[3])
      assert(not ok and message:find(case[1], 1, true), message)
    end
  end)

  it("draws t as the density says", function()
    local trainer = sluice.trainer(options { density = sluice.timesteps.custom(function(t) return t == 7 and 1 or 0 end)
      :density(sluice.diffusion {}), loss = function(s) return s.t:to "f32" + s.out:mean { 2, 3, 4 } * 0 end })
    assert.equal(7, trainer:step().loss)
  end)

  it("gives a loss the weight 1 where there is none", function()
    local function squares(s) return (s.out:slice(2, 1, 1) - s.noise):square():mean { 2, 3, 4 } * s.weight end
    local function plain(s) return (s.out:slice(2, 1, 1) - s.noise):square():mean { 2, 3, 4 } end
    assert.equal(sluice.trainer(options { loss = plain }):step().loss, sluice.trainer(options { loss = squares }):step().loss)
  end)

  it("says what is wrong with options", function()
    local function message(o)
      local ok, text = pcall(sluice.trainer, options(o))
      assert.falsy(ok)
      return tostring(text)
    end
    assert.truthy(message({ micro_batch = 3 }):find("micro_batch is 3, expected a divisor of batch 4", 1, true))
    assert.truthy(message({ learning_rate = 1 }):find("learning_rate", 1, true))
    assert.truthy(message({ lr = "fast" }):find("lr is fast, expected a number", 1, true))
    assert.truthy(message({ model = small { input = { 3, 8, 8 } } }):find("the model takes [3,8,8]", 1, true))
    assert.truthy(message({ diffusion = sluice.diffusion {} }):find("must agree", 1, true))
    assert.truthy(message({ loss = function() return 3 end }):find("expected a tensor of per-sample losses", 1, true))
    assert.truthy(message({ loss = function() return sluice.ones { 8 } end }):find(
      "loss: the function returned a tensor of numbers (f32 [8]), expected one made from s.out", 1, true))
    assert.truthy(message({ loss = sluice.weight.constant }):find("the function returned a sluice.weight, expected", 1, true))
    assert.truthy(message({ loss = function(s) return s.out end }):find("one loss per sample", 1, true))
    assert.truthy(message({ loss = function() error "mine" end }):find("mine", 1, true))
    assert.truthy(message({ loss = function(s) return s.noise:square():mean { 2, 3, 4 } end }):find("nothing would be learned", 1, true))
    local detached = message { loss = function(s) return (s.out:detach() - s.noise):square():mean { 2, 3, 4 } end }
    assert.truthy(detached:find("nothing would be learned", 1, true), detached)
    local text = message { loss = function(s) return s.output end }
    assert.truthy(text:find('the loss\'s s: unknown field "output"; did you mean "out"', 1, true), text)
  end)

  if os.getenv "SLUICE_TEST_LONG" then
    it("forecasts DiT-S/2 within a tenth of the process's peak", function()
      local function of(key)
        for line in io.lines "/proc/self/status" do
          local kib = line:match("^" .. key .. ":%s+(%d+)")
          if kib then return tonumber(kib) * 1024 end
        end
      end
      collectgarbage()
      local before = of "VmRSS"
      local trainer = sluice.trainer {
        model = sluice.dit { "DiT-S/2", input = { 4, 32, 32 }, routing = sluice.routing.dtr {} },
        diffusion = sluice.diffusion {}, batch = 8,
        data = sluice.data.tensors { images = sluice.randn { 16, 4, 32, 32 }, labels = sluice.arange(16) },
      }
      trainer:step()
      trainer:step()
      local peak, forecast = of "VmHWM" - before, trainer:memory()
      print(("DiT-S/2, batch 8: forecast %.0f MiB, peak %.0f MiB"):format(forecast / 1048576, peak / 1048576))
      assert(math.abs(peak - forecast) < 0.1 * peak)
    end)
  end
end)

describe("recipes", function()
  local function recipe(f)
    return sluice.recipe {
      defaults = { steps = 2, lr = 1e-3, name = "test", flip = false },
      function(p)
        local d = {
          name = p.name, data = images(8), model = small(), diffusion = sluice.diffusion { variance = "fixed_small" },
          optimizer = { lr = p.lr }, train = { steps = p.steps, batch = 4, flip = p.flip },
          sample = { n = 3, labels = "balanced", cfg = 2, steps = 3 },
        }
        if f then f(d) end
        return d
      end,
    }
  end

  it("run, and what they leave behind loads and samples alike", function()
    local dir = os.tmpname()
    os.remove(dir)
    local run = sluice.train(recipe(), { out = dir, quiet = true, set = { steps = "3" } })
    assert.equal(3, run.steps)
    local loaded = sluice.load(dir)
    local a = run:sample { seed = 4 }
    local o = { model = loaded.model, diffusion = loaded.diffusion, ema = loaded.ema[1].weights, seed = 4 }
    for k, v in pairs(loaded.sample) do o[k] = v end
    local b = sluice.sample(o)
    assert.equal(0, (a - b):abs():max():item())
    local ok, message = pcall(sluice.train, recipe(), { out = dir, quiet = true })
    assert.falsy(ok)
    assert.truthy(tostring(message):find("holds a run already", 1, true))
    os.execute("rm -r " .. dir)
  end)

  it("tell what went wrong also where the disk is too full to note it", function()
    local dir = os.tmpname()
    os.remove(dir)
    local function fill() os.execute(("ln -sf /dev/full %s/events.jsonl"):format(dir)) end
    local line = { clear = function() end, finish = function() end }
    function line.update()
      fill()
      error("the line broke", 0)
    end
    local ok, message = pcall(sluice.train, recipe(), { out = dir, quiet = true, line = line })
    assert.falsy(ok)
    assert.truthy(tostring(message):find "^the line broke\nthere was no checkpoint yet", tostring(message))
    os.execute("rm -r " .. dir)
    line.update, line.finish = function() end, fill
    ok, message = pcall(sluice.train, recipe(), { out = dir, quiet = true, line = line })
    assert.falsy(ok)
    assert.truthy(tostring(message):find("events.jsonl: No space left on device\nthe last checkpoint is ", 1, true), tostring(message))
    os.execute("rm -r " .. dir)
  end)

  it("refuse what they do not know, naming the nearest", function()
    local function message(r, o)
      local ok, text = pcall(sluice.train, r, o)
      assert.falsy(ok)
      return tostring(text)
    end
    assert.truthy(message(recipe(), { set = { step = 3 } }):find('did you mean "steps"', 1, true))
    assert.truthy(message(recipe(), { set = { steps = "many" } }):find("expected an integer", 1, true))
    assert.truthy(message(recipe(function(d) d.optimiser = {} end)):find('did you mean "optimizer"', 1, true))
    assert.truthy(message(recipe(function(d) d.train.bach = 3 end)):find('did you mean "batch"', 1, true))
    assert.truthy(message(recipe(function(d) d.data = nil end)):find("data is missing", 1, true))
    local text = message(recipe(function(d) d.data = "digits.pack" end))
    assert.truthy(text:find('data is "digits.pack", expected what sluice.data.pack', 1, true), text)
    assert.truthy(message(recipe(function(d) d.model = { "DiT-S/2" } end)):find("expected what sluice.dit or sluice.adm gives", 1, true))
  end)
end)

describe("sampling", function()
  local model = small { timesteps = 1000 }
  model:init(2)
  local d = sluice.diffusion { variance = "fixed_small" }

  it("draws image k from the seed and k alone", function()
    local all = sluice.sample { model = model, diffusion = d, n = 5, labels = "balanced", cfg = 1.5, steps = 4, seed = 9, batch = 2 }
    local two = sluice.sample { model = model, diffusion = d, n = 2, labels = "balanced", cfg = 1.5, steps = 4, seed = 9 }
    assert((all:slice(1, 1, 2) - two):abs():max():item() < 1e-4)
  end)

  it("stops when told, and can be driven by hand", function()
    local seen = {}
    sluice.sample {
      model = model, diffusion = d, n = 1, steps = 10, seed = 1, on_step = function(s)
        seen[#seen + 1] = s.t
        return s.i < 3
      end,
    }
    assert.equal(3, #seen)
    assert.equal(999, seen[1])
    local n = 0
    for s in sluice.sampler { model = model, diffusion = d, n = 1, steps = 4, seed = 1 }:steps() do
      n = n + 1
      s.x = s.x * 0
      assert.same({ 1, 1, 8, 8 }, s.x0:shape())
    end
    assert.equal(4, n)
  end)

  it("shows images that are the caller's own, and goes on from what was written into them", function()
    local o = { model = model, diffusion = d, n = 1, steps = 4, seed = 1, sampler = "ddim" }
    local held, values = {}, {}
    for s in sluice.sampler(o):steps() do
      held[s.i], values[s.i] = { s.x, s.x0 }, { s.x * 1, s.x0 * 1 }
      assert.equal(0, (s.x - s.x):abs():max():item())
    end
    for i = 1, 4 do
      for k = 1, 2 do assert.equal(0, (held[i][k] - values[i][k]):abs():max():item()) end
    end
    local function edited(edit)
      local s = sluice.sampler(o)
      for state in s:steps() do
        if state.i == 2 then edit(state) end
      end
      return s.x
    end
    local assigned = edited(function(s) s.x = s.x * 0 + 0.5 end)
    local written = edited(function(s) s.x[1] = s.x[1] * 0 + 0.5 end)
    assert.equal(0, (assigned - written):abs():max():item())
    assert((written - values[4][1]):abs():max():item() > 0)
  end)

  it("keeps the known part of an in-painting", function()
    local init = sluice.full({ 2, 1, 8, 8 }, 0.25)
    local mask = sluice.zeros { 1, 1, 8, 8 }
    mask[1][1][1] = 1 -- the first row is to be drawn
    mask = mask:expand { 2, 1, 8, 8 }
    local x = sluice.sample { model = model, diffusion = d, n = 2, steps = 5, seed = 3, init = init, mask = mask }
    assert(math.abs(x[1][1][5][4]:item() - 0.25) < 1e-6)
    assert(math.abs(x[1][1][1][4]:item() - 0.25) > 1e-6)
  end)

  it("guides within an interval only", function()
    local function draw(o)
      o.model, o.diffusion, o.n, o.labels, o.steps, o.seed, o.sampler = model, d, 2, { 1, 2 }, 4, 6, "ddim"
      return sluice.sample(o)
    end
    local model_state = model:state()["final_layer.linear.weight"]
    assert(model_state)
    assert.equal(0, (draw { cfg = 3, cfg_interval = { 2000, 3000 } } - draw {}):abs():max():item())
  end)

  it("says what is wrong with options", function()
    local function message(o)
      o.model, o.diffusion = o.model or model, o.diffusion or d
      local ok, text = pcall(sluice.sample, o)
      assert.falsy(ok)
      return tostring(text)
    end
    assert.truthy(message({ n = 2, cfgg = 3 }):find('did you mean "cfg"', 1, true))
    assert.truthy(message({ n = 1, sampler = "ddim", eta = 9 }):find("eta is 9, too much for ddim at step", 1, true))
    assert.truthy(message({ n = 2, cfg = 3 }):find("labels are not given", 1, true))
    assert.truthy(message({ n = 2, labels = { 1 } }):find("1 labels for n = 2", 1, true))
    assert.truthy(message({ n = 1, labels = { 7 } }):find("label 7 is outside 0", 1, true))
    assert.truthy(message({ n = 1, labels = model:info().classes }):find("without labels the null class is drawn", 1, true))
    assert.truthy(message({ n = 1, init = sluice.zeros { 1, 8, 8 }, mask = sluice.full({ 8, 8 }, 255) }):find("mask goes from 255 to 255",
      1, true))
    assert.truthy(message({ n = 1, sampler = "euler" }):find("there are ddpm and ddim", 1, true))
    assert.truthy(message({ n = 1, steps = 5, diffusion = d:respace "10" }):find("respaced already", 1, true))
    assert.truthy(message({ n = 1, noise = sluice.zeros { 1, 1, 4, 4 } }):find("expected f32 [1,1,8,8]", 1, true))
    for want, o in pairs {
      ["model is 3, expected a model"] = { model = 3 }, ["diffusion is 4"] = { diffusion = 4 }, ["ema is 3"] = { ema = 3 },
      ["on_step is 3"] = { on_step = 3 }, ["batch is 0"] = { batch = 0 }, ["steps is 0, expected 1 to 1000"] = { steps = 0 },
      ["steps is 1001"] = { steps = 1001 }, ["cfg_interval is { 5, nil }"] = { cfg_interval = { 5 } },
      ["cfg_interval is { 9, 5 }"] = { cfg_interval = { 9, 5 } }, ["precision is \"f16\""] = { precision = "f16" },
      ["neither start"] = { init = sluice.zeros { 1, 1, 8, 8 } }, ["the images would take"] = { n = 10 ^ 12 // 1 | 0 },
    } do
      assert.truthy(message(o):find(want, 1, true), want)
    end
  end)

  it("counts images by the labels, a list or a tensor", function()
    local two = sluice.tensor({ 2, 0 }, { dtype = "i64" })
    local x, labels = sluice.sample { model = model, diffusion = d, steps = 2, seed = 1, labels = two }
    assert.equal(2, #x)
    assert.same({ 2, 0 }, labels:totable())
  end)

  it("counts images by the noise, or the known images", function()
    local three = sluice.randn({ 3, 1, 8, 8 }, { seed = 1 })
    assert.equal(3, #sluice.sample { model = model, diffusion = d, steps = 2, seed = 1, noise = three })
    assert.equal(3, #sluice.sample { model = model, diffusion = d, steps = 2, seed = 1, init = three, mask = sluice.zeros { 8, 8 } })
    local one = three:slice(1, 1, 1)
    local a = sluice.sample { model = model, diffusion = d, steps = 2, seed = 1, init = one:reshape { 1, 8, 8 }, start = 1 }
    assert.equal(0, (a - sluice.sample { model = model, diffusion = d, steps = 2, seed = 1, init = one, start = 1 }):abs():max():item())
  end)
end)

describe("numbers and lists for tensors", function()
  local model = small()
  model:init(3)
  local x = sluice.randn({ 2, 1, 8, 8 }, { seed = 1 })

  it("labels are a tensor, a list or one number for all", function()
    local want = model:forward(x, 5, sluice.tensor({ 2, 2 }, { dtype = "i64" }))
    assert.equal(0, (model:forward(x, 5, { 2, 2 }) - want):abs():max():item())
    assert.equal(0, (model:forward(x, 5, 2) - want):abs():max():item())
    local _, text = pcall(model.forward, model, x, 5, { 1, "a" })
    assert.truthy(text:find('label 2 is "a"', 1, true), text)
  end)

  it("the process takes one t for all", function()
    local d, noise = sluice.diffusion { variance = "fixed_small" }, sluice.randn({ 2, 1, 8, 8 }, { seed = 2 })
    local t = sluice.tensor({ 7, 7 }, { dtype = "i64" })
    local function same(a, b) assert.equal(0, (a - b):abs():max():item()) end
    same(d:q_sample(x, 7, noise), d:q_sample(x, t, noise))
    same(d:p_sample(noise, x, 7, noise), d:p_sample(noise, x, t, noise))
    same(d:losses(noise, x, x, 7, noise).loss, d:losses(noise, x, x, t, noise).loss)
    same((d:q_posterior(x, noise, 7)), (d:q_posterior(x, noise, t)))
    local _, text = pcall(d.q_sample, d, x, 1000, noise)
    assert.truthy(text:find("t is 1000, expected 0 … 999", 1, true), text)
    _, text = pcall(d.q_sample, d, x, 1, sluice.zeros { 2, 3, 8, 8 })
    assert.truthy(text:find("argument 3 is [2,3,8,8], expected [2,1,8,8]", 1, true), text)
    _, text = pcall(d.losses, d, noise, x, x, 7, noise, { weight = 3 })
    assert.truthy(text:find("expected one of sluice.weight", 1, true), text)
    local value = sluice.value_and_grad(function(p) return d:q_sample(p.x, 7, noise):sum() end, { x = x })
    assert(math.abs(value:item() - d:q_sample(x, 7, noise):sum():item()) < 1e-3)
  end)
end)

describe("a recipe's own table", function()
  it("names the nearest field", function()
    local ok, text = pcall(sluice.recipe, { default = {}, function() end })
    assert.falsy(ok)
    assert.truthy(text:find('did you mean "defaults"', 1, true), text)
  end)
end)
