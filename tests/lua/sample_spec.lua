-- Samplers written in Lua, what is kept of a sampling, noises between noises, and what pictures say of themselves.
local sluice = require "sluice"

local function small(options)
  local o = { input = { 2, 8, 8 }, patch = 2, hidden = 16, depth = 2, heads = 2, classes = 3, routing = sluice.routing.dtr {} }
  for k, v in pairs(options or {}) do o[k] = v end
  local model = sluice.dit(o)
  model:init(5)
  return model
end

-- Weights of a new DiT give zeros; these do not.
local function restless(model)
  local state, changed = model:state(), {}
  for name, t in pairs(state) do changed[name] = t:to "cpu" + sluice.randn(t:shape(), { seed = #name }) * 0.2 end
  model:load_state(changed)
  return model
end

local learned, fixed = restless(small()), restless(small { learn_sigma = false })

local function far(a, b)
  assert.same(a:shape(), b:shape())
  return (a:to "cpu" - b:to "cpu"):abs():max():item()
end

local function ddpm(s)
  if not s.t_next then return s.mean end
  return s.mean + (s.log_variance / 2):exp() * s:noise()
end

local function ddim(s)
  local a, b = s.alpha_cumprod, s.alpha_cumprod_prev
  local sigma = s.eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
  local x = s.x0 * math.sqrt(b) + s.eps * math.sqrt(math.max(0, 1 - b - sigma ^ 2))
  return s.t_next and sigma > 0 and x + s:noise() * sigma or x
end

local OWN = { ddpm = ddpm, ddim = ddim }

describe("a sampler written in Lua", function()
  -- Both samplers, built in and written here, with these options; their largest difference.
  local function compare(o)
    local worst = 0
    for name, f in pairs(OWN) do
      local all = { n = 3, labels = { 0, 2, 1 }, steps = 5, seed = 7 }
      for k, v in pairs(o) do all[k] = v end
      all.sampler = name
      local want = sluice.sample(all)
      all.sampler = f
      worst = math.max(worst, far(want, (sluice.sample(all))))
    end
    return worst
  end

  it("gives the built-in samplers' numbers, whatever the network predicts", function()
    for _, predict in ipairs { "eps", "x0", "v" } do
      for _, variance in ipairs { "learned", "fixed_small", "fixed_large" } do
        local d = sluice.diffusion { predict = predict, variance = variance }
        local o = { model = variance == "learned" and learned or fixed, diffusion = d, clip = true }
        assert(compare(o) < 1e-4, predict .. " " .. variance)
      end
    end
  end)

  it("has guidance, EMA, batches, in-painting, a start, given noise and eta as they have", function()
    local d = sluice.diffusion { schedule = "linear" }
    local function differ(o)
      o.model, o.diffusion, o.clip = learned, d, true
      assert(compare(o) < 1e-4)
    end
    local ema = learned:flatten(small():state())
    local init = sluice.randn({ 3, 2, 8, 8 }, { seed = 3 }):clamp(-1, 1)
    local mask = sluice.cat(sluice.zeros { 1, 1, 4, 8 }, sluice.ones { 1, 1, 4, 8 }, 3)
    differ { cfg = 2.5 }
    differ { cfg = 2.5, cfg_channels = 1, cfg_interval = { 300, 800 } }
    differ { ema = ema }
    differ { batch = 2, labels = "balanced" }
    differ { init = init, mask = mask }
    differ { init = init, start = 3 }
    differ { init = init, start = 3, mask = mask, cfg = 2 }
    differ { noise = sluice.randn({ 6, 3, 2, 8, 8 }, { seed = 4 }) }
    differ { eta = 0.7 }
  end)

  it("works in bf16 as the built-in ones do", function()
    local model = restless(small { precision = "bf16" })
    assert(compare { model = model, diffusion = sluice.diffusion { variance = "learned" }, clip = true, precision = "bf16" } < 1e-2)
  end)

  local o = { model = learned, diffusion = sluice.diffusion {}, n = 3, labels = "balanced", steps = 4, seed = 1 }
  local function with(more)
    local all = {}
    for _, t in ipairs { o, more } do
      for k, v in pairs(t) do all[k] = v end
    end
    return all
  end

  it("is called once a step and batch, and told where it is", function()
    local seen = {}
    sluice.sample(with { batch = 2, sampler = function(s)
      seen[#seen + 1] = { s.i, s.n, s.t, s.t_next, #s.x }
      return s.x
    end })
    assert.equal(8, #seen)
    local map = o.diffusion:respace("4").timesteps
    assert.same({ 1, 4, map[4], map[3], 2 }, seen[1])
    assert.same({ 4, 4, map[1], nil, 2 }, seen[8])
  end)

  it("gets what the process says of the network's output", function()
    local whole = sluice.diffusion { schedule = "linear" }
    local d, steps = whole:respace "4", 0
    sluice.sample(with { diffusion = whole, sampler = function(s)
      local i = s.n - s.i
      local a, b = d.alphas_cumprod64[i + 1], d.alphas_cumprod64[i] or 1
      assert.equal(a, s.alpha_cumprod)
      assert.equal(b, s.alpha_cumprod_prev)
      assert(math.abs(s.beta - d.betas[i + 1]:item()) < 1e-6)
      assert.same({ 3, 4, 8, 8 }, s.out:shape())
      local p = d:p_mean_variance(s.out, s.x, i)
      for mine, theirs in pairs { x0 = "pred_xstart", mean = "mean", variance = "variance", log_variance = "log_variance" } do
        assert.equal(0, far(s[mine], p[theirs]))
      end
      assert(far(s.x0 * math.sqrt(a) + s.eps * math.sqrt(1 - a), s.x) < 1e-4 * s.x:abs():max():item())
      assert.equal(0, far(s:noise(), s:noise(1)))
      assert(far(s:noise(), s:noise(2)) > 0.1)
      assert(rawequal(s.x0, s.x0))
      steps = steps + 1
      return s.x0
    end })
    assert.equal(4, steps)
  end)

  it("asks the network at other points, of every timestep if the diffusion is whole", function()
    sluice.sample(with { sampler = function(s)
      local x0, eps, out = s:predict(s.x, s.t)
      assert.equal(0, far(s.x0, x0) + far(s.eps, eps) + far(s.out, out))
      local other = s:predict(s.x, 500)
      local t = sluice.full({ 3 }, 500, { dtype = "i64" })
      local want = o.diffusion:p_mean_variance(learned:forward(s.x, t, sluice.tensor({ 0, 1, 2 }, { dtype = "i64" })), s.x, 500)
      assert(far(want.pred_xstart, other) < 1e-3 * want.pred_xstart:abs():max():item())
      return s.x
    end })
    local respaced = with { diffusion = o.diffusion:respace "4", sampler = function(s) return s:predict(s.x, 500) end }
    respaced.steps = nil
    local ok, message = pcall(sluice.sample, respaced)
    assert.falsy(ok)
    assert.truthy(message:find("t is 500, expected one of the 4 timesteps of the respaced diffusion, from 0 to 999", 1, true), message)
  end)

  it("goes on from the last whole step after an error, with its state of then", function()
    local fail_at
    local function momentum(s)
      local last = s.state.x0
      s.state.x0 = s.x0
      if s.i == fail_at then
        fail_at = nil
        error "oh"
      end
      return ddim(s) + (last and (s.x0 - last) * 0.1 or 0)
    end
    local want = sluice.sample(with { sampler = momentum })
    local sampler = sluice.sampler(with { sampler = momentum })
    fail_at = 3
    local ok, message = pcall(function()
      for _ in sampler:steps() do end
    end)
    assert.falsy(ok)
    assert.truthy(message:find("oh", 1, true))
    assert.equal(2, sampler.i)
    while sampler:step() do end
    assert.equal(4, sampler.i)
    assert.falsy(sampler:step())
    assert.equal(0, far(want, sampler.x))
  end)

  it("can be looked at and edited between steps, left and taken up again", function()
    local sampler = sluice.sampler(with { sampler = ddim })
    for s in sampler:steps() do
      assert.same({ 3, 2, 8, 8 }, s.x0:shape())
      s.x = s.x * 0
      if s.i == 2 then break end
    end
    local x
    for s in sampler:steps() do
      x = x or s.i
    end
    assert.equal(3, x)
    local blind = sluice.sampler(with { sampler = function(s) return s.x * 0.5 end })
    assert.truthy(blind:step())
    assert.equal(nil, blind.x0) -- it asked the network nothing
    assert(sluice.sampler(with { sampler = ddim }):memory() > 0)
  end)

  it("says what is wrong", function()
    local function message(f, more)
      more = more or {}
      more.sampler = f
      local ok, text = pcall(sluice.sample, with(more))
      assert.falsy(ok)
      return tostring(text)
    end
    for want, f in pairs {
      ["returned nil at step 1 of 4, expected the next x, f32 [3,2,8,8]"] = function() end,
      ["returned f32 [1,2,8,8] at step 1 of 4"] = function(s) return s.x:slice(1, 1, 1) end,
      ["returned i64 [3,2,8,8]"] = function(s) return s.x:to "i64" end,
      ['unknown field "epss"; did you mean "eps"?'] = function(s) return s.epss end,
      ["s.x0 cannot be assigned"] = function(s) s.x0 = s.x end,
      ["s.state is 3, expected a table"] = function(s)
        s.state = 3
        return s.x
      end,
      ["t is 2000, expected 0 … 999"] = function(s) return s:predict(s.x, 2000) end,
      ["x is f32 [1,2,8,8], expected f32 [3,2,8,8]"] = function(s) return s:predict(s.x:slice(1, 1, 1), 0) end,
      ["noise 0, expected 1"] = function(s) return s:noise(0) end,
    } do
      local text = message(f)
      assert.truthy(text:find(want, 1, true), text)
    end
    local text = message(function(s) return s:noise(2) end, { noise = sluice.randn { 5, 3, 2, 8, 8 } })
    assert.truthy(text:find("one per step", 1, true), text)
    assert.truthy(message(3):find("sampler is 3", 1, true))
    local kept
    sluice.sample(with { sampler = function(s)
      kept = s
      return s.x
    end })
    assert.truthy(select(2, pcall(function() return kept.out end)):find("this step is over", 1, true))
    for want, more in pairs { ["batch is 2 for n = 3 images"] = { batch = 2 }, ["label 1 is x"] = { labels = { "x", 1, 2 } } } do
      local ok, fault = pcall(sluice.sampler, with(more))
      assert.falsy(ok)
      assert.truthy(fault:find(want, 1, true), fault)
    end
    for _, name in ipairs { "on_step", "keep" } do
      local ok, fault = pcall(sluice.sampler, with { [name] = 1 })
      assert.falsy(ok)
      assert.truthy(fault:find("sluice.sampler: " .. name .. " is of sluice.sample", 1, true), fault)
    end
  end)
end)

describe("what is kept on the way", function()
  local o = { model = learned, diffusion = sluice.diffusion {}, n = 5, labels = "balanced", steps = 10, seed = 1, batch = 2 }
  local function keep(what, more)
    local all = { keep = what }
    for _, t in ipairs { o, more or {} } do
      for k, v in pairs(t) do all[k] = v end
    end
    local images, _, made = sluice.sample(all)
    return made.kept, images
  end

  it("is what a loop over the steps sees", function()
    local want, seen = {}, {}
    local all = {}
    for k, v in pairs(o) do all[k] = v end
    all.batch = nil
    for s in sluice.sampler(all):steps() do
      want[s.i], seen[s.i] = s.x0:clone(), s.x:clone()
    end
    local kept, images = keep(5)
    assert.same({ 2, 4, 6, 8, 10 }, kept.steps)
    assert.same({ 5, 5, 2, 8, 8 }, kept.x0:shape())
    for k, i in ipairs(kept.steps) do assert(far(want[i], kept.x0[k]) < 1e-4 * want[i]:abs():max():item()) end
    assert.equal(0, kept.t[5])
    kept = keep { steps = { 1, 10 }, what = "x" }
    assert(far(seen[1], kept.x[1]) < 1e-5 * seen[1]:abs():max():item())
    assert.equal(0, far(images, kept.x[2]))
    assert.same({ 3 }, keep({ 3 }).steps)
    assert.same({ 2, 4 }, keep(5, { on_step = function(s) return s.i < 4 end }).steps)
  end)

  it("is refused in words where it cannot be", function()
    for want, what in pairs {
      ["keep is 11, expected 1 to 10 (steps)"] = 11, ["keep is 0, expected"] = 0, ["keep[2] is 1, expected"] = { 2, 1 },
      ["keep[1] is 99"] = { 99 }, ["keep is x, expected"] = "x", ['keep.what is "y"'] = { steps = 2, what = "y" },
      ['did you mean "what"'] = { steps = 2, wath = "x" },
    } do
      local ok, message = pcall(keep, what)
      assert.falsy(ok)
      assert.truthy(message:find(want, 1, true), message)
    end
    local ok, message = pcall(keep, 2, { sampler = function(s) return s.x end })
    assert.falsy(ok)
    assert.truthy(message:find("asked for no prediction at s.x", 1, true), message)
  end)
end)

describe("slerp", function()
  local a, b = sluice.randn({ 2, 8, 8 }, { seed = 1 }), sluice.randn({ 2, 8, 8 }, { seed = 2 })

  it("goes along the great circle", function()
    local path = sluice.slerp(a, b, { 0, 0.25, 0.5, 1 })
    assert.same({ 4, 2, 8, 8 }, path:shape())
    assert(far(path[1], a) < 1e-5 and far(path[4], b) < 1e-5)
    local half = path[3] / path[3]:norm()
    local da, db = (half * a):sum():item() / a:norm():item(), (half * b):sum():item() / b:norm():item()
    assert(math.abs(da - db) < 0.05) -- as far from a as from b, but that they differ in length
    assert(path[3]:norm():item() > 0.95 * math.min(a:norm():item(), b:norm():item()))
    local pairs_ = sluice.slerp(sluice.randn { 3, 2, 8, 8 }, sluice.randn { 3, 2, 8, 8 }, 0.5)
    assert.same({ 3, 2, 8, 8 }, pairs_:shape())
    assert(far(sluice.slerp(a, a, 0.3)[1], a) < 1e-5)
    sluice.sample { model = learned, diffusion = sluice.diffusion {}, n = 4, steps = 2, noise = path, seed = 1 }
  end)

  it("says what is wrong", function()
    for want, arguments in pairs {
      ["expected two tensors of one shape"] = { a, b[1], 0.5 }, ["weights is x"] = { a, b, "x" }, ["weight 1 is 2"] = { a, b, { 2 } },
      ["opposite directions"] = { a, -a, 0.5 }, ["b is 3, expected"] = { a, 3, 0 },
      ["2 weights for 3 pairs"] = { sluice.randn { 3, 2, 8, 8 }, sluice.randn { 3, 2, 8, 8 }, { 0, 1 } },
    } do
      local ok, message = pcall(sluice.slerp, table.unpack(arguments))
      assert.falsy(ok)
      assert.truthy(message:find(want, 1, true), message)
    end
  end)
end)

describe("a picture's text", function()
  local path = os.tmpname() .. ".png"
  teardown(function() os.remove(path) end)
  local images = sluice.randn { 2, 1, 4, 4 }

  it("is written and read back, and changes nothing else", function()
    sluice.save_png(path, images)
    local plain = sluice.load_image(path)
    assert.same({}, sluice.png_text(path))
    local text = { Description = "two\nlines", ["a key"] = "", sluice = ('{"x":"é…"}'):rep(1000) }
    sluice.save_png(path, images, { text = text })
    assert.same(text, sluice.png_text(path))
    assert.equal(0, far(plain, sluice.load_image(path)))
  end)

  it("is checked in words", function()
    for want, text in pairs {
      ["text is 3"] = 3, ["a key is 1, expected a string"] = { "x" }, ["text.x is 3, expected a string"] = { x = 3 },
      ["1 to 79 letters"] = { [("x"):rep(80)] = "" }, ['the key " x"'] = { [" x"] = "" }, ['the key "é"'] = { ["é"] = "" },
      ["x is not UTF-8"] = { x = "\xff" }, ["x has a zero byte"] = { x = "a\0" },
      ["x has 4194305 bytes"] = { x = ("x"):rep((4 << 20) + 1) },
    } do
      local ok, message = pcall(sluice.save_png, path, images, { text = text })
      assert.falsy(ok)
      assert.truthy(message:find(want, 1, true), message)
    end
    for name, want in pairs { ["/no/such.png"] = "cannot open", ["README.md"] = "is no PNG" } do
      local ok, message = pcall(sluice.png_text, name)
      assert.falsy(ok)
      assert.truthy(message:find(want, 1, true), message)
    end
  end)

  it("that was compressed with zeros in it ends at the first, and the next one is whole", function()
    local function chunk(name, data)
      local c = 0xffffffff
      for i = 1, 4 + #data do
        c = c ~ (name .. data):byte(i)
        for _ = 1, 8 do c = c & 1 == 1 and c >> 1 ~ 0xedb88320 or c >> 1 end
      end
      return (">s4"):pack(data):sub(1, 4) .. name .. data .. (">I4"):pack(c ~ 0xffffffff)
    end
    local function stored(s) -- zlib's format, nothing compressed
      local a, b = 1, 0
      for i = 1, #s do
        a = (a + s:byte(i)) % 65521
        b = (b + a) % 65521
      end
      return "\x78\1\1" .. ("<I2I2"):pack(#s, ~#s & 0xffff) .. s .. (">I2I2"):pack(b, a)
    end
    sluice.save_png(path, images)
    local file = assert(io.open(path, "rb"))
    local whole = file:read "a"
    file:close()
    file = assert(io.open(path, "wb"))
    file:write(whole:sub(1, 33), chunk("zTXt", "A\0\0" .. stored "one\0two"), chunk("tEXt", "B\0three"), whole:sub(34))
    file:close()
    assert.same({ A = "one", B = "three" }, sluice.png_text(path))
  end)

  it("of a broken file is an error, never more", function()
    sluice.save_png(path, images, { text = { a = "b" } })
    local file = assert(io.open(path, "rb"))
    local whole = file:read "a"
    file:close()
    for n = 0, #whole - 1, 3 do
      for _, part in ipairs { whole:sub(1, n), whole:sub(1, n) .. "\255" .. whole:sub(n + 2) } do
        file = assert(io.open(path, "wb"))
        file:write(part)
        file:close()
        local ok, message = pcall(sluice.png_text, path)
        assert(ok or type(message) == "string")
      end
    end
  end)
end)

describe("a loaded checkpoint", function()
  it("says how it is sampled, to who calls it otherwise", function()
    local loaded = sluice.load "models/digits.safetensors"
    for want, f in pairs {
      ["called with a colon"] = function() local _ = loaded.sample { n = 2 } end,
      ["options are 4, expected a table"] = function() local _ = loaded:sample(4) end,
    } do
      local ok, fault = pcall(f)
      assert.falsy(ok)
      assert.truthy(fault:find("sample_spec.lua", 1, true) and fault:find(want, 1, true), fault)
    end
  end)
end)

describe("how images were made", function()
  local loaded = sluice.load "models/digits.safetensors"

  it("is told by the third result of sampling", function()
    local images, _, made = loaded:sample { n = 3, labels = "balanced", steps = 2, seed = 8 }
    assert.equal(8, made.seed)
    local text = made:text { columns = 3 }
    local record = sluice.json.decode(text.sluice)
    assert.equal(loaded.meta.digest, record.checkpoint.digest)
    assert.equal("none", record.ema)
    assert.equal(nil, record.again)
    assert.same({ columns = 3 }, record.layout)
    assert.same({ 3, "balanced", 8, 2, "ddim", 3 }, { record.sample.n, record.sample.labels, record.sample.seed, record.sample.steps,
      record.sample.sampler, record.sample.cfg })
    assert.truthy(text.Description:find("3 images, balanced classes; sampler ddim, 2 steps", 1, true), text.Description)
    assert.same({ 3, 1, 28, 28 }, images:shape())
  end)

  it("is in the text of a picture that is saved so, beside one's own", function()
    local name = os.tmpname() .. ".png"
    local images, _, made = loaded:sample { n = 2, labels = { 1, 2 }, steps = 2, seed = 8 }
    made:save(name, images, { columns = 1, text = { Author = "me" } })
    local text = sluice.png_text(name)
    assert.same({ columns = 1 }, sluice.json.decode(text.sluice).layout)
    assert.same({ "me", made:text().Description }, { text.Author, text.Description })
    assert.same({ 3, 62, 32 }, sluice.load_image(name):shape())
    os.remove(name)
  end)

  it("is asked of a checkpoint whose settings another version wrote", function()
    local name = os.tmpname() .. ".safetensors"
    local tensors, meta = sluice.io.load "models/digits.safetensors"
    meta.digest, meta.sample = "", meta.sample:gsub("^{", '{"from_the_future":0.7,')
    sluice.io.save(name, tensors, meta)
    assert.same({ 1, 1, 28, 28 }, sluice.load(name):sample({ n = 1, labels = { 3 }, steps = 2 }):shape())
    os.remove(name)
  end)

  it("names why they could not be made again", function()
    local function reason(o)
      o.n, o.labels, o.steps = o.n or 1, o.labels or 3, 2
      local _, _, made = loaded:sample(o)
      return made.record.again or "none"
    end
    local image = sluice.zeros { 1, 1, 28, 28 }
    assert.equal("none", reason {})
    assert.truthy(reason({ init = image, start = 1 }):find("init was a tensor of the calling program", 1, true))
    assert.truthy(reason({ noise = image }):find("noise was a tensor", 1, true))
    assert.truthy(reason({ sampler = ddim }):find("the sampler was a function", 1, true))
    assert.truthy(reason({ on_step = function() end }):find("on_step", 1, true))
    local other = sluice.diffusion { predict = "x0", variance = "fixed_small" }
    assert.truthy(reason({ diffusion = other }):find("not the checkpoint's", 1, true))
    assert.truthy(reason({ ema = loaded.model:flatten(loaded.model:state()) }):find("weights were given", 1, true))
    local _, _, made = sluice.sample {
      model = loaded.model, diffusion = loaded.diffusion, n = 1, labels = 3, steps = 2, sampler = ddpm,
    }
    assert.truthy(made.record.again:find("sluice.load(path):sample", 1, true))
    assert.truthy(made.record.sample.sampler:find("a function, ", 1, true))
  end)
end)

describe("image-to-image and in-painting", function()
  local loaded = sluice.load "models/digits.safetensors"
  local digits = loaded:sample { n = 2, labels = { 3, 7 }, steps = 10, seed = 2 }

  it("keep what they are told to", function()
    local mask = sluice.cat(sluice.zeros { 1, 1, 14, 28 }, sluice.ones { 1, 1, 14, 28 }, 3)
    local x = loaded:sample { labels = { 3, 7 }, steps = 10, seed = 3, init = digits, mask = mask }
    assert.equal(0, far(digits:slice(3, 1, 14), x:slice(3, 1, 14)))
    assert(far(digits:slice(3, 15, 28), x:slice(3, 15, 28)) > 0.1)
  end)

  it("move the further from an image, the more steps are drawn anew", function()
    local last = 0
    for _, start in ipairs { 1, 4, 8 } do
      local x = loaded:sample { labels = { 7, 3 }, steps = 10, seed = 3, init = digits, start = start }
      local moved = (x - digits):square():mean():item()
      assert(moved > last)
      last = moved
    end
  end)
end)
