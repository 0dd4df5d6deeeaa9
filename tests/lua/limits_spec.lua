-- Sizes that no number or no memory holds are refused in words; nothing overflows on the way.
local sluice = require "sluice"

local huge = { 1 << 31, (1 << 32) + 1, 1 << 40, 1 << 52, 1 << 61, 1 << 62, math.maxinteger, math.mininteger }

local function refused(f, what)
  local ok, message = pcall(f)
  assert(not ok, what)
  assert(#tostring(message) > 10 and not tostring(message):match "INTERNAL", what .. ": " .. tostring(message))
end

local function small(more)
  local o = { input = { 1, 8, 8 }, classes = 3, patch = 4, hidden = 16, depth = 2, heads = 2 }
  for k, v in pairs(more or {}) do o[k] = v end
  return o
end

local function unet(more)
  local o = { image_size = 32, model_channels = 32, num_res_blocks = 1, channel_mult = { 1, 2 }, attention_resolutions = { 16 } }
  for k, v in pairs(more or {}) do o[k] = v end
  return o
end

describe("a size out of all proportion", function()
  it("of a DiT", function()
    for _, n in ipairs(huge) do
      for _, name in ipairs { "patch", "hidden", "depth", "heads" } do
        refused(function() sluice.dit(small { [name] = n }) end, name .. " = " .. n)
      end
      for i = 1, 3 do
        local input = { 1, 8, 8 }
        input[i] = n
        refused(function() sluice.dit(small { input = input }) end, ("input[%d] = %d"):format(i, n))
      end
    end
    for _, ratio in ipairs { 1e18, 1e300, 1 / 0, 0 / 0, -1 } do
      refused(function() sluice.dit(small { mlp_ratio = ratio }) end, "mlp_ratio = " .. ratio)
    end
  end)

  it("of an ADM", function()
    for _, n in ipairs(huge) do
      for _, name in ipairs { "in_channels", "out_channels", "model_channels", "num_res_blocks" } do
        refused(function() sluice.adm(unet { [name] = n }) end, name .. " = " .. n)
      end
      refused(function() sluice.adm(unet { attention_resolutions = { n } }) end, "attention_resolutions = " .. n)
    end
    for _, n in ipairs { 1e30, 1 / 0, 0 / 0 } do
      refused(function() sluice.adm(unet { attention_resolutions = { n } }) end, "attention_resolutions = " .. n)
      refused(function() sluice.adm(unet { channel_mult = { n, 2 } }) end, "channel_mult = " .. n)
    end
  end)

  it("of a batch", function()
    local model, diffusion = sluice.dit(small()), sluice.diffusion {}
    for _, n in ipairs(huge) do
      refused(function() sluice.trainer { model = model, diffusion = diffusion, batch = n } end, "batch = " .. n)
      refused(function() model:flops { batch = n } end, "flops of " .. n)
      refused(function() sluice.sample { model = model, diffusion = diffusion, n = n, steps = 1 } end, "n = " .. n)
    end
  end)
end)
