local sluice = require "sluice"
local golden = require "golden"

local f, config = golden.open "diffusion"
local skipped = {}

local weight_of = golden.weight
local x0, noise, step_noise, t = f["in.x0"], f["in.noise"], f["in.step_noise"], f["in.t"]
local out = f["in.model_output"]

for _, s in ipairs(config.schedules) do
  local function process(o)
    o = o or {}
    o.schedule = s
    return sluice.diffusion(o)
  end

  describe("golden diffusion " .. s, function()
    local d = process()
    local xt = f[s .. ".q_sample"]

    it("has the schedule", function()
      for _, name in ipairs { "betas", "alphas_cumprod", "alphas_cumprod_prev", "posterior_variance", "posterior_log_variance_clipped",
        "posterior_mean_coef1", "posterior_mean_coef2" } do
        golden.close_elements(d[name], f[s .. "." .. name], 0, 2e-7, name)
      end
    end)

    it("is respaced", function()
      for _, spec in ipairs(config.respace) do
        local r, p = process { respacing = spec }, ("%s.respace.%s."):format(s, spec)
        golden.equal(r.timestep_map, f[p .. "map"], p .. "map")
        for _, name in ipairs { "betas", "alphas_cumprod", "posterior_log_variance_clipped" } do
          golden.close_elements(r[name], f[p .. name], 0, 2e-7, p .. name)
        end
      end
    end)

    it("runs q forward", function()
      golden.close_rows(d:q_sample(x0, t, noise), xt, 1e-5, "q_sample")
      local mean, variance, log_variance = d:q_mean_variance(x0, t)
      golden.close_rows(mean, f[s .. ".q_mean"], 1e-5, "q_mean")
      golden.close(variance, f[s .. ".q_variance"], 1e-5, "q_variance")
      golden.close(log_variance, f[s .. ".q_log_variance"], 1e-5, "q_log_variance")
      local m, v, lv = d:q_posterior(x0, xt, t)
      golden.close_rows(m, f[s .. ".q_posterior.mean"], 1e-5, "q_posterior.mean")
      golden.close(v, f[s .. ".q_posterior.variance"], 1e-5, "q_posterior.variance")
      golden.close(lv, f[s .. ".q_posterior.log_variance"], 1e-5, "q_posterior.log_variance")
    end)

    for clip_name, clip in pairs { clip = true, noclip = false } do
      it("takes single steps, " .. clip_name, function()
        local p = d:p_mean_variance(out, xt, t, { clip = clip })
        local prefix = ("%s.p_mean_variance.%s."):format(s, clip_name)
        for _, name in ipairs { "mean", "pred_xstart", "variance", "log_variance" } do
          if f[prefix .. name] then golden.close_rows(p[name], f[prefix .. name], 1e-5, prefix .. name) end
        end
        golden.close_rows(d:p_sample(out, xt, t, step_noise, { clip = clip }), f[("%s.p_sample.%s.sample"):format(s, clip_name)],
          1e-5, "p_sample")
        for _, eta in ipairs(config.etas) do
          local name = ("%s.ddim.eta%g.%s.sample"):format(s, eta, clip_name)
          golden.close_rows(d:ddim_sample(out, xt, t, step_noise, { eta = eta, clip = clip }), f[name], 1e-5, name)
        end
        local reverse = d:ddim_reverse(out, xt, t, { clip = clip })
        golden.close_rows(reverse, f[("%s.ddim_reverse.%s.sample"):format(s, clip_name)], 1e-5, "ddim_reverse")
        golden.close_elements(d:vb_bpd(out, x0, xt, t, { clip = clip }), f[("%s.vb_bpd.%s"):format(s, clip_name)], 2e-6, 1e-4, "vb_bpd")
      end)
    end

    it("has fixed variances", function()
      local eps = out:slice(2, 1, config.channels)
      for _, kind in ipairs { "fixed_small", "fixed_large" } do
        local fixed, prefix = process { variance = kind }, s .. "." .. kind .. "."
        local p = fixed:p_mean_variance(eps, xt, t, { clip = true })
        golden.close(p.log_variance:mean { 2, 3, 4 }, f[prefix .. "log_variance"], 1e-5, prefix)
        golden.close_rows(fixed:p_sample(eps, xt, t, step_noise, { clip = true }), f[prefix .. "p_sample.sample"], 1e-5, prefix)
      end
    end)

    it("predicts x0", function()
      local p = process { predict = "x0" }:p_mean_variance(f["in.model_output_x0"], xt, t, { clip = true })
      golden.close_rows(p.mean, f[s .. ".predict_xstart.mean"], 1e-5, "predict_xstart.mean")
    end)

    it("weighs timesteps", function()
      for _, w in ipairs(config.weights) do
        local mine, ref = sluice.tensor(weight_of(w):table(d)), f[("%s.weight.%s"):format(s, w)]
        golden.close(mine, ref or sluice.ones { d.steps }, 1e-5, w) -- the constant one is not stored
      end
    end)

    it("has losses and their gradients", function()
      for _, w in ipairs(config.weights) do
        local prefix = ("%s.loss.%s."):format(s, w)
        local l = d:losses(out, x0, xt, t, noise, { weight = weight_of(w) })
        golden.close(l.mse, f[prefix .. "mse"], 1e-5, prefix .. "mse")
        golden.close_elements(l.vb, f[prefix .. "vb"], 2e-6, 1e-4, prefix .. "vb")
        golden.close_elements(l.loss, f[prefix .. "loss"], 2e-6, 1e-4, prefix .. "loss")
        local _, grads = sluice.value_and_grad(function(p)
          return d:losses(p.out, x0, xt, t, noise, { weight = weight_of(w) }).loss:mean()
        end, { out = out })
        golden.close(grads.out, f[prefix .. "grad_model_output"], 3e-4, prefix .. "grad_model_output")
      end
      for name in pairs(f) do -- where the network predicts x0
        local w = name:match("^" .. s .. "%.loss%.(.-)%.predict_xstart%.mse$")
        if w then
          local prefix = ("%s.loss.%s.predict_xstart."):format(s, w)
          local l = process { predict = "x0" }:losses(f["in.model_output_x0"], x0, xt, t, noise, { weight = weight_of(w) })
          golden.close(l.mse, f[prefix .. "mse"], 1e-5, prefix .. "mse")
          golden.close_elements(l.vb, f[prefix .. "vb"], 2e-6, 1e-4, prefix .. "vb")
          golden.close_elements(l.loss, f[prefix .. "loss"], 2e-6, 1e-4, prefix .. "loss")
        end
      end
    end)
  end)
end

for name in pairs(f) do
  if name:match "^uw%." or name:match "^resampler%." then skipped[#skipped + 1] = name end
end
io.write(("golden diffusion: skipped %d tensors of losses that come later (uw, resampler)\n"):format(#skipped))
