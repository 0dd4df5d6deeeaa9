local sluice = require "sluice"
return { weight = sluice.weight.custom(function(_, snr) return math.min(snr + 1, 5) end) }
