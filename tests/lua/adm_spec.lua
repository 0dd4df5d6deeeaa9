-- ADM as people meet it: presets, options, refusals, and all that a model must do besides giving the reference's numbers.
local sluice = require "sluice"
local files = require "files"
local golden = require "golden"

local dir
setup(function() dir = files.temporary() end)
teardown(function() os.execute("rm -r " .. dir) end)

local function small(o)
  local options = {
    image_size = 8, in_channels = 1, model_channels = 32, num_res_blocks = 1, channel_mult = { 1, 2 }, attention_resolutions = { 4 },
    num_head_channels = 16, use_scale_shift_norm = true, resblock_updown = true, classes = 3, class_dropout = 0.1, timesteps = 100,
  }
  for k, v in pairs(o or {}) do options[k] = v end
  return sluice.adm(options)
end

-- Every weight moved from where init leaves it, so that no path is dead.
local function disturbed(model)
  local state = {}
  model:init(1)
  for name, p in pairs(model:state()) do
    state[name] = p:to "cpu" + sluice.randn(p:shape(), { seed = #name * 31 }) * 0.05
  end
  model:load_state(state)
  return model
end

local function batch(model, n)
  local info = model:info()
  local x = sluice.randn({ n, info.in_channels, info.height, info.width }, { seed = 5 })
  local t, y = {}, {}
  for i = 1, n do t[i], y[i] = i * 17 % info.timesteps, i % 3 end
  return x, sluice.tensor(t, { dtype = "i64" }), sluice.tensor(y, { dtype = "i64" })
end

describe("sluice.adm", function()
  it("has the parameters of guided-diffusion's models", function()
    -- counted from its own UNetModel; 295,904,454 also stands in the literature
    local counts = {
      ["ADM-64"] = 295904454, ["ADM-64-uncond"] = 295136454, ["ADM-128"] = 421529606, ["ADM-256"] = 553838086,
      ["ADM-256-uncond"] = 552814086, ["ADM-512"] = 558997638,
    }
    for name, count in pairs(counts) do assert.equal(count, (sluice.adm { name }:count()), name) end
    assert.equal(295904454 + 768, (sluice.adm { "ADM-64", class_dropout = 0.1 }:count())) -- the null class
  end)

  it("counts its multiply-adds", function()
    local macs = sluice.adm { "ADM-64" }:flops().macs / 1e9
    assert(math.abs(macs - 109.7) < 0.01 * 109.7, macs)
  end)

  it("begins as its skip paths alone", function()
    local model = small():init(3)
    local x, t, y = batch(model, 2)
    assert.equal(0, model:forward(x, t, y):abs():max():item())
    for name, p in pairs(model:state()) do
      if name:match "out_layers%.3%.weight$" or name:match "proj_out%.weight$" then assert.equal(0, p:abs():max():item(), name) end
      if name:match "in_layers%.2%.weight$" then
        local bound = 1 / math.sqrt(p:shape()[2] * 9)
        local top = p:abs():max():item()
        assert(top <= bound and top > 0.99 * bound, name)
      end
    end
  end)

  it("drops while it trains, and only then", function()
    local plain, dropping = disturbed(small()), disturbed(small { dropout = 0.5 })
    local x, t, y = batch(plain, 4)
    golden.equal(plain:forward(x, t, y), dropping:forward(x, t, y), "forward")
    local function loss(model)
      local trainer = sluice.trainer { model = model, batch = 4, diffusion = sluice.diffusion { steps = 100 } }
      return trainer:step_on { x0 = x, t = t, y = y, noise = x }.loss
    end
    assert(math.abs(loss(plain) - loss(dropping)) > 1e-4)
    assert.equal(loss(disturbed(small { dropout = 0.5 })), loss(disturbed(small { dropout = 0.5 })))
  end)

  it("gives the same gradients where blocks are computed again", function()
    local function weights(recompute)
      local model = disturbed(small { dropout = 0.3, routing = sluice.routing.dtr {} })
      local x, t, y = batch(model, 4)
      local trainer = sluice.trainer { model = model, batch = 4, diffusion = sluice.diffusion { steps = 100 }, recompute = recompute }
      trainer:step_on { x0 = x, t = t, y = y, noise = x }
      return trainer:array "exp_avg", trainer:memory()
    end
    local kept, much = weights(false)
    local again, little = weights(true)
    for name, g in pairs(kept) do golden.equal(again[name], g, name) end
    assert(little < much, ("%s and %s bytes"):format(little, much))
  end)

  it("drops the same elements in whatever parts a batch is taken", function()
    local function moments(micro)
      local model = disturbed(small { dropout = 0.3, routing = sluice.routing.dtr {} })
      local x, t, y = batch(model, 4)
      local trainer = sluice.trainer { model = model, batch = 4, micro_batch = micro, diffusion = sluice.diffusion { steps = 100 } }
      return trainer:step_on { x0 = x, t = t, y = y, noise = x }.loss, trainer:array "exp_avg"
    end
    local loss, whole = moments(4)
    local loss_of_parts, parts = moments(2)
    assert(math.abs(loss - loss_of_parts) <= 1e-5 * loss)
    local all, off = 0, 0
    for name, g in pairs(whole) do
      all = all + g:norm():item() ^ 2
      off = off + (parts[name] - g):norm():item() ^ 2
    end
    assert(math.sqrt(off / all) < 1e-4, math.sqrt(off / all))
  end)

  it("takes any routing, and puts the mask where it is told to", function()
    local seen = {}
    local custom = sluice.routing.custom(function(t, T, C, block, blocks)
      seen[block] = { C = C, T = T, blocks = blocks }
      return 1, C - t % 2
    end)
    local plain = disturbed(small())
    local x, t, y = batch(plain, 3)
    local base = plain:forward(x, t, y)
    local outs = {}
    for _, at in ipairs { "in_silu", "in_norm", "out_norm", "both" } do
      local model = disturbed(small { routing = custom, mask_at = at })
      outs[at] = model:forward(x, t, y)
      assert.equal(model:info().routed_blocks, #seen)
      assert(golden.rel(outs[at], base) > 1e-3, at)
    end
    golden.equal(outs.in_norm, outs.in_silu, "in_norm")
    assert(golden.rel(outs.out_norm, outs.in_silu) > 1e-3)
    assert(golden.rel(outs.both, outs.in_silu) > 1e-3)
    -- blocks: in both, every residual block has two places
    assert.same({ C = 32, T = 100, blocks = #seen }, seen[1])
    assert.same({ C = 32, T = 100, blocks = #seen }, seen[2])
    local random = disturbed(small { routing = sluice.routing.random { beta = 0.5 } })
    assert(golden.rel(random:forward(x, t, y), base) > 1e-3)
  end)

  it("comes back from a checkpoint, custom masks included", function()
    local narrowing = sluice.routing.custom(function(t, T, C) return 1 + t * (C - 8) // T, C end)
    local model = disturbed(small { routing = narrowing, mask_at = "both" })
    local x, t, y = batch(model, 3)
    local path = dir .. "/adm.safetensors"
    require("sluice.checkpoint").save(path, {
      model = model, diffusion = sluice.diffusion { steps = 100 }, weights = model:flatten(model:state()), sample = { n = 1 },
    })
    local back = sluice.load(path)
    golden.equal(back.model:forward(x, t, y), model:forward(x, t, y), "forward")
    local told, was = back.model:describe(), model:describe()
    assert.equal("table", told.routing.kind)
    told.routing, was.routing = nil, nil
    assert.same(was, told)
  end)

  it("guides with its null class, and says when there is none", function()
    local model = disturbed(small())
    local x, t = batch(model, 4)
    local y = sluice.tensor({ 1, 2, 3, 3 }, { dtype = "i64" })
    assert.same({ 4, 2, 8, 8 }, model:forward_cfg(x, t, y, 2):shape())
    golden.equal(model:forward(x, t), model:forward(x, t, 3), "y = nil")
    local bare = small { class_dropout = 0 }
    assert.has_error(function() bare:forward(x, t) end)
    local none = sluice.adm {
      image_size = 8, in_channels = 1, model_channels = 32, num_res_blocks = 1, channel_mult = { 1 }, attention_resolutions = {},
      timesteps = 100,
    }
    assert.has_error(function() none:forward(x, t, y) end)
    assert.same({ 4, 2, 8, 8 }, none:forward(x, t):shape())
  end)

  it("is traced, drawn and kept by name", function()
    local model = disturbed(small())
    local x, t, y = batch(model, 2)
    local names = {}
    model:trace(x, t, y, function(v) names[v.name] = v end)
    for _, name in ipairs { "input_blocks.1.0.in_layers.0", "middle_block.1.softmax", "output_blocks.1" } do
      assert(names[name], name)
      assert.equal(0, names[name].nonfinite)
    end
    assert.truthy(model:dot():find("output_blocks.0.0.emb_layers.1", 1, true))
    local _, kept = model:forward(x, t, y, { keep = { "emb", "middle_block" } })
    assert.same({ 2, 64, 4, 4 }, kept.middle_block:shape())
    assert.has_error(function() model:forward(x, t, y, { keep = { "blocks.0" } }) end)
  end)

  it("computes in bf16, but adds in f32", function()
    local routing = sluice.routing.dtr {}
    local model, half = disturbed(small { routing = routing }), disturbed(small { routing = routing, precision = "bf16" })
    local x, t, y = batch(model, 4)
    local out = model:forward(x, t, y)
    local off = golden.rel(half:forward(x, t, y), out)
    assert(off > 1e-5 and off < 3e-2, off)
    local fine, rough = model:gradients(x, t, y, out), half:gradients(x, t, y, out)
    local all, error = 0, 0
    for name, g in pairs(fine) do
      all = all + g:norm():item() ^ 2
      error = error + (rough[name] - g):norm():item() ^ 2
    end
    assert(math.sqrt(error / all) < 5e-2, math.sqrt(error / all))
    assert.has_error(function() small { precision = "bf16", residual = "bf16" } end)
    local ok, message = pcall(sluice.sample, {
      model = model, diffusion = sluice.diffusion { steps = 100 }, n = 1, labels = { 0 }, steps = 2, precision = "bf16", residual = "bf16",
    })
    assert.is_false(ok)
    assert.truthy(message:find "residual", message)
  end)

  it("samples; image k depends neither on n nor on the batch", function()
    local model = disturbed(small { dropout = 0.1 })
    local images = sluice.sample {
      model = model, diffusion = sluice.diffusion { steps = 100 }, n = 3, labels = "balanced", cfg = 2, steps = 4, sampler = "ddim",
      seed = 1,
    }
    assert.same({ 3, 1, 8, 8 }, images:shape())
    local one = sluice.sample {
      model = model, diffusion = sluice.diffusion { steps = 100 }, n = 1, labels = { 0 }, cfg = 2, steps = 4, sampler = "ddim", seed = 1,
    }
    golden.close(one[1], images[1], 1e-5, "image 1 alone")
  end)

  local refusals = {
    { { image_size = false }, "image_size is false" },
    { { channel_mult = { 1, "2" } }, "channel_mult[2] is \"2\", expected a number" },
    { { attention_resolutions = { 2.5 } }, "attention_resolutions[1] is 2.5, expected an integer" },
    { { attention_resolutions = { 7 } }, "attention_resolutions[1] is 7, expected one of the levels' sizes, 8 down to 4" },
    { { mask_at = "out" }, "mask_at is \"out\"" },
    { { num_res_block = 1 }, 'did you mean "num_res_blocks"' },
    { { model_channels = 48 }, "expected a multiple of 32" },
    { { dropout = 2 }, "dropout is 2" },
  }
  for _, r in ipairs(refusals) do
    it("refuses: " .. r[2], function()
      local ok, message = pcall(small, r[1])
      assert.is_false(ok)
      assert.truthy(message:find(r[2], 1, true), message)
    end)
  end

  it("names what is missing", function()
    local function says(o, text)
      local ok, message = pcall(sluice.adm, o)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
    end
    says({}, "image_size is missing")
    says({ "ADM-65" }, "the names are ADM-64, ADM-128, ADM-256 and ADM-512")
    says({ image_size = 64, model_channels = 32, num_res_blocks = 1 }, "attention_resolutions is missing")
    says({ image_size = 48, model_channels = 32, num_res_blocks = 1, attention_resolutions = {} }, "channel_mult is missing")
    says({ 64 }, "expected a name like \"ADM-64\"")
  end)
end)
