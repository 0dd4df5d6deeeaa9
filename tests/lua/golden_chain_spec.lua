local sluice = require "sluice"
local golden = require "golden"

describe("golden sample_chain", function()
  local f, config = golden.open "sample_chain"
  local model = golden.dit(config, f)

  for _, c in ipairs(config.chains) do
    it(c.name, function()
      local function of(name) return f[c.name .. "." .. name] end
      local guided = c.cfg_scale ~= nil and c.cfg_scale ~= sluice.json.null
      local d = sluice.diffusion { schedule = c.schedule, respacing = c.respacing }
      golden.equal(d.timestep_map, of "timestep_map", "timestep_map")
      local x, y, steps = of "x_T", of "y", #of "timestep_map"
      local n, map, final = #x, of("timestep_map"):totable(), of "final"
      local function filled(v) return sluice.full({ n }, v, { dtype = "i64" }) end
      for k = 1, steps do
        local i = steps - k
        local t = filled(map[i + 1])
        local out = guided and model:forward_cfg(x, t, y, c.cfg_scale) or model:forward(x, t, y)
        local noise = f[c.name .. ".noise"] and of("noise")[k]
        local pred
        if c.sampler == "ddpm" then
          x, pred = d:p_sample(out, x, filled(i), noise, { clip = c.clip_denoised })
        else
          x, pred = d:ddim_sample(out, x, filled(i), noise, { eta = c.eta, clip = c.clip_denoised })
        end
        golden.close(x, of("x")[k], 1e-4, ("x after step %d"):format(k))
        golden.close(pred, of("pred_xstart")[k], 1e-4, ("pred_xstart of step %d"):format(k))
      end
      golden.close(x:slice(1, 1, #final), final, 1e-4, "final")
    end)

    it(c.name .. " by sluice.sample", function()
      local function of(name) return f[c.name .. "." .. name] end
      local guided = c.cfg_scale ~= nil and c.cfg_scale ~= sluice.json.null
      local n = #of "final"
      local start, noise = of("x_T"):slice(1, 1, n), f[c.name .. ".noise"]
      local all = { start }
      if noise then
        for k = 1, #noise do all[k + 1] = noise[k]:slice(1, 1, n) end
      end
      local x = sluice.sample {
        model = model, diffusion = sluice.diffusion { schedule = c.schedule, respacing = c.respacing }, n = n,
        labels = of("y"):slice(1, 1, n), cfg = guided and c.cfg_scale or nil, sampler = c.sampler, eta = c.eta, clip = c.clip_denoised,
        noise = noise and sluice.stack(table.unpack(all)) or start,
      }
      golden.close(x, of "final", 1e-4, "final")
    end)
  end
end)

describe("golden train_chain", function()
  local f, config, meta = golden.open "train_chain"
  local initial = golden.open(config.weights)

  it("takes the reference's steps", function()
    local model = golden.dit(config, f)
    local d = sluice.diffusion { schedule = config.schedule }
    local trainer = sluice.trainer {
      model = model, diffusion = d, lr = config.lr, weight_decay = config.weight_decay,
      weight = golden.weight(config.loss_weight_type):table(d),
      ema = { config.ema_decay, config.fast_ema_decay }, ema_warmup = false, batch = config.batch,
    }
    trainer:keep_gradients()
    for k = 1, config.steps do
      local r = trainer:step_on { x0 = f["in.x0"][k], t = f["in.t"][k], y = f["in.y"][k], noise = f["in.noise"][k] }
      local function near(a, b, what)
        assert(math.abs(a - b) <= 1e-4 * math.abs(b), ("%s of step %d: %.9g, expected %.9g"):format(what, k, a, b))
      end
      near(r.loss, f.loss[k]:item(), "loss")
      near(r.grad_norm, f.grad_norm[k]:item(), "grad_norm")
      golden.close(trainer:per_sample "mse", f.mse[k], 1e-4, "mse")
      golden.close_elements(trainer:per_sample "vb", f.vb[k], 2e-6, 1e-4, "vb")
      if k == 1 then
        local grads = trainer:array "grads"
        for _, name in ipairs(config.keep) do
          if f["grad0." .. name] then golden.close(grads[name], f["grad0." .. name], 1e-4, "grad0." .. name) end
        end
      end
    end
    local now, ema, fast = trainer:array "params", trainer:array "ema.0", trainer:array "ema.1"
    local m, v = trainer:array "exp_avg", trainer:array "exp_avg_sq"
    for _, name in ipairs(config.keep) do
      local start = initial[name]
      local function moved(a, b, limit, what)
        golden.close(a:to "cpu" - start:to "cpu", b:to "cpu" - start:to "cpu", limit, what .. name)
      end
      if name == "pos_embed" then
        golden.equal(now[name], f["final." .. name], "final." .. name)
      else
        moved(now[name], f["final." .. name], 1e-2, "final.")
        moved(fast[name], f["fast_ema." .. name], 1e-2, "fast_ema.")
        golden.close(m[name], f["exp_avg." .. name], 1e-3, "exp_avg." .. name)
        golden.close(v[name], f["exp_avg_sq." .. name], 1e-3, "exp_avg_sq." .. name)
      end
      golden.close(ema[name], f["ema." .. name], 1e-6, "ema." .. name)
    end
    local names, norms = sluice.json.decode(meta.moved_norm_names), f.moved_norm:totable()
    for i, name in ipairs(names) do
      if not name:match "attn%.qkv%.bias$" then
        local moved_by = (now[name]:to "cpu" - initial[name]:to "cpu"):norm():item()
        assert(math.abs(moved_by - norms[i]) <= 1e-2 * norms[i], ("moved_norm %s: %.6g, expected %.6g"):format(name, moved_by, norms[i]))
      end
    end
  end)
end)
