local sluice = require "sluice"
local golden = require "golden"

local function compare_gradients(model, f)
  local squares = 0
  for name, g in pairs(f) do
    if name:match "^grad%." then squares = squares + g:norm():item() ^ 2 end
  end
  assert(golden.gradients(model, f, math.sqrt(squares)) > 10)
end

local function compare_activations(model, f)
  local keep, names = {}, {}
  for name in pairs(f) do
    local act = name:match "^act%.(.*)"
    if act then
      names[#names + 1] = name
      keep[#keep + 1] = act:gsub("^block(%d+)$", "blocks.%1")
    end
  end
  local out, kept = model:forward(f["in.x"], f["in.t"], f["in.y"], { keep = keep })
  golden.close(out, f.out, 2e-5, "out")
  golden.close_rows(out, f.out, 5e-5, "out")
  for i, name in ipairs(names) do
    if name == "act.t_freq" then
      golden.close_elements(kept[keep[i]], f[name], 1e-4, 0, name)
    else
      golden.close(kept[keep[i]], f[name], 2e-5, name)
    end
  end
end

for _, file in ipairs { "dit_vanilla", "dit_dtr", "dit_random", "dit_uncond_dtr" } do
  describe("golden " .. file, function()
    local f, config = golden.open(file)
    local model = golden.dit(config, f)

    it("has the activations and the output", function() compare_activations(model, f) end)
    it("has every gradient", function() compare_gradients(model, f) end)

    if f["cfg.out"] then
      it("guides", function()
        local channels = math.tointeger(tonumber((config.cfg_channels:match "first (%d+)")))
        local out = model:forward_cfg(f["cfg.in.x"], f["cfg.in.t"], f["cfg.in.y"], config.cfg_scale, { channels = channels })
        golden.close(out, f["cfg.out"], 2e-5, "cfg.out")
      end)
    end

    if f.active_mask then
      it("uses the mask's rows", function()
        local table_of_t = sluice.routing.dtr { alpha = config.routing.alpha, beta = config.routing.beta }
          :table(config.taskcount, config.model.hidden_size, 1)
        golden.equal(table_of_t:gather(f["in.t"]), f.active_mask, "active_mask")
      end)
    end
  end)
end

describe("golden dit_info", function()
  local f = golden.open "dit_info"

  it("has the parameter counts", function()
    for name, counts in pairs(f) do
      local size, classes = name:match "^params%.(.-)%.classes(%d+)$"
      if size then
        local all, trainable = sluice.dit { size, input = { 4, 32, 32 }, classes = math.tointeger(classes) }:count()
        assert.same(counts:totable(), { all, trainable }, name)
      end
    end
  end)

  it("has the position embeddings", function()
    for name, ref in pairs(f) do
      local gh, gw, d = name:match "^pos_embed%.(%d+)x(%d+)x(%d+)$"
      if gh then
        local model = sluice.dit {
          input = { 4, 2 * gh, 2 * gw }, patch = 2, hidden = math.tointeger(d), depth = 1, heads = 3, classes = 1,
        }
        local rows = #ref
        golden.close_elements(model:state().pos_embed[1]:slice(1, 1, rows), ref, 1e-6, 1e-6, name)
      end
    end
  end)

  it("has the timestep embeddings", function()
    for name, ref in pairs(f) do
      local d = name:match "^t_embed%.dim(%d+)$"
      if d then
        local mine = sluice.timestep_embedding(f[name .. ".t"], math.tointeger(d))
        golden.close_elements(mine, ref, 1e-4, 0, name)
      end
    end
  end)
end)
