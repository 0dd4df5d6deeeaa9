-- What a sweep came to: a row for each run, read from the runs' folders; as a table to print, as CSV.
local core = require "sluice.core"
local disk = require "sluice.disk"
local run_folder = require "sluice.run_folder"
local sluice = require "sluice"
local sweep_plan = require "sluice.sweep_plan"
local text_width = require "sluice.text_width"

local json = sluice.json
local results = {}

local BEFORE, AFTER = { "state" }, { "steps", "last_loss", "holdout", "holdout_ema", "images_per_second", "seconds" }
local LAST = { "error", "run" }

local own = {}
for _, list in ipairs { BEFORE, AFTER, LAST, { "seed" } } do
  for _, name in ipairs(list) do own[name] = true end
end

-- The column of a parameter: its name, with "set." before it where a result has that name.
local function column_of(key)
  return own[key] and "set." .. key or key
end

-- --- measures, kept with the run ---

local function measure_path(run)
  return run.dir .. "/measure.json"
end

-- { name = value } of a run that was measured, else nil.
function results.measured(run)
  local text = disk.read(measure_path(run))
  local ok, values = pcall(json.decode, text or "")
  return ok and type(values) == "table" and values or nil
end

-- Keeps what measure(run) returned; raises in words for what is no row's.
function results.keep_measures(run, keys, values)
  if type(values) ~= "table" then error(("measure returned %s, expected { name = number }"):format(tostring(values)), 0) end
  local kept, taken = {}, {}
  for _, key in ipairs(keys) do taken[column_of(key)] = true end
  for name, v in pairs(values) do
    if type(name) ~= "string" or own[name] or taken[name] then
      error(("measure returned the name %s, %s"):format(tostring(name), type(name) == "string" and "which another column has"
        or "expected text"), 0)
    end
    if sluice.is_tensor(v) then v = v:item() end
    if type(v) ~= "number" and type(v) ~= "string" and type(v) ~= "boolean" then
      error(("measure returned %s = %s, expected a number"):format(name, tostring(v)), 0)
    end
    kept[name] = v
  end
  core.write(measure_path(run), json.encode(disk.plain(kept), "object") .. "\n")
end

-- --- rows ---

-- The row of a run as its folder tells it.
local function row_of(run, keys)
  local row = { run = run.dir, seed = run.seed, steps = 0 }
  for _, key in ipairs(keys) do row[column_of(key)] = run.p[key] end
  local fault
  row.state, row.steps, fault = sweep_plan.state(run)
  if run.failure and row.state ~= "done" and row.state ~= "running" then row.state, fault = "failed", run.failure end
  row.error = (fault or run.measure_failure or ""):match "[^\n]+"
  if row.state == "to do" then return row end
  for _, record in ipairs(run_folder.open(run.dir):records "metrics.jsonl") do
    if record.holdout then
      row.holdout, row.holdout_ema = tonumber(record.holdout), tonumber(record.holdout_ema)
    elseif record.seconds then
      row.last_loss, row.seconds = tonumber(record.loss), record.seconds
      row.images_per_second = record.images / record.seconds
    end
  end
  for name, v in pairs(results.measured(run) or {}) do row[name] = v end
  return row
end

local function measure_names(rows, columns)
  local known, names = {}, {}
  for _, name in ipairs(columns) do known[name] = true end
  for _, row in ipairs(rows) do
    for name in pairs(row) do
      if not known[name] then names[#names + 1] = name end
      known[name] = true
    end
  end
  table.sort(names)
  return names
end

local function add(list, more)
  return table.move(more, 1, #more, #list + 1, list)
end

-- --- text ---

local function cell(v)
  if v == nil then return "" end
  return math.type(v) == "float" and ("%.5g"):format(v) or tostring(v)
end

-- Columns under their names, numbers to the right; a column in which no row has anything is left out.
local function aligned(rows, columns)
  local lines, used = {}, {}
  for _, name in ipairs(columns) do
    local width, right = text_width.of(name), true
    local any = false
    for _, row in ipairs(rows) do
      width, any = math.max(width, text_width.of(cell(row[name]))), any or row[name] ~= nil
      right = right and (row[name] == nil or type(row[name]) == "number")
    end
    if any then used[#used + 1] = { name = name, width = width, right = right } end
  end
  local function put(i, value)
    local parts = {}
    for k, column in ipairs(used) do
      local text = value(column.name)
      local room = (" "):rep(column.width - text_width.of(text))
      parts[k] = column.right and room .. text or text .. room
    end
    lines[i] = table.concat(parts, "  "):gsub("%s+$", "")
  end
  put(1, function(name) return name end)
  for i, row in ipairs(rows) do put(i + 1, function(name) return cell(row[name]) end) end
  return table.concat(lines, "\n")
end

-- RFC 4180: a field with a comma, a quote or a line's end stands in quotes, and quotes in it twice. Lines end in LF.
local function field(v)
  local text = v == nil and "" or sweep_plan.text(v)
  return text:find '[,"\r\n]' and '"' .. text:gsub('"', '""') .. '"' or text
end

local function csv(rows, columns)
  local lines = { {} }
  for k, name in ipairs(columns) do lines[1][k] = field(name) end
  for i, row in ipairs(rows) do
    lines[i + 1] = {}
    for k, name in ipairs(columns) do lines[i + 1][k] = field(row[name]) end
  end
  for i, line in ipairs(lines) do lines[i] = table.concat(line, ",") .. "\n" end
  return table.concat(lines)
end

local function made(rows, columns, summary)
  local function text() return aligned(rows, columns) .. (summary and "\n" .. summary or "") end
  return setmetatable(rows, { columns = columns, __tostring = text, __name = "sluice.sweep.rows" })
end

-- The rows of a plan's runs, in its order; printed, they are a table.
function results.rows(plan)
  local rows, columns = {}, { table.unpack(BEFORE) }
  for _, key in ipairs(plan.keys) do columns[#columns + 1] = column_of(key) end
  add(add(columns, { "seed" }), AFTER)
  for i, run in ipairs(plan.runs) do rows[i] = row_of(run, plan.keys) end
  local measures = measure_names(rows, add({ table.unpack(columns) }, LAST))
  return made(rows, add(add(columns, measures), LAST))
end

-- Rows of what would be done: state, parameters, seed, steps, memory and disk in MiB, and which run has the same settings; printed, the
-- summary follows them.
function results.planned(plan, summary)
  local rows, columns = {}, { "state" }
  for _, key in ipairs(plan.keys) do columns[#columns + 1] = column_of(key) end
  add(columns, { "seed", "steps", "batch", "memory_mib", "disk_mib", "same_as", "run" })
  for i, run in ipairs(plan.runs) do
    local row = {
      state = run.state, seed = run.seed, steps = run.steps, batch = run.batch, memory_mib = math.ceil(run.bytes / 1048576),
      disk_mib = math.ceil(run.disk / 1048576), same_as = run.same_as, run = run.dir,
    }
    for _, key in ipairs(plan.keys) do row[column_of(key)] = run.p[key] end
    rows[i] = row
  end
  return made(rows, columns, summary)
end

-- Writes out/results.csv, whole or not at all; -> the rows.
function results.write(plan)
  local rows = results.rows(plan)
  core.write(plan.out .. "/results.csv", csv(rows, getmetatable(rows).columns))
  return rows
end

return results
