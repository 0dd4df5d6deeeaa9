-- The fields of sluice.sample, once: what it takes, what a recipe's `sample` may say, and the options of `sluice sample`.
--   recipe: may stand in a recipe; option: is an option of the program under this name; kind: of its text there; arg: what stands for
--   its value in a usage; choices: the words that it may be
local sample_fields = {
  { "model" },
  { "diffusion" },
  { "n", recipe = true }, -- options of their own name their meaning: -n, --class, --labels, --device
  { "labels", recipe = true },
  { "cfg", recipe = true, option = "number", arg = "SCALE", text = "classifier-free guidance: 1 is none" },
  { "cfg_channels", recipe = true, option = "integer", arg = "N", text = "how many channels guidance leads (all)" },
  { "cfg_interval", recipe = true, option = "interval", arg = "LO,HI", text = "guidance only at these original timesteps, both included" },
  { "sampler", recipe = true, option = "choice", choices = { "ddpm", "ddim" }, text = "ddpm or ddim" },
  { "steps", recipe = true, option = "integer", arg = "N", text = "of the diffusion's steps, N evenly spaced ones (all)" },
  { "eta", recipe = true, option = "number", arg = "ETA", text = "of ddim: 0 adds no noise (the default), 1 as much as ddpm" },
  { "clip", recipe = true, option = "boolean", arg = "true|false", text = "predicted images are kept in [-1, 1]" },
  { "seed", recipe = true, option = "integer", arg = "SEED", text = "0 to 4294967295" },
  { "noise", option = "images", arg = "FILE", text = "the noise to begin with (and each step's), .npz or .safetensors" },
  { "init", option = "images", arg = "FILE", text = "known images, for --start and --mask: a .png, .npz or .safetensors" },
  { "start", option = "integer", arg = "N", text = "begin from init, noised to where N steps are left (image-to-image)" },
  { "mask", option = "images", arg = "FILE", text = "1 is drawn, 0 kept from init (in-painting)" },
  { "batch", recipe = true, option = "integer", arg = "N", text = "images computed at a time (64)" },
  { "ema", recipe = true, option = "word", arg = "DECAY", text = "of the weights to use, or none (the first EMA)" },
  { "precision", recipe = true, option = "choice", choices = { "f32", "tf32", "bf16" }, text = "f32, tf32 or bf16 (the model's)" },
  { "keep", option = "integer", arg = "N", text = "also the images predicted at N steps on the way: a row for each image" },
  { "device" },
  { "on_step" },
}

-- The names of those for which `has` (a key of the rows above) is given; of all without it.
function sample_fields.names(has)
  local names = {}
  for _, row in ipairs(sample_fields) do
    if not has or row[has] then names[#names + 1] = row[1] end
  end
  return names
end

return sample_fields
