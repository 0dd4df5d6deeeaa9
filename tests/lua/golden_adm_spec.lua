local sluice = require "sluice"
local golden = require "golden"

local function names_in(meta, key)
  return sluice.json.decode(meta[key])
end

for _, file in ipairs { "adm_plain_new", "adm_plain_legacy", "adm_dtr_new", "adm_dtr_legacy" } do
  describe("golden " .. file, function()
    local f, config, meta = golden.open(file)
    local model = golden.adm(config, f)

    it("has the output and every block's", function()
      local blocks = names_in(meta, "block_names")
      local out, kept = model:forward(f["in.x"], f["in.t"], f["in.y"], { keep = blocks })
      golden.close(out, f.out, 2e-5, "out")
      golden.close_rows(out, f.out, 5e-5, "out")
      golden.close(model:t_embed(f["in.t"]), f["act.time_embed"], 2e-5, "act.time_embed")
      for i, name in ipairs(blocks) do
        local mean, rms = kept[name]:mean():item(), math.sqrt(kept[name]:square():mean():item())
        local ref = f["act.block_mean_rms"][i]:totable()
        assert(math.abs(mean - ref[1]) <= 2e-5 * ref[2], name)
        assert(math.abs(rms - ref[2]) <= 2e-5 * ref[2], name)
      end
    end)

    it("has every gradient", function()
      local names = names_in(meta, "grad_norm_names")
      local compared, grads = golden.gradients(model, f, f.grad_norm:norm():item())
      assert.equal(#names, compared)
      for i, name in ipairs(names) do
        local ref, mine = f.grad_norm[i]:item(), (name == "in.x" and grads.x or grads[name]):norm():item()
        assert(math.abs(mine - ref) <= 1e-4 * ref + 1e-6 * f.grad_norm:norm():item(), name)
      end
    end)

    if f.routing then
      it("routes each block by its own channels", function()
        local dtr = sluice.routing.dtr { alpha = config.routing.alpha, beta = config.routing.beta }
        local routed = names_in(meta, "routed_blocks")
        assert.equal(#routed, model:info().routed_blocks)
        for i, row in ipairs(f.routing:totable()) do
          local channels, width = row[1], row[2]
          local masks = dtr:table(config.taskcount, channels, i):gather(f["in.t"]):totable()
          for k, mask in ipairs(masks) do
            for c = 1, channels do
              assert.equal(c > row[2 + k] and c <= row[2 + k] + width and 1 or 0, mask[c], routed[i])
            end
          end
        end
      end)

      it("is no routing where all channels are active", function()
        local plain = golden.adm(config, f, { routing = sluice.routing.none() }):forward(f["in.x"], f["in.t"], f["in.y"])
        local all = golden.adm(config, f, { routing = sluice.routing.dtr { beta = 1 } }):forward(f["in.x"], f["in.t"], f["in.y"])
        golden.equal(all, plain, "beta = 1")
      end)
    end
  end)
end
