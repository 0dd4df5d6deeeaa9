-- The program's commands: what they take, do, print and refuse.
local under_test = require "program"

local program, run, script = under_test.path, under_test.run, under_test.script

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
    local noise, mask = dir .. "/noise.npz", dir .. "/mask.npz"
    local sluice = require "sluice"
    sluice.io.save(noise, { x = sluice.randn { 2, 1, 28, 28 } })
    sluice.io.save(mask, { x = sluice.rand { 1, 1, 28, 28 } })
    local sample = ("sample %s --steps 3 -o %s/a.npz "):format(dir, dir)
    for _, o in ipairs {
      "--labels 1,2", "-n 2 --labels uniform", "-n 2 --class 3", "-n 2 --precision f32 --ema none --seed 4 --eta 1 --clip false",
      "-n 2 --cfg 2 --cfg_interval 100,500 --cfg_channels 1 --sampler ddpm --device cpu --batch 1", "-n 2 --noise " .. noise,
      ("-n 2 --init %s --start 2"):format(noise), ("-n 2 --init %s --mask %s"):format(noise, mask),
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

-- Pictures that say how they were made, and what scripts read.
describe("the commands beside training", function()
  local sluice = require "sluice"
  local dir = os.tmpname()
  os.remove(dir)

  local function at(command, ...)
    return run((command:gsub("%$", dir):format(...)))
  end

  local function works(command)
    local text, code = at(command)
    assert(code == 0, text)
    return text
  end

  local function refused(command, ...)
    local text, code = at(command)
    assert.equal(1, code)
    for _, want in ipairs { ... } do assert.truthy(text:find(want, 1, true), text) end
    assert.falsy(text:find("[sluice.", 1, true) or text:find("stack traceback", 1, true), text)
  end

  local function bytes(name)
    local file <close> = assert(io.open(dir .. "/" .. name, "rb"))
    return file:read "a"
  end

  local sample = "sample models/digits.safetensors --threads 1 --steps 2 "

  setup(function() os.execute("mkdir " .. dir) end)
  teardown(function() os.execute("rm -r " .. dir) end)

  it("make a picture again, bit for bit, with what options change", function()
    works(sample .. "-n 3 --labels 3,1,4 --cfg 2 --sampler ddpm -o $/a.png")
    works "sample --again $/a.png --threads 1 -o $/b.png"
    assert.equal(bytes "a.png", bytes "b.png")
    works "sample --again $/a.png --threads 1 --seed 5 -o $/b.png"
    assert.are_not.equal(bytes "a.png", bytes "b.png")
    works(sample .. "-n 2 --keep 2 -o $/k.npz")
    works "sample --again $/k.npz --threads 1 -o $/l.npz"
    assert.equal(bytes "k.npz", bytes "l.npz")
    local file = sluice.io.load(dir .. "/k.npz")
    assert.same({ 2, 2, 28, 28, 1 }, file.kept:shape())
    works "sample --again $/k.npz --threads 1 -o $/k.png"
    assert.same({ 3, 62, 62 }, sluice.load_image(dir .. "/k.png"):shape()) -- two rows of what was kept
  end)

  it("make an in-painting again from its files, unless they changed", function()
    sluice.save_png(dir .. "/init.png", sluice.randn({ 1, 28, 28 }, { seed = 1 }))
    sluice.io.save(dir .. "/mask.npz", { m = sluice.cat(sluice.zeros { 1, 1, 14, 28 }, sluice.ones { 1, 1, 14, 28 }, 3) })
    works(sample .. "-n 2 --seed 1 --init $/init.png --mask $/mask.npz -o $/p.png")
    works "sample --again $/p.png --threads 1 -o $/q.png"
    assert.equal(bytes "p.png", bytes "q.png")
    sluice.save_png(dir .. "/init.png", sluice.randn({ 1, 28, 28 }, { seed = 2 }))
    refused("sample --again $/p.png -o $/q.png", "init was " .. dir .. "/init.png, which holds something else now", "--init")
    os.remove(dir .. "/init.png")
    refused("sample --again $/p.png -o $/q.png", "which is not here; if it is elsewhere now: --init FILE")
  end)

  it("take another checkpoint for a picture only if it is named", function()
    os.execute(("cp models/digits.safetensors %s/here.safetensors"):format(dir))
    works "sample $/here.safetensors --threads 1 --steps 2 -n 1 -o $/h.png"
    works "sample models/digits.safetensors --again $/h.png --threads 1 -o $/i.png"
    assert.equal(0, (sluice.load_image(dir .. "/h.png") - sluice.load_image(dir .. "/i.png")):abs():max():item())
    works "export models/digits.safetensors $/here.safetensors"
    refused("sample --again $/h.png -o $/i.png", "is not the checkpoint that made", "to use it nevertheless")
    local text = works "sample $/here.safetensors --again $/h.png --threads 1 -o $/i.png"
    assert.truthy(text:find("warning: ", 1, true), text)
    os.remove(dir .. "/here.safetensors")
    refused("sample --again $/h.png -o $/i.png", "here.safetensors (step 50000, xxh3:", "which is not here",
      "sluice sample CHECKPOINT --again")
    refused("sample --again docs/emoji-adm.png", "does not say how it was made")
    refused("sample --again README.md", "is no PNG")
    refused("sample", "which run or checkpoint?")
  end)

  it("hold against texts that are no records", function()
    local image = sluice.zeros { 1, 4, 4 }
    for _, text in ipairs { "", "{", "3", "[]", '{"format":"sluice-picture-1","sample":{}}',
      '{"format":"sluice-picture-1","version":"9","taken":1,"sample":{"n":1,"cfg":1,"eta":0,"seed":1,"sampler":"ddim"},"checkpoint":3}' } do
      sluice.save_png(dir .. "/t.png", image, { text = { sluice = text } })
      refused("sample --again $/t.png", "t.png: its text sluice is damaged")
      works "inspect $/t.png"
      works "inspect $/t.png --json"
    end
  end)

  it("inspect what they wrote", function()
    works(sample .. "-n 1 -o $/a.png")
    works(sample .. "-n 1 -o $/a.npz")
    for _, name in ipairs { "a.png", "a.npz" } do
      local text = works("inspect $/" .. name)
      assert.truthy(text:find("1 image, balanced classes; sampler ddim, 2 steps", 1, true), text)
      assert.truthy(text:find("sluice sample --again", 1, true), text)
    end
  end)

  it("tell scripts their results as JSON", function()
    local function json(command) return sluice.json.decode((works(command))) end
    local told = json(sample .. "-n 2 --seed 3 -o $/j.png --json")
    assert.same({ dir .. "/j.png", 2, 3, { 0, 1 } }, { told.output, told.images, told.seed, told.labels })
    assert.equal("png", json("inspect $/j.png --json").kind)
    assert.equal(told.checkpoint.digest, json("inspect $/j.png --json").sluice.checkpoint.digest)
    assert.equal("pack", json("inspect data/digits/digits.pack --json").kind)
    local packed = json("pack data/digits/digits.pack $/d.pack --level 1 --quiet --json")
    assert.equal(packed.digest, json("inspect $/d.pack --json").digest)
    assert.equal("xxh3", json("export models/digits.safetensors $/e.safetensors --json").digest:match "^%w+")
    assert.equal("cpu", json("doctor --json").devices[1])
    assert.equal("tensors", json("inspect $/e.safetensors --json").kind)
    local trained = json("train recipes/quickstart.lua --set steps=2 --set hidden=32 --set depth=1 --out $/runs/one --json --quiet")
    assert.equal(2, trained.steps)
    local runs = json "runs $/runs --json"
    assert.same({ "one", 2, 2, "done" }, { runs[1].name, runs[1].steps, runs[1].of, runs[1].state })
    assert.truthy(works("runs $/runs"):find("one +2/2 +%d"))
    local preview = sluice.json.decode(sluice.png_text(dir .. "/runs/one/samples/step-0000002.png").sluice)
    assert.equal(2, preview.checkpoint.step)
    assert.equal(nil, preview.again)
    works("sample --again $/runs/one/samples/step-0000002.png -o $/same.png")
    assert.equal(bytes "runs/one/samples/step-0000002.png", bytes "same.png")
  end)

  it("are found also where files and folders have their names", function()
    local core = require "sluice.core"
    os.execute(("mkdir -p %s/cwd/runs; echo 'print(42)' >%s/cwd/inspect"):format(dir, dir))
    local function there(arguments)
      local pipe <close> = assert(io.popen(("cd %s/cwd && %s %s 2>&1"):format(dir, core.absolute(program), arguments)))
      return pipe:read "a"
    end
    assert.equal("no runs in runs\n", there "runs")
    assert.truthy(there("inspect"):find("missing argument 'file'", 1, true))
    assert.equal("42\n", there "./inspect")
  end)

  it("tell of a run's folder what is in its newest checkpoint", function()
    assert.truthy(works("inspect $/runs/one"):find("tensors, ", 1, true))
  end)

  it("answer what they do not know with the nearest that they do", function()
    refused("smaple x", 'there is no command smaple; did you mean "sample"?')
    refused("sample --stpes 3", "unknown option --stpes; did you mean --steps?")
    refused("sample x --sampler dpm", "--sampler dpm: did you mean ddpm?")
    refused("export a b --dtype f64", "--dtype f64: ")
    refused("sample x --clip maybe", "maybe: expected true or false")
    refused("help smaple", 'did you mean "sample"?')
    refused("runs /nowhere", "there is no folder /nowhere")
    refused("completion tcsh", "tcsh")
    refused("sample x -n many", "-n many: expected an integer")
    refused("sample models/digits.safetensors --labels balance", 'did you mean "balanced"?')
    refused("train recipes/sweep-digits.lua", "sluice sweep recipes/sweep-digits.lua")
  end)

  it("refuse what would change nothing, or cannot be written, before the work", function()
    refused(sample .. "--class 1 --labels uniform", "--class and --labels")
    refused(sample .. "--columns 2 -o $/x.npz", "--columns is of a picture")
    refused(sample .. "--columns 0", "--columns 0")
    refused(sample .. "--sampler ddpm --eta 0.5", "give --sampler ddim too")
    refused(sample .. "--cfg 1 --cfg_interval 1,2", "give --cfg SCALE too")
    refused(sample .. "-o $/none/x.png", "there is no folder " .. dir .. "/none")
    refused(sample .. "-o /proc/x.png", "nothing can be written there")
    refused("export models/digits.safetensors $/none/x.safetensors", "there is no folder")
    works(sample .. "-n 1 -o $/one.npz")
    refused("pack $/one.npz $/one.pack --size 8", "--size is for a folder of pictures")
    refused("pack docs $/docs.pack --size 0", "--size 0: expected at least 1")
  end)

  it("train the recipe of a script that trains by itself, with what the command says", function()
    local name = script [[
      local recipe = sluice.recipe { defaults = { steps = 2 }, function(p)
        return {
          data = sluice.data.tensors { images = sluice.rand({ 8, 1, 8, 8 }, { seed = 1 }) }, diffusion = sluice.diffusion {},
          model = sluice.dit { input = { 1, 8, 8 }, classes = 1, patch = 4, hidden = 16, depth = 1, heads = 2 },
          train = { steps = p.steps, batch = 4 },
        }
      end }
      sluice.train(recipe, { out = "/nowhere/at/all" })
    ]]
    assert.truthy(works("train " .. name .. " --set steps=3 --out $/script --quiet"):find("script: 3 steps", 1, true))
    assert.truthy(works "train --resume $/script --set steps=4 --quiet":find("script: 4 steps", 1, true))
    os.remove(name)
  end)

  it("know files by what they hold, and count in words", function()
    assert.truthy(works(sample .. "-n 1 -o $/one.npz"):find("one.npz: 1 image\n", 1, true))
    works "pack $/one.npz $/one --quiet"
    assert.truthy(works("inspect $/one"):find("^1 images u8 %[1,28,28%]"))
    assert.truthy(works("inspect $/one --json"):find('"counts":[', 1, true))
  end)

  it("print commands that can be typed, whatever the name", function()
    works(sample .. [[-n 1 -o "$/it's a.png"]])
    local again = works([[inspect "$/it's a.png"]]):match "Made again by: sluice (.-)\n"
    works(again .. " --threads 1 -o $/b.png")
    assert.equal(bytes "it's a.png", bytes "b.png")
  end)

  it("print completion and manual, the same each time", function()
    for _, command in ipairs { "completion bash", "completion zsh", "completion fish", "man", "help", "help sample" } do
      local text = works(command)
      assert.equal(text, works(command))
      assert.truthy(text:find("sample", 1, true))
    end
    assert.truthy(works("man"):find("\\-\\-cfg_interval LO,HI", 1, true))
    assert.equal(0, select(2, run "completion bash | bash -n"))
  end)

  it("write the same numbers where the locale has a decimal comma", function()
    os.execute(("localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 > %s/localedef.txt 2>&1"):format(dir, dir))
    local name = script(([[
      if not os.setlocale "de_DE.UTF-8" then print "no such locale" return end
      assert(("%%.1f"):format(0.5) == "0,5")
      assert(sluice.json.encode { a = 0.5, b = 1e-7, c = 2.0 } == '{"a":0.5,"b":1e-07,"c":2.0}')
      assert(sluice.json.decode "0.5" == 0.5)
      local recipe = sluice.recipe { function()
        return {
          data = sluice.data.tensors { images = sluice.rand({ 8, 1, 8, 8 }, { seed = 1 }) },
          model = sluice.dit { input = { 1, 8, 8 }, classes = 1, patch = 4, hidden = 16, depth = 1, heads = 2 },
          diffusion = sluice.diffusion {}, ema = { decays = { 0.75 } }, train = { steps = 2, batch = 4 },
        }
      end }
      local run = sluice.train(recipe, { quiet = true, out = "%s/comma" })
      assert(sluice.load(run.dir).ema[1].decay == 0.75)
      local images, _, made = sluice.load(run.dir):sample { n = 1, steps = 2, cfg_interval = { 0.5, 2 } }
      sluice.save_png("%s/comma.png", images, { text = made:text() })
    ]]):format(dir, dir))
    local pipe = assert(io.popen(("LOCPATH=%s %s run %s 2>&1"):format(dir, program, name)))
    local text = pipe:read "a"
    local code = select(3, pipe:close())
    os.remove(name)
    if text:find "no such locale" then return pending "no locale with a decimal comma" end
    assert.equal(0, code, text)
    assert.truthy(works("inspect $/comma.png"):find('"cfg_interval":[0.5,2]', 1, true))
    works "sample $/comma -n 1 --steps 2 --ema 0.75 -o $/x.png"
  end)

  it("say when standard output is full", function()
    for _, command in ipairs { "man", "inspect models/digits.safetensors --json", "bench train --limits H100" } do
      local pipe = assert(io.popen(("{ %s %s > /dev/full; } 2>&1"):format(program, command)))
      local text = pipe:read "a"
      assert.equal(1, select(3, pipe:close()))
      assert.truthy(text:find("^sluice: standard output: "), text)
    end
  end)

  it("end with 130 when interrupted", function()
    local text, code = run("sample models/digits.safetensors -n 200 --steps 1000 --quiet -o " .. dir
      .. "/never.png 2>&1 & pid=$!; sleep 0.7; kill -INT $pid; wait $pid")
    assert.equal(130, code, text)
    assert.equal("sluice: interrupted\n", text)
    assert.falsy(io.open(dir .. "/never.png"))
  end)

  it("a sampler that is interrupted goes on from its last whole step", function()
    local name = script [[
      local loaded = sluice.load "models/digits.safetensors"
      local o = { model = loaded.model, diffusion = loaded.diffusion, n = 4, labels = 3, steps = 300, seed = 1 }
      local sampler = sluice.sampler(o)
      local fine = pcall(function() -- the core stops, and Lua a moment later
        pcall(function() for _ in sampler:steps() do end end)
        for _ = 1, 1e5 do end
      end)
      io.stderr:write(tostring(fine), " ", sampler.i, "\n")
      for _ in sampler:steps() do end
      print((sampler.x - (sluice.sample(o))):abs():max():item())
    ]]
    local text = run("run " .. name .. " 2>&1 & pid=$!; sleep 0.5; kill -INT $pid; wait $pid")
    assert.truthy(text:find "^%a+ %d+\n0.0\n", text)
    os.remove(name)
  end)
end)
