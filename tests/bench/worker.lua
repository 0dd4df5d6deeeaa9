-- Sluice's half of peer.py: one command a line on standard input, one answer a line.
--   setup MODEL BATCH FILE   makes the model, writes weights and inputs to FILE
--   forward | train | sample one of them, timed: seconds
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

local models = {
  quickstart = function()
    return sluice.dit {
      input = { 1, 28, 28 }, patch = 7, hidden = 128, depth = 4, heads = 4, classes = 10, learn_sigma = false,
      routing = sluice.routing.dtr {},
    }
  end,
  ["ADM-32"] = function()
    return sluice.adm {
      image_size = 32, model_channels = 64, num_res_blocks = 2, channel_mult = { 1, 2, 2 }, attention_resolutions = { 16, 8 },
      num_head_channels = 32, use_scale_shift_norm = true, resblock_updown = true, use_new_attention_order = true, dropout = 0.1,
      classes = 10, class_dropout = 0.1, routing = sluice.routing.dtr {},
    }
  end,
  ["ADM-64"] = function() return sluice.adm { "ADM-64", class_dropout = 0.1, routing = sluice.routing.dtr {} } end,
}

function commands.setup(name, file_batch, file)
  local batch = math.tointeger(file_batch)
  quick = name == "quickstart"
  local make = models[name]
  model = make and make() or sluice.dit { name, input = { 4, 32, 32 }, classes = 1000, routing = sluice.routing.dtr {} }
  model:init(1)
  -- a fresh model is the identity: give the zero-initialised parts something to do
  local state, seed = {}, 100
  for key, p in pairs(model:state()) do
    seed = seed + 1
    state[key] = key == "pos_embed" and p or p + sluice.randn(p:shape(), { seed = seed }) * 0.02
  end
  model:load_state(state)
  local info = model:info()
  local shape = { batch, info.in_channels, info.height, info.width }
  x, noise = sluice.randn(shape, { seed = 2 }), sluice.randn(shape, { seed = 3 })
  t, y = random_integers(batch, 1000, 4), random_integers(batch, info.classes, 5)
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

-- Six guided ancestral steps.
function commands.sample()
  local labels = y:totable()
  local start = core.clock()
  sluice.sample {
    model = model, diffusion = sluice.diffusion { schedule = "cosine" }, n = #labels, labels = labels, cfg = 1.5, sampler = "ddpm", steps = 6,
    clip = true, seed = 1,
  }
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
