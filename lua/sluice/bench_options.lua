-- The options of sluice bench: which belong to what, and their defaults.
local fields = require "sluice.fields"

local bench_options = {}

bench_options.works = { "rates", "train", "sample", "forward" }
bench_options.names = {
  "name", "device", "model", "batch", "precision", "residual", "routing", "recompute", "cfg", "steps", "warmup", "seconds", "profile",
  "limits",
}
-- Which of them belong to what, beside the device; "all" is without a name.
local TAKES = {
  rates = " seconds ",
  all = " batch precision residual routing recompute steps warmup seconds profile ",
  train = " model batch precision residual routing recompute steps warmup seconds profile limits ",
  sample = " model batch precision residual routing cfg steps warmup seconds profile limits ",
  forward = " model batch precision residual routing steps warmup seconds profile limits ",
}

function bench_options.refuse(text, ...)
  error(("bench: " .. text):format(...), 0)
end

local function who_takes(key)
  local list = {}
  for _, name in ipairs(bench_options.works) do
    if TAKES[name]:find(" " .. key .. " ", 1, true) then list[#list + 1] = name end
  end
  return table.concat(list, ", ")
end

-- Products and memory as the makers' data sheets have them (dense, FLOP/s; bytes/s). Large products reach about eight tenths of
-- that, copies nine.
bench_options.sheets = {
  H100 = { bf16 = 990e12, tf32 = 495e12, f32 = 67e12, copy = 3.35e12 },
  H200 = { bf16 = 990e12, tf32 = 495e12, f32 = 67e12, copy = 4.8e12 },
  A100 = { bf16 = 312e12, tf32 = 156e12, f32 = 19.5e12, copy = 2.04e12 },
}

-- "H100", or "790,3000": TFLOP/s of any product, GB/s.
local function limits_of(text, tf32)
  local sheet = bench_options.sheets[text:upper()]
  if sheet then return { bf16 = 0.8 * sheet.bf16, f32 = 0.8 * (tf32 and sheet.tf32 or sheet.f32), copy = 0.9 * sheet.copy } end
  local flops, bytes = text:match("^([%d.]+),([%d.]+)$")
  flops, bytes = tonumber(flops), tonumber(bytes)
  if not flops or not bytes or flops <= 0 or bytes <= 0 then
    bench_options.refuse("limits is %s, expected A100, H100, H200 or TFLOPS,GBYTES as in 790,3000", text)
  end
  return { bf16 = flops * 1e12, f32 = flops * 1e12, copy = bytes * 1e9 }
end

local function at_least(o, key, least)
  if o[key] ~= nil and (math.type(o[key]) ~= "integer" or o[key] < least) then
    bench_options.refuse("%s is %s, expected an integer, at least %d", key, tostring(o[key]), least)
  end
end

local function one_of(o, key, words)
  for _, word in ipairs(words) do
    if o[key] == nil or o[key] == word then return end
  end
  bench_options.refuse("%s is %s, expected %s", key, tostring(o[key]), table.concat(words, " or "))
end

-- A copy of the options with the defaults that do not depend on the device.
function bench_options.checked(given)
  local o = fields.merged(fields.check(given, bench_options.names, "bench", 0))
  local takes = TAKES[o.name or "all"]
  if not takes or o.name == "all" then
    bench_options.refuse("there is no %s%s", tostring(o.name), fields.hint(tostring(o.name), bench_options.works))
  end
  for _, key in ipairs(bench_options.names) do
    if o[key] ~= nil and key ~= "name" and key ~= "device" and not takes:find(" " .. key .. " ", 1, true) then
      bench_options.refuse("%s is for %s", key, who_takes(key))
    end
  end
  at_least(o, "batch", 1)
  at_least(o, "steps", 1)
  at_least(o, "warmup", 0)
  one_of(o, "precision", { "f32", "tf32", "bf16" })
  one_of(o, "residual", { "f32", "bf16" })
  one_of(o, "routing", { "dtr", "none" })
  one_of(o, "recompute", { "auto", "none", "light", "blocks" })
  if o.limits then
    for _, key in ipairs { "steps", "warmup", "seconds" } do
      if o[key] ~= nil then bench_options.refuse("%s is given with limits, which run nothing", key) end
    end
    o.limits_name, o.limits = o.limits, limits_of(o.limits, o.precision == "tf32")
  end
  o.work = o.name or "train" -- what is run
  o.device, o.model = o.device or "auto", o.model or (o.name and "DiT-S/2" or "quickstart")
  o.precision, o.routing, o.seconds, o.cfg = o.precision or "f32", o.routing or "dtr", o.seconds or 0.2, o.cfg or 1
  return o
end

return bench_options
