-- What sluice bench runs: a training, a sampling, a forward pass.
local core = require "sluice.core"
local refuse = require("sluice.bench_options").refuse
local sluice = require "sluice"
local train_options = require "sluice.train_options"

local bench_work = {}

function bench_work.model(o)
  local settings = { o.model, device = o.device, precision = o.precision, residual = o.residual }
  if o.routing == "dtr" then settings.routing = sluice.routing.dtr {} end
  if o.model == "quickstart" then
    settings[1] = nil
    settings.input, settings.classes = { 1, 28, 28 }, 10
    settings.patch, settings.hidden, settings.depth, settings.heads = 7, 128, 4, 4
    return sluice.dit(settings)
  elseif o.model:match("^ADM") then
    if not o.model:match("uncond$") then settings.class_dropout = 0.1 end -- the null class, for guidance
    return sluice.adm(settings)
  elseif o.model:match("^DiT") then
    settings.input, settings.classes = { 4, 32, 32 }, 1000
    return sluice.dit(settings)
  end
  refuse("there is no model %s; there are DiT-S, DiT-B, DiT-L and DiT-XL with /2, /4 or /8, ADM-64, ADM-128, ADM-256 and ADM-512, "
    .. "with -uncond for no labels, and quickstart", o.model)
end

-- A fresh model's blocks are the identity, and products of zeros run faster than others.
function bench_work.stir(model)
  local device, state = model:device(), model:state()
  for i, name in ipairs(model:names()) do
    local p = state[name]
    if name ~= "pos_embed" then core.assign(p, p + sluice.randn(p:shape(), { seed = 100 + i, device = device }) * 0.02) end
  end
end

local function data_of(model, n)
  local info = model:info()
  local labels
  if info.classes > 0 then labels = sluice.randint(0, info.classes - 1, { n }, { seed = 2 }) end
  return sluice.data.tensors { images = sluice.randn({ n, info.in_channels, info.height, info.width }, { seed = 1 }), labels = labels }
end

-- Each of the three: open() makes what runs; step(n) runs n steps and gives their seconds; profile(n) gives rows of seconds and calls
-- per op, and all the seconds, of n profiled steps; costs(rates) gives rows of what each op asks for; close() gives memory back.
bench_work.makers = {}

function bench_work.makers.train(o, model)
  local diffusion = sluice.diffusion {}
  local options = {
    model = model, diffusion = diffusion, batch = o.batch, micro_batch = 0, lr = 1e-4, ema = { 0.9999 }, recompute = o.recompute,
  }
  local self, trainer = {}, nil
  function self.open()
    options.data = data_of(model, 2 * o.batch)
    local fits, message = pcall(train_options.fit, options)
    if not fits then refuse("%s", (tostring(message):gsub("^train: ", ""):gsub(";.*", ""))) end -- what a recipe could change is left out
    trainer = core.trainer(options)
  end
  function self.step(n)
    local began = core.clock()
    for _ = 1, n do trainer:step() end
    return core.clock() - began
  end
  function self.profile(n)
    trainer:profile() -- from now on
    local seconds = self.step(n)
    return trainer:profile(), seconds
  end
  function self.costs(rates) return core.bench_train_costs(
    { model = model, diffusion = diffusion, batch = o.batch, recompute = o.recompute }, rates) end
  -- Beside the program: noise is drawn; gradients are summed (4 bytes); AdamW and the EMA read five arrays and write all but the
  -- gradients.
  function self.rest()
    local info, trainable = model:info(), select(2, model:count())
    local copy = o.precision == "bf16" and model:device() ~= "cpu" and 2 or 0 -- of the weights
    return 4 * o.batch * info.in_channels * info.height * info.width + (4 + 36 + copy) * trainable
  end
  function self.close() trainer = nil end
  self.passes, self.rows, self.title = 3, 1, "training" -- backward is two passes
  self.rest_name = "(draw, norm, AdamW, EMA)"
  return self
end

-- The network's forward pass by itself.
local function pass_part(self, o, model, guided)
  local pass
  function self.open_pass()
    model:init(0)
    pass = pass or core.bench_pass(model, o.batch, guided)
  end
  function self.close() pass = nil end
  function self.run_pass(n) return pass:run(n) end
  function self.costs(rates) return core.bench_pass_costs(model, o.batch, guided, rates) end
  function self.profile(n)
    pass = pass or core.bench_pass(model, o.batch, guided)
    pass:run(1)
    local seconds = 0
    for _ = 1, n do seconds = seconds + pass:run(1, true) end
    return pass:profile(), seconds
  end
end

function bench_work.makers.forward(o, model)
  local self = { passes = 1, rows = 1, title = "forward" }
  pass_part(self, o, model, false)
  self.open, self.step = self.open_pass, self.run_pass
  return self
end

function bench_work.makers.sample(o, model)
  local guided = o.cfg ~= 1
  local self = { passes = 1, rows = guided and 2 or 1, rest_name = "(noise, guidance, update)" }
  self.title = guided and ("sampling with guidance %g"):format(o.cfg) or "sampling"
  local sampler, device
  function self.open()
    local all = o.warmup + o.steps + 1
    if all > 1000 then refuse("warmup and steps are %d together, at most 999 in sampling", all - 1) end
    device = model:device()
    model:init(0)
    sampler = sluice.sampler {
      model = model, diffusion = sluice.diffusion {}, n = o.batch, labels = model:info().classes > 0 and "uniform" or nil,
      cfg = o.cfg, seed = 1, batch = o.batch,
    }
  end
  function self.step(n)
    core.bench_wait(device)
    local began = core.clock()
    for _ = 1, n do sampler:step() end
    core.bench_wait(device)
    return core.clock() - began
  end
  pass_part(self, o, model, guided)
  local profile, close = self.profile, self.close
  function self.profile(n)
    sampler = nil
    collectgarbage() -- its arena, before the pass takes one
    return profile(n)
  end
  function self.close()
    sampler = nil
    close()
  end
  return self
end

return bench_work
