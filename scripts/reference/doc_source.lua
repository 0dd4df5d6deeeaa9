-- All that is documented in a source tree: the entries of its comments, its operations, the pages.
local doc_comments = require "doc_comments"
local doc_headers = require "doc_headers"
local doc_operations = require "doc_operations"

local doc_source = {}

-- The files that a shell pattern names, sorted.
function doc_source.list(pattern)
  local list, pipe = {}, assert(io.popen("ls -1 " .. pattern .. " 2>/dev/null"))
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  table.sort(list)
  return list
end

-- root: the source folder -> { entries, operations, by_name, pages(), missing (why the page of the C API is left out, or nil) }
function doc_source.read(root)
  local files = doc_source.list(("'%s'/bindings/*.c '%s'/lua/sluice/*.lua"):format(root, root))
  local entries, by_name = doc_comments.read(files)
  local operations = doc_operations.read(root)
  for _, e in ipairs(operations) do
    local other = by_name[e.name]
    if other then error(("%s:%d: %s is an operation, documented in ops.h"):format(other.file, other.line, e.name), 0) end
    by_name[e.name] = e
  end
  local c_page, missing = doc_headers.page(root)
  local source = { entries = entries, operations = operations, by_name = by_name, missing = missing }
  function source.pages() return require("doc_pages").make(entries, operations, c_page) end
  function source.stale(dir) return require("doc_pages").stale(source.pages(), dir, doc_source.list(("'%s'/*.md"):format(dir))) end
  return source
end

return doc_source
