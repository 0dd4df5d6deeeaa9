-- Sluice's half of dit_torch.py: one command a line on standard input, one answer a line.
--   setup MODEL BATCH FILE   makes the model, writes weights and inputs to FILE
--   forward | train          one of them, timed: seconds
--   output FILE              writes the output of a forward pass
--   profile                  seconds per op of one training step, a line each, then "end"
local sluice = require "sluice"
local core = require "sluice.core"

local model, trainer, x, t, y, noise, out

local function random_integers(n, top, seed)
  local list = {}
  math.randomseed(seed)
  for i = 1, n do list[i] = math.random(0, top - 1) end
  return sluice.tensor(list, { dtype = "i64" })
end

local commands = {}

function commands.setup(name, batch, file)
  batch = math.tointeger(batch)
  model = sluice.dit { name, input = { 4, 32, 32 }, classes = 1000, routing = sluice.routing.dtr {} }
  model:init(1)
  -- a fresh DiT is the identity: give the zero-initialised parts something to do
  local state, seed = {}, 100
  for key, p in pairs(model:state()) do
    seed = seed + 1
    state[key] = key == "pos_embed" and p or p + sluice.randn(p:shape(), { seed = seed }) * 0.02
  end
  model:load_state(state)
  x, noise = sluice.randn({ batch, 4, 32, 32 }, { seed = 2 }), sluice.randn({ batch, 4, 32, 32 }, { seed = 3 })
  t, y = random_integers(batch, 1000, 4), random_integers(batch, 1000, 5)
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
  trainer = trainer or sluice.trainer {
    model = model, diffusion = sluice.diffusion { schedule = "cosine" }, batch = #x, ema = { 0.9999 }, ema_warmup = false,
  }
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
