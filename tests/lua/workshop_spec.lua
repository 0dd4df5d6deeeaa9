-- Looking at masks: numbers against their definitions, computed one by one; pictures pixel by pixel.
local sluice = require "sluice"
local files = require "files"

local routing = sluice.routing
local T, C = 24, 20

-- Windows of one width; random channels; and what is no window, with widths that differ and a task without channels.
local function routings()
  return {
    dtr = routing.dtr { alpha = 3, beta = 0.6 }, eq4 = routing.dtr { alpha = 0.5, beta = 0.4, variant = "eq4" },
    random = routing.random { beta = 0.5, seed = 7 }, none = routing.none(),
    odd = routing.custom(function(t, _, channels)
      local row = {}
      for c = 1, channels do row[c] = t ~= 3 and (c * (t + 1)) % 5 < 2 end
      return row
    end),
  }
end

local function each(f)
  for name, r in pairs(routings()) do f(r, r:table(T, C):totable(), name) end
end

local function fails(f, ...)
  local ok, message = pcall(f)
  assert.falsy(ok)
  for _, part in ipairs { ... } do assert.truthy(tostring(message):find(part, 1, true), tostring(message) .. "\n   lacks: " .. part) end
end

describe("windows", function()
  it("are the first and the last open channel", function()
    each(function(r, mask)
      local first, last, contiguous = r:windows { T = T, C = C }
      local all = true
      for t = 1, T do
        local a, b, n = nil, 0, 0
        for c = 1, C do
          if mask[t][c] == 1 then a, b, n = a or c, c, n + 1 end
        end
        assert.same({ a or 1, b }, { first[t]:item(), last[t]:item() })
        all = all and n == b - (a or 1) + 1
      end
      assert.equal(all, contiguous)
    end)
  end)

  it("that raise give their error as it is, and the next failure is told by itself", function()
    local wrong = routing.custom(function() error { mine = true } end)
    local ok, raised = pcall(wrong.table, wrong, 3, 4)
    assert(not ok and raised.mine)
    ok, raised = pcall(routing.dtr, { alpha = -1 })
    assert(not ok and raised:match "alpha is %-1", raised)
  end)

  it("are zeros and ones, and nothing between", function()
    for value, want in pairs { [0.5] = "is 0.5, expected 0 or 1", [2] = "is 2, expected 0 or 1", x = 'is "x", expected 0 or 1' } do
      local wrong = routing.custom(function() return { 1, value } end)
      local ok, raised = pcall(wrong.table, wrong, 3, 2)
      assert(not ok and raised:find("channel 2 at t = 0 " .. want, 1, true), raised)
    end
  end)

  it("of DTR are the released code's", function()
    local first, last = routing.dtr { alpha = 4, beta = 0.8 }:windows { T = 1000, C = 128 }
    for _, t in ipairs { 0, 1, 371, 500, 998, 999 } do
      local at = (t / 999) ^ 4 * 26
      local start = math.floor(at + 0.5)
      assert.same({ start + 1, start + 102 }, { first[t + 1]:item(), last[t + 1]:item() })
    end
  end)
end)

describe("overlap", function()
  local function common(a, b)
    local n, either, of_a = 0, 0, 0
    for c = 1, C do
      n = n + a[c] * b[c]
      either = either + math.max(a[c], b[c])
      of_a = of_a + a[c]
    end
    return { count = n, first = of_a > 0 and n / of_a or 0, union = either > 0 and n / either or 0 }
  end

  it("is the share of channels in common", function()
    each(function(r, mask)
      local got = { first = r:overlap({ T = T, C = C }):totable() }
      for _, over in ipairs { "count", "union" } do got[over] = r:overlap({ T = T, C = C, over = over }):totable() end
      for t1 = 1, T do
        for t2 = 1, T do
          for over, want in pairs(common(mask[t1], mask[t2])) do assert(math.abs(want - got[over][t1][t2]) < 1e-6) end
        end
      end
    end)
  end)

  it("of random routing is what chance has: appendix B's expectation over the width", function()
    local n, width = 400, 160
    local shared = routing.random({ beta = 0.8, seed = 1 }):overlap { T = n, C = 200 }
    local apart = (shared:sum():item() - n) / (n * (n - 1))
    assert(math.abs(apart - width / 200) < 2e-3, apart)
  end)
end)

