-- What people do with devices, on the one that models take by themselves: SLUICE_DEVICE's, else the first GPU, else the CPU.
-- Everything is held against the CPU. On the CPU itself it must pass too. Sizes are small: the stand-in for a GPU is slow.
local sluice = require "sluice"
local core = require "sluice.core"
local checkpoint = require "sluice.checkpoint"
local files = require "files"
local golden = require "golden"

local function dit(o)
  local options = {
    input = { 2, 8, 8 }, patch = 2, hidden = 48, depth = 2, heads = 2, classes = 5, class_dropout = 0.1, timesteps = 100,
    routing = sluice.routing.dtr {},
  }
  for k, v in pairs(o or {}) do options[k] = v end
  return sluice.dit(options)
end

local function adm(o)
  local options = {
    image_size = 8, in_channels = 2, model_channels = 32, num_res_blocks = 1, channel_mult = { 1, 1 }, attention_resolutions = { 4 },
    num_head_channels = 16, use_scale_shift_norm = true, resblock_updown = true, classes = 5, class_dropout = 0.1, timesteps = 100,
    routing = sluice.routing.dtr {},
  }
  for k, v in pairs(o or {}) do options[k] = v end
  return sluice.adm(options)
end

local device = dit():device()
local on_gpu = device ~= "cpu"

