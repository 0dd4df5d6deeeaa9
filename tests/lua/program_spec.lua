local program = os.getenv "SLUICE_BINARY" or "build/sluice"

local function script(text)
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(text)
  file:close()
  return name
end

-- stdout and stderr together, and the exit status.
local function run(arguments)
  local pipe = assert(io.popen(program .. " " .. arguments .. " 2>&1"))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  return text, code
end

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

  it("exits with the script's status, and says where an error was", function()
    local name = script "local t = sluice.ones{2}\nreturn t:matmul(sluice.ones{3, 3})"
    local text, code = run("run " .. name)
    assert.equal(1, code)
    assert(text:find(name .. ":2: matmul", 1, true), text)
    assert(text:find("stack traceback", 1, true), text)
    os.remove(name)
    assert.equal(7, select(2, run "-e 'os.exit(7)'"))
    assert.equal(0, select(2, run "-e 'return 1'"))
    assert.equal(1, select(2, run "run /no/such/file.lua"))
    assert.equal(1, select(2, run "-e 'x ='"))
    assert.equal(1, select(2, run "--no-such-option"))
  end)

  it("reads a prompt", function()
    local name = script "1 + 1\nfor i = 1, 2 do\nprint(i * 10)\nend\nerror 'oh'\nx = 3\nx, 'y'\n"
    local text = run("-i < " .. name)
    assert(text:find "> 2\n" and text:find "10\n20\n" and text:find "oh" and text:find "3\ty", text)
    os.remove(name)
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
    assert.truthy(text:find("stopped after %d+ steps; what was reached is in"), text)
    assert.truthy(text:find("interrupted", 1, true), text)
    assert(io.open(dir .. "/checkpoint.safetensors", "rb")):close()
    os.execute("rm -r " .. dir)
  end)
end)
