-- What tests/device.sh asks of a device beside the specs: sluice run tests/lua/device_checks.lua CHECK [PRECISION]
--   attention   forward and backward on the shapes of DiT-S and DiT-XL against the CPU, with times
--   recording   a small DiT is trained and sampled from; the log would tell what cannot be recorded
--   digest      of the weights after six training steps: two processes must give the same
local sluice = require "sluice"
local core = require "sluice.core"

local device = sluice.dit { input = { 1, 4, 4 }, patch = 2, hidden = 8, depth = 1, heads = 1, classes = 1 }:device()

local function seconds(n, f)
  f()
  f()
  core.bench_wait(device)
  local start = core.clock()
  for _ = 1, n do f() end
  core.bench_wait(device)
  return (core.clock() - start) / n
end

local function rel(a, b)
  a, b = a:to "cpu":to "f32", b:to "cpu":to "f32"
  return (a - b):norm():item() / b:norm():item()
end

local checks = {}

-- Heads of 64 and of 72 channels, 256 tokens; f32 and bf16.
function checks.attention()
  local bad = 0
  for _, case in ipairs { { "f32", 6, 64, 1e-4 }, { "bf16", 6, 64, 2e-2 }, { "bf16", 16, 72, 2e-2 } } do
    local dtype, heads, channels, limit = table.unpack(case)
    local here = {}
    for i, name in ipairs { "q", "k", "v", "up" } do here[name] = sluice.randn({ 2, heads, 256, channels }, { seed = i }) end
    local function run(p)
      local up = p.up
      return sluice.value_and_grad(function(x)
        return (sluice.attention(x.q, x.k, x.v):to "f32" * up):sum()
      end, { q = p.q, k = p.k, v = p.v })
    end
    local there = { up = here.up:to(device) }
    for _, name in ipairs { "q", "k", "v" } do there[name] = here[name]:to(dtype):to(device) end
    local out = rel((sluice.attention(there.q, there.k, there.v)), (sluice.attention(here.q, here.k, here.v)))
    local _, grads = run(there)
    local _, want = run(here)
    local off = 0
    for name, g in pairs(want) do off = math.max(off, rel(grads[name], g)) end
    local t = seconds(10, function() run(there) end)
    local ok = out <= limit and off <= limit
    bad = bad + (ok and 0 or 1)
    print(("attention %s, %d heads of %d: forward off by %.2g, gradients by %.2g, limit %g; %.0f us for both, 2 images%s"):format(dtype,
      heads, channels, out, off, limit, 1e6 * t, ok and "" or "  WRONG"))
  end
  return bad == 0
end

local function small(precision)
  return sluice.dit { "DiT-S/2", input = { 4, 32, 32 }, classes = 1000, routing = sluice.routing.dtr {}, precision = precision }:init(1)
end

local function trainer_of(model)
  return sluice.trainer {
    model = model, diffusion = sluice.diffusion {}, batch = 16, ema = { 0.999 }, seed = 2,
    data = sluice.data.tensors { images = sluice.randn({ 64, 4, 32, 32 }, { seed = 3 }), labels = sluice.arange(64) },
  }
end

-- Times of what is replayed from a recording, once it ran twice; of a tiny model launched piece by piece they would be several times more.
function checks.recording(precision)
  local model = small(precision or "bf16")
  local trainer = trainer_of(model)
  local step = seconds(20, function() trainer:step() end)
  local sampler = sluice.sampler { model = model, diffusion = sluice.diffusion {}, n = 1, labels = { 1 }, cfg = 1.5, seed = 1 }
  local draw = seconds(50, function() sampler:step() end)
  print(("DiT-S/2 %s: a training step of 16 images %.2f ms, a guided sampling step of one %.3f ms"):format(precision or "bf16",
    1e3 * step, 1e3 * draw))
  return true
end

function checks.digest(precision)
  local trainer = trainer_of(small(precision or "bf16"))
  local loss
  for _ = 1, 6 do loss = trainer:step().loss end
  print(("digest %s %s, loss %.9g"):format(core.digest(trainer:flat "params"), core.digest(trainer:flat "ema.0"), loss))
  return loss == loss
end

local check = checks[arg[1]] or error(("device_checks: there is no check %s"):format(tostring(arg[1])), 0)
os.exit(check(arg[2]))
