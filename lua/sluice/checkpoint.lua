-- Checkpoints: one .safetensors file that holds weights, averages, optimizer and tables, and in its metadata everything needed to
-- use them and to go on. A digest of the whole file is checked whenever it is read.
local core = require "sluice.core"
local sluice = require "sluice"

local json = sluice.json

local FORMAT = "sluice-checkpoint-1"
local checkpoint = {}

local function add_all(tensors, prefix, parts, dtype)
  for name, t in pairs(parts) do tensors[prefix .. name] = dtype and t:to(dtype) or t end
end

local function decay_text(decay)
  return ("%.10g"):format(decay)
end

-- s: model, diffusion, weights (flat), and what there is of: ema { {decay, weights} … }, exp_avg, exp_avg_sq (flat), weight (list over
-- t), step, seconds, seed, batch, sample, parameters, settings, recipe (text). dtype: of the weights in the file, "f32".
function checkpoint.save(path, s, dtype)
  local tensors, decays = {}, {}
  dtype = dtype ~= "f32" and dtype or nil
  add_all(tensors, "model.", s.model:parts(s.weights), dtype)
  for i, e in ipairs(s.ema or {}) do
    decays[i] = decay_text(e.decay)
    add_all(tensors, "ema." .. decays[i] .. ".", s.model:parts(e.weights), dtype)
  end
  for _, k in ipairs { "exp_avg", "exp_avg_sq" } do
    if s[k] then add_all(tensors, "optimizer." .. k .. ".", s.model:parts(s[k])) end
  end
  for i, mask in ipairs(s.model:tables()) do tensors["tables.mask." .. i - 1] = mask end
  if s.weight then tensors["tables.weight"] = sluice.tensor(s.weight) end
  local process, betas = s.diffusion:describe()
  if betas then tensors["tables.betas"] = betas end
  local step = s.step or 0
  local meta = {
    format = FORMAT, version = sluice.version, step = tostring(step), ema = json.encode(decays), digest = "",
    data_position = tostring(step * (s.batch or 0)), seed = tostring(s.seed or 0), seconds = tostring(s.seconds or 0),
    architecture = json.encode(s.model:describe()), diffusion = json.encode(process),
    sample = json.encode(s.sample or {}), recipe = s.recipe or "", parameters = json.encode(s.parameters or {}),
    settings = json.encode(s.settings or {}),
  }
  checkpoint.write(path, tensors, meta)
end

-- Like sluice.io.save and load, but a file that cannot be opened is an error.
function checkpoint.write(path, tensors, meta)
  local ok, message = sluice.io.save(path, tensors, meta)
  if not ok then error(message, 0) end
end

local function read(path)
  local tensors, meta = sluice.io.load(path)
  if not tensors then error("sluice.load: " .. meta, 0) end
  -- Reading checks a digest that is there; damage must not make it disappear.
  if meta.format and not tostring(meta.digest):match "^xxh3:%x+$" then
    error(("sluice.load: %s: it is damaged: its digest is missing"):format(path), 0)
  end
  return tensors, meta
end