describe("dedicated", function()
  local function count(mask, ranges)
    local d = { every = 0, several = 0, one = 0, none = 0, always = 0, used = {}, dedicated = {} }
    for i = 1, #ranges do d.used[i], d.dedicated[i] = 0, 0 end
    for c = 1, C do
      local users, last, always = 0, nil, true
      for i, range in ipairs(ranges) do
        local used = false
        for t = range[1], range[2] do used = used or mask[t + 1][c] == 1 end
        if used then users, last, d.used[i] = users + 1, i, d.used[i] + 1 end
      end
      for t = 1, T do always = always and mask[t][c] == 1 end
      if users == 1 then d.dedicated[last] = d.dedicated[last] + 1 end
      local kind = users == #ranges and "every" or users == 0 and "none" or users == 1 and "one" or "several"
      d[kind] = d[kind] + 1
      if always then d.always = d.always + 1 end
    end
    return d
  end

  it("counts whose the channels are", function()
    local lists = { [4] = { { 0, 5 }, { 6, 11 }, { 12, 17 }, { 18, 23 } }, [1] = { { 0, 23 } } }
    lists[5] = { { 0, 3 }, { 4, 8 }, { 9, 13 }, { 14, 18 }, { 19, 23 } }
    local own = { { 0, 2 }, { 2, 9 }, { 23, 23 } } -- they may overlap and leave timesteps out
    lists[own] = own
    each(function(r, mask, name)
      for ranges, list in pairs(lists) do
        local got, want = r:dedicated { T = T, C = C, ranges = ranges }, count(mask, list)
        for _, key in ipairs { "every", "several", "one", "none", "always" } do
          assert.equal(want[key], got[key], ("%s of %s, %d ranges"):format(key, name, #list))
        end
        assert.equal(C, got.every + got.several + got.one + got.none)
        for i, range in ipairs(list) do
          assert.same({ range[1], range[2], want.used[i], want.dedicated[i] }, { got[i].first, got[i].last, got[i].used, got[i].dedicated })
        end
      end
    end)
  end)

  it("prints as a table", function()
    local text = tostring(routing.dtr { alpha = 4 }:dedicated {})
    assert.truthy(text:find("750 - 999          120         18", 1, true), text)
    assert.truthy(text:find("128 channels: 94 used by every range", 1, true), text)
  end)
end)

describe("pictures", function()
  local YELLOW, PURPLE = { 253, 231, 37 }, { 68, 1, 84 }

  local function bytes(image, y, x)
    local colour = {}
    for c = 1, 3 do colour[c] = math.floor((image[c][y][x] + 1) * 127.5 + 0.5) end
    return colour
  end

  it("have timesteps to the right and channels upward, and mix nothing", function()
    each(function(r, mask)
      for _, scale in ipairs { 1, 3 } do
        local image = r:picture { T = T, C = C, width = T * scale, height = C * scale }
        assert.same({ 3, C * scale, T * scale }, image:shape())
        image = image:totable()
        for t = 1, T do
          for c = 1, C do
            local want = mask[t][c] == 1 and YELLOW or PURPLE
            assert.same(want, bytes(image, (C - c) * scale + 1, (t - 1) * scale + 1))
            assert.same(want, bytes(image, (C - c + 1) * scale, t * scale))
          end
        end
      end
    end)
  end)

  it("take a size that suits a screen, of lists and matrices too", function()
    local dtr = routing.dtr {}
    assert.same({ 3, 256, 500 }, dtr:picture():shape())
    assert.same({ 3, 384, 250 }, dtr:picture { T = 10, C = 384 }:shape())
    assert.same({ 2, 3, 256, 500 }, routing.picture { dtr, routing.random {} }:shape())
    local many = {}
    for i = 1, 20 do many[i] = dtr end
    assert.same({ 20, 3, 4, 4 }, routing.picture(many, { width = 4, height = 4 }):shape())
    fails(function() routing.picture { dtr, sluice.zeros { 3, 5 } } end, "must have one size")
    local shades = routing.picture(sluice.tensor { { 0.5, 0.75 }, { 1, 2 } }, { lo = 0.5, hi = 1, width = 2, height = 2 }):totable()
    assert.same({ { 33, 145, 140 }, YELLOW, PURPLE, YELLOW },
      { bytes(shades, 1, 1), bytes(shades, 1, 2), bytes(shades, 2, 1), bytes(shades, 2, 2) })
  end)

  it("of starts pass through each first channel", function()
    local dtr = routing.dtr { alpha = 2, beta = 0.5 }
    local image, first = routing.starts({ dtr }, { T = 50, C = 40, width = 50, height = 121 }):totable(), dtr:windows { T = 50, C = 40 }
    for t = 1, 50 do
      local y = 121 - math.floor((first[t]:item() - 1) * 118 / 39 + 1 + 0.5)
      assert.same({ 0, 0, 0 }, bytes(image, y, t))
    end
    assert.same({ 255, 255, 255 }, bytes(image, 20, 5))
  end)

  it("of masks of a block, and of a model's own", function()
    local per_block = routing.custom(function(_, _, channels, block, blocks) return block, channels - blocks + block end)
    local first, last = per_block:windows { T = 3, C = 10, block = 2, blocks = 4 }
    assert.same({ 2, 8 }, { first[1]:item(), last[1]:item() })
    local model = sluice.dit {
      input = { 1, 8, 8 }, patch = 4, hidden = 16, depth = 2, heads = 2, classes = 1, timesteps = 30, routing = per_block,
    }
    for i, mask in ipairs(model:tables()) do
      assert.same({ i, 16 - 2 + i }, { routing.windows(mask)[1]:item(), select(2, routing.windows(mask))[1]:item() })
      assert.equal(0, (routing.overlap(mask) - 1):abs():max():item())
    end
  end)
end)

describe("wrong arguments", function()
  it("are answered in words", function()
    local dtr = routing.dtr {}
    fails(function() dtr:picture { Tt = 4 } end, "sluice.routing.picture", "Tt", 'did you mean "T"?')
    fails(function() dtr:picture { C = 0 } end, "C is 0")
    fails(function() dtr:picture { width = 0 } end, "width is 0, expected 1 to 4096")
    fails(function() dtr:picture { lo = 1 } end, "expected lo < hi")
    fails(function() routing.picture {} end, "the list of routings is empty")
    fails(function() routing.picture(5) end, "expected one of sluice.routing or a mask [T,C], got 5")
    fails(function() routing.overlap(sluice.zeros { 3 }) end, "the mask is [3], expected [T,C]")
    fails(function() dtr:overlap { over = "unoin" } end, 'did you mean "union"?')
    fails(function() dtr:dedicated { ranges = 0 } end, "ranges is 0, expected 1 to T = 1000")
    fails(function() dtr:dedicated { ranges = { { 0, 1000 } } } end, "range 1 is { 0, 1000 }", "last <= 999")
    fails(function() dtr:windows { T = 1.5 } end, "T is 1.5, expected integer")
    fails(function() routing.starts {} end, "expected a list of 1 to 8 routings")
    fails(function() routing.dtr {}:pictures() end, "pictures")
  end)
end)

describe("the workshop's example", function()
  it("draws every picture of the page, from the page's own mask", function()
    local page, script = files.read "docs/guide/mask-workshop.md", files.read "examples/mask-workshop.lua"
    local mask = page:match "lanes = (sluice%.routing%.custom%(function.-\nend%))\n"
    assert.truthy(script:find(mask:gsub("^sluice%.", ""), 1, true), mask)
    local dir = files.temporary()
    local program = os.getenv "SLUICE_BINARY" or "build/sluice"
    local command = "p=$(realpath %s) r=$PWD && cd %s && $p run $r/examples/mask-workshop.lua . 4 2>&1"
    local pipe = assert(io.popen(command:format(program, dir)))
    local text = pipe:read "a"
    assert(pipe:close(), text)
    local pictures = 0
    for name in page:gmatch "%]%((masks%-[%w-]+%.png)%)" do
      assert.same({ sluice.load_image("docs/guide/" .. name):shape() }, { sluice.load_image(dir .. "/" .. name):shape() })
      assert(#files.read("docs/guide/" .. name) < 150 * 1024)
      pictures = pictures + 1
    end
    assert.equal(5, pictures)
    os.execute("rm -r " .. dir)
  end)
end)
