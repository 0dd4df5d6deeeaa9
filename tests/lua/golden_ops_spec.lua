local sluice = require "sluice"
local golden = require "golden"

local FUNCTIONS = {
  layer_norm = function(x) return x:layer_norm(nil, nil, 1e-6) end,
  gelu = function(x) return x:gelu() end,
  silu = function(x) return x:silu() end,
  group_norm = sluice.group_norm and function(x, w, b) return x:group_norm(w, b, { groups = 32, eps = 1e-5 }) end or nil,
  downsample = sluice.downsample and function(x) return x:downsample(2) end or nil,
  upsample = sluice.upsample and function(x) return x:upsample(2) end or nil,
}

describe("golden ops", function()
  local f = golden.open "ops"
  local names = {}
  for name in pairs(f) do
    local op = name:match "^([%w_]+)%.in$"
    if op then names[#names + 1] = op end
  end
  table.sort(names)
  for _, op in ipairs(names) do
    local fn = FUNCTIONS[op]
    if not fn then
      io.write("golden ops: skipped ", op, "\n")
    else
      it(op, function()
        local x, w, b = f[op .. ".in"], f[op .. ".weight"], f[op .. ".bias"]
        local close = #x:shape() > 1 and golden.close_rows or golden.close -- the norms' rows have scales of their own
        close(fn(x, w, b), f[op .. ".out"], 1e-5, op .. ".out")
        local _, grads = sluice.value_and_grad(function(p)
          return (fn(p.x, p.w, p.b) * f[op .. ".loss_weight"]):sum()
        end, { x = x, w = w, b = b })
        close(grads.x, f[op .. ".grad_in"], 1e-4, op .. ".grad_in")
        if w then
          golden.close(grads.w, f[op .. ".grad_weight"], 1e-4, op .. ".grad_weight")
          golden.close(grads.b, f[op .. ".grad_bias"], 1e-4, op .. ".grad_bias")
        end
      end)
    end
  end
end)
