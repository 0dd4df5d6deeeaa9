-- What Tab completes, without a terminal.
local sluice = require "sluice"
local core = require "sluice.core"
local fields = require "sluice.fields"
local files = require "files"
local complete = require "sluice.repl.complete"
local names = require "sluice.repl.names"

local function set_of(list)
  local set = {}
  for _, name in ipairs(list) do set[name] = true end
  return set
end

local function candidates(text)
  return set_of((complete.candidates(text)))
end

describe("completion", function()
  local model, diffusion

  setup(function()
    model = sluice.dit { input = { 1, 4, 4 }, patch = 2, hidden = 8, depth = 1, heads = 1, classes = 2 }
    diffusion = sluice.diffusion { respacing = "5" }
    rawset(_G, "sluice", sluice)
    rawset(_G, "spec_value", {
      model = model, d = diffusion, inner = { alpha = 1, beta = { gamma = 2 } }, list = { { first = 1 } }, ["no name"] = 1, _hidden = 1,
      word = "text", x = sluice.ones { 2 },
      trap = setmetatable({ raw = 1 }, { __index = function() error "ran" end }),
      class = setmetatable({ own = 1 }, { __index = { method = function() end, constant = 2 } }),
      sampler = sluice.sampler { model = model, diffusion = diffusion, n = 1, labels = { 0 } },
    })
  end)
  teardown(function()
    rawset(_G, "spec_value", nil)
    rawset(_G, "sluice", nil)
  end)

  it("knows globals, keywords and the fields of tables, and runs nobody's __index", function()
    assert.truthy(candidates("spec_v").spec_value)
    assert.truthy(candidates("x = y; retu")["return"])
    local inner = candidates "x = spec_value.inner."
    assert.truthy(inner.alpha and inner.beta)
    assert.same({ gamma = true }, candidates "spec_value.inner.beta.")
    assert.same({ first = true }, candidates "spec_value.list[1].")
    assert.same({ alpha = true, beta = true }, candidates 'spec_value["inner"].')
    assert.falsy(candidates("spec_value.")["no name"])
    assert.falsy(candidates("spec_value.")._hidden)
    assert.truthy(candidates("spec_value._")._hidden)
    assert.same({ raw = true }, candidates "spec_value.trap.")
    assert.same({}, candidates "spec_value.trap.x.")
    assert.same({ own = true, method = true, constant = true }, candidates "spec_value.class.")
    assert.same({ method = true }, candidates "spec_value.class:")
    assert.same({}, candidates "spec_value.nothing.")
    assert.same({}, candidates "f().")
    assert.truthy(candidates('("x"):').upper)
    assert.truthy(candidates("spec_value.word:").rep)
  end)

  it("knows Sluice's parts, loaded or not, and its values", function()
    local all = candidates "sluice."
    for _, name in ipairs { "dit", "sample", "train", "recipe", "routing", "randn", "help", "show" } do assert.truthy(all[name], name) end
    assert.same({ table = true }, candidates "sluice.routing.tab")
    assert.truthy(candidates("spec_value.x:").matmul)
    assert.truthy(candidates("spec_value.x.").softmax)
    assert.truthy(candidates("spec_value.model:").load_state)
    assert.falsy(candidates("spec_value.model:").__gc)
    assert.truthy(candidates("spec_value.d:").q_sample)
    assert.truthy(candidates("spec_value.d.").alphas_cumprod)
    assert.falsy(candidates("spec_value.d:").alphas_cumprod)
    assert.truthy(candidates("spec_value.sampler.").x0)
    assert.truthy(candidates("spec_value.sampler.x:").totable)
  end)

  it("knows the options of a call's braces, as the call itself does", function()
    assert.same({ hidden = true }, candidates "sluice.dit { hid")
    assert.same({ hidden = true }, candidates "m = sluice.dit { depth = 2,\n  hid")
    assert.same({ hidden = true }, candidates "sluice.dit({ hid")
    assert.falsy(candidates("sluice.dit { hidden = 3, ").hidden)
    assert.truthy(candidates("sluice.dit { hidden = 3, ").depth)
    assert.truthy(candidates("sluice.sample { ").steps and candidates("sluice.sample { ").cfg_interval)
    assert.truthy(candidates("sluice.sampler { ").on_step)
    assert.truthy(candidates("sluice.diffusion { ").respacing)
    assert.truthy(candidates("sluice.adm { ").channel_mult)
    assert.truthy(candidates("sluice.routing.dtr { ").variant)
    assert.truthy(candidates("sluice.dit { routing = sluice.routing.random { ").beta)
    assert.same({ dim = true, x = true }, candidates "sluice.softmax(y, { ")
    assert.same({ keep = true }, candidates "spec_value.model:forward(x, t, nil, { ")
    assert.same({ weight = true }, candidates "spec_value.d:losses(a, b, c, d, e, { ")
    assert.truthy(candidates("sluice.train(recipe, { ").resume)
    assert.truthy(candidates("sluice.recipe { ").defaults)
    local recipe = "sluice.recipe { defaults = { lr = 1 }, function(p) local x = f(p) return { "
    assert.truthy(candidates(recipe).optimizer)
    assert.truthy(candidates(recipe .. "name = 'x', train = { ").t_sampler)
    assert.same({ last = true, every = true }, candidates(recipe .. "train = { steps = 1, keep = { "))
    assert.truthy(candidates("x = { spec_").spec_value) -- a list of values
    assert.truthy(candidates("sluice.sample { model = spec_").spec_value)
    assert.truthy(candidates("sluice.dit { spec_").spec_value)
  end)

  it("knows what the documentation lists, which a test holds to what calls accept", function()
    for _, what in ipairs { "sluice.dit", "sluice.sample", "sluice.sampler", "recipe", "recipe.train", "recipe.train.keep" } do
      assert.truthy(names.options(what), what)
    end
    assert.equal(nil, names.options "sluice.nothing")
    assert.equal("sluice.dit", (names.options_of(sluice.dit)))
    assert.truthy(set_of(names.options "sluice.sampler").clip)
    local ok, message = pcall(sluice.dit, { hiden = 1 })
    assert.falsy(ok)
    assert.truthy(message:find('"hidden"', 1, true))
  end)

  it("knows files inside a string, nothing in a comment, and a blank where there is no word", function()
    local dir = files.temporary()
    files.write(dir .. "/one.lua", "")
    files.write(dir .. "/.secret", "")
    core.make_dirs(dir .. "/other")
    assert.same({ ["one.lua"] = true, ["other/"] = true }, candidates(('sluice.load "%s/o'):format(dir)))
    assert.falsy(candidates(("sluice.load '%s/"):format(dir))[".secret"])
    assert.equal('e.lua"', (complete.key(('x = "%s/on'):format(dir), 80)))
    assert.equal("r/", (complete.key(("f([[%s/othe"):format(dir), 80)))
    os.execute("rm -r " .. dir)
    assert.equal(nil, (complete.key("-- spec_v", 80)))
    assert.equal("  ", (complete.key("", 80)))
    assert.equal("  ", (complete.key("x = ", 80)))
    assert.equal("  ", (complete.key("for i = 1, 2 do\n", 80)))
  end)

  it("knows the options of what a checkpoint and a run sample with", function()
    local locals = require "sluice.repl.locals"
    local loaded = sluice.load "models/digits.safetensors"
    local run = require("sluice.train_run").new { dir = "runs/none" }
    rawset(_G, "spec_loaded", loaded)
    rawset(_G, "spec_run", run)
    assert(locals.load("local spec_local = ...", "=input 1"))(loaded)
    for _, name in ipairs { "spec_loaded", "spec_run", "spec_local" } do
      assert.same({ "start", "steps" }, (complete.candidates(name .. ":sample { n = 2, st")))
      assert.same({ "labels" }, (complete.candidates(name .. ":sample { la")))
      local all = complete.candidates(name .. ":sample { ")
      assert.truthy(set_of(all).ema and set_of(all).sampler and set_of(all).cfg)
      assert.equal(#fields.keys(set_of(all)), #all)
      assert.same({ ddim = true, ddpm = true }, candidates(name .. ':sample { sampler = "dd'))
    end
    locals.forget()
    rawset(_G, "spec_loaded", nil)
    rawset(_G, "spec_run", nil)
  end)

  it("knows the words that an option may be, and the topics of help", function()
    assert.equal('m"', (complete.key('sluice.sample { n = 1, sampler = "ddi', 80)))
    assert.equal("anced'", (complete.key("sluice.sample { labels = 'bal", 80)))
    assert.same({ eps = true, v = true, x0 = true }, candidates('sluice.diffusion { predict = "'))
    assert.same({ bf16 = true }, candidates('sluice.recipe { function() return { train = { precision = "bf'))
    assert.truthy(candidates('sluice.diffusion { schedule = "').cosine)
    assert.same({ ["models/"] = true }, candidates('sluice.sample { sampler = "models')) -- no word fits: a file
    assert.same({ softmax = true }, candidates('sluice.help "softm'))
    rawset(_G, "help", require("sluice.repl.tools").help)
    assert.truthy(candidates('help "sam').sampler)
    assert.truthy(candidates("help('tensor:it")["tensor:item"])
    assert.same({ ["models/"] = true }, candidates('help "models'))
    rawset(_G, "help", nil)
    assert.same({ ["models/"] = true }, candidates('print "models'))
  end)

  it("inserts what all have in common, else lists them in columns of bounded number", function()
    assert.equal("value", (complete.key("spec_", 80)))
    local insert, below = complete.key("spec_value.inner.", 40)
    assert.equal(nil, insert)
    assert.equal("alpha  beta", below)
    local many = {}
    for i = 1, 300 do many[i] = ("name%03d"):format(i) end
    below = complete.columns(many, 40)
    assert.truthy(below:find("… and 180 more", 1, true))
    for line in below:gmatch "[^\n]+" do assert.truthy(utf8.len(line) < 40) end
    assert.equal("a\nb", complete.columns({ "a", "b" }, 1))
  end)

  it("bears any text", function()
    for _, text in ipairs {
      "((((", "]]]", "}}}{", ".", ":", "a..b", "1.5.", "a[", "a[b].", "\"", "'\\", "[==[", "--[[", "::x::", "\0", "é.", "a:b:c",
    } do
      assert.truthy(pcall(complete.key, text, 80), text)
    end
  end)
end)
