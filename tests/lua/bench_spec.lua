local sluice = require "sluice"
local core = require "sluice.core"
local bench = require "sluice.bench"

local program = os.getenv "SLUICE_BINARY" or "build/sluice"

-- Nothing here depends on how long anything takes; matrices stay small.
local function run(o)
  local all = { seconds = 0.0005, steps = 2, warmup = 0, batch = 2, model = "quickstart" }
  for k, v in pairs(o) do all[k] = v end
  return bench.run(all)
end

local function limits(o)
  local all = { name = "forward", batch = 2, model = "quickstart", limits = "790,3000" }
  for k, v in pairs(o or {}) do all[k] = v end
  return bench.run(all)
end

-- f with core[name] replaced for the time being.
local function with(name, value, f)
  local before = core[name]
  core[name] = value
  local ok, message = pcall(f)
  core[name] = before
  assert(ok, message)
end

local function near(want, got, what)
  assert(math.abs(want - got) <= 1e-9 * math.abs(want), ("%s: %.17g, expected %.17g"):format(what, got, want))
end

local function refused(f, ...)
  local ok, message = pcall(f)
  assert.falsy(ok)
  for _, want in ipairs { ... } do
    assert(tostring(message):find(want, 1, true), ("%q does not say %q"):format(tostring(message), want))
  end
end

local function sum_of(r, key)
  local sum = 0
  for _, row in ipairs(r.operations) do sum = sum + (row[key] or 0) end
  return sum
end

local function row_of(r, op)
  for _, row in ipairs(r.operations) do
    if row.op == op then return row end
  end
end

local function check_rate(r)
  assert(r.least > 0 and r.least <= r.median and r.median <= r.most)
  assert(r.size > 0 and r.samples > 0)
end

local function check_table(r)
  for _, key in ipairs { "seconds", "limit", "calls", "macs", "bytes" } do near(r.sum[key], sum_of(r, key), key) end
  near(1, sum_of(r, "share"), "shares")
  for i, row in ipairs(r.operations) do
    assert(i == 1 or r.operations[i - 1].seconds >= row.seconds, "not sorted by time")
    assert(row.seconds >= 0 and row.calls >= 1)
    if row.ratio then near(row.seconds, row.ratio * row.limit, row.op) end
  end
end

