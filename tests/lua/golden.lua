-- What the golden tests share: the folder, files with their configuration, and the comparisons of tests/golden/README.md.
local sluice = require "sluice"

local golden = {}

local given = os.getenv "SLUICE_GOLDEN"
golden.folder = given and given ~= "" and given or (os.getenv "SLUICE_SOURCE" or ".") .. "/tests/golden"
io.write("golden data: ", golden.folder, "\n")

-- On a GPU: where eager tensors lie (SLUICE_GOLDEN_DEVICE; models go where SLUICE_DEVICE says), and by how much limits are wider
-- there (SLUICE_GOLDEN_SLACK): sums have another order, and products are fused with them.
local device, slack = os.getenv "SLUICE_GOLDEN_DEVICE", tonumber(os.getenv "SLUICE_GOLDEN_SLACK" or 1)

-- tensors, config of NAME.safetensors.
function golden.open(name)
  local tensors, meta = sluice.io.load(golden.folder .. "/" .. name .. ".safetensors")
  assert(tensors, meta)
  if device and device ~= "" then
    for k, t in pairs(tensors) do tensors[k] = t:to(device) end
  end
  return tensors, meta.config and sluice.json.decode(meta.config) or {}, meta
end

local function l2(t)
  return t:to("f32"):norm():item()
end

-- |a - b| / |b|
function golden.rel(a, b)
  a, b = a:to "cpu", b:to "cpu"
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
  limit = limit * slack
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
  a, b = a:to "cpu", b:to "cpu"
  absolute, relative = absolute * slack, relative * slack
  local over = ((a - b):abs() - b:abs() * relative):max():item()
  assert(over <= absolute, ("%s: an element is off by %.3g beyond %.3g relative, limit %.3g"):format(what, over, relative, absolute))
end

function golden.equal(a, b, what)
  same_shape(a, b, what)
  a, b = a:to "cpu", b:to "cpu"
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
  if r == sluice.json.null then return sluice.routing.none() end
  if r.kind == "DTR" then return sluice.routing.dtr { alpha = r.alpha, beta = r.beta } end
  if r.kind == "random" then return sluice.routing.table(tensors.mask) end
  return sluice.routing.none()
end

-- The model of a DiT file's configuration with the weights it names.
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

-- The same of an ADM file. The configuration has attention's down-sampling factors, as UNetModel takes them. o: more options
function golden.adm(config, tensors, o)
  local m = config.model
  local options = {
    image_size = m.image_size, in_channels = m.in_channels, out_channels = m.out_channels, model_channels = m.model_channels,
    num_res_blocks = m.num_res_blocks, channel_mult = m.channel_mult, attention_resolutions = {}, classes = m.num_classes,
    num_head_channels = m.num_head_channels, use_scale_shift_norm = m.use_scale_shift_norm, resblock_updown = m.resblock_updown,
    use_new_attention_order = m.use_new_attention_order, dropout = m.dropout, timesteps = config.taskcount or 1000,
    routing = routing_of(config, tensors),
  }
  for i, factor in ipairs(m.attention_resolutions) do options.attention_resolutions[i] = m.image_size // factor end
  for k, v in pairs(o or {}) do options[k] = v end
  local model = sluice.adm(options)
  model:load_state((golden.open(config.weights)))
  return model
end

-- All gradients of sum(out * loss_weight) against the file's, whole ones (grad.NAME) and every k-th element (grad_everyK.NAME); all: the
-- norm of all of them together. The number compared.
function golden.gradients(model, f, all)
  local grads, compared = model:gradients(f["in.x"], f["in.t"], f["in.y"], f.loss_weight), 0
  for name, ref in pairs(f) do
    local every, param = name:match "^grad_every(%d+)%.(.*)"
    param = param or name:match "^grad%.(.*)"
    if param then
      local mine = param == "in.x" and grads.x or grads[param]
      assert(mine, "no gradient for " .. param)
      if every then
        local flat = mine:reshape { -1 }
        mine = flat:slice(1, 1, #flat, math.tointeger(every))
      end
      local limit = 1e-4 * ref:norm():item() + 1e-6 * all
      local d = (mine - ref):norm():item()
      assert(d <= limit, ("%s: off by %.3g, limit %.3g"):format(name, d, limit))
      compared = compared + 1
    end
  end
  return compared, grads
end

return golden
