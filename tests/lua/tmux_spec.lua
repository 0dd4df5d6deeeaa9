-- The prompt as a person meets it, in a terminal. With SLUICE_TRANSCRIPT=FILE the first session's screen is also written there
-- (docs/repl-session.txt was).
local tmux = require "tmux"
local files = require "files"

local program = os.getenv "SLUICE_BINARY" or "build/sluice"

if not tmux.is_there() then
  pending "the prompt in a terminal: there is no tmux"
  return
end

local home
setup(function() home = files.temporary() end)
teardown(function() os.execute("rm -r " .. home) end)
after_each(tmux.close_all)

local function start(o)
  o = o or {}
  local env = { HOME = home, XDG_CONFIG_HOME = "", XDG_STATE_HOME = "", TERM = "screen", LC_ALL = "C.UTF-8", OMP_NUM_THREADS = "1" }
  for k, v in pairs(o.env or {}) do env[k] = v end
  o.env = env
  local t = tmux.start("exec " .. program .. (o.arguments or ""), o)
  t:wait "> *\n$"
  return t
end

describe("a first session", function()
  it("completes, corrects, samples, shows, stops, goes on and ends", function()
    local t = start()
    t:type("loaded = sluice.lo", "Tab")
    t:wait "load_image +log"
    t:type('ad "models/di', "Tab")
    t:wait 'digits.safetensors"'
    t:type("", "Enter")
    t:wait '"models/digits.safetensors"\n> *\n$'
    t:type("model = sluice.dit { hiden = 32 }", "Enter")
    assert.truthy(t:prompt("32 }"):find('did you mean "hidden"?', 1, true))
    t:type("sluice.dit { hid", "Tab")
    t:wait "> sluice.dit { hidden ="
    t:type("", "C-c")
    t:wait "%^C\n> *\n$"

    t:type("images, labels = loaded:sample { n = 6, labels = { 0, 1, 2, 3, 4, 5 }, steps = 6, seed = 3 }", "Enter")
    t:prompt "seed = 3 }"
    t:type("images:shape()", "Enter")
    assert.truthy(t:prompt("images:shape()"):find("[6,1,28,28]", 1, true))
    t:type("show(images, { columns = 6 })", "Enter")
    local picture = t:prompt "columns = 6 })"
    assert.truthy(select(2, picture:gsub("\n", "")) >= 5, picture)
    assert.truthy(picture:find "\226\150", picture) -- a block's first bytes

    t:type('sampler = sluice.sampler { model = loaded.model, diffusion = loaded.diffusion, n = 2, labels = "balanced", seed = 1 }', "Enter")
    t:prompt "seed = 1 }"
    t:type("for s in sampler:steps() do done = s.i end", "Enter")
    t:wait "done = s.i end\n"
    os.execute "sleep 0.3" -- some steps; whether any was done does not matter
    t:type("", "C-c")
    t:wait "interrupted\n> *\n$"
    t:type("before = sampler.i; sampler:step()", "Enter")
    t:prompt "sampler:step()"
    t:type("sampler.i > before, #sampler.x", "Enter")
    assert.truthy(t:prompt("#sampler.x"):find "^true%s+2$")
    t:type("loaded:sample { n = 16, steps = 1000 }", "Enter")
    t:wait "%d+/1000 "
    t:type("", "C-c")
    t:wait "steps = 1000 }\n.*interrupted\n> *\n$"
    t:type("time(loaded.sample, loaded, { n = 1, steps = 2 })", "Enter")
    assert.truthy(t:prompt("steps = 2 })"):find "%d s")
    t:type("help(sluice.ones)", "Enter")
    assert.truthy(t:prompt("help(sluice.ones)"):find("sluice.ones(", 1, true))
    local screen = t:screen()
    if os.getenv "SLUICE_TRANSCRIPT" then files.write(os.getenv "SLUICE_TRANSCRIPT", screen) end
    t:type("", "C-d")
    t:ended()
    t:close()
    assert.falsy(screen:find("stack traceback", 1, true))
    assert.falsy(screen:find("[C]", 1, true))
    assert.falsy(screen:find("[sluice", 1, true))
  end)

  it("is remembered by the next", function()
    local text = files.read(home .. "/.local/state/sluice/history")
    assert.truthy(text:find("show(images, { columns = 6 })\n", 1, true))
    local t = start()
    t:type("", "Up")
    t:wait "> help%(sluice.ones%) *\n$"
    t:type("", "Enter")
    t:prompt "help(sluice.ones)"
    t:type("for i = 1, 2 do", "Enter")
    t:type("print(i * 10)", "Enter")
    t:type("end", "Enter")
    t:wait "10\n20\n> *\n$"
    t:type("quit", "Enter")
    t:ended()
    t:close()
    assert.truthy(files.read(home .. "/.local/state/sluice/history"):find("for i = 1, 2 do\\nprint(i * 10)\\nend\n", 1, true))
  end)
end)

