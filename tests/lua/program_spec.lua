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
    assert(text:find(name .. ":2: matmul", 1, true), text)
    assert(text:find("stack traceback", 1, true), text)
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
    local step = text:match("interrupted after step (%d+) of 1000000; go on with: sluice train %-%-resume " .. dir)
    assert.truthy(step, text)
    assert(io.open(("%s/checkpoints/step-%07d.safetensors"):format(dir, step), "rb")):close()
    os.execute("rm -r " .. dir)
  end)
end)

describe("the commands", function()
  local dir = os.tmpname()
  os.remove(dir)
  local train = "train recipes/quickstart.lua --set steps=2 --set hidden=32 --set depth=1 "

  setup(function()
    local text, code = run(train .. "--threads 1 --memory 1G --out " .. dir)
    assert(code == 0, text)
  end)
  teardown(function() os.execute("rm -r " .. dir) end)

  local function refused(arguments, want)
    local text, code = run(arguments)
    assert.equal(1, code)
    assert.truthy(text:find(want, 1, true), text)
    assert.falsy(text:find("[sluice.", 1, true), text)
  end

  it("refuse threads and memory that cannot be", function()
    for _, n in ipairs { "0", "-1", "abc", "2.5", "99999" } do
      refused(train .. "--threads " .. n, ("--threads %s: expected 1 to 1024"):format(n))
    end
    for _, bytes in ipairs { "abc", "0", "-1", "5X" } do
      refused(train .. "--memory " .. bytes, ('--memory is "%s"'):format(bytes))
    end
    refused(train .. "--memory 9M --out /nowhere/x", "of the limit of 9 MiB are free: the largest that fits is ")
    local pipe = assert(io.popen("SLUICE_MEMORY=much " .. program .. " doctor 2>&1"))
    assert.truthy(pipe:read("a"):find('SLUICE_MEMORY is "much"', 1, true))
    pipe:close()
  end)

  it("sample takes the fields of sluice.sample", function()
    local noise = dir .. "/noise.npz"
    local sluice = require "sluice"
    sluice.io.save(noise, { x = sluice.randn { 2, 1, 28, 28 } })
    local sample = ("sample %s --steps 3 -o %s/a.npz "):format(dir, dir)
    for _, o in ipairs {
      "--labels 1,2", "-n 2 --labels uniform", "-n 2 --class 3", "-n 2 --precision f32 --ema none --seed 4 --eta 1 --clip false",
      "-n 2 --cfg 2 --cfg_interval 100,500 --cfg_channels 1 --sampler ddpm --device cpu --batch 1", "-n 2 --noise " .. noise,
      ("-n 2 --init %s --start 2"):format(noise), ("-n 2 --init %s --mask %s"):format(noise, noise),
    } do
      local text, code = run(sample .. o)
      assert(code == 0, text)
      local file = sluice.io.load(dir .. "/a.npz")
      assert.same({ 2, 28, 28, 1 }, file.arr_0:shape())
      assert.same({ 2 }, file.arr_1 and file.arr_1:shape())
    end
  end)

  it("sample says what is wrong before it works", function()
    local sample = ("sample %s --steps 3 -n 2 "):format(dir)
    refused(sample .. "-n -3", "n is -3")
    refused(sample .. "-n abc", "abc: expected an integer")
    refused(sample .. "--eta -1", "eta is -1")
    refused(sample .. "--class 99", "label 99 is outside 0")
    refused(sample .. "--labels 1,2,3", "3 labels for n = 2")
    refused(sample .. "-o /no/such/a.npz", "there is no folder /no/such")
    refused(sample .. "-o a.jpg", "expected a name that ends in .png or .npz")
    refused(sample .. "--steps 0", "steps is 0")
    refused("sample /no/such", "/no/such: cannot open")
    refused("run", "which file")
    refused("doctor now", "too many arguments")
  end)

  it("train goes on when nobody reads its progress", function()
    local out = dir .. "/piped"
    local pipe = io.popen(("%s %s --set steps=300 --out %s 2>&1 | head -1"):format(program, train, out))
    pipe:read "a"
    pipe:close() -- the shell waits for both
    assert(io.open(out .. "/checkpoints/step-0000300.safetensors", "rb")):close()
  end)
end)