describe("rates", function()
  it("are of products and copies", function()
    local r = bench.run { name = "rates", seconds = 0.0005, device = "cpu" }
    assert.equal("cpu", r.device)
    for _, kind in ipairs { "f32", "bf16", "copy" } do check_rate(r.rates[kind]) end
    assert.falsy(r.rates.tf32)
    assert(r.rates.copy.size % 4 == 0 and r.rates.f32.size % 128 == 0)
    local text = table.concat(bench.lines(r), "\n")
    for _, word in ipairs { "product f32", "product bf16", "copy", "TFLOP/s", "GB/s" } do assert(text:find(word, 1, true), text) end
  end)

  it("take as long as they are told", function()
    local real, seen = core.bench_rate, {}
    with("bench_rate", function(o)
      seen[#seen + 1] = o.seconds
      return real { device = o.device, kind = o.kind, seconds = 0.0005 }
    end, function() bench.run { name = "rates", seconds = 7 } end)
    assert.same({ 7, 7, 7 }, seen)
    refused(function() bench.run { name = "rates", seconds = 0 } end, "seconds is 0", "more than 0")
    refused(function() core.bench_rate { device = "cpu", kind = "tf32" } end, "tf32 on cpu", "expected a GPU")
    refused(function() core.bench_rate { device = "cpu", kind = "f64" } end, "f64", "copy")
  end)

  it("shrink with the memory that there is, and are refused where nothing fits", function()
    local held = sluice.memory().bytes
    local function limited(bytes, kind)
      core.set_memory(tostring(held + bytes))
      return core.bench_rate { device = "cpu", kind = kind, seconds = 0.05 }
    end
    assert(limited(5 << 20, "copy").size <= 2 << 20)
    assert(limited(3 << 20, "f32").size <= 256)
    refused(function() limited(1 << 18, "f32") end, "no room for matrices of 128 x 128")
    refused(function() limited(1 << 20, "copy") end, "no room for two arrays")
    core.set_memory "1T"
  end)
end)

describe("a measured model", function()
  it("trains as many steps as are asked for", function()
    local real, count = core.trainer, 0
    local function counting(o)
      local trainer = real(o)
      assert.equal(3, o.batch)
      return {
        step = function() count = count + 1 return trainer:step() end,
        profile = function() return trainer:profile() end,
      }
    end
    with("trainer", counting, function()
      local r = run { name = "train", batch = 3, steps = 4, warmup = 2 }
      assert.equal(1 + 2 + 4, count)
      assert.equal(4, r.step.samples)
      assert.falsy(r.operations)
      count = 0
      assert(run { name = "train", batch = 3, steps = 2, warmup = 1, profile = true }.operations)
      assert.equal(1 + 1 + 2 + 2, count)
    end)
  end)

  it("is told in figures that agree with each other", function()
    local r = run { name = "train", steps = 3 }
    local s = r.step
    assert(s.least <= s.lower and s.lower <= s.median and s.median <= s.upper and s.upper <= s.most)
    near(2 / s.median, r.images_per_second, "images/s")
    local forward = run { name = "forward", batch = 2 }
    near(r.flops_per_second * s.median, 3 * forward.flops_per_second * forward.step.median, "FLOP of a step")
    near(r.flops_per_second / r.rates.f32.median, r.share_of_product, "share")
    assert(r.memory > 0 and r.startup > 0 and r.parameters > 1e6)
    local text = table.concat(bench.lines(r), "\n")
    for _, word in ipairs { "batch 2", "images/s", "TFLOP/s", "% of the measured product (f32)", "MiB at most", "start-up" } do
      assert(text:find(word, 1, true), text)
    end
    assert.falsy(text:find("nominal", 1, true))
  end)

  it("has a table of operations whose sums agree", function()
    for _, o in ipairs { { name = "train" }, { name = "forward" }, { name = "sample", cfg = 1.5 } } do
      o.profile = true
      local r = run(o)
      for _, kind in ipairs { "f32", "bf16", "copy" } do check_rate(r.rates[kind]) end
      check_table(r)
      local linear = row_of(r, "linear")
      assert.equal(25, linear.calls)
      assert(linear.seconds > 0 and linear.limit > 0)
      assert.equal(o.name == "train", row_of(r, "(draw, norm, AdamW, EMA)") ~= nil)
      assert.equal(o.name == "sample", row_of(r, "(noise, guidance, update)") ~= nil)
      local lines = bench.lines(r)
      assert(lines[#lines]:match "^sum ", lines[#lines])
    end
  end)

  it("is told by step, and with what its operations leave of it", function()
    local ticks, rows = 0, {
      { op = "linear", seconds = 0.4, calls = 50, nodes = 25, macs = 10, bytes = 20 },
      { op = "adaln", seconds = 0.2, calls = 18, nodes = 9, macs = 0, bytes = 30 },
    }
    local function clock() ticks = ticks + 1 return ticks end -- a second passes from one look to the next
    with("trainer", function() return { step = function() end, profile = function() return rows end } end, function()
      with("clock", clock, function()
        local r = run { name = "train", profile = true } -- two steps, which the profile's second and the rows' seconds are of
        near(1, r.step.median, "step")
        near(2, r.images_per_second, "images/s")
        near(0.2, row_of(r, "linear").seconds, "linear")
        near(0.1, row_of(r, "adaln").seconds, "adaln")
        near(0.2, row_of(r, "(draw, norm, AdamW, EMA)").seconds, "rest")
        near(0.4, row_of(r, "linear").share, "share")
        assert.equal(25, row_of(r, "linear").calls)
        assert.equal(10, r.sum.macs)
        check_table(r)
      end)
    end)
  end)

  it("runs in bf16, with either residual", function()
    for _, residual in ipairs { "f32", "bf16" } do
      local r = run { name = "forward", precision = "bf16", residual = residual }
      assert.equal("bf16", r.product)
      check_rate(r.rates.bf16)
      assert.falsy(r.rates.f32)
      assert(table.concat(bench.lines(r), "\n"):find("bf16, residual " .. residual, 1, true))
    end
  end)

  it("is, without a name, a small one after all rates", function()
    local r = bench.run { seconds = 0.0005, steps = 1, warmup = 0 }
    assert.equal("quickstart", r.model)
    assert.equal(32, r.batch)
    for _, kind in ipairs { "f32", "bf16", "copy" } do check_rate(r.rates[kind]) end
  end)

  it("is left when asked to stop, with what there is so far", function()
    local calls = 0
    with("stop_asked", function() calls = calls + 1 return calls > 6 end, function()
      local r = run { name = "train", steps = 1000, warmup = 2, profile = true }
      assert.equal("4 of 1000 steps were timed", r.interrupted)
      assert.equal(4, r.step.samples)
      assert.falsy(r.operations or r.share_of_product)
      bench.lines(r)
      refused(function() run { name = "train" } end, "interrupted before anything was timed")
      assert.equal("not all rates were measured", bench.run { name = "rates" }.interrupted)
    end)
  end)
end)

describe("computed limits", function()
  it("are the slower of products and bytes, node by node", function()
    local r = limits()
    assert.equal("790,3000", r.computed)
    check_table(r)
    local model = sluice.dit {
      input = { 1, 28, 28 }, patch = 7, hidden = 128, depth = 4, heads = 4, classes = 10, routing = sluice.routing.dtr {},
    }
    assert.equal(model:flops({ batch = 2 }).macs, r.sum.macs)
    assert.equal(model:count(), r.parameters)
    for _, row in ipairs(r.operations) do
      assert(row.limit >= 2 * row.macs / 790e12 * (1 - 1e-12) and row.limit >= row.bytes / 3000e9 * (1 - 1e-12), row.op)
      assert(row.limit <= 2 * row.macs / 790e12 + row.bytes / 3000e9 * (1 + 1e-12), row.op)
      near(1, row.ratio, row.op)
    end
    local attention, norm = row_of(r, "attention_qkv"), row_of(r, "adaln") -- the nodes of each are equal to each other
    near(attention.bytes / 3000e9, attention.limit, "attention, by its bytes")
    near(norm.bytes / 3000e9, norm.limit, "norm")
    attention = row_of(limits({ limits = "0.001,1" }), "attention_qkv")
    near(2 * attention.macs / 1e9, attention.limit, "attention, by its products")
    near(r.sum.bytes / 1e9, limits({ limits = "1000000000,1" }).sum.limit, "bytes alone")
    local products = limits({ limits = "1,1000000000000" }).sum
    assert(math.abs(2 * products.macs / 1e12 - products.limit) < 1e-6 * products.limit)
    near(r.sum.seconds / 2, limits({ limits = "1580,6000" }).sum.seconds, "twice as fast")
    near(2 / r.sum.seconds, r.images_per_second, "images/s")
  end)

  it("know which products are of bf16", function()
    for _, o in ipairs { { model = "quickstart", op = "linear" }, { model = "ADM-64-uncond", op = "convolve" } } do
      local single = row_of(limits { model = o.model, batch = 64, limits = "H100" }, o.op)
      local half = row_of(limits { model = o.model, batch = 64, limits = "h100", precision = "bf16" }, o.op)
      assert.equal(single.macs, half.macs)
      assert(half.limit < single.limit / 2.5, ("%s: %g of %g s"):format(o.op, half.limit, single.limit)) -- half the bytes are not all
    end
    local dit = { name = "train", model = "DiT-S/2", batch = 4, precision = "bf16", limits = "A100" }
    local r = bench.run(dit)
    near(312e12, r.nominal, "nominal")
    near(r.flops_per_second / r.nominal, r.share_of_nominal, "share of nominal")
    dit.precision = nil
    assert.falsy(bench.run(dit).nominal)
  end)

  it("are planned without weights, and say what they are", function()
    local before = sluice.memory().bytes
    local r = limits { name = "train", model = "DiT-XL/2", batch = 256, precision = "bf16", residual = "bf16", limits = "H100" }
    collectgarbage()
    assert(sluice.memory().bytes - before < 1 << 28)
    assert(r.parameters > 670e6)
    assert(r.sum.macs > 2.9 * 256 * 118.6e9 and r.sum.macs < 3.2 * 256 * 118.7e9)
    local text = table.concat(bench.lines(r), "\n")
    for _, word in ipairs { "computed, not measured", "H100", "planned for", "computed ms" } do assert(text:find(word, 1, true), text) end
  end)

  it("change with the options", function()
    near(2 * limits().sum.macs, limits({ batch = 4 }).sum.macs, "batch")
    near(2 * limits({ name = "sample" }).sum.macs, limits({ name = "sample", cfg = 2 }).sum.macs, "guidance")
    for _, o in ipairs { {}, { name = "sample" }, { name = "sample", cfg = 2 } } do -- the model's own count is the table's
      local r = limits(o)
      near(2 * r.sum.macs, r.flops_per_second * r.sum.seconds, "multiply-adds")
    end
    near(limits().images_per_second / 250, limits({ name = "sample" }).images_per_second, "250 steps")
    assert(limits({ routing = "none" }).sum.bytes < limits({ routing = "dtr" }).sum.bytes)
    assert.equal(64, bench.run { name = "forward", limits = "H100" }.batch)
    local rounded, exact = limits { model = "DiT-S/2", limits = "H100", precision = "tf32" }, limits { model = "DiT-S/2", limits = "H100" }
    assert(rounded.sum.seconds < exact.sum.seconds)
    assert.equal("tf32", rounded.precision)
    assert.equal("DiT-S/2", bench.run { name = "train", limits = "H100" }.model)
  end)
end)

describe("what cannot be is refused", function()
  it("by name", function()
    refused(function() bench.run { name = "trian" } end, 'there is no trian; did you mean "train"?')
    refused(function() bench.run { name = "zzz" } end, "there is no zzz; there are: rates, train, sample, forward")
    refused(function() bench.run { name = "all" } end, "there is no all")
    refused(function() limits { model = "UNet" } end, "there is no model UNet", "DiT-S", "ADM-64", "quickstart")
    refused(function() limits { model = "DiT-Z/2" } end, "DiT-Z/2", "DiT-XL")
    refused(function() limits { model = "ADM-65" } end, "ADM-65", "ADM-64")
    refused(function() limits { limits = "V100" } end, "limits is V100", "H100", "790,3000")
    refused(function() limits { limits = "0,1" } end, "limits is 0,1")
    refused(function() run { name = "forward", device = "cuda:99" } end, "cuda:99", "cpu")
    refused(function() bench.run { modle = "x" } end, "modle", "model")
  end)

  it("by value, and where an option has no meaning", function()
    refused(function() run { name = "train", batch = 0 } end, "batch is 0, expected an integer, at least 1")
    refused(function() run { name = "train", steps = 0 } end, "steps is 0")
    refused(function() run { name = "train", warmup = -1 } end, "warmup is -1")
    refused(function() run { name = "train", precision = "f16" } end, "precision is f16, expected f32 or tf32 or bf16")
    refused(function() run { name = "train", residual = "bf16" } end, "residual bf16")
    refused(function() run { name = "train", routing = "random" } end, "routing is random, expected dtr or none")
    refused(function() run { name = "train", recompute = "all" } end, "recompute is all, expected auto or none or light or blocks")
    refused(function() run { name = "sample", recompute = "light" } end, "recompute is for train")
    refused(function() run { name = "train", cfg = 2 } end, "cfg is for sample")
    refused(function() run { name = "sample", steps = 2000 } end, "at most 999")
    refused(function() bench.run { name = "rates", batch = 2 } end, "batch is for train, sample, forward")
    refused(function() bench.run { limits = "H100" } end, "limits is for train, sample, forward")
    refused(function() limits { steps = 2 } end, "steps is given with limits")
    refused(function() run { name = "sample", model = "ADM-64-uncond", batch = 1, cfg = 2 } end, "cfg is 2", "no null class")
  end)
end)

describe("the command", function()
  local function shell(arguments)
    local pipe = assert(io.popen(("%s bench %s 2>&1"):format(program, arguments)))
    local text = pipe:read "a"
    local _, _, code = pipe:close()
    return text, code
  end

  it("prints figures, or one JSON object", function()
    local small = "forward --model quickstart --batch 1 --steps 2 --warmup 1 --seconds 0.0005 --routing none --threads 1 --device cpu "
    local text, code = shell(small .. "--profile")
    assert.equal(0, code, text)
    for _, word in ipairs { "1 thread\n", "routing none", "median of 2", "operation", "sum " } do assert(text:find(word, 1, true), text) end
    local r = sluice.json.decode((shell(small .. "--profile --json")))
    assert.equal(2, r.step.samples)
    assert.equal("none", r.routing)
    check_table(r)
    r = sluice.json.decode((shell "sample --cfg 1.5 --limits H100 --precision bf16 --residual bf16 --batch 2 --json"))
    assert.equal("H100", r.computed)
    assert.equal("bf16", r.residual)
    check_table(r)
  end)

  it("says what is wrong", function()
    for arguments, want in pairs {
      ["trian"] = "did you mean train?",
      ["train --batch x"] = "x: expected an integer",
      ["forward --model quickstart --memory 12M --batch 64"] = "a batch of 64 does not fit",
      ["train --memory 150M --batch 64"] = "bench: a batch of 64 needs",
    } do
      local text, code = shell(arguments)
      assert.equal(1, code, text)
      assert(text:find(want, 1, true), text)
      assert.falsy(text:find("[sluice.", 1, true), text)
    end
  end)
end)
