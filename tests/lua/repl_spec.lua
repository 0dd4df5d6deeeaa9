-- The logic of the prompt, without a terminal: printing, history, help, errors, pictures.
local sluice = require "sluice"
local core = require "sluice.core"
local complete = require "sluice.repl.complete"
local files = require "files"
local faults = require "sluice.faults"
local history = require "sluice.repl.history"
local inspect = require "sluice.repl.inspect"
local locals = require "sluice.repl.locals"
local names = require "sluice.repl.names"
local tools = require "sluice.repl.tools"

-- What io.write prints while f runs; names of files it makes are its affair.
local function printed(f, ...)
  local write, parts = io.write, {}
  io.write = function(...) -- luacheck: ignore
    for i = 1, select("#", ...) do parts[#parts + 1] = tostring((select(i, ...))) end
    return io.stdout
  end
  local results = table.pack(pcall(f, ...))
  io.write = write -- luacheck: ignore
  assert(results[1], results[2])
  return table.concat(parts), table.unpack(results, 2, results.n)
end

describe("printing", function()
  it("opens tables with sorted keys, a few levels deep, cycles and all", function()
    local t = { 3, 2, b = 1, a = { x = { y = { z = 1 } } } }
    t.self = t
    assert.equal("{ 3, 2, a = { x = { … } }, b = 1, self = { the table itself, again } }", inspect.text(t))
    assert.equal("{}", inspect.text {})
    assert.equal('{ [1.5] = 1, ["a b"] = "x\\ny", [true] = 2 }', inspect.text { [1.5] = 1, ["a b"] = "x\ny", [true] = 2 })
  end)

  it("is of bounded length", function()
    local big = {}
    for i = 1, 1e5 do big[i] = { i } end
    assert.truthy(#inspect.text(big) < 400)
    local keys = {}
    for i = 1, 5000 do keys["k" .. i] = ("x"):rep(1000) end
    assert.truthy(#inspect.text(keys) < 6000)
    assert.truthy(inspect.text(keys):find("5000 keys in all", 1, true))
    local x = sluice.zeros { 1000, 1000 }
    assert.truthy(#inspect.text(x) < 400)
    assert.equal("{ x = tensor f32 [1000,1000] }", inspect.text { x = x })
    assert.truthy(utf8.len(inspect.text { ("é"):rep(200) }))
  end)

  it("runs no metamethod but __tostring, whose errors it tells", function()
    local function bad() error "no" end
    assert.equal("{}", inspect.text(setmetatable({}, { __index = bad, __pairs = bad, __len = bad, __name = 1 })))
    assert.truthy(inspect.text(setmetatable({}, { __tostring = bad })):find "its __tostring failed: .*no")
    assert.equal("mine { a = 1 }", inspect.text(setmetatable({ a = 1 }, { __name = "mine" })))
  end)

  it("tells of a checkpoint and of how images were made in a line", function()
    local loaded = sluice.load "models/digits.safetensors"
    assert.equal("checkpoint models/digits.safetensors: dit, 1,281,680 parameters, step 50000, EMA none", inspect.text(loaded))
    local _, _, made = loaded:sample { n = 1, steps = 2, seed = 4 }
    assert.equal(made:text().Description, inspect.text(made))
    assert.truthy(inspect.text { made }:find("1 image, balanced classes; sampler ddim, 2 steps", 1, true))
  end)

  it("puts several values in a line, as print does, or in lines", function()
    assert.equal("1\tnil\ta", inspect.line(1, nil, "a"))
    assert.equal("nil", inspect.line(nil))
    assert.truthy(inspect.line(sluice.ones { 2, 2 }, 3):find "\n3$")
  end)
end)

describe("history", function()
  local console, remembered

  local function open(path)
    remembered = {}
    console = {
      remember = function(text) remembered[#remembered + 1] = text end,
      history_append = function(name, text)
        local f, why = io.open(name, "a")
        if not f then return nil, why end
        f:write(text)
        f:close()
        return true
      end,
      history_replace = function(name, f)
        local file, why = io.open(name, "a+")
        if not file then return nil, why end
        local text = f(file:read "a")
        file:close()
        if text then files.write(name, text) end
        return true
      end,
    }
    return history.open(console, path)
  end

  it("keeps entries of several lines whole", function()
    local dir = files.temporary()
    local path = dir .. "/new/history"
    local h = open(path)
    local text = "for i = 1, 2 do\n  print '\\n'\nend"
    h:add "x = 1"
    h:add "x = 1"
    h:add "   "
    h:add(text)
    assert.equal("x = 1\nfor i = 1, 2 do\\n  print '\\\\n'\\nend\n", files.read(path))
    open(path)
    assert.same({ "x = 1", text }, remembered)
    files.write(path, "good\nbro\0ken\nlast line without end")
    open(path)
    assert.same({ "good" }, remembered)
    os.execute("rm -r " .. dir)
  end)

  it("is shortened when it is long", function()
    local lines = {}
    for i = 1, 2001 do lines[i] = "line " .. i end
    local text = table.concat(lines, "\n") .. "\n"
    local short = history.shortened(text)
    assert.equal(1000, select(2, short:gsub("\n", "")))
    assert.truthy(short:find "^line 1002\n" and short:find "line 2001\n$")
    assert.equal(nil, history.shortened(short))
  end)

  it("stays out of the way where it cannot be kept", function()
    local stderr = io.stderr
    local said = {}
    io.stderr = { write = function(_, ...) said[#said + 1] = table.concat { ... } end } -- luacheck: ignore
    local ok, fault = pcall(function()
      local h = open "/proc/no/such/history"
      h:add "x"
      h:add "y"
    end)
    io.stderr = stderr -- luacheck: ignore
    assert(ok, fault)
    assert.equal(1, #said)
    assert.truthy(said[1]:find("/proc/no/such/history", 1, true))
    assert.same({ "x", "y" }, remembered)
  end)
end)

describe("errors", function()
  local function told(f, ...)
    local _, text = xpcall(f, faults.told, ...)
    return text
  end

  it("are told without C's and Sluice's own places", function()
    local text = told(function() sluice.sample { steps = 1 } end)
    assert.truthy(text:find "repl_spec.lua:%d+: sluice.sample: model and diffusion must be given")
    assert.falsy(text:find("[C]", 1, true))
    assert.falsy(text:find("[sluice", 1, true))
    assert.equal("3: odd", told(function() error("3: odd", 0) end):match "^[^\n]*")
    assert.equal("interrupted", told(function() error "interrupted" end))
  end)

  it("may be any value", function()
    assert.equal("(error object) { code = 3 }", told(function() error { code = 3 } end):match "^[^\n]*")
    assert.equal("(error object is a nil value)", told(function() error() end):match "^[^\n]*")
    assert.equal("mine", told(function() error(setmetatable({}, { __tostring = function() return "mine" end })) end):match "^[^\n]*")
    local bad = setmetatable({}, { __tostring = function() error "x" end })
    assert.equal("(error object is a table value)", told(function() error(bad) end):match "^[^\n]*")
  end)

  it("name at the prompt what the user typed, and the nearest name", function()
    faults.inputs["input 1"], faults.inputs["input 2"] = "function f(x)\n  return x.a.b\nend", "f {}"
    faults.current = "input 1"
    assert(load(faults.inputs["input 1"], "=input 1", "t", _G))()
    faults.current = "input 2"
    local text = told(assert(load("f {}", "=input 2")))
    assert.equal("input 1:2: attempt to index a nil value (field 'a')\n    2 |   return x.a.b", text)
    text = told(assert(load("pritn()", "=input 2")))
    assert.equal("attempt to call a nil value (global 'pritn'); did you mean \"print\"?", text)
    rawset(_G, "f", nil)
    faults.current, faults.inputs = nil, {}
    rawset(_G, "sluice", sluice)
    local function nearest(kind, name, code, line) return names.nearest(kind, name, code, line or 1) end
    assert.equal("dtr", nearest("field", "drt", "m = sluice.routing.drt {}"))
    assert.equal("cosine", nearest("field", "cosin", "sluice.schedule.cosin {}"))
    assert.equal("min_snr", nearest("field", "minsnr", "sluice.weight.minsnr(3)"))
    assert.equal("routing", nearest("field", "routng", "sluice.routng.dtr {}"))
    assert.equal("upper", nearest("method", "uper", "('a'):uper()"))
    assert.equal(nil, nearest("field", "sampel", "math.sampel()")) -- there is none in math
    assert.equal("sample", nearest("field", "sampel", "x = math.sampel or 0\nsluice.sampel {}", 2))
    assert.equal("sample", nearest("field", "sampel", "f().sampel()"))
    rawset(_G, "sluice", nil)
    assert.equal("sample", names.nearest("field", "sampel"))
    assert.equal("totable", names.nearest("method", "totabel"))
    assert.equal(nil, names.nearest("global", "qqqqqqqq"))
    assert.equal(nil, names.nearest("field", "foo"))
  end)
end)

describe("locals of the prompt", function()
  after_each(locals.forget)

  local function run(text)
    local f = assert(locals.load(text, "=input 1"))
    local results = table.pack(pcall(f))
    locals.ran(f)
    return table.unpack(results, 1, results.n)
  end

  local function value(text)
    return select(2, assert(run("return " .. text)))
  end

  it("are seen by later inputs, and not by others", function()
    run "local x, spec_y = 1, 2"
    run "-- adds\nlocal function spec_add(a)\n  return a + x\nend"
    assert.equal(3, value "spec_add(spec_y)")
    run "x = 10"
    run "spec_global = 4"
    assert.equal(12, value "spec_add(2)")
    assert.equal(nil, rawget(_G, "x"))
    assert.equal(nil, rawget(_G, "spec_add"))
    assert.equal(4, rawget(_G, "spec_global"))
    assert.equal(nil, value "load 'return x'()")
    run "spec_global = nil"
    run "function spec_later() return spec_z end"
    run "local spec_z <const> = 5"
    assert.equal(5, value "spec_later()")
    run "spec_later = nil"
  end)

  it("hide globals without a change to them, and may be nil", function()
    local library = string
    run "local string = string.rep('a', 3)"
    assert.equal("aaa", value "string")
    assert.equal(library, rawget(_G, "string"))
    run "local print"
    assert.equal(nil, value "print")
    run "local print; print = 3"
    assert.equal(3, value "print")
    run "print = nil"
    assert.equal(nil, value "print")
    assert.truthy(rawget(_G, "print"))
    run "local math, table = 1"
    assert.equal(nil, value "table")
    assert.falsy(run "local os = os.nothing.at_all")
    assert.equal(os, value "os")
    assert.falsy(run "local spec_x = 1; error 'late'")
    assert.equal(1, value "spec_x")
  end)

  it("are what Lua says in all else", function()
    assert.equal(nil, locals.declaration "do local x = 1 end")
    assert.equal(nil, locals.declaration "f(function() local x = 1 end)")
    assert.equal("      x         = 3", (locals.declaration "local x <const> = 3"))
    assert.equal("       ; f()", (locals.declaration "local x; f()"))
    assert.equal("      function f() end", (locals.declaration "local function f() end"))
    assert.equal(nil, locals.declaration "local x <close> = f()")
    local _, message = locals.load("local x <const> = 1; x = 2", "=input 1")
    assert.truthy(message:find("attempt to assign to const variable 'x'", 1, true))
    _, message = locals.load("local function a.b() end", "=input 1")
    assert.truthy(message:find("near '.'", 1, true))
    run "local _, spec_b = 1, 2"
    assert.falsy(locals.is "_")
    rawset(_G, "_", nil)
    run "do local spec_c = 1 end; local spec_d = 2"
    assert.falsy(locals.is "spec_c" or locals.is "spec_d")
    run "local spec_e = 1; function spec_f() spec_e = spec_e + 1 end"
    run "spec_f()"
    assert.equal(2, value "spec_e")
    run "spec_f = nil"
  end)

  it("leave the prompt alone when they, or globals, have names of Lua's libraries", function()
    local lines = {}
    for _, name in ipairs { "table", "debug", "string", "math", "os", "utf8", "coroutine", "package" } do
      lines[#lines + 1] = ("local %s = 1"):format(name)
      lines[#lines + 1] = ("_G.%s = 1"):format(name)
    end
    local name = os.tmpname()
    files.write(name, table.concat(lines, "\n") .. "\nlocal _, x = 1, 5\n= table + x, _\n{ x }\n")
    local pipe <close> = assert(io.popen(("%s -i <%s 2>&1"):format(os.getenv "SLUICE_BINARY" or "build/sluice", name)))
    local text = pipe:read "a"
    assert.truthy(text:find("6\tnil", 1, true) and text:find("{ 5 }", 1, true), text)
    os.remove(name)
  end)

  it("are known to completion and to messages", function()
    run "local spec_table, spec_none = { inner = { 1 } }"
    assert.same({ "spec_none", "spec_table" }, (complete.candidates "print(spec_"))
    assert.same({ "inner" }, (complete.candidates "spec_table."))
    run "local string = { mine = 1 }"
    assert.same({ "mine" }, (complete.candidates "string."))
    faults.current, faults.inputs["input 1"] = "input 1", "x"
    local _, text = xpcall(locals.load("spec_tabel()", "=input 1"), faults.told)
    assert.equal("attempt to call a nil value (global 'spec_tabel'); did you mean \"spec_table\"?", text)
    _, text = xpcall(locals.load("spec_none()", "=input 1"), faults.told)
    assert.equal("attempt to call a nil value (local 'spec_none')", text)
    faults.current, faults.inputs = nil, {}
  end)
end)

describe("the prompt's tools", function()
  it("help wraps what fits and leaves what does not", function()
    local terminal = core.terminal
    core.terminal = function() return 24, 40 end
    local text = printed(tools.help, ("é"):rep(200))
    local tour = printed(tools.help)
    local sampler = printed(tools.help, "cfg_interval")
    core.terminal = terminal
    assert.truthy(text:find(("é"):rep(200), 1, true))
    for row in tour:gmatch "[^\n]+" do assert(utf8.len(row) < 40, row) end
    local last -- filled once: no line but a paragraph's last has room for the next word
    for row in sampler:gmatch "[^\n]+" do
      assert(utf8.len(row) < 40, row)
      local indent, word = row:match "^( *)(%S+)"
      if last and indent == "    " and last:match "^    %S" then assert.truthy(utf8.len(last) + 1 + utf8.len(word) >= 40, row) end
      last = row
    end
  end)

  it("help finds the name of a value", function()
    assert.equal(sluice.help "ones" .. "\n", (printed(tools.help, sluice.ones)))
    assert.equal(sluice.help "ones" .. "\n", (printed(tools.help, "sluice.ones")))
    assert.truthy(printed(tools.help, "sofmax"):find('did you mean "softmax"?', 1, true))
    assert.truthy(printed(tools.help, print):find "manual.html#pdf%-print")
    assert.truthy(printed(tools.help, string.format):find "pdf%-string.format")
    assert.truthy(printed(tools.help, function(first, ...) return first, ... end):find "function%(first, %.%.%.%).*repl_spec.lua")
    assert.truthy(printed(tools.help, sluice.ones { 1 }):find "methods: .*matmul")
    assert.truthy(printed(tools.help):find "Ctrl%-D")
    assert.truthy(printed(tools.help, sluice):find "Ctrl%-D")
    assert.truthy(printed(tools.help, nil):find "nil")
  end)

  it("time returns what it times", function()
    local text, a, b = printed(tools.time, function(x) return x, nil end, 3)
    assert.truthy(text:find "^[%d.e-]+ s\n$")
    assert.same({ 3, nil }, { a, b })
  end)
end)

describe("sluice.show", function()
  local dir, path

  setup(function()
    dir = files.temporary()
    path = dir .. "/x.png"
  end)
  teardown(function() os.execute("rm -r " .. dir) end)

  local function size(x, o)
    os.remove(path)
    o = o or {}
    o.path = path
    local text = printed(sluice.show, x, o)
    if not core.exists(path) then return text end
    assert.truthy(text:find(path, 1, true))
    return sluice.load_image(path):shape(), text
  end

  it("draws what is a picture", function()
    assert.same({ 3, 6, 8 }, (size(sluice.zeros { 6, 8 })))
    assert.same({ 3, 6, 8 }, (size(sluice.zeros { 1, 6, 8 })))
    assert.same({ 3, 6, 8 }, (size(sluice.zeros { 3, 6, 8 })))
    assert.same({ 3, 6, 8 }, (size(sluice.zeros({ 6, 8, 3 }, { dtype = "u8" }))))
    assert.same({ 3, 6, 8 }, (size(sluice.zeros({ 1, 6, 8, 1 }, { dtype = "u8" }))))
    for _, o in ipairs { {}, { T = 20 }, { T = 20, C = 10 } } do
      local want = sluice.routing.dtr({}):picture(o):shape()
      assert.same({ want[1], want[2], want[3] }, (size(sluice.routing.dtr {}, o)))
    end
    local two = size(sluice.zeros { 2, 1, 6, 8 }, { columns = 2 })
    assert.truthy(two[3] > two[2])
    assert.truthy(select(2, size(sluice.arange(12):reshape { 3, 4 })):find("black is 1, white 12", 1, true))
    local all = sluice.data.tensors { images = sluice.zeros { 30, 1, 4, 4 } }
    assert.truthy(select(2, size(all)):find("the first 25 of 30 images", 1, true))
  end)

  it("keeps black black and white white", function()
    local bytes = sluice.tensor({ { 0, 255 }, { 255, 0 } }, { dtype = "u8" })
    size(bytes)
    assert.same({ { -1, 1 }, { 1, -1 } }, sluice.load_image(path)[1]:totable())
    size(sluice.tensor({ { 0, 1 }, { 1, 0 } }, { dtype = "u8" })) -- a mask
    assert.same({ { -1, 1 }, { 1, -1 } }, sluice.load_image(path)[1]:totable())
  end)

  it("draws of work in progress what can be read", function()
    local show = require "sluice.show"
    local terminal = core.terminal
    local function readable(rows, wide, shape, columns)
      core.terminal = function() return rows, wide end
      local n, across = show.readable(shape, columns)
      core.terminal = terminal
      return { n, across }
    end
    assert.same({ 12, 6 }, readable(24, 80, { 200, 1, 28, 28 }))
    assert.same({ 12, 6 }, readable(24, 80, { 200, 1, 28, 28 }, 20))
    assert.same({ 10, 5 }, readable(24, 80, { 200, 1, 28, 28 }, 5))
    assert.same({ 16, 8 }, readable(45, 200, { 16, 3, 28, 28 }))
    assert.same({ 4, 4 }, readable(24, 80, { 4, 1, 28, 28 }))
    assert.same({ 1, 1 }, readable(5, 10, { 4, 1, 28, 28 }))
    assert.same({ 1, 1 }, readable(3, 2, { 4, 3, 256, 256 }, 2))
  end)

  it("warns of values that are not finite, in a terminal as in a file", function()
    local terminal, draw, stderr, said = core.terminal, core.draw, io.stderr, {}
    core.terminal, core.draw = function() return 24, 80 end, function() end
    io.stderr = { write = function(_, ...) said[#said + 1] = table.concat { ... } end } -- luacheck: ignore
    local ok, fault = pcall(function()
      sluice.show(sluice.tensor { { { 1, 0 / 0, 1 / 0 } } })
      sluice.show(sluice.ones { 1, 2, 2 })
    end)
    core.terminal, core.draw, io.stderr = terminal, draw, stderr -- luacheck: ignore
    assert(ok, fault)
    assert.equal("sluice: warning: 2 of 3 values are not finite; NaN is drawn black\n", table.concat(said))
  end)

  it("says what is none", function()
    for want, x in pairs {
      ["3 is no picture"] = 3, ["a table is no picture"] = {}, ['the text "a" is no picture'] = "a",
      ["has 4 channels"] = sluice.zeros { 1, 4, 2, 2 },
      ["[3] is no picture"] = sluice.zeros { 3 }, ["is empty"] = sluice.zeros { 0, 3 }, ["no picture"] = sluice.ones { 2, 2 } / 0,
    } do
      local text = size(x)
      assert.truthy(type(text) == "string" and text:find(want, 1, true), want)
    end
    assert.error_matches(function() sluice.show(sluice.ones { 2, 2 }, { colums = 2 }) end, 'did you mean "columns"')
    assert.error_matches(function() sluice.show(sluice.ones { 2, 2 }, { path = "/no/such/x.png" }) end, "/no/such/x.png")
  end)
end)
