-- Every code block of README.md and the guide runs and prints what the page says. CONTRIBUTING.md tells what a page may hold.
local doc_blocks = require "doc_blocks"
local doc_text = require "doc_text"

local program = os.getenv "SLUICE_BINARY" or "build/sluice"
local reduced = os.getenv "SLUICE_TEST_REDUCED" == "1"

-- Pages that take long under sanitizers.
local HEAVY = {
  ["docs/guide/training.md"] = true, ["docs/guide/my-data.md"] = true, ["docs/guide/my-sampler.md"] = true, ["docs/guide/bench.md"] = true,
}

local function output(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  return text, pipe:close()
end

local root = output "pwd":gsub("\n", "")

-- An empty folder that looks like the repository's root to a reader who types what stands in a page.
local function workplace()
  local dir = output "mktemp -d":gsub("\n", "")
  local links = { "mkdir " .. dir .. "/build " .. dir .. "/bin" }
  for _, name in ipairs { "data", "models", "recipes", "examples", "scripts", "docs", "tests" } do
    links[#links + 1] = ("ln -s %s/%s %s/%s"):format(root, name, dir, name)
  end
  for _, name in ipairs { "build/sluice", "bin/sluice" } do
    links[#links + 1] = ("ln -s $(realpath %s) %s/%s"):format(program, dir, name)
  end
  local text, ok = output(table.concat(links, " && "))
  assert(ok, text)
  return dir
end

local function run_page(page)
  local dir = workplace()
  local text, ok = output(("cd %s && PATH=%s/bin:$PATH && sluice run %s/tests/lua/doc_page.lua %s/%s"):format(dir, dir, root, root, page))
  output("rm -r " .. dir)
  return text, ok
end

describe("a page's block", function()
  local function plan(...) return doc_blocks.plan(table.concat({ ... }, "\n")) end

  it("has a language that is run, or a reason not to be", function()
    assert.has_error(function() plan("```", "x", "```") end, "line 1: the block has no language")
    assert.has_error(function() plan("```lua", "x") end, "line 1: the block has no end")
    assert.has_error(function() plan("```c", "x", "```") end,
      "line 1: a block of c is neither run nor compared; say why: <!-- skip: reason -->")
    assert.has_error(function() plan("<!-- skpi: x -->", "```lua", "```") end, "line 1: unknown directive skpi")
    assert.has_error(function() plan("<!-- skip: x -->", "text", "```lua", "```") end, "line 2: a directive without a block")
    assert.has_error(function() plan("<!-- replace: a => b -->", "```lua", "c", "```") end, "line 2: nothing to replace: a => b")
    local steps, skipped = plan("<!-- skip: slow -->", "```c", "x", "```", "```lua", "a = 1", "```", "", "```text", "1", "```")
    assert.same({ { line = 2, reason = "slow" } }, skipped)
    assert.same({ { kind = "lua", line = 5, text = "a = 1", want = "1" } }, steps)
  end)

  it("keeps its lines, and its locals for the next", function()
    local steps = plan("```lua", "local a = 1", "```", "and", "```console", "> a + 1", "2", "$ true", "```")
    assert.equal("__doc(1) \nlocal a = 1\n\n\n\n__doc(2) __typed(function() return a + 1 end)\n\n__doc(3) \n__doc()",
      doc_blocks.chunk(steps))
    assert.equal("2\n", steps[2].want)
    assert.equal("\n__doc(1) steps = 2\n\n__doc()", doc_blocks.chunk(plan("<!-- with: steps = 2 -->", "```lua", "", "```")))
    assert.has_error(function() plan("<!-- with: steps -->", "```lua", "", "```") end,
      "line 2: with: expected NAME = VALUE before a block of lua")
  end)

  it("is compared by words, and numbers by the digits shown", function()
    local matches = doc_text.matches
    assert.is_true(matches("a  b\n[1, 2]", "a b [1,\n 2]"))
    assert.is_true(matches("x … 0.123", "x is many words 0.12345"))
    assert.is_true(matches("… end", "end"))
    assert.is_true(matches("-1.5e-3 f32", "-1.6e-03 f32"))
    assert.is_false(matches("0.123", "0.125"))
    assert.is_false(matches("12", "13"))
    assert.is_false(matches("a b", "a b c"))
    assert.is_false(matches("a b c", "a b"))
    assert.is_false(matches("f32", "f33"))
    assert.is_true(matches("", "  "))
  end)
end)

local pages = output "ls README.md docs/guide.md docs/guide/*.md"

describe("the links of", function()
  for page in (pages .. "CONTRIBUTING.md docs/design.md docs/performance.md"):gmatch "%S+" do
    it(page .. " lead somewhere", function()
      local file <close> = assert(io.open(page))
      for target in file:read("a"):gmatch "%]%(([^)#%s]+)[^)]*%)" do
        if not target:find "^%a+:" then
          local path = (page:match "^.*/" or "") .. target
          assert(io.open(path), path .. " is not there"):close()
        end
      end
    end)
  end
end)

describe("the page", function()
  local skipped = {}
  for page in pages:gmatch "%S+" do
    it(page, function()
      if reduced and HEAVY[page] then
        skipped[#skipped + 1] = page .. ": the whole page, in tests under sanitizers"
        return
      end
      local text, ok = run_page(page)
      for line, reason in text:gmatch "skipped (%d+) ([^\n]+)" do skipped[#skipped + 1] = ("%s:%s: %s"):format(page, line, reason) end
      assert(ok, text)
      assert(text:find "ran %d+\n$", text)
    end)
  end

  teardown(function()
    print("\nblocks that were not run:\n  " .. table.concat(skipped, "\n  "))
  end)
end)
