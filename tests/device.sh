#!/bin/bash
# tests/device.sh check             what a GPU computes is right: attention and recording first, then every operation, whole models
#                                   against the reference and the CPU, training that learns, repeated runs, memory checkers
# tests/device.sh train SIZE        speed of training DiT-SIZE/2 (S, B, L, XL), batch 256, bf16: by operation, and against PyTorch
# tests/device.sh sample [SIZE…]    guided sampling of one image and of 64 against PyTorch (S and XL)
# Needs the portable archive (SLUICE_PORTABLE, or build/*/sluice-portable.tar.zst; a folder that was unpacked will do, too), this source
# tree, python3 (with torch for train and sample) and the driver; nothing is installed. Each call has its time (check 450 s, train S 330, B
# 240, L and XL 300, sample 180: 25 minutes for check, S, B, XL and sample; SLUICE_DEVICE_SECONDS says otherwise), and its steps stand in the
# order of what is worth knowing first. What passed is remembered and left out in the next call, so that one that ran out of time is simply
# repeated (--again: everything anew). Each step prints PASS, FAIL, SKIP or TIMEOUT. Other variables: SLUICE_DEVICE (cuda:0);
# SLUICE_DEVICE_FOLDER (build/device), where the archive is unpacked and what passed is remembered; OUT (the same folder), for results: a
# log for each part, and device.json with every measurement; SLUICE_DEVICE_BATCH (256), for train.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2
  exit 2
}

folder=${SLUICE_DEVICE_FOLDER:-build/device}
results=${OUT:-$folder}
export SLUICE_DEVICE=${SLUICE_DEVICE:-cuda:0}
began=$SECONDS

# --- steps ---

left() { echo $((limit - SECONDS + began)); }
verdict() { echo "$1 $2" | tee -a "$log" "$verdicts"; }

# Ends what runs, in the background too
stop() {
  # shellcheck disable=SC2046
  kill $(jobs -p) 2>/dev/null
  exit 130
}

# step NAME SECONDS COMMAND…: runs it unless it passed before; its status 77 means that it cannot be done here
step() {
  local name=$1 budget=$2 status=0 start=$SECONDS text out
  shift 2
  if grep -qxF "$part $name" "$remembered"; then
    echo "DONE $name (in a call before)"
    return 0
  fi
  if (($(left) < budget / 3)); then
    verdict SKIP "$name: too little time is left in this call; repeat it"
    return 1
  fi
  ((budget > $(left))) && budget=$(left)
  out=$(mktemp "$folder/step.XXXXXX")
  trap stop INT TERM
  timeout -k 5 "$budget" bash -uo pipefail -c '"$@"' step "$@" >"$out" 2>&1 &
  wait $!
  status=$?
  text="$name ($((SECONDS - start)) s)"
  {
    flock 9 # steps at once say what they have to say one after another
    echo "--- $name" | tee -a "$log"
    cat "$out" >>"$log"
    show "$out" "$status"
    case $status in
      0)
        verdict PASS "$text"
        echo "$part $name" >>"$remembered"
        ;;
      77) verdict SKIP "$text" ;;
      124 | 137) verdict TIMEOUT "$name: stopped after $budget s" ;;
      *) verdict FAIL "$text, status $status" ;;
    esac
  } 9>>"$verdicts"
  rm -f "$out"
  return "$status"
}

# Steps whose times are not looked at run side by side, as many as the machine has cores
at_once() {
  while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
  step "$@" &
}

# What a step printed, but for what passed in it; of much that went wrong the marked lines and the end
show() {
  local shown=$1.shown
  grep -vE '^PASS |^\[ (RUN|      OK|  PASSED)' "$1" >"$shown"
  if (($(wc -l <"$shown") <= 60)); then
    cat "$shown"
  elif (($2)); then
    grep -A 3 -E '^FAIL|FAILED|=========|[Ee]rror:' "$shown" | head -n 40
    tail -n 15 "$shown"
  else
    tail -n 6 "$shown"
  fi
  rm -f "$shown"
}

# --- the archive ---

unpack_with_python() {
  python3 - "$1" "$2" <<'END'
import io, sys, tarfile
def opened(path):
    try:
        from compression import zstd
        return zstd.open(path)
    except ImportError: pass
    try:
        import zstandard
        return zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(open(path, "rb"))
    except ImportError: pass
    try:
        import pyarrow
        return pyarrow.input_stream(path, compression="zstd")
    except ImportError: pass
    for name in ("pyzstd", "backports.zstd"):
        try: return __import__(name, fromlist=["open"]).open(path)
        except ImportError: pass
    sys.exit("neither tar with zstd nor a python3 module for it (zstandard, pyarrow, pyzstd) is here: unpack the archive elsewhere and "
             "name the folder in SLUICE_PORTABLE")
with opened(sys.argv[1]) as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
    tar.extractall(sys.argv[2], filter="data")
END
}

