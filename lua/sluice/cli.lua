-- The program's commands beyond running Lua: train, sample, export, pack, inspect, bench, doctor. Loaded only when one of them is called.
local sluice = require "sluice"
local core = require "sluice.core"
local checkpoint = require "sluice.checkpoint"

local cli = {}

local function fail(message, status)
  io.stderr:write("sluice: ", message, "\n")
  os.exit(status or 1, true)
end

local function parser(name, description)
  local found, argparse = pcall(require, "argparse")
  if not found then fail("lua-argparse is not installed (apt-get install lua-argparse)") end
  return argparse("sluice " .. name, description)
end

local function settings(list)
  local set = {}
  for _, text in ipairs(list or {}) do
    local key, value = text:match("^([%w_]+)=(.*)$")
    if not key then fail(('--set %s: expected key=value'):format(text)) end
    set[key] = value
  end
  return set
end

-- Converters for argparse, which prints their message.
local function integer(text)
  local n = math.tointeger(tonumber(text))
  if n then return n end
  return nil, ("%s: expected an integer"):format(text)
end

local function threads(text)
  local n = math.tointeger(tonumber(text))
  if n and n >= 1 and n <= 1024 then return n end
  return nil, ("--threads %s: expected 1 to 1024"):format(text)
end

-- What every command that computes takes.
local function machine_options(p)
  p:option("--device", "cpu, cuda, cuda:1, … (the first GPU, else cpu; SLUICE_DEVICE names another)"):argname("D")
  p:option("--threads", "compute threads"):argname("N"):convert(threads)
  p:option("--memory", "the most to take, as 500M or 24G"):argname("BYTES")
end

local function use_machine(o)
  if o.threads then sluice.set_threads(o.threads) end
  if o.memory then core.set_memory(o.memory) end
end

