-- Sluice's half of the comparisons with PyTorch: one command a line on standard input, one answer a line ("error …" if it failed).
--   setup MODEL BATCH FILE [DEVICE PRECISION RESIDUAL ROUTING RECOMPUTE]   makes the model, writes weights and inputs to FILE ("-":
--                                nowhere; "fresh": nowhere, and the weights are a fresh model's)
--   forward [N]                  seconds of a pass on the inputs
--   train [N]                    seconds of a step: without N on the inputs of the file, else on a data set, drawing t and noise
--   sample                       seconds of six guided steps, all told
--   sample N IMAGES CFG          seconds of one of N steps of a sampler that was made, and run for three steps, before
--   trajectory IMAGES CFG STEPS  seconds of a whole sluice.sample
--   losses N                     of N steps on the inputs of the file
--   macs                         of one image's forward pass
--   memory                       bytes taken at most, on the device or (CPU) by the process
--   age                          seconds since the process began
--   output FILE [ROWS]           writes the output of the last forward pass, or of one over the first ROWS inputs
--   profile                      seconds per op of one training step, a line each, then "end"
local sluice = require "sluice"
local core = require "sluice.core"

local model, trainer, sampler, x, t, y, noise, out, quick
local device, batch, recompute = "cpu", 1, "auto"

local function random_integers(n, top, seed)
  local list = {}
  math.randomseed(seed)
  for i = 1, n do list[i] = math.random(0, top - 1) end
  return sluice.tensor(list, { dtype = "i64" })
end

local function routing_of(name)
  if name == "none" then return sluice.routing.none() end
  return sluice.routing.dtr {}
end

-- o: device, precision, residual, routing, added to what the model itself is.
local models = {
  quickstart = function(o)
    o.input, o.patch, o.hidden, o.depth, o.heads, o.classes, o.learn_sigma = { 1, 28, 28 }, 7, 128, 4, 4, 10, false
    return sluice.dit(o)
  end,
  ["ADM-32"] = function(o)
    for k, v in pairs {
      image_size = 32, model_channels = 64, num_res_blocks = 2, channel_mult = { 1, 2, 2 }, attention_resolutions = { 16, 8 },
      num_head_channels = 32, use_scale_shift_norm = true, resblock_updown = true, use_new_attention_order = true, dropout = 0.1,
      classes = 10, class_dropout = 0.1,
    } do o[k] = v end
    return sluice.adm(o)
  end,
  ["ADM-64"] = function(o)
    o[1], o.class_dropout = "ADM-64", 0.1
    return sluice.adm(o)
  end,
}

local function dit(name, o)
  o[1], o.input, o.classes = name, { 4, 32, 32 }, 1000
  return sluice.dit(o)
end

-- A fresh model is the identity: gives the zero-initialised parts something to do. What is made on the way goes at once: a GPU's
-- memory is tight, and this is no part of what is measured.
local function stir()
  local seed = 100
  for _, name in ipairs(model:names()) do
    if name ~= "pos_embed" then
      seed = seed + 1
      local p = model:state()[name]
      local r <close> = sluice.randn(p:shape(), { seed = seed, device = device })
      local small <close> = r * 0.02
      local sum <close> = p + small
      core.assign(p, sum)
    end
  end
  collectgarbage()
  collectgarbage()
end

local commands = {}

function commands.setup(name, size, file, where, precision, residual, routing, again)
  recompute = again or recompute
  batch, device, quick = math.tointeger(size), where or "cpu", name == "quickstart"
  local o = { device = device, precision = precision, routing = routing_of(routing) }
  if residual and not name:match "^ADM" then o.residual = residual end
  model = models[name] and models[name](o) or dit(name, o)
  device = model:device()
  model:init(1)
  if file ~= "fresh" then stir() end
  local info = model:info()
  local shape = { batch, info.in_channels, info.height, info.width }
  x, noise = sluice.randn(shape, { seed = 2 }), sluice.randn(shape, { seed = 3 })
  t, y = random_integers(batch, 1000, 4), random_integers(batch, info.classes, 5)
  if file == "-" or file == "fresh" then return device end
  local all = { ["in.x"] = x, ["in.t"] = t, ["in.y"] = y, ["in.noise"] = noise }
  for key, p in pairs(model:state()) do all[key] = p end
  assert(sluice.io.save(file, all, {}))
  return device
end

-- Seconds of n calls, all of whose work is done when the clock is read.
local function seconds(n, f)
  core.bench_wait(device)
  local start = core.clock()
  for _ = 1, n do f() end
  core.bench_wait(device)
  return ("%.9f"):format((core.clock() - start) / n)
end

local there -- x where the model is

function commands.forward(n)
  there = there or x:to(device)
  return seconds(math.tointeger(n or 1), function()
    if out then out:release() end -- the next one takes its place
    out = model:forward(there, t, y)
  end)
end

local function make_trainer(data)
  local o = { model = model, batch = batch, ema = { 0.9999 }, ema_warmup = false, data = data, recompute = recompute }
  o.diffusion = sluice.diffusion { schedule = "cosine", predict = quick and "x0" or "eps", variance = quick and "fixed_small" or "learned" }
  if quick then
    o.clip = 1
    o.weight = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end):table(o.diffusion)
  end
  return sluice.trainer(o)