-- Every weight moved from where init leaves it, so that no path is dead; the same for every device and precision.
local function disturbed(model)
  local state = {}
  model:init(1)
  for name, p in pairs(model:state()) do
    state[name] = name == "pos_embed" and p or p:to "cpu" + sluice.randn(p:shape(), { seed = #name * 31 }) * 0.05
  end
  model:load_state(state)
  return model
end

-- The same model on the CPU and on the device.
local function pair(make, o)
  local here = { device = "cpu" }
  for k, v in pairs(o or {}) do here[k] = v end
  return disturbed(make(here)), disturbed(make(o))
end

local function batch(n)
  local t, y = {}, {}
  for i = 1, n do t[i], y[i] = i * 17 % 100, i % 5 end
  return sluice.randn({ n, 2, 8, 8 }, { seed = 5 }), sluice.tensor(t, { dtype = "i64" }), sluice.tensor(y, { dtype = "i64" })
end

local function raises(text, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error, expected: " .. text)
  assert(tostring(message):find(text, 1, true), ("%s\ndoes not hold: %s"):format(message, text))
  return tostring(message)
end

local function near(a, b, limit, what)
  assert(math.abs(a - b) <= limit * math.abs(b), ("%s: %.9g, expected %.9g"):format(what, a, b))
end

-- |a - b| / |b| of all tensors of two tables together.
local function rel_all(a, b)
  local all, off = 0, 0
  for name, t in pairs(b) do
    assert(a[name], name .. " is missing")
    t = t:to "cpu"
    all = all + t:norm():item() ^ 2
    off = off + (a[name]:to "cpu" - t):norm():item() ^ 2
  end
  return math.sqrt(off / all)
end

describe("tensors on " .. device, function()
  local plain = { { 1, 2, 3 }, { 4, 5, 6 } }
  local t = sluice.tensor(plain, { device = device })

  it("are made there", function()
    assert.equal(device, t:device())
    assert.equal(2, #t)
    assert.same(plain, t:totable())
    for name, make in pairs {
      zeros = function(o) return sluice.zeros({ 2, 3 }, o) end, ones = function(o) return sluice.ones({ 3 }, o) end,
      full = function(o) return sluice.full({ 2 }, 7.5, o) end, arange = function(o) return sluice.arange(0, 9, o) end,
      randn = function(o) return sluice.randn({ 40 }, { seed = 3, device = o and o.device }) end,
      rand = function(o) return sluice.rand({ 40 }, { seed = 3, device = o and o.device }) end,
      randint = function(o) return sluice.randint(1, 6, { 40 }, { seed = 3, device = o and o.device }) end,
    } do
      local there, here = make { device = device }, make()
      assert.equal(device, there:device(), name)
      assert.equal(here:dtype(), there:dtype(), name)
      assert.same(here:totable(), there:totable(), name)
    end
    raises("is not here", sluice.zeros, { 1 }, { device = "cuda:63" })
    raises("is not here", t.to, t, "cuda:63")
  end)

  it("move and are converted", function()
    assert.equal(true, rawequal(t:to(device), t))
    for _, dtype in ipairs { "f32", "bf16", "f16", "f64", "i64", "i32", "u8", "i8", "i16", "bool" } do
      local here = sluice.tensor({ 0, 1, 100.7, -3 }, { dtype = dtype == "f64" and "f64" or "f32" }):to(dtype)
      local there = here:to(device)
      assert.equal(dtype, there:dtype())
      assert.same(here:totable(), there:totable(), dtype)
      assert.same(here:totable(), there:to("cpu"):totable(), dtype)
    end
    local half = (t / 3):to "bf16"
    assert.equal(device, half:device())
    assert.same((sluice.tensor(plain) / 3):to("bf16"):totable(), half:totable())
    assert.equal(device, t:clone():device())
    assert.equal(device, sluice.tensor(t, { device = device, dtype = "i64" }):device())
  end)

  it("are indexed, sliced and assigned", function()
    local u = t:clone()
    assert.same({ 4, 5, 6 }, u[2]:totable())
    assert.equal(6, u[-1][-1]:item())
    assert.equal(device, u[1]:device())
    u[1] = 0
    u[2] = { 7, 8, 9 }
    u[1][2] = sluice.tensor(5)
    u[1][3] = t[2][1]
    assert.same({ { 0, 5, 4 }, { 7, 8, 9 } }, u:totable())
    assert.same(plain, t:totable())
    local columns = u:permute { 2, 1 }
    columns[2] = t[1]:slice(1, 1, 2) -- into memory with gaps
    assert.same({ { 0, 1, 4 }, { 7, 2, 9 } }, u:totable())
    assert.same({ { 2, 3 }, { 5, 6 } }, t:slice(2, 2, 3):totable())
    assert.same({ { 1, 3 }, { 4, 6 } }, t:slice(2, 1, 3, 2):totable())
    assert.same({ 1, 4, 2, 5, 3, 6 }, t:permute({ 2, 1 }):reshape({ 6 }):totable())
    assert.same({ { 4 }, { 4 } }, t[2]:slice(1, 1, 1):expand({ 2, 1 }):totable())
    local host = sluice.zeros { 2, 3 }
    host[1] = t[2]
    assert.same({ { 4, 5, 6 }, { 0, 0, 0 } }, host:totable())
    raises("index 3 is outside 1 to 2", function() return t[3] end)
    assert.is_true(t[1][1] < t[1][2] and t[1][1] <= 1)
  end)

  it("are printed", function()
    assert.equal(("f32 [2,3] %s\n[[1, 2, 3],\n [4, 5, 6]]"):format(device), tostring(t))
    assert.equal(("f32 [3] %s [4, 5, 6]"):format(device), tostring(t[2]))
  end)

  it("give the CPU's results", function()
    local a, b = sluice.randn({ 3, 40 }, { seed = 1 }), sluice.rand({ 3, 40 }, { seed = 2 }) + 0.5
    local index = sluice.tensor({ 2, 0, 2 }, { dtype = "i64" })
    local cases = {
      arithmetic = function(x, y) return -(x + y * 2 - 1 / y) ^ 2 / (x * x + 1) end,
      broadcast = function(x, y) return x * y[1] + y:slice(2, 1, 1) end,
      functions = function(x, y) return y:log() + x:exp():sqrt() + x:tanh():silu() + x:gelu() + x:clamp(-0.5, 0.5) + x:abs():sin() end,
      rows = function(x, y) return x:softmax(2) + y:log_softmax(1) end,
      choice = function(x, y) return sluice.where(x:lt(y), x, y) + x:ge(0):to "f32" end,
      shapes = function(x, y) return sluice.cat(x, y:flip(2)):pad({ 1, 0 }, { 0, 2 }, 3) end,
      stack = function(x, y) return sluice.stack(x, y):permute { 3, 1, 2 } end,
      products = function(x, y) return x:matmul(y:transpose()) end,
      gather = function(x, _, i) return x:gather(i) end,
      sum = function(x) return x:sum() end, sums = function(x) return x:sum(2, true) end, mean = function(x) return x:mean(1) end,
      max = function(x) return x:max(2) end, min = function(x) return x:min() end, norm = function(x) return x:norm(2) end,
      argmax = function(x) return x:argmax(2) end, permuted = function(x) return x:permute({ 2, 1 }):sum(1) end,
      embedding = function(_, _, i) return sluice.timestep_embedding(i, 8) end,
    }
    for name, f in pairs(cases) do
      local there = f(a:to(device), b:to(device), index:to(device))
      assert.equal(device, there:device(), name)
      golden.close(there, f(a, b, index), 2e-6, name)
    end
  end)

  it("take numbers from anywhere, other tensors from their own device only", function()
    assert.same({ 12, 15, 18 }, (t[2] * sluice.tensor(3)):totable())
    assert.same({ 12, 15, 18 }, (sluice.tensor(3) * t[2]):totable())
    assert.equal(device, (sluice.tensor(3) * t[2]):device())
    assert.equal("f32", (t * 2.5):dtype())
    if on_gpu then
      local text = raises("bring them together with :to(device)", function() return t + sluice.ones { 2, 3 } end)
      assert(text:find(device, 1, true) and text:find("cpu", 1, true), text)
    end
  end)

  it("are differentiated", function()
    local k = sluice.tensor({ 10, 20, 30 }, { device = device })
    local value, grad = sluice.value_and_grad(function(p) return (p.x * p.x + p.y * k):sum() * 2 end,
      { x = t, y = sluice.ones({ 3 }, { device = device }) })
    assert.equal(2 * (91 + 120), value:item())
    assert.equal(device, grad.x:device())
    assert.same({ { 4, 8, 12 }, { 16, 20, 24 } }, grad.x:totable())
    assert.same({ 40, 80, 120 }, grad.y:totable())
  end)

  it("say when an index is out of range, and go on", function()
    for _, bad in ipairs { 7, -1 } do
      local index = sluice.tensor({ 0, bad }, { dtype = "i64", device = device })
      raises(("index %d is outside 0 … 1"):format(bad), function() return t:gather(index):sum():item() end)
    end
    assert.equal(21, t:sum():item())
  end)

  it("are saved and loaded", function()
    local path = os.tmpname() .. ".safetensors"
    assert(sluice.io.save(path, { t = t, column = t:slice(2, 2, 2) }, {}))
    local loaded = sluice.io.load(path)
    os.remove(path)
    assert.same(plain, loaded.t:totable())
    assert.same({ { 2 }, { 5 } }, loaded.column:totable())
  end)
end)

-- The stand-in runs a kernel's threads as fibers: there ADM's convolutions take minutes
local makes = { dit, (device ~= "gpu-host" or os.getenv "SLUICE_TEST_LONG") and adm or nil }

for _, make in ipairs(makes) do
  local kind = make == dit and "dit" or "adm"

  describe(kind .. " on " .. device, function()
    local x, t, y = batch(3)

    it("gives the CPU's outputs, where x lies", function()
      local here, there = pair(make)
      local want, kept_here = here:forward(x, t, y, { keep = { kind == "dit" and "c" or "emb" } })
      for _, where in ipairs { "cpu", device } do
        local out, kept = there:forward(x:to(where), t, y, { keep = { kind == "dit" and "c" or "emb" } })
        assert.equal(where, out:device())
        golden.close(out, want, 2e-5, "out of x on " .. where)
        for name, v in pairs(kept) do
          assert.equal(where, v:device())
          golden.close(v, kept_here[name], 2e-5, name)
        end
      end
      golden.equal(there:forward(x, t:to(device), y:to(device)), there:forward(x, t, y), "t and y on " .. device)
      golden.close(there:forward(x, 7), here:forward(x, 7), 2e-5, "t a number, y nil")
      local rows = { sluice.cat(x, x), 7, sluice.cat(y, y), 2 }
      golden.close(there:forward_cfg(table.unpack(rows)), here:forward_cfg(table.unpack(rows)), 2e-5, "guided")
      golden.close(there:t_embed(t), here:t_embed(t), 2e-5, "t_embed")
      raises("label 9 is outside", there.forward, there, x, t, 9)
    end)

    it("gives the CPU's gradients", function()
      local here, there = pair(make)
      local up = sluice.randn(here:forward(x, t, y):shape(), { seed = 8 })
      local a, b = there:gradients(x:to(device), t, y, up:to(device)), here:gradients(x, t, y, up)
      assert.equal(device, a.x:device())
      assert(rel_all(a, b) < 5e-5, rel_all(a, b))
      golden.close(a.x, b.x, 5e-5, "x")
    end)

    it("computes in bf16 near to f32", function()
      local exact = disturbed(make { device = "cpu" })
      local here, there = pair(make, { precision = "bf16" })
      local want = exact:forward(x, t, y)
      local grads = exact:gradients(x, t, y, want)
      local function check(what, own, other) -- bf16's own error is about that much in a net this deep
        assert(own > 1e-5 and own < math.max(2e-2, 1.5 * other), ("%s off by %.3g; on the CPU by %.3g"):format(what, own, other))
      end
      check("out", golden.rel(there:forward(x, t, y), want), golden.rel(here:forward(x, t, y), want))
      check("gradients", rel_all(there:gradients(x, t, y, want), grads), rel_all(here:gradients(x, t, y, want), grads))
    end)

    it("rounds what it multiplies if told to, there alone", function()
      local here, there = pair(make)
      local want = here:forward(x, t, y)
      local cpu, gpu = disturbed(make { device = "cpu", precision = "tf32" }), disturbed(make { precision = "tf32" })
      golden.equal(cpu:forward(x, t, y), want, "cpu")
      local off = golden.rel(gpu:forward(x, t, y), want)
      assert(device == "cpu" and off == 0 or off > 1e-5 and off < 1e-2, ("off by %.3g"):format(off))
      golden.close(there:forward(x, t, y), want, 2e-5, "f32, beside it")
      assert.equal("tf32", gpu:describe().precision)
    end)

    it("moves, with its weights", function()
      local here = disturbed(make { device = "cpu" })
      local want = here:forward(x, t, y)
      here:to(device)
      assert.equal(device, here:device())
      for name, p in pairs(here:state()) do assert.equal(device, p:device(), name) end
      golden.close(here:forward(x, t, y), want, 2e-5, "moved there")
      golden.equal(here:to("cpu"):forward(x, t, y), want, "and back")
      raises("is not here", here.to, here, "cuda:63")
      assert.equal("cpu", here:device())
    end)

    it("is loaded from states that lie anywhere, and saved", function()
      local here, there = pair(make)
      local want = here:forward(x, t, y)
      for _, source in ipairs { here, there } do
        golden.close(make():load_state(source:state()):forward(x, t, y), want, 2e-5, source:device())
        golden.equal(make({ device = "cpu" }):load_state(source:state()):forward(x, t, y), want, source:device())
      end
      local path = os.tmpname() .. ".safetensors"
      there:save(path)
      golden.equal(make({ device = "cpu" }):load_state(path):forward(x, t, y), want, "file")
      os.remove(path)
    end)

    it("follows tables that change between runs", function()
      local model = disturbed(make { routing = sluice.routing.custom(function(step, _, C) return 1 + step % 3, C end) })
      local first = model:forward(x, t, y)
      for _, mask in ipairs(model:tables()) do
        for i = 1, #mask do mask[i] = 1 end
      end
      local open = disturbed(make { routing = sluice.routing.none() }):forward(x, t, y)
      assert(golden.rel(first, open) > 1e-3)
      golden.close(model:forward(x, t, y), open, 1e-5, "every channel open")
    end)
  end)

  describe("sampling " .. kind .. " on " .. device, function()
    local d = sluice.diffusion { steps = 100 }
    local here, there = pair(make)

    local function both(o, limit)
      local function draw(model)
        local all = { model = model, diffusion = d, steps = 3, seed = 9, clip = true }
        for k, v in pairs(o) do all[k] = v end
        return sluice.sample(all)
      end
      local images = draw(there)
      assert.equal("cpu", images:device())
      golden.close(images, draw(here), limit or 1e-4, "images")
      return images
    end

    it("draws the CPU's images", function()
      both { n = 2, labels = "balanced", cfg = 2 }
      both { n = 2, labels = { 3, 4 } }
      both { n = 1, sampler = "ddim" }
      both { n = 2, labels = "balanced", cfg = 2, cfg_channels = 1, cfg_interval = { 30, 70 }, sampler = "ddim", eta = 0.5 }
    end)

    it("whatever the batch", function()
      local whole = both { n = 3, labels = "uniform", cfg = 2 }
      golden.close(both { n = 3, labels = "uniform", cfg = 2, batch = 2 }, whole, 1e-5, "in parts of 2")
    end)

    it("fills in and begins from images", function()
      local init, mask = sluice.randn({ 2, 2, 8, 8 }, { seed = 4 }):clamp(-1, 1), sluice.zeros { 2, 2, 8, 8 }
      for i = 1, 2 do mask[i][1][1] = 1 end
      local images = both { n = 2, labels = { 1, 2 }, init = init, mask = mask }
      local kept = mask:eq(0):to "f32"
      golden.close(images * kept, init * kept, 1e-6, "what was known")
      golden.close(both { n = 2, labels = { 1, 2 }, init = init:to(device), mask = mask:to(device) }, images, 1e-5, device)
      both { n = 2, labels = { 1, 2 }, init = init, start = 2, sampler = "ddim" }
      both { n = 2, labels = { 1, 2 }, noise = sluice.randn({ 2, 2, 8, 8 }, { seed = 6 }), sampler = "ddim" }
    end)

    it("goes on from what is written between its steps, recorded or not", function()
      local seen = {}
      for i, model in ipairs { here, there } do
        seen[i] = {}
        local o = { model = model, diffusion = d, steps = 12, n = 2, labels = { 1, 2 }, seed = 2, cfg = 1.5 }
        o.cfg_interval = { 20, 1000 } -- the last steps are not guided
        for s in sluice.sampler(o):steps() do
          if s.i % 3 == 2 then s.x[1] = s.x[1] * 0.5 end
          if s.i > 4 and s.i % 4 == 1 then s.x = s.x + 0.125 end
          if s.i ~= 8 then seen[i][s.i] = { s.x, s.x0 } end -- held to the end; one step is not looked at
        end
      end
      for k, images in pairs(seen[2]) do
        for j = 1, 2 do golden.close(images[j]:to "cpu", seen[1][k][j], 1e-5, ("step %d, image %d"):format(k, j)) end
      end
    end)

    it("takes other weights, and is driven by hand", function()
      local weights = there:flatten(there:state()) * 0.9
      local o = { model = there, diffusion = d, steps = 2, n = 1, labels = { 1 }, seed = 2, sampler = "ddim" }
      o.ema = weights:to "cpu"
      local a = sluice.sample(o)
      o.ema = weights:to(device)
      golden.equal(sluice.sample(o), a, "weights")
      o.ema = nil
      local n = 0
      for s in sluice.sampler(o):steps() do
        n = n + 1
        assert.equal(device, s.x:device())
        s.x = s.x * 0.5
        assert.same({ 1, 2, 8, 8 }, s.x0:shape())
      end
      assert.equal(2, n)
    end)
  end)

  describe("training " .. kind .. " on " .. device, function()
    local data = sluice.data.tensors {
      images = sluice.randn({ 24, 2, 8, 8 }, { seed = 5 }):clamp(-1, 1), labels = sluice.arange(24) * 0 + 2,
    }

    local function trainer_of(model, o)
      local all = {
        model = model, diffusion = sluice.diffusion { steps = 100 }, data = data, batch = 4, lr = 1e-3, clip = 1, seed = 3, flip = true,
        weight_decay = 0.01, ema = { 0.9, 0.99 },
      }
      for k, v in pairs(o or {}) do all[k] = v end
      return sluice.trainer(all)
    end

    local function trained(model, o, steps)
      local trainer, losses = trainer_of(model, o), {}
      for i = 1, steps do losses[i] = trainer:step().loss end
      return trainer, losses
    end

    it("takes the CPU's steps", function()
      for _, case in ipairs { { micro = 0, steps = 5 }, { micro = 2, steps = 2 } } do
        local micro, steps = case.micro, case.steps
        local here, there = pair(make, kind == "adm" and { dropout = 0.1 })
        local a, losses = trained(there, { micro_batch = micro }, steps)
        local b, want = trained(here, { micro_batch = micro }, steps)
        for i, loss in ipairs(losses) do near(loss, want[i], 1e-4, "loss of step " .. i) end
        for _, name in ipairs { "params", "ema.0", "ema.1" } do
          assert.equal(device, a:flat(name):device())
          golden.close(a:flat(name), b:flat(name), 1e-3, name)
        end
        golden.close(a:per_sample "loss", b:per_sample "loss", 1e-4, "losses of samples")
      end
    end)

    it("is repeated to the bit, profiled or not", function()
      local function digest(profile)
        local trainer = trainer_of(disturbed(make()))
        if profile then trainer:profile() end
        for _ = 1, 3 do trainer:step() end
        if profile then assert(#trainer:profile() > 3 and trainer:profile()[1].seconds > 0) end
        return core.digest(trainer:flat "params") .. core.digest(trainer:flat "ema.0")
      end
      local once = digest()
      assert.equal(once, digest())
      assert.equal(once, digest(true))
    end)

    it("agrees whatever is computed again", function()
      local bytes, want, losses = {}, nil, nil
      for _, word in ipairs { "none", "light", "blocks" } do
        local trainer, list = trained(disturbed(make()), { recompute = word }, 2)
        want, losses, bytes[word] = want or trainer:flat "params", losses or list, trainer:memory()
        golden.close(trainer:flat "params", want, 1e-5, word)
        for i, loss in ipairs(list) do near(loss, losses[i], 1e-5, word) end
      end
      assert(bytes.light <= bytes.none and bytes.blocks < bytes.none)
    end)

    it("takes batches and losses of one's own, with tables that change", function()
      local x0, t, y = batch(4)
      local noise, scale = sluice.randn({ 4, 2, 8, 8 }, { seed = 7 }), sluice.tensor { 1 }
      local function loss(s) return (s.out:slice(2, 1, 2) - s.noise):square():mean { 2, 3, 4 } * scale end
      local trainer = trainer_of(disturbed(make()), { loss = loss, lr = 0, weight_decay = 0 })
      local function step(where)
        return trainer:step_on { x0 = x0:to(where), t = t:to(where), y = y:to(where), noise = noise:to(where) }.loss
      end
      local once = step "cpu"
      near(step(device), once, 1e-6, "a batch on " .. device)
      scale[1] = 2
      near(step "cpu", 2 * once, 1e-5, "a table twice as large")
      raises("label 9 is outside", trainer.step_on, trainer, { x0 = x0, t = t, y = y + 9 - y, noise = noise })
      raises("t is 100, expected 0 … 99", trainer.step_on, trainer, { x0 = x0, t = t - t + 100, y = y, noise = noise })
      near(step "cpu", 2 * once, 1e-5, "after refusals")
    end)

    it("names what is not finite, and changes nothing", function()
      local model = disturbed(make())
      local name = kind == "dit" and "blocks.1.mlp.fc1.bias" or "middle_block.0.out_layers.3.bias"
      local bad = model:state()[name]:clone()
      bad[1] = 0 / 0
      model:load_state({ [name] = bad }, { strict = false })
      local trainer = trainer_of(model)
      local before = core.digest(trainer:flat "exp_avg")
      raises(kind == "dit" and "blocks.1.mlp.fc1" or "middle_block.0", trainer.step, trainer)
      assert.equal(before, core.digest(trainer:flat "exp_avg"))
    end)

    it("goes on from a checkpoint on another device", function()
      local dir = files.temporary()
      local here, there = pair(make)
      local d, x, t, y = sluice.diffusion { steps = 100 }, batch(2)
      for i, m in ipairs { here, there } do
        local trainer = trained(m, nil, 1)
        local path = dir .. "/" .. i .. ".safetensors"
        checkpoint.save(path, {
          model = m, diffusion = d, weights = trainer:flat "params", ema = { { decay = 0.9, weights = trainer:flat "ema.0" } },
          exp_avg = trainer:flat "exp_avg", exp_avg_sq = trainer:flat "exp_avg_sq", step = 1,
        })
        local loaded = sluice.load(path)
        assert.equal(device, loaded.model:device())
        local want = m:forward(x, t, y)
        golden.close(loaded.model:forward(x, t, y), want, 2e-5, "there")
        golden.close(loaded.model:to("cpu"):forward(x, t, y), want, 2e-5, "here")
        golden.equal(loaded.ema[1].weights, trainer:flat "ema.0", "ema")
      end
      os.execute("rm -r " .. dir)
    end)
  end)
end

describe("recipes on " .. device, function()
  local recipe = sluice.recipe {
    defaults = { steps = 2 },
    function(p)
      return {
        name = "device", diffusion = sluice.diffusion { steps = 100 },
        data = sluice.data.tensors { images = sluice.randn({ 12, 2, 8, 8 }, { seed = 5 }), labels = sluice.arange(12) * 0 + 1 },
        model = dit { device = "cpu" }, train = { steps = p.steps, batch = 4, every = { sample = 0 } }, sample = { n = 2, steps = 2 },
      }
    end,
  }

  local function run(first, second)
    local dir = files.temporary()
    sluice.train(recipe, { out = dir .. "/run", quiet = true, device = first })
    local last = sluice.train(recipe, { resume = dir .. "/run", quiet = true, device = second, set = { steps = 4 } })
    assert.equal(second, last.model:device())
    local weights = last.trainer:flat("params"):to "cpu"
    assert.same({ 2, 2, 8, 8 }, last:sample():shape())
    os.execute("rm -r " .. dir)
    return weights
  end

  it("are resumed on another device", function()
    local want = run("cpu", "cpu")
    golden.close(run(device, "cpu"), want, 1e-3, device .. ", then cpu")
    golden.close(run("cpu", device), want, 1e-3, "cpu, then " .. device)
  end)
end)

describe("memory of " .. device, function()
  if not on_gpu then
    it("is the host's", function() raises("cpu is no GPU", sluice.memory, "cpu") end)
    return
  end

  it("is counted and given back", function()
    collectgarbage()
    local before = sluice.memory(device)
    local x = sluice.zeros({ 1 << 18 }, { device = device })
    local with = sluice.memory(device)
    assert(with.bytes >= before.bytes + (1 << 20) and with.peak_bytes >= with.bytes and with.total >= with.available)
    x:release()
    assert(sluice.memory(device).bytes < before.bytes + (1 << 18))
    local y, most = sluice.zeros({ 1 << 16 }, { device = device }), 0
    for _ = 1, 200 do
      y = y + 1
      most = math.max(most, sluice.memory(device).bytes)
    end
    assert.equal(200, y:max():item())
    assert(most - before.bytes < 32 << 20, ("%d MiB at most"):format((most - before.bytes) >> 20))
  end)

  it("says in words when there is none left, and goes on", function()
    local all = sluice.memory(device).total
    local text = raises("out of memory", sluice.zeros, { all // 2 }, { device = device })
    assert(text:find(device, 1, true), text)
    local wide = dit { hidden = 768, heads = 12, depth = 12, input = { 2, 64, 64 } }
    text = raises("MiB", sluice.trainer, { model = wide, diffusion = sluice.diffusion { steps = 100 }, batch = 8192 })
    assert(text:find("arena needs", 1, true) and text:find(device, 1, true), text)
    assert.equal(3, sluice.ones({ 3 }, { device = device }):sum():item())
  end)
end)
