-- Data sets: packs, folders, preprocessing, the loader; and files that are damaged.
local sluice = require "sluice"
local core = require "sluice.core"
local files = require "files"

local bytes_of, write, temporary = files.read, files.write, files.temporary

local function same(a, b)
  return a:shape()[1] == b:shape()[1] and (a - b):abs():max():item() == 0
end

local function as_bytes(image) -- f32 [-1, 1] to u8
  return image:add(1):mul(127.5):round():to "u8"
end

describe("the shipped packs", function()
  it("hold the digits of their source, pixel by pixel", function()
    local pack, npz = sluice.data.pack "data/digits/digits.pack", sluice.data.npz "tests/data/digits28.npz"
    local a, x = pack:all()
    local b, y = npz:all()
    assert(same(a, b) and same(x:to "f32", y:to "f32"))
    assert.equal(10, pack:classes())
    assert.truthy(pack:note():find "CC BY%-SA 3.0")
  end)

  it("hold the emoji of their source, pixel by pixel", function()
    local pack, i = sluice.data.pack "data/emoji/emoji.pack", 0
    for line in io.lines "tests/data/emoji.tsv" do
      i = i + 1
      local digest, class, caption = line:match "^(%x+)\t(%d+)\t(.*)$"
      local image, label, text = pack:get(i)
      assert.same({ digest, tonumber(class), caption }, { core.digest(as_bytes(image)), label, text })
    end
    assert.equal(#pack, i)
    assert.equal("Flags", pack:names()[3])
  end)
end)

describe("preprocessing", function()
  it("equals guided-diffusion's center_crop_arr with Pillow", function()
    local golden = sluice.io.load "tests/golden/preprocess.safetensors"
    for _, name in ipairs { "a", "b", "c" } do
      local out = sluice.center_crop(golden[name .. ".in"], 32)
      assert.equal(core.digest(golden[name .. ".out"]), core.digest(out))
      local dir = temporary()
      write(dir .. "/x.png", bytes_of(("tests/golden/preprocess_%s.png"):format(name)))
      local image = sluice.data.folder(dir, { size = 32 }):get(1)
      assert((image - golden[name .. ".scaled"]):abs():max():item() <= 6e-8) -- one rounding of x / 127.5 - 1
      os.execute("rm -r " .. dir)
    end
  end)

  it("goes through the golden files' stages", function()
    local golden = sluice.io.load "tests/golden/preprocess.safetensors"
    for _, name in ipairs { "a", "b", "c" } do
      local now = golden[name .. ".in"]
      local half = golden[name .. ".after_box"]
      if half then
        while now:shape()[1] > half:shape()[1] do
          now = core.resize(now, now:shape()[1] // 2, now:shape()[2] // 2, "box")
        end
        assert.equal(core.digest(half), core.digest(now))
      end
      local scaled = golden[name .. ".after_bicubic"]
      if scaled then
        assert.equal(core.digest(scaled), core.digest(core.resize(now, scaled:shape()[1], scaled:shape()[2], "bicubic")))
      end
    end
  end)

  it("reads JPEGs as Pillow does", function()
    local expected = sluice.io.load "tests/data/io/jpeg.npz"
    local dir = temporary()
    for _, name in ipairs { "rgb", "grey", "progressive" } do
      write(dir .. "/x.jpg", bytes_of(("tests/data/io/%s.jpg"):format(name)))
      local image = as_bytes(sluice.data.folder(dir):get(1)):permute { 2, 3, 1 }:contiguous()
      assert.equal(core.digest(expected[name]), core.digest(image), name)
    end
    write(dir .. "/x.jpg", bytes_of "tests/data/io/rgb.jpg")
    local grey = sluice.data.folder(dir, { channels = 1 }):get(1)
    assert.equal(core.digest(expected.luma), core.digest(as_bytes(grey)))
    write(dir .. "/x.jpg", bytes_of "tests/data/io/cmyk.jpg")
    assert.error_matches(function() sluice.data.folder(dir) end, "is a CMYK JPEG")
    os.execute("rm -r " .. dir)
  end)

  it("refuses what is no picture", function()
    assert.error_matches(function() sluice.center_crop(sluice.zeros { 3, 4, 4 }, 2) end, "expected u8")
    assert.error_matches(function() sluice.center_crop(sluice.zeros { 4, 4, 3 }:to "u8", 0) end, "size is 0")
  end)
end)

-- A folder of pictures in two classes; their tensors by file.
local function make_folder()
  local dir, images = temporary(), {}
  for k, class in ipairs { "cats", "ants" } do
    core.make_dirs(dir .. "/" .. class)
    for i = 1, 3 do
      local path = ("%s/%s/%d.png"):format(dir, class, i)
      images[class .. i] = sluice.rand({ 3, 6, 5 }, { seed = 10 * k + i }):mul(2):sub(1)
      sluice.save_png(path, images[class .. i])
    end
  end
  return dir, images
end

describe("folders", function()
  it("number their classes as the names sort", function()
    local dir = make_folder()
    local d = sluice.data.folder(dir)
    assert.same({ "ants", "cats" }, d:names())
    assert.equal(6, #d)
    for i = 1, 6 do assert.equal(i <= 3 and 0 or 1, select(2, d:get(i))) end
    local image = d:get(4)
    assert(same(image, sluice.load_image(dir .. "/cats/1.png")))
    os.execute("rm -r " .. dir)
  end)

  it("take classes and captions from an index", function()
    local dir = make_folder()
    write(dir .. "/index.tsv", "file\tclass\tcaption\ncats/2.png\tb\tsecond cat\r\nants/1.png\ta\tfirst ant\n")
    local d = sluice.data.folder(dir)
    assert.equal(2, #d)
    assert.same({ "a", "b" }, d:names())
    local _, label, caption = d:get(1)
    assert.same({ 1, "second cat" }, { label, caption })
    write(dir .. "/index.tsv", "path\tclass\nx\ty\n")
    assert.error_matches(function() sluice.data.folder(dir) end, 'names no column "file"')
    write(dir .. "/index.tsv", "file\tclass\n\n\ty\n")
    assert.error_matches(function() sluice.data.folder(dir) end, "line 3 lacks its file")
    os.execute("rm -r " .. dir)
  end)

  it("name what cannot be read, and refuse or skip it", function()
    local dir = make_folder()
    write(dir .. "/ants/2.png", bytes_of(dir .. "/ants/2.png"):sub(1, 60))
    local d = sluice.data.folder(dir)
    assert.error_matches(function() d:all() end, "ants/2.png: broken PNG")
    local kept = sluice.data.folder(dir, { on_bad = "skip" })
    assert.equal(5, #kept)
    assert(d:digest() ~= kept:digest())
    assert.equal(5, kept:all():shape()[1])
    sluice.save_png(dir .. "/ants/2.png", sluice.zeros { 3, 4, 4 })
    assert.error_matches(function() d:all() end, "is 4 x 4, the first image 5 x 6")
    os.execute("rm -r " .. dir)
    assert.error_matches(function() sluice.data.folder(dir) end, "cannot open the folder")
    core.make_dirs(dir)
    assert.error_matches(function() sluice.data.folder(dir) end, "holds no .png, .jpg or .jpeg files")
    os.execute("rm -r " .. dir)
  end)

  it("become packs and come back", function()
    local dir = make_folder()
    local d = sluice.data.folder(dir)
    local said = 0
    d:pack(dir .. "/x.pack", { level = 3, note = "mine", progress = function(done) said = done end })
    local p = sluice.data.pack(dir .. "/x.pack")
    assert(same((d:all()), (p:all())))
    assert.same(d:names(), p:names())
    assert.same({ "mine", 6 }, { p:note(), said })
    assert.error_matches(function() d:pack(dir .. "/x.pack", { progress = function() error "enough" end }) end, "enough")
    assert(same((d:all()), (sluice.data.pack(dir .. "/x.pack"):all()))) -- the old file is whole
    assert.error_matches(function() sluice.data.tensors { images = sluice.zeros { 1, 1, 2, 2 } }:pack(dir .. "/y.pack") end, "holds bytes")
    os.execute("rm -r " .. dir)
  end)
end)

describe("holding back", function()
  it("splits a data set in two, the same each time", function()
    local d = sluice.data.pack "data/digits/digits.pack"
    local rest, held = d:split(100)
    assert.same({ 9900, 100 }, { #rest, #held })
    local seen, digests = {}, {}
    for i = 1, 100 do seen[core.digest((held:get(i)))] = true end
    for i = 1, #rest do digests[i] = core.digest((rest:get(i))) end
    for _, digest in ipairs(digests) do assert.falsy(seen[digest]) end
    assert.equal(held:digest(), select(2, d:split(100)):digest())
    assert.error_matches(function() d:split(10000) end, "fewer than the images")
    local t = sluice.data.tensors { images = sluice.rand { 10, 1, 2, 2 }, labels = sluice.arange(10):sub(1) }
    local a, b = t:split(4)
    local sum = 0
    for _, part in ipairs { a, b } do
      for i = 1, #part do sum = sum + select(2, part:get(i)) end
    end
    assert.equal(45, sum)
  end)
end)

describe("the loader", function()
  local function trained(threads, data)
    local trainer = sluice.trainer {
      model = sluice.dit { input = { 1, 28, 28 }, patch = 7, hidden = 16, depth = 1, heads = 2, classes = 10, learn_sigma = false },
      diffusion = sluice.diffusion { variance = "fixed_small" }, data = data, batch = 48, lr = 1e-3, flip = true, seed = 7,
      loader_threads = threads,
    }
    for _ = 1, 12 do trainer:step() end
    return core.digest(trainer:flat "params"), trainer
  end

  it("gives the same bits for any number of threads", function()
    local none = trained(0, sluice.data.npz "tests/data/digits28.npz")
    for _, threads in ipairs { 0, 1, 4 } do
      assert.equal(none, (trained(threads, sluice.data.pack "data/digits/digits.pack")))
    end
  end)

  it("goes on from where a trainer was", function()
    local trainer = sluice.trainer {
      model = sluice.dit { input = { 1, 28, 28 }, patch = 7, hidden = 16, depth = 1, heads = 2, classes = 10, learn_sigma = false },
      diffusion = sluice.diffusion { variance = "fixed_small" }, data = sluice.data.pack "data/digits/digits.pack", batch = 48, lr = 0,
      flip = true, seed = 7, loader_threads = 2,
    }
    local losses = {} -- of unchanging weights: they tell the steps' draws apart
    for i = 1, 5 do
      trainer:step()
      losses[i] = core.digest(trainer:per_sample "loss")
    end
    trainer:restore(3)
    trainer:step()
    assert.equal(4, trainer:steps_done())
    assert.equal(losses[4], core.digest(trainer:per_sample "loss"))
    assert(losses[4] ~= losses[3] and losses[4] ~= losses[5])
  end)

  it("hands on what a thread could not read", function()
    local dir = make_folder()
    write(dir .. "/cats/3.png", "no picture")
    local trainer = sluice.trainer {
      model = sluice.dit { input = { 3, 4, 4 }, patch = 2, hidden = 8, depth = 1, heads = 1, classes = 2, learn_sigma = false },
      diffusion = sluice.diffusion { variance = "fixed_small" }, data = sluice.data.folder(dir, { size = 4 }), batch = 6,
      loader_threads = 3,
    }
    for _ = 1, 2 do assert.error_matches(function() trainer:step() end, "cats/3.png: is neither a PNG nor a JPEG") end
    os.execute("rm -r " .. dir)
  end)
end)

-- Damage: whatever is done to a file, reading it raises an error that names it, or gives data (of pictures, whose formats do not
-- check everything).
describe("damaged files", function()
  local function reads(read, path)
    local ok, message = pcall(read, path)
    if not ok then assert.truthy(tostring(message):find(path, 1, true), tostring(message)) end
    return ok
  end

  local function damage(source, path, read, must_fail)
    local text = bytes_of(source)
    local step = math.max(1, #text // 60)
    for n = 0, #text - 1, step do
      write(path, text:sub(1, n))
      assert.falsy(reads(read, path), ("cut to %d bytes"):format(n))
    end
    for at = 1, #text, step do
      write(path, text:sub(1, at - 1) .. string.char(text:byte(at) ~ 1 << (at % 8)) .. text:sub(at + 1))
      local ok = reads(read, path)
      assert(not (must_fail and ok), ("bit %d of byte %d turned"):format(at % 8, at))
    end
    os.remove(path)
  end

  local dir = temporary()
  teardown(function() os.execute("rm -r " .. dir) end)

  it("packs", function()
    local folder = make_folder()
    sluice.data.folder(folder):pack(dir .. "/good.pack", { note = "x" })
    damage(dir .. "/good.pack", dir .. "/bad.pack", function(path) sluice.data.pack(path):all() end, true)
    os.execute("rm -r " .. folder)
  end)

  it("packs whose footer lies", function()
    local text = bytes_of(dir .. "/good.pack")
    for _, field in ipairs { 40, 32, 24 } do -- offset, size and raw size of the index, from the end
      local at = #text - field + 1
      write(dir .. "/lie.pack", text:sub(1, at - 1) .. ("\255"):rep(7) .. "\127" .. text:sub(at + 8))
      assert.falsy(reads(function(path) sluice.data.pack(path) end, dir .. "/lie.pack"))
    end
  end)

  it("leave the good chunks readable", function()
    local d = sluice.data.pack "data/digits/digits.pack"
    local text = bytes_of "data/digits/digits.pack"
    write(dir .. "/hurt.pack", text:sub(1, 99) .. "\0\0\0\0" .. text:sub(104))
    local hurt = sluice.data.pack(dir .. "/hurt.pack")
    assert.error_matches(function() hurt:get(1) end, "chunk 1 %(images 1 to %d+%) is damaged")
    assert(same((d:get(9999)), (hurt:get(9999))))
    local kept = sluice.data.pack(dir .. "/hurt.pack", { on_bad = "skip" })
    assert(#kept < 10000 and #kept > 9000)
  end)

  it("pictures", function()
    for _, name in ipairs { "rgb.jpg", "progressive.jpg", "grey.jpg", "rgba.png", "interlaced.png" } do
      damage("tests/data/io/" .. name, dir .. "/bad." .. name, sluice.load_image, false)
    end
  end)

  it("checkpoints", function()
    local path = dir .. "/good.safetensors"
    sluice.io.save(path, { a = sluice.randn { 40 }, b = sluice.arange(9) }, { digest = "", note = "x" })
    assert(sluice.io.load(path))
    damage(path, dir .. "/bad.safetensors", function(p)
      local _, meta = sluice.io.load(p)
      assert(tostring(meta.digest):match "^xxh3:%x+$", p .. ": no digest") -- as the readers of checkpoints ask for
    end, true)
  end)

  it("npz", function()
    damage("tests/data/io/stored.npz", dir .. "/bad.npz", function(p) assert(sluice.io.load(p)) end, false)
    damage("tests/data/io/deflated.npz", dir .. "/bad.npz", function(p) assert(sluice.io.load(p)) end, false)
  end)
end)