describe("history", function()
  it("is kept by sessions beside each other", function()
    local path = home .. "/shared"
    local a, b = start { env = { SLUICE_HISTORY = path } }, start { env = { SLUICE_HISTORY = path } }
    for i = 1, 3 do
      a:type(("a%d = 1"):format(i), "Enter")
      b:type(("b%d = 1"):format(i), "Enter")
    end
    a:prompt "a3 = 1"
    b:prompt "b3 = 1"
    a:close()
    b:close()
    local lines = {}
    for line in files.read(path):gmatch "[^\n]+" do lines[#lines + 1] = line end
    table.sort(lines)
    assert.same({ "a1 = 1", "a2 = 1", "a3 = 1", "b1 = 1", "b2 = 1", "b3 = 1" }, lines)
  end)

  it("does not stop the prompt where it cannot be kept", function()
    for _, path in ipairs { "/dev/full", home, "/proc/no/such/history" } do
      local t = start { env = { SLUICE_HISTORY = path } }
      t:type("1 + 1", "Enter")
      t:wait "2\n> *\n$"
      t:type("1 + 2", "Enter")
      assert.equal(1, select(2, t:wait("3\n> *\n$"):gsub("lines are not kept", "")))
      t:close()
    end
  end)
end)

describe("the line", function()
  it("takes pasted code, UTF-8, and more than the window is wide", function()
    local t = start { columns = 40, rows = 20, env = { SLUICE_HISTORY = "" } }
    t:wait "completes,\n  Ctrl%-D leaves.\n> *\n$"
    t:paste "function double(x)\n\tif x then\n\t\treturn 2 * x\n\tend\nend\ndouble(21)\n"
    local screen = t:wait "42\n> *\n$"
    assert.truthy(screen:find("function double(x)\n>>   if x then\n>>     return 2 * x\n>>   end\n>> end\n> double(21)", 1, true), screen)
    t:type("x = '" .. ("äöü✓"):rep(30) .. "'", "C-a")
    t:type("y, ", "C-e")
    t:type(", #'ß'", "Enter")
    t:type("utf8.len(y), x", "Enter")
    t:wait "120\t? *2\n> *\n$"
    t:type("1 + 1", "C-a", "C-d") -- C-d inside a line deletes
    t:type("4", "Enter")
    t:wait "4 %+ 1\n5\n> *\n$"
    t:type("", "C-d")
    t:ended()
    t:close()
  end)

  it("stops what catches errors at the second Ctrl-C, and coroutines", function()
    local t = start { env = { SLUICE_HISTORY = "" } }
    t:type("while true do pcall(function() while true do end end) end", "Enter")
    t:wait "end end%) end\n"
    t:type("", "C-c")
    os.execute "sleep 0.2"
    t:type("", "C-c")
    t:wait "interrupted\n> *\n$"
    t:type("coroutine.wrap(function() kept = 7; while true do end end)()", "Enter")
    t:wait "end end%)%(%)\n"
    os.execute "sleep 0.2"
    t:type("", "C-c")
    t:wait "end end%)%(%)\n%^C\ninterrupted\n> *\n$"
    t:type("kept", "Enter")
    t:wait "> kept\n7\n> *\n$"
    t:close()
  end)

  it("is read plainly where the terminal is dumb", function()
    local t = start { env = { SLUICE_HISTORY = "" }, arguments = "" }
    t:close()
    t = tmux.start("exec env TERM=dumb " .. program, { env = { HOME = home } })
    t:wait "> *\n$"
    t:type("1 +", "Enter")
    t:wait ">> *\n$"
    t:type("", "C-c")
    t:wait "%^C\n> *\n$"
    t:type("'one' .. 1", "Enter")
    t:wait "one1\n> *\n$"
    t:type("", "C-d")
    t:ended()
    t:close()
  end)
end)

describe("a picture", function()
  it("has no colours where NO_COLOR is set", function()
    for value, coloured in pairs { [""] = true, ["1"] = false } do
      local t = start { env = { SLUICE_HISTORY = "", NO_COLOR = value } }
      t:type("show(sluice.rand({ 3, 16, 32 }, { seed = 1 }) * 2 - 1)", "Enter")
      assert.truthy(t:prompt("* 2 - 1)"):find "\226\150")
      assert.equal(coloured, t:is_coloured())
      t:close()
    end
  end)
end)

describe("training at the prompt", function()
  it("is kept when it is interrupted, and goes on", function()
    local runs = files.temporary()
    local t = start { env = { SLUICE_HISTORY = "" } }
    t:type('recipe = loadfile "recipes/quickstart.lua" "train"', "Enter")
    t:prompt '"train"'
    t:type(('set, dir = { hidden = 32, depth = 1, batch = 4, steps = 100000 }, "%s/a"'):format(runs), "Enter")
    t:prompt '/a"'
    t:type("sluice.train(recipe, { set = set, out = dir })", "Enter")
    t:wait "[1-9]%d*/100000 "
    t:type("", "C-c")
    local text = t:wait "resume = [^\n]* }%)\n> *\n$"
    local step = text:match "interrupted after step (%d+) of 100000; go on with: sluice.train%(recipe, { resume"
    t:type("sluice.load(dir).step", "Enter")
    t:wait(("sluice.load%%(dir%%).step\n%s\n"):format(step))
    t:type("sluice.train(nil, { resume = dir })", "Enter")
    t:wait("from step " .. step .. " to 100000")
    t:wait "resume = dir.*[1-9]%d*/100000 "
    t:type("", "C-c")
    t:wait "resume = dir.*interrupted after step %d+ of 100000[^\n]*\n> *\n$"
    t:type("", "C-d")
    t:ended()
    t:close()
    os.execute("rm -r " .. runs)
  end)
end)
