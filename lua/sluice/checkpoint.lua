-- Checkpoints: one .safetensors file that holds weights, averages and tables, and in its metadata everything needed to use them.
local core = require "sluice.core"
local sluice = require "sluice"

local json = sluice.json

local FORMAT = "sluice-checkpoint-1"
local checkpoint = {}

local function add_all(tensors, prefix, parts)
  for name, t in pairs(parts) do tensors[prefix .. name] = t end
end

local function decay_text(decay)
  return ("%.10g"):format(decay)
end

-- Writes what a run reached. extra: recipe (source text), parameters, weight (list over t).
function checkpoint.save(path, run, extra)
  local tensors, decays = {}, {}
  add_all(tensors, "model.", run.model:state())
  for i, e in ipairs(run.ema) do
    decays[i] = decay_text(e.decay)
    add_all(tensors, "ema." .. decays[i] .. ".", run.model:parts(e.weights))
  end
  for i, mask in ipairs(run.model:tables()) do tensors["tables.mask." .. i - 1] = mask end
  if extra.weight then tensors["tables.weight"] = sluice.tensor(extra.weight) end
  local process, betas = run.diffusion:describe()
  if betas then tensors["tables.betas"] = betas end
  local meta = {
    format = FORMAT, version = sluice.version, step = tostring(run.steps), ema = json.encode(decays),
    architecture = json.encode(run.model:describe()), diffusion = json.encode(process),
    sample = json.encode(run.sample_settings), recipe = extra.recipe or "", parameters = json.encode(extra.parameters or {}),
  }
  checkpoint.write(path, tensors, meta)
end

-- Like sluice.io.save and load, but a file that cannot be opened is an error.
function checkpoint.write(path, tensors, meta)
  local ok, message = sluice.io.save(path, tensors, meta)
  if not ok then error(message, 0) end
end

local function read(path, level)
  local tensors, meta = sluice.io.load(path)
  if not tensors then error("sluice.load: " .. meta, level and level + 1 or 0) end
  return tensors, meta
end

local function strip(tensors, prefix)
  local parts = {}
  for name, t in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then parts[name:sub(#prefix + 1)] = t end
  end
  return parts
end

local function file_of(path)
  local inside = path .. "/checkpoint.safetensors"
  return core.exists(inside) and inside or path
end

-- The parameters of a checkpoint or an export, by bare name: the first EMA's if `ema`, else the model's.
function checkpoint.state(path)
  local tensors, meta = read(file_of(path))
  if meta.format == nil then return tensors end
  return strip(tensors, "model.")
end

local ROUTINGS = {
  none = function() return nil end,
  dtr = function(r) return sluice.routing.dtr { alpha = r.alpha, beta = r.beta, variant = r.variant } end,
  random = function(r) return sluice.routing.random { beta = r.beta, seed = r.seed } end,
}

-- The model that model:describe told of; masks: its tables where no formula gives them back.
local function model_of(architecture, masks)
  local kind, routing = architecture.kind, architecture.routing
  if kind ~= "dit" then error(("sluice.load: the architecture is %s, this version knows dit"):format(tostring(kind)), 3) end
  architecture.kind = nil
  if #masks > 0 then
    for i, m in ipairs(masks) do masks[i] = m:reshape { 1, table.unpack(m:shape()) } end
    architecture.routing = sluice.routing.table(core.join(masks))
  else
    local make = ROUTINGS[routing.kind] or error(("sluice.load: there is no routing %s"):format(tostring(routing.kind)), 3)
    architecture.routing = make(routing)
  end
  return sluice.dit(architecture)
end

-- sluice.load(path) -> { model, diffusion, sample, ema = { {decay, weights} … }, meta }
function checkpoint.load(path)
  if type(path) ~= "string" then
    error(("sluice.load: path is %s, expected a checkpoint's or a run's path"):format(tostring(path)), 2)
  end
  path = file_of(path)
  local tensors, meta = read(path, 2)
  if meta.format == nil then
    error(("sluice.load: %s has no architecture in it (an export?); make the model and use model:load_state(path)"):format(path), 2)
  end
  if meta.format ~= FORMAT then
    error(("sluice.load: %s has format %s, this version reads %s"):format(path, meta.format, FORMAT), 2)
  end
  local masks, i = {}, 0
  while tensors["tables.mask." .. i] do
    masks[i + 1] = tensors["tables.mask." .. i]
    i = i + 1
  end
  local model = model_of(json.decode(meta.architecture), masks)
  model:load_state(strip(tensors, "model."))
  local loaded = {
    model = model, diffusion = core.diffusion_from(json.decode(meta.diffusion), tensors["tables.betas"]),
    sample = json.decode(meta.sample), ema = {}, meta = meta, path = path,
  }
  for k, decay in ipairs(json.decode(meta.ema)) do
    loaded.ema[k] = { decay = tonumber(decay), weights = model:flatten(strip(tensors, "ema." .. decay .. ".")) }
  end
  return loaded
end

return checkpoint