end

local function step_on_inputs()
  return trainer:step_on { x0 = x, t = t, y = y, noise = noise }
end

function commands.train(n)
  trainer = trainer or make_trainer(n and sluice.data.tensors { images = x, labels = y })
  if not n then return seconds(1, step_on_inputs) end
  return seconds(math.tointeger(n), function() trainer:step() end)
end

function commands.losses(n)
  trainer = make_trainer()
  local list = {}
  for i = 1, math.tointeger(n) do list[i] = ("%.9g"):format(step_on_inputs().loss) end
  trainer = nil
  return table.concat(list, " ")
end

local function labels_of(n)
  local list, all = {}, y:totable()
  for i = 1, n do list[i] = all[(i - 1) % #all + 1] end
  return list
end

-- Six guided ancestral steps.
local function six_steps()
  local labels = y:totable()
  return seconds(1, function()
    sluice.sample {
      model = model, diffusion = sluice.diffusion { schedule = "cosine" }, n = #labels, labels = labels, cfg = 1.5, sampler = "ddpm",
      steps = 6, clip = true, seed = 1,
    }
  end)
end

-- A sampler with steps left, past the first ones, in which programs are made and recorded.
local function running_sampler(images, cfg)
  local key = images .. " " .. cfg
  if sampler and sampler.key == key and sampler.it.i < sampler.it.n then return sampler.it end
  sampler = nil
  collectgarbage() -- the old one's memory
  local it = sluice.sampler {
    model = model, diffusion = sluice.diffusion { schedule = "cosine" }, n = images, labels = labels_of(images), cfg = cfg, clip = true,
    seed = 1,
  }
  sampler = { key = key, it = it }
  for _ = 1, 3 do it:step() end
  return it
end

function commands.sample(n, images, cfg)
  if not n then return six_steps() end
  n, images, cfg = math.tointeger(n), math.tointeger(images), tonumber(cfg)
  local sum, left = 0, n
  while left > 0 do
    local it = running_sampler(images, cfg)
    local part = math.min(left, it.n - it.i)
    sum = sum + part * seconds(part, function() it:step() end)
    left = left - part
  end
  return ("%.9f"):format(sum / n)
end

function commands.trajectory(images, cfg, steps)
  images = math.tointeger(images)
  local diffusion = sluice.diffusion { schedule = "cosine" }
  return seconds(1, function()
    sluice.sample {
      model = model, diffusion = diffusion, n = images, labels = labels_of(images), cfg = tonumber(cfg), batch = images,
      steps = math.tointeger(steps), clip = true, seed = 1,
    }
  end)
end

function commands.macs()
  return tostring(model:flops({ batch = 1 }).macs)
end

function commands.memory()
  local _, _, peak = core.bench_device(device)
  return tostring(peak or core.peak_resident())
end

function commands.age()
  return ("%.2f"):format(core.age() or -1)
end

function commands.output(file, rows)
  if rows then
    local n = math.tointeger(rows)
    out = model:forward(x:slice(1, 1, n):to(device), t:slice(1, 1, n), y:slice(1, 1, n))
  end
  assert(sluice.io.save(file, { out = out }, {}))
  return "ok"
end

function commands.profile()
  trainer:profile() -- from now on
  step_on_inputs()
  local lines = {}
  for _, row in ipairs(trainer:profile()) do lines[#lines + 1] = ("%s %.6f %d"):format(row.op, row.seconds, row.calls) end
  lines[#lines + 1] = "end"
  return table.concat(lines, "\n")
end

for line in io.lines() do
  local words = {}
  for w in line:gmatch "%S+" do words[#words + 1] = w end
  if words[1] == "quit" then break end
  local ok, answer = pcall(commands[words[1]], table.unpack(words, 2))
  print(ok and answer or "error " .. tostring(answer):gsub("%s*\n%s*", " | "))
  io.stdout:flush()
end