local function strip(tensors, prefix)
  local parts = {}
  for name, t in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then parts[name:sub(#prefix + 1)] = t end
  end
  return parts
end

-- The options of sluice.sample that stored settings and o, over them, make.
function checkpoint.sample_options(of, settings, o)
  local all = { model = of.model, diffusion = of.diffusion }
  for _, t in ipairs { settings, o or {} } do
    for k, v in pairs(t) do all[k] = v end
  end
  if not sluice.is_tensor(all.ema) then all.ema = checkpoint.ema(of.ema, all.ema) end
  all.columns = nil
  return all
end

-- Samples with stored settings; o overrides. ema, in either: a decay, "none", or weights; else the first EMA. of: what has model,
-- diffusion and ema { {decay, weights} … }.
function checkpoint.sample(of, settings, o)
  return require("sluice.sample").run(checkpoint.sample_options(of, settings, o))
end

-- loaded.sample is the settings, and loaded:sample { … } draws with them.
local Settings = { __call = function(settings, loaded, o) return checkpoint.sample(loaded, settings, o) end }

-- The newest of a run's checkpoints that `read_one` can read; the damaged ones are named.
local function newest(folder, read_one)
  local list = folder:checkpoints()
  if #list == 0 then error(("%s has no checkpoint yet"):format(folder.dir), 0) end
  local fault
  for i, c in ipairs(list) do
    local ok, result = pcall(read_one, c.path)
    if ok then
      if i > 1 then io.stderr:write(("sluice: warning: %s; using %s, of step %d\n"):format(fault, c.path, c.step)) end
      return result
    end
    fault = tostring(result)
    io.stderr:write(i < #list and "" or ("sluice: warning: %s\n"):format(fault))
  end
  error(("%s: none of its %d checkpoints can be read; the last: %s"):format(folder.dir, #list, fault), 0)
end

-- sluice.load(path) -> { model, diffusion, sample, ema = { {decay, weights} … }, step, dtype, meta, path }; :sample { … } draws.
-- dtype: of the weights in the file.
-- path: a checkpoint, or a run, of which the newest checkpoint that is whole is taken.
function checkpoint.load(path)
  if type(path) ~= "string" then
    error(("sluice.load: path is %s, expected a checkpoint's or a run's path"):format(tostring(path)), 2)
  end
  local ok, loaded = pcall(core.load_checkpoint, path)
  if not ok then error("sluice.load: " .. tostring(loaded):gsub("^[^\n]-:%d+: ", ""), 2) end
  setmetatable(loaded.sample, Settings)
  return loaded
end

-- The flat weights of the EMA with this decay; the first one's for nil, nil (the model's own) for "none".
function checkpoint.ema(list, want)
  if want == "none" then return nil end
  if want == nil then return list[1] and list[1].weights end
  local have = {}
  for _, e in ipairs(list) do
    if e.decay == tonumber(want) then return e.weights end
    have[#have + 1] = decay_text(e.decay)
  end
  error(("ema is %s, there %s"):format(tostring(want),
    #have > 0 and "are " .. table.concat(have, ", ") .. " or none" or "is none but the weights themselves"), 0)
end

local function fill(trainer, tensors, prefix, array)
  local parts = strip(tensors, prefix)
  for name, t in pairs(trainer:array(array)) do
    if not parts[name] then error(("has no tensor %s%s"):format(prefix, name), 0) end
    local ok, fault = pcall(core.assign, t, parts[name])
    if not ok then error(("%s%s %s"):format(prefix, name, fault), 0) end
  end
end

-- Brings a trainer to where the newest whole checkpoint of the folder was; its step and the seconds spent until then.
-- decays: the EMAs, in the trainer's order.
function checkpoint.restore(folder, trainer, decays)
  return table.unpack(newest(folder, function(path)
    local tensors, meta = read(path)
    local ok, fault = pcall(function()
      fill(trainer, tensors, "model.", "params")
      fill(trainer, tensors, "optimizer.exp_avg.", "exp_avg")
      fill(trainer, tensors, "optimizer.exp_avg_sq.", "exp_avg_sq")
      for i, decay in ipairs(decays) do fill(trainer, tensors, "ema." .. decay_text(decay) .. ".", "ema." .. i - 1) end
    end)
    if not ok then error(("%s: %s"):format(path, tostring(fault)), 0) end
    local step = math.tointeger(tonumber(meta.step)) or error(path .. ": has no step", 0)
    trainer:restore(step)
    return { step, tonumber(meta.seconds) or 0 }
  end))
end

-- Writes a loaded checkpoint without its optimizer: the model's weights are those of one EMA. o: ema, dtype
function checkpoint.export(path, loaded, o)
  local sample = {}
  for k, v in pairs(loaded.sample) do sample[k] = k ~= "ema" and v or nil end -- the one that it named is the model's weights now
  local weights = checkpoint.ema(loaded.ema, o and o.ema) or loaded.model:flatten(loaded.model:state())
  checkpoint.save(path, {
    model = loaded.model, diffusion = loaded.diffusion, weights = weights, sample = sample, step = loaded.step,
    recipe = loaded.meta.recipe, parameters = json.decode(loaded.meta.parameters), settings = json.decode(loaded.meta.settings or "{}"),
    seed = tonumber(loaded.meta.seed) or 0,
  }, o and o.dtype or "f32")
end

return checkpoint