-- argparse takes a negative number for an option: -n -3 becomes -n-3, --eta -1 becomes --eta=-1.
local function join_negative(args)
  local out = {}
  for _, a in ipairs(args) do
    local before = out[#out]
    if before and a:match("^%-%.?%d") and before:match("^%-%-?[%a_]+$") then
      out[#out] = before .. (before:match("^%-%-") and "=" or "") .. a
    else
      out[#out + 1] = a
    end
  end
  return out
end

local function load_recipe(path)
  local r = require("sluice.code").load_recipe(path)
  if not require("sluice.recipe").is(r) then
    fail(("%s does not return a recipe; its last line should be `return recipe`"):format(path))
  end
  return r
end

local function train(args)
  local p = parser("train", "Trains as a recipe says, or goes on with a run.")
  p:argument("recipe", "a Lua file that returns a sluice.recipe"):args "?"
  p:option("--set", "changes one of the recipe's defaults"):argname("key=value"):count("*")
  p:option("--out", "folder of the run (runs/NAME-0001)"):argname("DIR")
  p:option("--resume", "goes on with the run in DIR, by its stored recipe unless one is given"):argname("DIR"):args "?"
  machine_options(p)
  p:flag("--quiet", "no progress line")
  p:epilog("Examples:\n  sluice train recipes/quickstart.lua --set steps=2000 --out runs/short\n  sluice train --resume runs/short")
  local o = p:parse(args)
  use_machine(o)
  local resume = o.resume and (o.resume[1] or o.resume[1] == nil and o.out)
  if o.resume and not resume then fail("train: --resume: which run? sluice train --resume DIR") end
  if not o.recipe and not resume then fail("train: which recipe? sluice train RECIPE, or sluice train --resume DIR") end
  if resume and o.out and resume ~= o.out then fail("train: --out and --resume name different folders") end
  local run = sluice.train(o.recipe and load_recipe(o.recipe), {
    set = settings(o.set), out = not resume and o.out or nil, resume = resume, device = o.device, quiet = o.quiet,
  })
  if run.last then
    print(("%s: %d steps, last loss %.4f"):format(run.dir, run.steps, run.last.loss))
  end
end

-- Images of an option: a picture, or a tensor file that holds one tensor [N,C,H,W].
local function images_from(path, key)
  if path:match("%.png$") then
    local image = sluice.load_image(path)
    return image:reshape { 1, table.unpack(image:shape()) }
  end
  local tensors, message = sluice.io.load(path)
  if not tensors then fail(message) end
  local name, t = next(tensors)
  if not t or next(tensors, name) then fail(("--%s %s: expected a file with one tensor"):format(key, path)) end
  return t:to("f32")
end

-- --labels balanced, uniform, or classes: 207,360
local function labels_of(text)
  if not text:match("^[%d,%s]+$") then return text end
  local list = {}
  for word in text:gmatch("%d+") do list[#list + 1] = math.tointeger(tonumber(word)) end
  return list
end

-- Command-line text for a field of sluice.sample.
local function field_value(key, text)
  if text == "true" or text == "false" then return text == "true" end
  if key == "cfg_interval" then
    local lo, hi = text:match("^([%d.]+)[,:]([%d.]+)$")
    if not lo then fail(("--cfg_interval %s: expected lo,hi"):format(text)) end
    return { tonumber(lo), tonumber(hi) }
  end
  if key == "init" or key == "mask" or key == "noise" then return images_from(text, key) end
  return math.tointeger(tonumber(text)) or tonumber(text) or text
end

local SAMPLE_FIELDS = {
  "cfg", "cfg_channels", "cfg_interval", "sampler", "steps", "eta", "clip", "seed", "noise", "init", "start", "mask", "batch", "ema",
  "precision",
}

-- Refused before the work: a name or folder that images cannot be written to.
local function check_output(path)
  if not (path:match("%.png$") or path:match("%.npz$")) then fail(("-o %s: expected a name that ends in .png or .npz"):format(path)) end
  local folder = path:match("^(.*)/[^/]*$")
  if folder and folder ~= "" and not core.exists(folder) then fail(("-o %s: there is no folder %s"):format(path, folder)) end
end

local function write_images(path, images, labels, columns)
  if path:match("%.npz$") then
    local bytes = images:add(1):mul(127.5):clamp(0, 255):to("u8"):permute { 1, 3, 4, 2 }:contiguous()
    checkpoint.write(path, { arr_0 = bytes, arr_1 = labels })
  else
    sluice.save_png(path, images, { columns = columns })
  end
end

local function sample(args)
  local p = parser("sample", "Draws images from a run or a checkpoint, with its own settings and EMA where none are given.")
  p:argument("source", "a run's folder or a checkpoint")
  p:option("-n", "how many images"):convert(integer)
  p:option("--class", "one class for all of them"):argname("K"):convert(integer)
  p:option("--labels", "balanced, uniform, or classes: 207,360")
  p:option("-o --output", "out.png or out.npz"):default("samples.png")
  p:option("--columns", "of the picture"):convert(integer)
  machine_options(p)
  for _, name in ipairs(SAMPLE_FIELDS) do p:option("--" .. name, "as in sluice.sample") end
  local o = p:parse(args)
  use_machine(o)
  check_output(o.output)
  local loaded = sluice.load(o.source)
  local settings_used = { model = loaded.model, diffusion = loaded.diffusion }
  for k, v in pairs(loaded.sample) do settings_used[k] = v end
  for _, name in ipairs(SAMPLE_FIELDS) do
    if o[name] ~= nil and name ~= "ema" then settings_used[name] = field_value(name, o[name]) end
  end
  settings_used.ema = checkpoint.ema(loaded.ema, o.ema or settings_used.ema)
  if o.n then
    settings_used.n = o.n
    if type(settings_used.labels) == "table" then settings_used.labels = "balanced" end
  end
  if o.class then settings_used.labels = o.class end
  if o.labels then settings_used.labels = labels_of(o.labels) end
  if type(settings_used.labels) == "table" and not o.n then settings_used.n = nil end
  settings_used.device = o.device
  local columns = o.columns or settings_used.columns
  settings_used.columns = nil
  local images, labels = sluice.sample(settings_used)
  write_images(o.output, images, labels, columns)
  print(("%s: %d images"):format(o.output, #images))
end

local function export(args)
  local p = parser("export", "Writes a run's or checkpoint's weights alone, ready to be sampled: one EMA, no optimizer.")
  p:argument("source", "a run's folder or a checkpoint")
  p:argument("output", "a name that ends in .safetensors")
  p:option("--ema", "the decay of the EMA, or none (the first EMA)")
  p:option("--dtype", "of the weights: f32 or bf16"):choices { "f32", "bf16" }:default "f32"
  local o = p:parse(args)
  if not o.output:match("%.safetensors$") then fail(("%s: expected a name that ends in .safetensors"):format(o.output)) end
  checkpoint.export(o.output, sluice.load(o.source), { ema = o.ema, dtype = o.dtype })
  print(("%s: the weights of %s"):format(o.output, o.source))
end

local function source_of(path, o)
  if path:match("%.np[zy]$") or path:match("%.safetensors$") then return sluice.data.npz(path) end
  if path:match("%.pack$") then return sluice.data.pack(path, { on_bad = o.on_bad }) end
  return sluice.data.folder(path, { size = o.size, channels = o.channels, index = o.index, on_bad = o.on_bad })
end

local function pack(args)
  local p = parser("pack", "Packs a folder of PNG and JPEG files, or an .npz, into one file for sluice.data.pack.")
  p:argument("source", "a folder (a subfolder per class, or an index.tsv with the columns file, class, caption), or an .npz")
  p:argument("output", "the pack")
  p:option("--size", "images become N x N: guided-diffusion's center_crop_arr"):argname("N"):convert(integer)
  p:option("--channels", "3, or 1 for grey"):convert(integer)
  p:option("--index", "a table of the images in place of index.tsv"):argname("FILE")
  p:option("--on_bad", "images that cannot be read: refuse (the default) or skip them, naming each"):choices { "refuse", "skip" }
  p:option("--level", "of zstd, 1 to 19 (19)"):convert(integer)
  p:option("--note", "source and licence, kept in the pack")
  p:flag("--quiet", "no progress line")
  p:epilog("Example:\n  sluice pack photos photos.pack --size 64 --on_bad skip --note 'mine, CC0'")
  local o = p:parse(args)
  local d = source_of(o.source, o)
  local line = require("sluice.progress").new { total = #d, now = core.clock, tty = core.isatty(), quiet = o.quiet }
  d:pack(o.output, { level = o.level, note = o.note, progress = function(done) line:update(done) end })
  line:finish()
  print(("%s: %d images %s%s"):format(o.output, #d, table.concat(d:shape(), "x"),
    d:classes() > 0 and (", %d classes"):format(d:classes()) or ""))
end

local function inspect_pack(path)
  local d = sluice.data.pack(path)
  local labels = {}
  for i = 1, #d do
    local _, label = d:get(i)
    if label then labels[label] = (labels[label] or 0) + 1 end
  end
  local names = d:names() or {}
  print(("%d images u8 [%s], digest %s"):format(#d, table.concat(d:shape(), ","), d:digest()))
  if d:note() ~= "" then print("# " .. d:note()) end
  for k = 0, d:classes() - 1 do print(("class %d%s: %d"):format(k, names[k + 1] and " " .. names[k + 1] or "", labels[k] or 0)) end
end

local function inspect(args)
  local p = parser("inspect", "Lists what is in a tensor file.")
  p:argument("file", ".safetensors, .npz, .npy or a pack")
  local o = p:parse(args)
  if o.file:match("%.pack$") then return inspect_pack(o.file) end
  local tensors, meta = sluice.io.load(o.file)
  if not tensors then fail(meta) end
  local names, total = {}, 0
  for name in pairs(tensors) do names[#names + 1] = name end
  table.sort(names)
  local keys = {}
  for key in pairs(meta or {}) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do
    local value = meta[key]
    if #value > 300 then value = value:sub(1, 300) .. (" … (%d bytes)"):format(#value) end
    print(("# %s: %s"):format(key, value))
  end
  for _, name in ipairs(names) do
    local t = tensors[name]
    local n = 1
    for _, d in ipairs(t:shape()) do n = n * d end
    total = total + n
    print(("%-56s %-5s [%s]"):format(name, t:dtype(), table.concat(t:shape(), ",")))
  end
  print(("%d tensors, %s elements"):format(#names, core.thousands(total)))
end

local function bench(args)
  local p = parser("bench", "Measures the machine, a model on it, and how far each operation is from what the machine can do.")
  p:argument("name", "rates, train, sample or forward (without: rates, then a small model trained)"):args "?"
  machine_options(p)
  p:option("--model", "as sluice.dit and sluice.adm name them: DiT-S/2 (the default), ADM-64; or quickstart"):argname("NAME")
  p:option("--batch", "images of a step"):argname("N"):convert(integer)
  p:option("--precision", "f32 (the default), tf32 or bf16"):argname("P")
  p:option("--residual", "with bf16: f32 (the default) or bf16"):argname("P")
  p:option("--routing", "dtr (the default) or none"):argname("R")
  p:option("--cfg", "guidance in sampling (1: none)"):argname("SCALE"):convert(tonumber)
  p:option("--steps", "that are timed"):argname("N"):convert(integer)
  p:option("--warmup", "steps before them"):argname("N"):convert(integer)
  p:option("--seconds", "of one sample of a rate, about (0.2)"):argname("S"):convert(tonumber)
  p:flag("--profile", "a table of operations: time, and the limit that the measured rates set")
  p:option("--limits", "runs nothing: the table at the limits of H100, H200, A100 or TFLOPS,GBYTES"):argname("RATES")
  p:flag("--json", "one JSON object")
  p:epilog("Examples:\n  sluice bench\n  sluice bench train --model DiT-B/2 --precision bf16 --profile\n"
    .. "  sluice bench sample --cfg 1.5 --batch 1\n  sluice bench train --precision bf16 --limits H100")
  local o = p:parse(args)
  use_machine(o)
  require("sluice.bench").main(o)
end

local function doctor(args)
  parser("doctor", "Tells what Sluice sees of this machine."):parse(args)
  for _, line in ipairs(core.doctor()) do print(line) end
end

local COMMANDS = {
  train = train, sample = sample, export = export, pack = pack, inspect = inspect, bench = bench,
  doctor = doctor,
}

-- args[1] is the command's name.
function cli.main(args)
  local command = COMMANDS[args[1]]
  if not command then
    local names = { "run" }
    for name in pairs(COMMANDS) do names[#names + 1] = name end
    table.sort(names)
    if args[1] == "run" then fail("run: which file? sluice run FILE [ARGS]") end
    fail(("there is no command %s; there are %s"):format(tostring(args[1]), table.concat(names, ", ")))
  end
  local ok, message = xpcall(command, require("sluice.faults").told, join_negative(table.move(args, 2, #args, 1, {})))
  if not ok then fail(message, tostring(message):match("^interrupted") and 130) end
end

return cli
