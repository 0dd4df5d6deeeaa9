-- Sluice's half of dit_torch.py: one command a line on standard input, one answer a line.
--   setup MODEL BATCH FILE   makes the model, writes weights and inputs to FILE
--   forward | train          one of them, timed: seconds
--   output FILE              writes the output of a forward pass
--   profile                  seconds per op of one training step, a line each, then "end"
local sluice = require "sluice"
local core = require "sluice.core"

local model, trainer, x, t, y, noise, out, quick

local function random_integers(n, top, seed)
  local list = {}
  math.randomseed(seed)
  for i = 1, n do list[i] = math.random(0, top - 1) end
  return sluice.tensor(list, { dtype = "i64" })
end

local commands = {}

function commands.setup(name, batch, file)
  batch = math.tointeger(batch)
  quick = name == "quickstart"
  if quick then
    model = sluice.dit {
      input = { 1, 28, 28 }, patch = 7, hidden = 128, depth = 4, heads = 4, classes = 10, learn_sigma = false,
      routing = sluice.routing.dtr {},
    }
  else
    model = sluice.dit { name, input = { 4, 32, 32 }, classes = 1000, routing = sluice.routing.dtr {} }
  end
  model:init(1)
  -- a fresh DiT is the identity: give the zero-initialised parts something to do
  local state, seed = {}, 100
  for key, p in pairs(model:state()) do
    seed = seed + 1
    state[key] = key == "pos_embed" and p or p + sluice.randn(p:shape(), { seed = seed }) * 0.02
  end
  model:load_state(state)
  local shape = quick and { batch, 1, 28, 28 } or { batch, 4, 32, 32 }
  x, noise = sluice.randn(shape, { seed = 2 }), sluice.randn(shape, { seed = 3 })
  t, y = random_integers(batch, 1000, 4), random_integers(batch, quick and 10 or 1000, 5)
  local all = { ["in.x"] = x, ["in.t"] = t, ["in.y"] = y, ["in.noise"] = noise }
  for key, p in pairs(model:state()) do all[key] = p end
  assert(sluice.io.save(file, all, {}))
  return "ok"
end

function commands.forward()
  local start = core.clock()
  out = model:forward(x, t, y)
  return ("%.6f"):format(core.clock() - start)
end

function commands.train()
  if not trainer then
    local o = { model = model, batch = #x, ema = { 0.9999 }, ema_warmup = false }
    o.diffusion = sluice.diffusion { schedule = "cosine", predict = quick and "x0" or "eps", variance = quick and "fixed_small" or "learned" }
    if quick then
      o.clip = 1
      o.weight = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end):table(o.diffusion)
    end
    trainer = sluice.trainer(o)
  end
  local start = core.clock()
  trainer:step_on { x0 = x, t = t, y = y, noise = noise }
  return ("%.6f"):format(core.clock() - start)
end

function commands.output(file)
  assert(sluice.io.save(file, { out = out }, {}))
  return "ok"
end

function commands.profile()
  trainer:profile() -- from now on
  commands.train()
  local lines = {}
  for _, row in ipairs(trainer:profile()) do lines[#lines + 1] = ("%s %.6f %d"):format(row.op, row.seconds, row.calls) end
  lines[#lines + 1] = "end"
  return table.concat(lines, "\n")
end

for line in io.lines() do
  local words = {}
  for w in line:gmatch "%S+" do words[#words + 1] = w end
  if words[1] == "quit" then break end
  print(commands[words[1]](table.unpack(words, 2)))
  io.stdout:flush()
end
