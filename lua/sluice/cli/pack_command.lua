-- sluice pack
local arguments = require "sluice.cli.arguments"
local core = require "sluice.core"
local sluice = require "sluice"

local function declare(p)
  p:argument("source", "a folder (a subfolder per class, or an index.tsv with the columns file, class, caption), or an .npz")
  p:argument("output", "the pack")
  p:option("--size", "images become N x N: guided-diffusion's center_crop_arr"):argname("N"):convert(arguments.integer)
  p:option("--channels", "3, or 1 for grey"):argname("N"):convert(arguments.integer)
  p:option("--index", "a table of the images in place of index.tsv"):argname("FILE")
  arguments.choice(p:option("--on_bad", "images that cannot be read: refuse (the default) or skip them, naming each"), { "refuse", "skip" })
  p:option("--level", "of zstd, 1 to 19 (19)"):argname("N"):convert(arguments.integer)
  p:option("--note", "source and licence, kept in the pack"):argname("TEXT")
  p:flag("--quiet", "no progress line")
  arguments.json_flag(p)
end

-- Options that this kind of source has no use for are refused.
local function check_source(o, kind, takes)
  for _, name in ipairs { "size", "channels", "index", "on_bad" } do
    if o[name] and name ~= takes then
      arguments.fail(("pack: --%s is for a folder of pictures; %s is %s, whose images stay as they are"):format(name, o.source, kind))
    end
  end
end

local function source_of(path, o)
  if path:match("%.np[zy]$") or path:match("%.safetensors$") then
    check_source(o, "a tensor file")
    return sluice.data.npz(path)
  elseif path:match("%.pack$") then
    check_source(o, "a pack", "on_bad")
    return sluice.data.pack(path, { on_bad = o.on_bad })
  end
  return sluice.data.folder(path, { size = o.size, channels = o.channels, index = o.index, on_bad = o.on_bad })
end

local function run(o)
  arguments.check_output("output", o.output)
  if o.size and o.size < 1 then arguments.fail(("pack: --size %d: expected at least 1"):format(o.size)) end
  local d = source_of(o.source, o)
  local line = require("sluice.progress").new { total = #d, now = core.clock, tty = core.isatty(), quiet = o.quiet }
  d:pack(o.output, { level = o.level, note = o.note, progress = function(done) line:update(done) end })
  line:finish()
  if o.json then
    d = sluice.data.pack(o.output) -- its digest is of its own images, not of the files that they came from
    return arguments.say_json { output = o.output, images = #d, shape = d:shape(), classes = d:classes(), digest = d:digest() }
  end
  arguments.say("%s: %s %s%s", o.output, arguments.count(#d, "image"), table.concat(d:shape(), "x"),
    d:classes() > 0 and (", %d classes"):format(d:classes()) or "")
end

return {
  summary = "Packs a folder of PNG and JPEG files, or an .npz, into one file for sluice.data.pack.", declare = declare, run = run,
  examples = { "sluice pack photos photos.pack --size 64 --on_bad skip --note 'mine, CC0'" },
}
