-- sluice bench: how fast a device is, how fast a model is on it, and how far its operations are from what the device can do.
local core = require "sluice.core"
local fields = require "sluice.fields"
local interrupt = require "sluice.interrupt"
local progress = require "sluice.progress"
local sluice = require "sluice"
local train_options = require "sluice.train_options"

local bench = {}

-- --- options ---

local NAMES = { "rates", "train", "sample", "forward" }
local OPTIONS = {
  "name", "device", "model", "batch", "precision", "residual", "routing", "cfg", "steps", "warmup", "seconds", "profile", "limits",
}
-- Which of them belong to what, beside the device; "all" is without a name.
local TAKES = {
  rates = " seconds ",
  all = " batch precision residual routing steps warmup seconds profile ",
  train = " model batch precision residual routing steps warmup seconds profile limits ",
  sample = " model batch precision residual routing cfg steps warmup seconds profile limits ",
  forward = " model batch precision residual routing steps warmup seconds profile limits ",
}

local SAMPLING_STEPS = 250 -- that images per second are told for

local function refuse(text, ...)
  error(("bench: " .. text):format(...), 0)
end

local function who_takes(key)
  local list = {}
  for _, name in ipairs(NAMES) do
    if TAKES[name]:find(" " .. key .. " ", 1, true) then list[#list + 1] = name end
  end
  return table.concat(list, ", ")
end

-- Products and memory as the makers' data sheets have them (dense, FLOP/s; bytes/s). Large products reach about eight tenths of
-- that, copies nine.
local SHEETS = {
  H100 = { bf16 = 990e12, tf32 = 495e12, f32 = 67e12, copy = 3.35e12 },
  H200 = { bf16 = 990e12, tf32 = 495e12, f32 = 67e12, copy = 4.8e12 },
  A100 = { bf16 = 312e12, tf32 = 156e12, f32 = 19.5e12, copy = 2.04e12 },
}

-- "H100", or "790,3000": TFLOP/s of any product, GB/s.
local function limits_of(text, tf32)
  local sheet = SHEETS[text:upper()]
  if sheet then return { bf16 = 0.8 * sheet.bf16, f32 = 0.8 * (tf32 and sheet.tf32 or sheet.f32), copy = 0.9 * sheet.copy } end
  local flops, bytes = text:match("^([%d.]+),([%d.]+)$")
  flops, bytes = tonumber(flops), tonumber(bytes)
  if not flops or not bytes or flops <= 0 or bytes <= 0 then
    refuse("limits is %s, expected A100, H100, H200 or TFLOPS,GBYTES as in 790,3000", text)
  end
  return { bf16 = flops * 1e12, f32 = flops * 1e12, copy = bytes * 1e9 }
end

local function at_least(o, key, least)
  if o[key] ~= nil and (math.type(o[key]) ~= "integer" or o[key] < least) then
    refuse("%s is %s, expected an integer, at least %d", key, tostring(o[key]), least)
  end
end

local function one_of(o, key, words)
  for _, word in ipairs(words) do
    if o[key] == nil or o[key] == word then return end
  end
  refuse("%s is %s, expected %s", key, tostring(o[key]), table.concat(words, " or "))
end

-- A copy of the options with the defaults that do not depend on the device.
local function checked(given)
  local o = fields.merged(fields.check(given, OPTIONS, "bench", 0))
  local takes = TAKES[o.name or "all"]
  if not takes or o.name == "all" then refuse("there is no %s; there are %s", tostring(o.name), table.concat(NAMES, ", ")) end
  for _, key in ipairs(OPTIONS) do
    if o[key] ~= nil and key ~= "name" and key ~= "device" and not takes:find(" " .. key .. " ", 1, true) then
      refuse("%s is for %s", key, who_takes(key))
    end
  end
  at_least(o, "batch", 1)
  at_least(o, "steps", 1)
  at_least(o, "warmup", 0)
  one_of(o, "precision", { "f32", "tf32", "bf16" })
  one_of(o, "residual", { "f32", "bf16" })
  one_of(o, "routing", { "dtr", "none" })
  if o.limits then
    for _, key in ipairs { "steps", "warmup", "seconds" } do
      if o[key] ~= nil then refuse("%s is given with limits, which run nothing", key) end
    end
    o.limits_name, o.limits = o.limits, limits_of(o.limits, o.precision == "tf32")
  end
  o.work = o.name or "train" -- what is run
  o.device, o.model = o.device or "auto", o.model or (o.name and "DiT-S/2" or "quickstart")
  o.precision, o.routing, o.seconds, o.cfg = o.precision or "f32", o.routing or "dtr", o.seconds or 0.2, o.cfg or 1
  return o
end

-- --- what is measured on ---

local function model_of(o)
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
local function stir(model)
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
local makers = {}

function makers.train(o, model)
  local diffusion = sluice.diffusion {}
  local options = {
    model = model, diffusion = diffusion, batch = o.batch, micro_batch = 0, lr = 1e-4, ema = { 0.9999 },
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
  function self.costs(rates) return core.bench_train_costs({ model = model, diffusion = diffusion, batch = o.batch }, rates) end
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

function makers.forward(o, model)
  local self = { passes = 1, rows = 1, title = "forward" }
  pass_part(self, o, model, false)
  self.open, self.step = self.open_pass, self.run_pass
  return self
end

function makers.sample(o, model)
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

-- --- measuring ---

local function new_line(total, per, unit)
  return progress.new { total = total, per = per, unit = unit, now = core.clock, tty = core.isatty(), quiet = not core.isatty() }
end

local function rates_of(o, device, kinds)
  local rates, line = {}, new_line(#kinds, 1, "rates")
  for i, kind in ipairs(kinds) do
    if interrupt.asked() then break end
    line:update(i - 1, kind)
    rates[kind] = core.bench_rate { device = device, kind = kind, seconds = o.seconds }
  end
  line:clear()
  return rates
end

-- Of the sorted list, at part (0 … 1) of the way.
local function quantile(sorted, part)
  local at = 1 + part * (#sorted - 1)
  local low = math.floor(at)
  local high = math.min(low + 1, #sorted)
  return sorted[low] + (at - low) * (sorted[high] - sorted[low])
end

local function summary(list)
  table.sort(list)
  return {
    median = quantile(list, 0.5), lower = quantile(list, 0.25), upper = quantile(list, 0.75), least = list[1], most = list[#list],
    samples = #list,
  }
end

-- Runs f; a lack of memory is told as the batch's.
local function fitting(o, f)
  local ok, message = pcall(f)
  if ok then return end
  message = tostring(message)
  if message:find "arena needs" or message:find "out of memory" then
    refuse("a batch of %d does not fit; a smaller --batch may. %s", o.batch, message)
  end
  error(message, 0)
end

-- Runs the first step, warm-up, the timed steps and the profiled ones; what a Ctrl-C cuts off is left out. -> seconds of a step by
-- sample; a profile: rows of ops, steps that they are of, seconds of each
local function run_steps(o, runner, result)
  local first, last = 1 + o.warmup, 1 + o.warmup + o.steps
  local per = (result.device == "cpu" or o.work == "train") and 1 or math.max(1, o.steps // 10)
  local profiled = o.profile and math.min(o.steps, 10) or 0
  local line = new_line(last + profiled, o.batch, "images")
  fitting(o, function()
    runner.open()
    runner.step(1)
    result.startup = core.age()
    stir(runner.model)
  end)
  local done, times = 1, {}
  while done < last and not interrupt.asked() do
    line:update(done, done < first and "warm-up" or times[1] and ("%.4g ms"):format(1000 * times[#times]))
    local n = math.min(done < first and 1 or per, last - done)
    local seconds = runner.step(n)
    if done >= first then times[#times + 1] = seconds / n end
    done = done + n
  end
  result.memory = select(3, core.bench_device(result.device)) or core.peak_resident()
  local profile
  if profiled > 0 and not interrupt.asked() then
    line:update(done, "by operation")
    local rows, seconds = runner.profile(profiled)
    profile = { rows = rows, steps = profiled, wall = seconds / profiled }
  end
  line:clear()
  if interrupt.asked() then result.interrupted = ("%d of %d steps were timed"):format(math.max(0, done - first), o.steps) end
  return times, profile
end

-- The table: what a profile's ops took, and what they ask for.
local function operations(result, runner, profile, costs, rates)
  local limit, list = {}, {}
  for _, c in ipairs(costs) do limit[c.op] = c.limit end
  local sum = { seconds = 0, limit = 0, calls = 0, macs = 0, bytes = 0 }
  local function add(row)
    list[#list + 1] = row
    for key in pairs(sum) do sum[key] = sum[key] + (row[key] or 0) end
  end
  for _, r in ipairs(profile.rows) do
    local n = profile.steps
    add { op = r.op, seconds = r.seconds / n, calls = r.calls // n, limit = limit[r.op], macs = r.macs, bytes = r.bytes }
  end
  local left = math.max(0, profile.wall - sum.seconds)
  if runner.rest then
    local bytes = runner.rest()
    add { op = runner.rest_name, seconds = left, calls = 1, limit = bytes / rates.copy, macs = 0, bytes = bytes }
  elseif runner.rest_name then
    add { op = runner.rest_name, seconds = left, calls = 1 }
  end
  table.sort(list, function(a, b) return a.seconds > b.seconds or (a.seconds == b.seconds and a.op < b.op) end)
  for _, row in ipairs(list) do
    row.share = row.seconds / sum.seconds
    row.ratio = row.limit and row.limit > 0 and row.seconds / row.limit or nil
  end
  sum.ratio = sum.seconds / sum.limit
  result.operations, result.sum = list, sum
end

-- What follows from a step's seconds. Multiply-adds are those of the model's own pass: nothing that is computed again counts.
local function speeds(o, result, runner, seconds)
  local macs = runner.model:flops({ batch = o.batch }).macs * runner.rows * runner.passes
  result.steps_per_image = o.work == "sample" and SAMPLING_STEPS or 1
  result.images_per_second = o.batch / seconds / result.steps_per_image
  result.flops_per_second = 2 * macs / seconds
end

local function start(o)
  local model = model_of(o)
  local runner = makers[o.work](o, model)
  runner.model = model
  return runner, {
    name = o.work, title = runner.title, model = o.model, parameters = (model:count()), precision = o.precision,
    residual = o.residual or "f32", routing = o.routing, batch = o.batch, device = model:device(),
  }
end

-- The kinds of rates that the figures are compared with; without a name, or for themselves, all of them.
local function kinds_for(o, device)
  local kind, tf32 = core.bench_device(device)
  tf32 = tf32 or (o.precision == "tf32" and kind ~= "cpu")
  local f32 = tf32 and "tf32" or "f32"
  if o.name == nil or o.name == "rates" then return tf32 and { "f32", "tf32", "bf16", "copy" } or { "f32", "bf16", "copy" } end
  if o.profile then return { f32, "bf16", "copy" } end
  return { o.precision == "bf16" and "bf16" or f32 }
end

local function machine_of(device)
  local n = sluice.threads()
  if device == "cpu" then return ("%s, %d thread%s"):format(core.machine(device).cpu, n, n == 1 and "" or "s") end
  for _, line in ipairs(core.doctor()) do
    local name = line:match("^" .. device:gsub("%p", "%%%0") .. "%s+([^,]+),")
    if name then return name end
  end
  return device
end

-- Of a card that runs at its data sheet's rate: no smaller form, no part of one.
local function nominal_of(machine)
  if machine:find "PCIe" or machine:find "NVL" or machine:find "MIG" then return nil end
  for name, sheet in pairs(SHEETS) do
    if machine:find(name, 1, true) then return sheet.bf16 end
  end
end

-- rates: measured, or nil; machine: in whose name the nominal rate is looked for.
local function compare(o, result, rates, machine)
  local product = o.precision == "bf16" and "bf16" or rates and rates.tf32 and "tf32" or "f32"
  local rate, nominal = rates and rates[product], o.precision == "bf16" and nominal_of(machine)
  if rate then result.product, result.share_of_product = product, result.flops_per_second / rate.median end
  if nominal then result.nominal, result.share_of_nominal = nominal, result.flops_per_second / nominal end
end

-- Everything at the limit of given rates; nothing is run.
local function computed(o)
  o.batch = o.batch or (o.work == "train" and 256 or 64)
  local runner, result = start(o)
  local rows = runner.costs(o.limits)
  local wall = runner.rest and runner.rest() / o.limits.copy or 0
  for _, r in ipairs(rows) do
    r.seconds, r.calls = r.limit, r.nodes
    wall = wall + r.limit
  end
  operations(result, runner, { rows = rows, steps = 1, wall = wall }, rows, o.limits)
  result.computed, result.limits = o.limits_name, o.limits
  speeds(o, result, runner, result.sum.seconds)
  compare(o, result, nil, o.limits_name:upper())
  return result
end

local function measured(o)
  local cpu = core.bench_device(o.device) == "cpu"
  o.batch = o.batch or (not cpu and (o.work == "train" and 256 or 64)) or (o.name and 8 or 32)
  o.steps, o.warmup = o.steps or (cpu and 5 or 50), o.warmup or (cpu and 1 or 10)
  local runner, result = start(o)
  local times, profile = run_steps(o, runner, result)
  if not times[1] then error("interrupted before anything was timed", 0) end
  result.step = summary(times)
  speeds(o, result, runner, result.step.median)
  runner.close()
  collectgarbage() -- what it took, before matrices take it
  result.rates = rates_of(o, result.device, kinds_for(o, result.device))
  if interrupt.asked() then result.interrupted = result.interrupted or "not all rates were measured" end
  result.machine = machine_of(result.device)
  compare(o, result, result.rates, result.machine)
  local r = result.rates
  if profile and r.copy then
    local rates = { f32 = (r.tf32 or r.f32).median, bf16 = r.bf16.median, copy = r.copy.median }
    if o.work == "sample" then profile.wall = result.step.median end -- the profile is of the network alone
    operations(result, runner, profile, runner.costs(rates), rates)
  end
  return result
end

-- given: name (rates, train, sample, forward; nil: rates, and training of a small model), device, model, batch, precision, residual,
-- routing, cfg, steps, warmup, seconds (of one sample of a rate), profile, limits. -> a table of figures in seconds, bytes, FLOP/s
function bench.run(given)
  local o = checked(given)
  if o.limits then return computed(o) end
  if o.name ~= "rates" then return measured(o) end
  local device = core.bench_device(o.device)
  local result = { name = "rates", device = device, machine = machine_of(device), rates = rates_of(o, device, kinds_for(o, device)) }
  if interrupt.asked() then result.interrupted = "not all rates were measured" end
  return result
end

bench.lines = require("sluice.bench_text").lines

bench.options = OPTIONS

return bench
