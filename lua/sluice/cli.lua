-- The program's commands beyond running Lua: train, sample, inspect, doctor. Loaded only when one of them is called.
local sluice = require "sluice"
local core = require "sluice.core"

local cli = {}

local function fail(message)
  io.stderr:write("sluice: ", message, "\n")
  os.exit(1, true)
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

local function load_recipe(path)
  local chunk, message = loadfile(path, "t")
  if not chunk then fail(message) end
  local r = chunk("train")
  if not require("sluice.recipe").is(r) then
    fail(("%s does not return a recipe; its last line should be `return recipe`"):format(path))
  end
  return r
end

local function train(args)
  local p = parser("train", "Trains as a recipe says.")
  p:argument("recipe", "a Lua file that returns a sluice.recipe")
  p:option("--set", "changes one of the recipe's defaults"):argname("key=value"):count("*")
  p:option("--out", "folder of the run (runs/NAME-0001)"):argname("DIR")
  p:option("--device", "cpu"):argname("D")
  p:option("--threads", "compute threads"):argname("N"):convert(tonumber)
  p:flag("--quiet", "no progress line")
  local o = p:parse(args)
  if o.threads then sluice.set_threads(o.threads) end
  local run = sluice.train(load_recipe(o.recipe), { set = settings(o.set), out = o.out, device = o.device, quiet = o.quiet })
  if run.last then
    print(("%s: %d steps, last loss %.4f"):format(run.dir, run.steps, run.last.loss))
  end
end

-- Command-line text for a field of sluice.sample.
local function field_value(key, text)
  if text == "true" or text == "false" then return text == "true" end
  if key == "cfg_interval" then
    local lo, hi = text:match("^([%d.]+)[,:]([%d.]+)$")
    if not lo then fail(("--cfg_interval %s: expected lo,hi"):format(text)) end
    return { tonumber(lo), tonumber(hi) }
  end
  if key == "init" or key == "mask" then return sluice.load_image(text):reshape { 1, table.unpack(sluice.load_image(text):shape()) } end
  return math.tointeger(tonumber(text)) or tonumber(text) or text
end

local SAMPLE_FIELDS = {
  "cfg", "cfg_channels", "cfg_interval", "sampler", "steps", "eta", "clip", "seed", "init", "start", "mask", "batch", "ema", "device",
}

local function ema_of(loaded, want)
  if want == "none" then return nil end
  if want == nil then return loaded.ema[1] and loaded.ema[1].weights end
  local have = {}
  for _, e in ipairs(loaded.ema) do
    if e.decay == tonumber(want) then return e.weights end
    have[#have + 1] = tostring(e.decay)
  end
  fail(("--ema %s: the checkpoint has %s, or none"):format(want, #have > 0 and table.concat(have, ", ") or "no EMA"))
end

local function write_images(path, images, labels, columns)
  if path:match("%.npz$") then
    local bytes = images:add(1):mul(127.5):clamp(0, 255):to("u8"):permute { 1, 3, 4, 2 }:contiguous()
    sluice.io.save(path, { arr_0 = bytes, arr_1 = labels })
  else
    sluice.save_png(path, images, { columns = columns })
  end
end

local function sample(args)
  local p = parser("sample", "Draws images from a run or a checkpoint, with its own settings and EMA where none are given.")
  p:argument("source", "a run's folder or a checkpoint")
  p:option("-n", "how many images"):convert(math.tointeger)
  p:option("--class", "one class for all of them"):argname("K"):convert(math.tointeger)
  p:option("--labels", "balanced or uniform")
  p:option("-o --output", "out.png or out.npz"):default("samples.png")
  p:option("--columns", "of the picture"):convert(math.tointeger)
  p:option("--threads", "compute threads"):argname("N"):convert(tonumber)
  for _, name in ipairs(SAMPLE_FIELDS) do p:option("--" .. name, "as in sluice.sample") end
  local o = p:parse(args)
  if o.threads then sluice.set_threads(o.threads) end
  local loaded = sluice.load(o.source)
  local settings_used = { model = loaded.model, diffusion = loaded.diffusion }
  for k, v in pairs(loaded.sample) do settings_used[k] = v end
  for _, name in ipairs(SAMPLE_FIELDS) do
    if o[name] ~= nil and name ~= "ema" then settings_used[name] = field_value(name, o[name]) end
  end
  settings_used.ema = ema_of(loaded, o.ema)
  if o.n then
    settings_used.n = o.n
    if type(settings_used.labels) == "table" then settings_used.labels = "balanced" end
  end
  if o.class then settings_used.labels = o.class end
  if o.labels then settings_used.labels = o.labels end
  local columns = o.columns or settings_used.columns
  settings_used.columns = nil
  local images, labels = sluice.sample(settings_used)
  write_images(o.output, images, labels, columns)
  print(("%s: %d images"):format(o.output, #images))
end

local function inspect(args)
  local p = parser("inspect", "Lists what is in a tensor file.")
  p:argument("file", ".safetensors, .npz or .npy")
  local o = p:parse(args)
  local tensors, meta = sluice.io.load(o.file)
  if not tensors then fail(meta) end
  local names, total = {}, 0
  for name in pairs(tensors) do names[#names + 1] = name end
  table.sort(names)
  for key, value in pairs(meta or {}) do
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

local function doctor()
  for _, line in ipairs(core.doctor()) do print(line) end
end

-- An error's text with the user's own lines of the traceback; the program's own say nothing to a user.
local function told(message)
  local lines = { (tostring(message):gsub("^%[sluice[%w.]*%]:%d+: ", "")) }
  for line in debug.traceback("", 2):gmatch("[^\n]+") do
    if line:match("^%s") and not line:match("^%s*%[") and not line:match("^%s*%(") then lines[#lines + 1] = line end
  end
  return table.concat(lines, "\n")
end

local COMMANDS = { train = train, sample = sample, inspect = inspect, doctor = doctor }

-- args[1] is the command's name.
function cli.main(args)
  local command = COMMANDS[args[1]]
  if not command then
    local names = { "run" }
    for name in pairs(COMMANDS) do names[#names + 1] = name end
    table.sort(names)
    fail(("there is no command %s; there are %s"):format(tostring(args[1]), table.concat(names, ", ")))
  end
  local ok, message = xpcall(command, told, table.move(args, 2, #args, 1, {}))
  if not ok then fail(message) end
end

return cli
