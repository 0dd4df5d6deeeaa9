-- Files: read whole; lists of JSON records a line each, and whether a folder can be written to.
local core = require "sluice.core"
local sluice = require "sluice"

local json = sluice.json

local disk = {}

-- The text of a file, or nil and why not.
function disk.read(path)
  local f <close>, message = io.open(path, "rb")
  if not f then return nil, message end
  local text, fault = f:read "a" -- of a folder it is nil
  return text, fault and ("%s: %s"):format(path, fault)
end

-- The folder of a path as it was given: "." without one.
function disk.folder_of(path)
  local folder = path:match "^(.*)/[^/]*$"
  return folder == "" and "/" or folder or "."
end

-- Why nothing can be written into a folder; nil if files can be made there.
function disk.obstacle(folder)
  local probe = folder .. "/.writable"
  local ok, fault = pcall(core.write, probe, "")
  os.remove(probe)
  if ok then return nil end
  return (tostring(fault):gsub("^[^\n]-:%d+: ", ""):gsub("/%.writable", "", 1))
end

-- A value as JSON has it: numbers that are not finite become text ("inf", "-nan"), in tables inside too.
function disk.plain(v)
  if type(v) == "table" then
    local t = {}
    for k, x in pairs(v) do t[k] = disk.plain(x) end
    return t
  end
  local finite = type(v) ~= "number" or (v == v and math.abs(v) < math.huge)
  return finite and v or tostring(v)
end

-- Adds a record to a file of them; a full disk is an error.
function disk.append(path, record)
  local f <close>, message = io.open(path, "a")
  if not f then error(message, 0) end
  local ok, fault = f:write(json.encode(disk.plain(record)), "\n")
  if ok then ok, fault = f:flush() end
  if not ok then error(("%s: %s"):format(path, fault), 0) end
end

-- for record, line in disk.records(text): what is no record, as a last line that was cut off, is left out.
function disk.records(text)
  local next_line = text:gmatch "([^\n]*)\n"
  return function()
    for line in next_line do
      local ok, record = pcall(json.decode, line)
      if ok and type(record) == "table" then return record, line end
    end
  end
end

-- The last record that has the field `wanted`, or nil; only the file's end is read.
function disk.last_record(path, wanted)
  local f <close> = io.open(path, "rb")
  if not f then return nil end
  local size = f:seek "end"
  f:seek("set", math.max(0, size - 65536))
  local found
  for record in disk.records(f:read "a" or "") do
    if record[wanted] ~= nil then found = record end
  end
  return found
end

return disk
