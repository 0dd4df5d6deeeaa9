-- What the golden tests share: the folder, files with their configuration, and the comparisons of tests/golden/README.md.
local sluice = require "sluice"

local golden = {}

local given = os.getenv "SLUICE_GOLDEN"
golden.folder = given and given ~= "" and given or (os.getenv "SLUICE_SOURCE" or ".") .. "/tests/golden"
io.write("golden data: ", golden.folder, "\n")

-- tensors, config of NAME.safetensors.
function golden.open(name)
  local tensors, meta = sluice.io.load(golden.folder .. "/" .. name .. ".safetensors")
  assert(tensors, meta)
  return tensors, meta.config and sluice.json.decode(meta.config) or {}, meta
end

local function l2(t)
  return t:to("f32"):norm():item()
end

-- |a - b| / |b|
function golden.rel(a, b)
  local size = l2(b)
  local d = l2(a:to("f32") - b:to("f32"))
  return size > 0 and d / size or d
end

local function same_shape(a, b, what)
  assert(table.concat(a:shape(), ",") == table.concat(b:shape(), ","),
    ("%s: shape [%s], expected [%s]"):format(what, table.concat(a:shape(), ","), table.concat(b:shape(), ",")))
end

function golden.close(a, b, limit, what)
  same_shape(a, b, what)
  local r = golden.rel(a, b)
  assert(r <= limit, ("%s: relative difference %.3g, limit %.3g"):format(what, r, limit))
  return r
end

-- Each row along the first dimension.
function golden.close_rows(a, b, limit, what)
  same_shape(a, b, what)
  for i = 1, #b do golden.close(a[i], b[i], limit, ("%s[%d]"):format(what, i)) end
end

-- Each element within `absolute` + `relative` |b|.
function golden.close_elements(a, b, absolute, relative, what)
  same_shape(a, b, what)
  local over = ((a - b):abs() - b:abs() * relative):max():item()
  assert(over <= absolute, ("%s: an element is off by %.3g beyond %.3g relative, limit %.3g"):format(what, over, relative, absolute))
end

function golden.equal(a, b, what)
  same_shape(a, b, what)
  local differ = a:to("f32"):ne(b:to("f32")):to("f32"):sum():item()
  assert(differ == 0, ("%s: %d elements differ"):format(what, differ))
end

-- A loss weight by the reference's name: "constant", "min_snr_5", "p2weight_1_1".
function golden.weight(name)
  if name == "constant" then return sluice.weight.constant() end
  local gamma = name:match "^min_snr_(.+)$"
  if gamma then return sluice.weight.min_snr(tonumber(gamma)) end
  local g, k = name:match "^p2weight_(.-)_(.+)$"
  return sluice.weight.p2 { gamma = tonumber(g), k = tonumber(k) }
end

local function routing_of(config, tensors)
  local r = config.routing or { kind = "none" }
  if r.kind == "DTR" then return sluice.routing.dtr { alpha = r.alpha, beta = r.beta } end
  if r.kind == "random" then return sluice.routing.table(tensors.mask) end
  return sluice.routing.none()
end

-- The model of a file's configuration with the weights it names.
function golden.dit(config, tensors)
  local m = config.model
  local model = sluice.dit {
    input = { m.in_channels, m.input_size, m.input_size }, patch = m.patch_size, hidden = m.hidden_size, depth = m.depth,
    heads = m.num_heads, mlp_ratio = m.mlp_ratio, classes = m.num_classes, class_dropout = m.class_dropout_prob,
    learn_sigma = m.learn_sigma, timesteps = config.taskcount or 1000, routing = routing_of(config, tensors),
  }
  model:load_state((golden.open(config.weights)))
  return model
end

return golden
