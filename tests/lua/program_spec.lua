-- The program: options, scripts, the prompt without a terminal, Ctrl-C.
local under_test = require "program"

local program, run, script = under_test.path, under_test.run, under_test.script

describe("the program", function()
  it("runs a file with its arguments", function()
    local name = script "print(arg[0], arg[1], arg[2], arg[-1], ...)"
    assert.equal(("%s\ta\tb\trun\ta\tb\n"):format(name), (run("run " .. name .. " a b")))
    assert.equal(("%s\ta\tb\t%s\ta\tb\n"):format(name, program), (run(name .. " a b")))
    os.remove(name)
  end)

  it("has the module, as a global and by require", function()
    assert.equal("5.0\n", (run [[-e 'print((sluice.ones{2} + 1.5):sum():item())']]))
    assert.equal("true\n", (run [[-e 'print(require "sluice" == sluice)']]))
  end)

  it("says when images are of another range than models expect", function()
    for images, want in pairs {
      ["full({ 2, 3, 2, 2 }, 255)"] = "go from 255 to 255, expected about -1 to 1: x / 127.5 - 1, or u8",
      ["ones { 2, 1, 2, 2 }"] = "go from 1 to 1, expected about -1 to 1: 2 * x - 1",
      ["full({ 2, 3, 2, 2 }, 0 / 0)"] = "hold values that are not finite", ["ones { 2, 4, 2, 2 }"] = "", ["zeros { 2, 3, 2, 2 }"] = "",
    } do
      local text = run(("-e 'sluice.data.tensors { images = sluice.%s }'"):format(images))
      assert.equal(want == "" and "" or ("sluice: warning: data: images %s\n"):format(want), text)
    end
  end)

  it("says when a picture holds what is no number", function()
    local name = os.tmpname() .. ".png"
    local text, code = run(([[-e 'sluice.save_png("%s", sluice.tensor { { { 1, 0 / 0, 1 / 0 } } })']]):format(name))
    assert.equal(("sluice: warning: %s: 2 of 3 values are not finite; NaN is drawn black\n"):format(name), text)
    assert.equal(0, code)
    os.remove(name)
  end)

  it("finds Lua files beside itself, as in the portable archive", function()
    local dir = script ""
    os.remove(dir)
    os.execute(("mkdir %s && cp %s %s/sluice"):format(dir, program, dir))
    local file <close> = assert(io.open(dir .. "/beside_sluice.lua", "w"))
    file:write("return 42"):flush()
    local pipe = assert(io.popen(("cd / && %s/sluice -e 'print(require \"beside_sluice\")' 2>&1"):format(dir)))
    assert.truthy(pipe:read "a":match "^42%s")
    pipe:close()
    os.execute("rm -r " .. dir)
  end)

  it("exits with the script's status, and says where an error was", function()
    local name = script "local t = sluice.ones{2}\nreturn t:matmul(sluice.ones{3, 3})"
    local text, code = run("run " .. name)
    assert.equal(1, code)
    assert(text:find("sluice: " .. name .. ":2: matmul", 1, true), text)
    assert.falsy(text:find("stack traceback", 1, true), text) -- the message says it all
    os.remove(name)
    assert.equal(7, select(2, run "-e 'os.exit(7)'"))
    assert.equal(0, select(2, run "-e 'return 1'"))
    assert.equal(1, select(2, run "run /no/such/file.lua"))
    assert.equal(1, select(2, run "-e 'x ='"))
    assert.equal(1, select(2, run "--no-such-option"))
  end)

  it("says once that there is no GPU, where it was built for one and is not told where to run", function()
    local built = run("doctor"):find("CUDA         built with", 1, true)
    local default = "env -u SLUICE_DEVICE " .. program .. " -e '%s'"
    local make = "m = sluice.dit { input = {1, 4, 4}, patch = 2, hidden = 8, depth = 1, heads = 1, classes = 2 } "
    local pipe = assert(io.popen(default:format(make .. make .. "print(m:device())") .. " 2>&1"))
    local text = pipe:read "a"
    pipe:close()
    local _, notes = text:gsub("no GPU: [^\n]+; running on the CPU\n", "")
    assert.equal(built and not text:find "cuda:0" and 1 or 0, notes, text)
    assert(text:find "cpu\n$" or text:find "cuda:0\n$", text)
  end)

  it("reads a prompt", function()
    local name = script "1 + 1\nfor i = 1, 2 do\nprint(i * 10)\nend\nerror 'oh'\nx = 3\nx, 'y'\n"
    local text = run("-i < " .. name)
    assert(text:find "> 2\n" and text:find "10\n20\n" and text:find "oh" and text:find "3\ty", text)
    os.remove(name)
  end)

  it("keeps the prompt's locals, and code of its functions as it is", function()
    local other = script "return x == nil"
    local name = script(('local x = 5\nlocal function f()\n  return x + 1\nend\nf()\n_G.x == nil, dofile "%s", #string.rep("a", 3)\n')
      :format(other) .. "local quit = 3\nquit\nx = nil\nx + 1\n")
    local text = run("-i < " .. name)
    assert(text:find "> 6\n" and text:find "true\ttrue\t3\n" and text:find "> 3\n", text)
    assert(text:find("attempt to perform arithmetic on a nil value (local 'x')\n", 1, true), text)
    os.remove(name)
    os.remove(other)
  end)

  it("runs standard input and options in order", function()
    local name = script "print(y)"
    assert.equal("4\n", (run("-e 'y = 4' - < " .. name)))
    assert.equal("nil\n", (run("< " .. name)))
    os.remove(name)
    assert.equal("1\n", (run [[-l table -e 'print(#table.pack(1))']]))
    assert(run("--help"):find "usage: sluice")
    assert(run("-v"):find "Sluice 0" or run("-v"):find "sluice 0")
  end)

  it("takes lua5.4's options and environment", function()
    local name = script "print 'from the file'"
    local code = script "error 'in the file'"
    local function with(variables, arguments)
      local pipe = assert(io.popen(("env %s %s %s 2>&1"):format(variables, program, arguments)))
      local text = pipe:read "a"
      return text, select(3, pipe:close())
    end
    assert.equal("li\n1\n", (with("LUA_INIT='print \"li\"'", "-e 'print(1)'")))
    assert.equal("from the file\n1\n", (with("LUA_INIT=@" .. name, "-e 'print(1)'")))
    assert.equal("from the file\n1\n", (with("LUA_INIT=x LUA_INIT_5_4=@" .. name, "-e 'print(1)'")))
    assert.equal("1\n", (with("LUA_INIT='print \"li\"'", "-E -e 'print(1)'")))
    assert.falsy(with("LUA_PATH=/nowhere/?.lua", "-E -e 'print(package.path)'"):find "/nowhere")
    local text, status = with("LUA_INIT='error [[x]]'", "-e 'print(1)'")
    assert.equal("sluice: LUA_INIT:1: x\n", text)
    assert.equal(1, status)
    assert.equal(1, select(2, with("LUA_INIT=@/no/such/file", "-e ''")))
    assert.equal("", (run [[-e 'warn "x"']]))
    assert.equal("Lua warning: x\n", (run [[-W -e 'warn "x"']]))
    local args = script "print(...)"
    assert.equal("a\tb\n", (run("- a b < " .. args)))
    os.remove(args)
    assert.equal("from the file\n", (run("-- " .. name)))
    assert.equal("true\ttable\n", (run [[-l m=math -e 'print(m == math, type(m))']]))
    text, status = run "-e"
    assert(text:find "needs a value" and status == 1, text)
    text, status = run "--no-such"
    assert(text:find("--no-such", 1, true) and status == 1, text)
    text, status = run("-i " .. code .. " < /dev/null")
    assert(text:find "in the file" and not text:find "> " and status == 1, text)
    os.remove(name)
    os.remove(code)
  end)

  it("tells of an error what the user can use", function()
    local name = script "local function f() error 'oh' end\nlocal function g() f() end\ng()"
    assert.equal((("sluice: @:1: oh\nstack traceback:\n\t@:1: in function 'f'\n\t@:2: in function 'g'\n\t@:3: in main chunk\n")
      :gsub("@", name)), (run(name)))
    os.remove(name)
    assert.equal("sluice: (command line):1: sluice.sample: model and diffusion must be given\n", (run "-e 'sluice.sample {}'"))
    assert.equal("sluice: (error object) { code = 3 }\n", (run "-e 'error { code = 3 }'"))
    assert.equal("sluice: (error object is a nil value)\n", (run "-e 'error()'"))
    local text = run [[-e 'coroutine.wrap(function() error "inside" end)()']]
    assert.equal("sluice: (command line):1: (command line):1: inside\n", text)
    assert(run [[-e 'coroutine.resume(1)']]:find("bad argument #1 to 'resume' (coroutine expected, got number)", 1, true))
    text = run [[-e 'local function r() return 1 + r() end r()']]
    assert(text:find "stack overflow" and #text < 2000, text)
  end)

  it("tells of functions that the core calls back which of the user's led to an error", function()
    local functions = "local function outer(x)\n  return x.foo.bar\nend\nlocal function inner()\n  local y = outer {}\n  return y\n"
      .. "end\n"
    local model = "sluice.dit { input = { 1, 8, 8 }, patch = 4, hidden = 16, depth = 1, heads = 2, classes = 1, %s }"
    local frames = "attempt to index a nil value (field 'foo')\nstack traceback:\n\t@:2: in function 'outer'\n\t@:5: in function 'inner'\n"
    local function told(text)
      local name = script(functions .. text)
      local found = run(name):gsub(name, "@")
      os.remove(name)
      assert(found:find(frames, 1, true), found)
      return found
    end
    assert.truthy(told(model:format "block = function() local r = inner() return r end"):find "@:8: in main chunk\n$")
    assert.truthy(told("local function make()\n  local m = " ..
      model:format "routing = sluice.routing.custom(function() local r = inner() return r end)" .. "\n  return m\nend\nlocal m = make()")
      :find "\t@:9: in [^\n]*\n\t@:9: in function 'make'\n\t@:12: in main chunk\n$")
    told("local m = " .. model:format "" .. "\nlocal t = sluice.trainer { model = m, diffusion = sluice.diffusion {},\n" ..
      "  loss = function(s) local l = inner() return l end }")
    -- caught, it leaves nothing behind for another error of the same text
    local found = told("pcall(function() return " .. model:format "block = function() local r = inner() return r end" .. " end)\ninner()")
    assert.truthy(found:find "'inner'\n\t@:9: in main chunk\n$")
    -- the error itself is what it was, and so it is in a coroutine
    local name = script("local mine = { 1 }\nlocal function block() error(mine) end\nlocal function make() return "
      .. model:format "block = block" .. " end\nlocal _, e = pcall(make)\nlocal _, c = coroutine.resume(coroutine.create(make))\n"
      .. "print(e == mine, c == mine)")
    assert.equal("true true\n", (run(name):gsub("\t", " ")))
    os.remove(name)
  end)

  it("reads the start-up file for the prompt alone, and an error in it is not fatal", function()
    local name = script "greeting = 'hello'\nerror 'late'"
    local function prompt(variables, arguments, input)
      local pipe = assert(io.popen(("printf '%s' | env %s %s %s 2>&1"):format(input, variables, program, arguments)))
      local text = pipe:read "a"
      return text, select(3, pipe:close())
    end
    local text, status = prompt("SLUICE_INIT=" .. name, "-i", "greeting\\n")
    assert(text:find("sluice: " .. name .. ":2: late", 1, true) and text:find "> hello\n" and status == 0, text)
    assert(prompt("SLUICE_INIT=" .. name, "-E -i", "greeting\\n"):find "> nil\n")
    assert.equal("nil\n", (prompt("SLUICE_INIT=" .. name, "", "print(greeting)\\n")))
    assert(prompt("SLUICE_INIT=/no/such.lua", "-i", "1\\n"):find "/no/such.lua.*> 1\n")
    os.execute(("mkdir -p %s.d/sluice && cp %s %s.d/sluice/init.lua"):format(name, name, name))
    assert(prompt("-u SLUICE_INIT XDG_CONFIG_HOME=" .. name .. ".d", "-i", "greeting\\n"):find "> hello\n")
    assert(prompt("SLUICE_INIT= XDG_CONFIG_HOME=" .. name .. ".d", "-i", "greeting\\n"):find "> nil\n")
    os.execute(("rm -r %s %s.d"):format(name, name))
  end)

  it("prints what a line gives", function()
    local name = script(table.concat({
      "{ 3, x = 1 }", "= 1, nil", "print()", "(function() end)()", "(function() return nil end)()", "a = 5", "_", "7", "_ + 1", "1 +",
      "1", "{", "}", "x y", "setmetatable({}, { __tostring = function() error 'no' end })", "exit", "'not reached'",
    }, "\n") .. "\n")
    local text, status = run("-i < " .. name)
    os.remove(name)
    assert.equal(0, status)
    for _, want in ipairs {
      "> { 3, x = 1 }\n", "> 1\tnil\n", "> \n> > nil\n> > 1\n> 7\n> 8\n> >> 2\n> >> {}\n", "syntax error near 'y'",
      "its __tostring failed: ",
    } do
      assert(text:find(want, 1, true), want .. text)
    end
    assert.falsy(text:find("not reached", 1, true))
  end)

  it("names its commands to who asks for another", function()
    local text, code = run "trian x"
    assert.equal(1, code)
    assert(text:find("train", 1, true), text)
  end)

  it("starts fast", function()
    local name = script ""
    run("run " .. name)
    local start = os.time()
    for _ = 1, 20 do run("run " .. name) end
    assert(os.time() - start <= 3, "more than 100 ms a start")
    os.remove(name)
  end)

  it("stops coroutines at Ctrl-C", function()
    local name = script "print(pcall(coroutine.wrap(function() while true do end end)))"
    local text = run("run " .. name .. " & pid=$!; sleep 0.3; kill -INT $pid; wait $pid")
    assert(text:find("false\t.*interrupted"), text)
    os.remove(name)
  end)

  it("stops at Ctrl-C with an error that pcall sees", function()
    local name = script [[
      local ok, message = pcall(function() while true do end end)
      print(ok, message)
      os.exit(3)
    ]]
    local text, code = run("run " .. name .. " & pid=$!; sleep 0.3; kill -INT $pid; wait $pid")
    -- a shell's background jobs ignore SIGINT unless the program asks for it, which it does
    assert(text:find("false\t.*interrupted"), text)
    assert.equal(3, code)
    os.remove(name)
  end)
end)

describe("Ctrl-C in training", function()
  it("keeps what was reached and says so", function()
    local dir = os.tmpname()
    os.remove(dir)
    local command = "timeout --foreground -s INT 5 %s train recipes/quickstart.lua --set steps=1000000 --out %s 2>&1"
    local pipe = assert(io.popen(command:format(program, dir)))
    local text = pipe:read "a"
    pipe:close()
    local step = text:match("interrupted after step (%d+) of 1000000; go on with: sluice train %-%-resume " .. dir)
    assert.truthy(step, text)
    assert(io.open(("%s/checkpoints/step-%07d.safetensors"):format(dir, step), "rb")):close()
    os.execute("rm -r " .. dir)
  end)
end)