# Sets bin: the folder with the program in it
find_program() {
  local archive=${SLUICE_PORTABLE:-} candidate
  for candidate in build/*/sluice-portable.tar.zst build/sluice-portable.tar.zst; do
    [ -n "$archive" ] || { [ -f "$candidate" ] && archive=$candidate; }
  done
  [ -n "$archive" ] || { echo "no archive: set SLUICE_PORTABLE, or build the target sluice_portable" >&2; exit 1; }
  if [ -d "$archive" ]; then
    bin=$archive
    [ -x "$bin/sluice" ] || bin=$archive/sluice
  else
    bin=$folder/sluice
    if [ ! -x "$bin/sluice" ] || [ "$archive" -nt "$bin" ]; then
      rm -rf "$bin"
      { command -v zstd >/dev/null && zstd -q -d -c "$archive" | tar -xf - -C "$folder"; } ||
        unpack_with_python "$archive" "$folder" || exit 1
      touch "$bin"
      : >"$remembered" # another program: nothing is known of it
    fi
  fi
  [ -x "$bin/sluice" ] || { echo "$archive: holds no program" >&2; exit 1; }
  sluice=$bin/sluice
}

# --- check ---

doctor() {
  "$sluice" doctor || return 1
  [ "$SLUICE_DEVICE" = cpu ] || "$sluice" doctor | grep -q "^devices .*$SLUICE_DEVICE"
}

# The log would tell that steps are launched one by one
recording() {
  local said="$folder/recording.err"
  "$sluice" run tests/lua/device_checks.lua recording 2>"$said"
  local status=$?
  cat "$said"
  grep -q 'cannot be recorded' "$said" && return 1
  return $status
}

operations() {
  [ -x "$bin/device_ops" ] || { echo "device_ops is not in the archive"; return 77; }
  "$bin/device_ops" "$SLUICE_DEVICE"
}

# spec NAME: its tests, with what is wider for GPUs
spec() { SLUICE_GOLDEN_SLACK=5 "$sluice" run tests/lua/plain.lua "tests/lua/$1_spec.lua"; }
eager_spec() { SLUICE_GOLDEN_DEVICE=$SLUICE_DEVICE spec "$1"; }

# The recipe learns as on the CPU: 98.5 to 99% there, over three seeds
learns() {
  local run=$folder/quickstart said
  rm -rf "$run"
  "$sluice" train recipes/quickstart.lua --device "$SLUICE_DEVICE" --out "$run" 2>&1 | tail -n 2 || return 1
  said=$("$sluice" run recipes/judge.lua "$run" seeds=1,2) || return 1
  echo "$said"
  awk '/^mean:/ { for (i = 1; i < NF; i++) if ($i == "agreement") a = $(i + 1) + 0 } END { exit !(a >= 97) }' <<<"$said" ||
    { echo "agreement is less than 97%"; return 1; }
}

# Steps replayed from a recording, twice, and launched one by one: the same bits
repeats() {
  local a b c
  for precision in f32 bf16; do
    a=$("$sluice" run tests/lua/device_checks.lua digest $precision) || return 1
    b=$("$sluice" run tests/lua/device_checks.lua digest $precision) || return 1
    c=$(SLUICE_CUDA_SYNC=1 "$sluice" run tests/lua/device_checks.lua digest $precision) || return 1
    printf '%s %s\n' "$precision" "$a" "$precision" "$b" "$precision launched" "$c"
    [ "$a" = "$b" ] && [ "$a" = "$c" ] || return 1
  done
}

# memory_checker TOOL SECONDS: compute-sanitizer over the operations, small sizes; as far as it comes in its time
memory_checker() {
  local tool=$1 said="$folder/$1.log" status
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not here"; return 77; }
  [ -x "$bin/device_ops" ] || { echo "device_ops is not in the archive"; return 77; }
  SLUICE_TEST_REDUCED=1 timeout -k 5 "$2" \
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$bin/device_ops" "$SLUICE_DEVICE" >"$said" 2>&1
  status=$?
  cat "$said" >>"$log"
  if grep -qiE 'device not supported|not supported on|unable to (attach|load)|failed to initialize' "$said"; then
    grep -iE 'support|unable|initialize' "$said" | head -n 3
    echo "compute-sanitizer is refused here"
    return 77
  fi
  grep -E '^=========' "$said" | grep -vE 'COMPUTE-SANITIZER|SUMMARY: 0 errors|0 hazards' | head -n 40
  if ((status == 124 || status == 137)); then
    echo "stopped after $2 s, in the middle of $(grep -cE '^\[ +OK' "$said") groups that passed; no error so far unless listed"
    ! grep -qE '^========= (Invalid|Race|Error|Warning: Race|Program hit)' "$said"
    return
  fi
  tail -n 3 "$said"
  return $status
}

check() {
  step "doctor" 30 doctor || { echo "$SLUICE_DEVICE is not here: nothing else is tried"; return; }
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader
  step "attention" 60 "$sluice" run tests/lua/device_checks.lua attention
  step "recording" 60 recording
  at_once "every operation" 240 operations
  for name in golden_dit golden_adm golden_chain train trace device block adm sample; do at_once "spec $name" 120 spec $name; done
  for name in golden_diffusion golden_ops; do at_once "spec $name, eager" 90 eager_spec $name; done
  at_once "repeated runs, recorded and not" 90 repeats
  at_once "the quickstart learns" 180 learns
  at_once "memcheck" 160 memory_checker memcheck 150
  at_once "racecheck" 160 memory_checker racecheck 150
  wait
}

# --- speed ---

bench() { "$sluice" bench "$@" --device "$SLUICE_DEVICE"; }
peer() {
  python3 -c 'import torch' 2>/dev/null || { echo "python3 has no torch"; return 77; }
  local device=${SLUICE_DEVICE%:0}
  PYTHONUNBUFFERED=1 python3 tests/bench/dit_torch.py --device "$device" --precision bf16 --no-eager --sluice "$sluice" \
    --json "$results/device.json" "$@"
}

train() {
  local size=${1:-}
  case $size in S | B | L | XL) ;; *) usage ;; esac
  local batch=(--batch "${SLUICE_DEVICE_BATCH:-256}") model=(--model "$size")
  local against=("${model[@]}" "${batch[@]}" --what train --no-errors)
  step "bench $size" 90 bench train --model "DiT-$size/2" "${batch[@]}" --precision bf16 --profile
  step "errors $size" 90 peer "${model[@]}" "${batch[@]}" --what none
  step "train $size against torch.compile" 280 peer "${against[@]}" --compile default
  step "train $size against eager" 150 peer "${against[@]}" --compile eager
  step "mask cost $size" 120 peer "${against[@]}" --mask-cost
  step "bench $size, residual bf16" 60 bench train --model "DiT-$size/2" "${batch[@]}" --precision bf16 --residual bf16
  [ "$size" = S ] && step "cold start $size" 150 peer "${model[@]}" "${batch[@]}" --cold --compile eager default
  [ "$size" = S ] && step "losses $size" 90 peer "${model[@]}" "${batch[@]}" --what none --no-errors --losses 200 --compile eager
  step "train $size against torch.compile, residual bf16" 280 peer "${against[@]}" --residual bf16 --compile default
  case $size in L | XL) return ;; esac
  step "train $size against max-autotune" 300 peer "${against[@]}" --compile max-autotune-no-cudagraphs
}

sample() {
  local size
  (($#)) || set -- S XL
  for size in "$@"; do
    case $size in S | B | L | XL) ;; *) usage ;; esac
  done
  for size in "$@"; do
    local against=(--model "$size" --what sample --no-errors)
    step "one image $size against a CUDA graph" 180 peer "${against[@]}" --images 1 --compile graph
    step "64 images $size against max-autotune" 200 peer "${against[@]}" --images 64 --compile graph
    step "one image $size against reduce-overhead" 150 peer "${against[@]}" --images 1 --compile reduce-overhead
  done
}

# --- ---

again=
arguments=()
for argument; do
  if [ "$argument" = --again ]; then again=1; else arguments+=("$argument"); fi
done
set -- "${arguments[@]}"
part=${1:-}
case $part in check | train | sample) shift ;; *) usage ;; esac
mkdir -p "$folder" "$results"
folder=$(realpath "$folder") results=$(realpath "$results")
remembered=$folder/done
[ -n "$again" ] && rm -f "$remembered"
touch "$remembered"
verdicts=$folder/verdicts
: >"$verdicts"
count() { grep -cE "^($1) " "$verdicts"; }
case "$part ${1:-}" in
  check*) limit=450 ;;
  "train S") limit=330 ;;
  "train B") limit=240 ;;
  train*) limit=300 ;;
  *) limit=180 ;;
esac
limit=${SLUICE_DEVICE_SECONDS:-$limit}
find_program
log=$results/device-$part.log
export bin sluice folder results log
export -f doctor recording operations spec eager_spec learns repeats memory_checker bench peer
echo "tests/device.sh $part $* on $SLUICE_DEVICE with $sluice" | tee -a "$log"
"$part" "$@"
failed=$(count 'FAIL|TIMEOUT')
echo "$part: $(count PASS) passed, $failed failed, $(count SKIP) left out; $((SECONDS - began)) s, log in $log" | tee -a "$log"
((failed == 0))
