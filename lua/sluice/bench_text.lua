-- What sluice bench prints.
local core = require "sluice.core"

local bench_text = {}

-- Three digits, without an exponent.
local function three(x)
  if not x then return "-" end
  if x <= 0 then return "0" end
  return ("%%.%df"):format(math.max(0, math.min(9, 2 - math.floor(math.log(x, 10) + 1e-9)))):format(x)
end

local function cell(x)
  return x and x > 0 and x < 0.001 and "<0.001" or three(x)
end

local function add_rates(lines, rates)
  for _, kind in ipairs { "f32", "tf32", "bf16", "copy" } do
    local r = rates[kind]
    if r and kind == "copy" then
      lines[#lines + 1] = ("%-14s%s GB/s read and written; %s MiB, median of %d, %s to %s"):format("copy", three(r.median / 1e9),
        three(r.size / 1048576), r.samples, three(r.least / 1e9), three(r.most / 1e9))
    elseif r then
      lines[#lines + 1] = ("%-14s%s TFLOP/s; %d x %d, median of %d, %s to %s"):format("product " .. kind, three(r.median / 1e12),
        r.size, r.size, r.samples, three(r.least / 1e12), three(r.most / 1e12))
    end
  end
end

local function add_table(lines, result)
  local function line(op, calls, row, share)
    lines[#lines + 1] = ("%-27s%6s%13s%7s%11s%8s%11s%11s"):format(op, calls, cell(1000 * row.seconds), share,
      cell(row.limit and 1000 * row.limit), cell(row.ratio), cell(row.macs and row.macs / 1e9), cell(row.bytes and row.bytes / 1e6))
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = ("%-27s%6s%13s%7s%11s%8s%11s%11s"):format("operation", "calls", result.computed and "computed ms" or "ms", "share",
    "limit ms", "times", "GMAC", "MB")
  for _, row in ipairs(result.operations) do line(row.op, row.calls, row, ("%.1f%%"):format(100 * row.share)) end
  line("sum", result.sum.calls, result.sum, "100%")
end

local function add_speed(lines, result)
  local function say(label, ...) lines[#lines + 1] = ("%-14s%s"):format(label, (...):format(select(2, ...))) end
  local s = result.step
  if s then
    say("step", "%s ms; median of %d, quartiles %s to %s, all %s to %s", three(1000 * s.median), s.samples, three(1000 * s.lower),
      three(1000 * s.upper), three(1000 * s.least), three(1000 * s.most))
  else
    say("step", "%s ms, computed", three(1000 * result.sum.seconds))
  end
  local n = result.steps_per_image
  say("images/s", "%s%s", three(result.images_per_second), n > 1 and (" at %d steps"):format(n) or "")
  local shares = ""
  if result.product then
    shares = (", %s%% of the measured product (%s)"):format(three(100 * result.share_of_product), result.product)
  end
  if result.nominal then
    shares = shares .. (", %s%% of the nominal %s"):format(three(100 * result.share_of_nominal), three(result.nominal / 1e12))
  end
  say("model", "%s TFLOP/s%s", three(result.flops_per_second / 1e12), shares)
  if result.memory then say("memory", "%s MiB at most, %s", core.thousands(result.memory // 1048576),
    result.device == "cpu" and "resident" or "on the device") end
  if result.startup then say("start-up", "%s s from the start of the process to the end of the first step", three(result.startup)) end
end

-- What sluice.bench gives, as lines for people.
function bench_text.lines(result)
  local lines = {}
  if result.computed then
    local l = result.limits
    lines[1] = ("computed, not measured: what %s allows (products %s TFLOP/s in bf16, %s in f32; %s GB/s), planned for %s"):format(
      result.computed, three(l.bf16 / 1e12), three(l.f32 / 1e12), three(l.copy / 1e9), result.device)
  else
    lines[1] = ("%-14s%s"):format(result.device, result.machine)
    add_rates(lines, result.rates)
  end
  if result.name ~= "rates" then
    lines[#lines + 1] = ""
    lines[#lines + 1] = ("%s, %s: batch %d, %s%s, routing %s%s, %s parameters"):format(result.model, result.title, result.batch,
      result.precision, result.precision == "bf16" and (", residual " .. result.residual) or "", result.routing,
      result.recompute and (", recompute " .. result.recompute) or "", core.thousands(result.parameters))
    add_speed(lines, result)
    if result.operations then add_table(lines, result) end
  end
  return lines
end

return bench_text
