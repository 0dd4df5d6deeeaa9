-- Files: read whole, lists of JSON records a line each, and whether a folder can be written to.
local core = require "sluice.core"
local sluice = require "sluice"

local json = sluice.json

local files = {}

-- The text of a file, or nil and why not.
function files.read(path)
  local f <close>, message = io.open(path, "rb")
  if not f then return nil, message end
  local text, fault = f:read "a" -- of a folder it is nil
  return text, fault and ("%s: %s"):format(path, fault)
end

-- The folder of a path as it was given: "." without one.
function files.folder_of(path)
  local folder = path:match "^(.*)/[^/]*$"
  return folder == "" and "/" or folder or "."
end

-- Why nothing can be written into a folder; nil if files can be made there.
function files.obstacle(folder)
  local probe = folder .. "/.writable"
  local ok, fault = pcall(core.write, probe, "")
  os.remove(probe)
  if ok then return nil end
  return (tostring(fault):gsub("^[^\n]-:%d+: ", ""):gsub("/%.writable", "", 1))
end

-- A value as JSON has it: numbers that are not finite become text ("inf", "-nan"), in tables inside too.
function files.plain(v)
  if type(v) == "table" then
    local t = {}
    for k, x in pairs(v) do t[k] = files.plain(x) end
    return t
  end
  local finite = type(v) ~= "number" or (v == v and math.abs(v) < math.huge)
  return finite and v or tostring(v)
end

-- Adds a record to a file of them; a full disk is an error.
function files.append(path, record)
  local f <close>, message = io.open(path, "a")
  if not f then error(message, 0) end
  local ok, fault = f:write(json.encode(files.plain(record)), "\n")
  if ok then ok, fault = f:flush() end
  if not ok then error(("%s: %s"):format(path, fault), 0) end
end

-- for record, line in files.records(text): what is no record, as a last line that was cut off, is left out.
function files.records(text)
  local next_line = text:gmatch "([^\n]*)\n"
  return function()
    for line in next_line do
      local ok, record = pcall(json.decode, line)
      if ok and type(record) == "table" then return record, line end
    end
  end
end

-- The last record that has the field `wanted`, or nil; only the file's end is read.
function files.last_record(path, wanted)
  local f <close> = io.open(path, "rb")
  if not f then return nil end
  local size = f:seek "end"
  f:seek("set", math.max(0, size - 65536))
  local found
  for record in files.records(f:read "a" or "") do
    if record[wanted] ~= nil then found = record end
  end
  return found
end

return files
