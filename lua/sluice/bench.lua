-- sluice bench: how fast a device is, how fast a model is on it, and how far its operations are from what the device can do.
local bench_options = require "sluice.bench_options"
local bench_work = require "sluice.bench_work"
local core = require "sluice.core"
local interrupt = require "sluice.interrupt"
local progress = require "sluice.progress"
local sluice = require "sluice"

local SAMPLING_STEPS = 250 -- that images per second are told for

local bench = {}

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
    bench_options.refuse("a batch of %d does not fit; a smaller --batch may. %s", o.batch, message)
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
    bench_work.stir(runner.model)
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
  local model = bench_work.model(o)
  local runner = bench_work.makers[o.work](o, model)
  runner.model = model
  return runner, {
    name = o.work, title = runner.title, model = o.model, parameters = (model:count()), precision = o.precision,
    residual = o.residual or "f32", routing = o.routing, recompute = o.recompute, batch = o.batch,
    device = model:device(),
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
  for name, sheet in pairs(bench_options.sheets) do
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
-- routing, recompute, cfg, steps, warmup, seconds (of one sample of a rate), profile, limits
-- -> a table of figures in seconds, bytes, FLOP/s
function bench.run(given)
  local o = bench_options.checked(given)
  if o.limits then return computed(o) end
  if o.name ~= "rates" then return measured(o) end
  local device = core.bench_device(o.device)
  local result = { name = "rates", device = device, machine = machine_of(device), rates = rates_of(o, device, kinds_for(o, device)) }
  if interrupt.asked() then result.interrupted = "not all rates were measured" end
  return result
end

bench.lines = require("sluice.bench_text").lines

return bench
