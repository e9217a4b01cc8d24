#!/usr/bin/env bash
# Fifteen minutes of a GPU: how fast is the step, then rows of the evidence.
#
#   benchmarks/gpu.sh setup check speed      # about five minutes
#   benchmarks/gpu.sh setup rows collect     # as long as ROWS_SECONDS says
#   SMOKE=1 benchmarks/gpu.sh setup check speed rows collect    # rehearsal, tiny, on a CPU
#
# Run from the repository's root. The machine needs Python with PyTorch and JAX for CUDA,
# NumPy, SciPy and Pillow, no network and no TensorFlow: what is missing comes as wheels
# in WHEELS, images as the parts that `benchmarks.carry_images pack` wrote. What must be
# kept is under OUT at the end: figures, logs, and rows with their weights, in archives of
# at most 15 MiB. Rows that did not finish go on where they were, here or elsewhere:
#
#   cat OUT/rows.tgz.* | tar -xz -C FOLDER
#   python -m evidence.tables --runs FOLDER/runs --output FOLDER/tables ...
set -uo pipefail
export KHYPER_COMMIT=${KHYPER_COMMIT:-$(git describe --always --dirty 2>/dev/null)}
export PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=3

SMOKE=${SMOKE:-}
PYTHON=${PYTHON:-python3}
WORK=${WORK:-$PWD/build/gpu}               # scratch, which git ignores
OUT=${OUT:-$WORK/out}                      # what comes back
WHEELS=${WHEELS:-.whl}                     # folder of wheels; none is fine
PARTS=${PARTS:-.gpu/1 .gpu/2}              # of benchmarks.carry_images
TABLE=${TABLE:-.gpu/accuracies.csv}        # the benchmark's accuracies
ARCHS=${ARCHS:-results/from_scratch_c8_n1_px16_e10_all.json}
SPEED_SECONDS=${SPEED_SECONDS:-230}
SPEED_FLAGS=${SPEED_FLAGS:-}               # more flags of benchmarks.gpu_step
ROWS_SECONDS=${ROWS_SECONDS:-420}
ROWS=${ROWS:-table_2 table_3 figure_7 conditioning step}    # of evidence.tables
ROWS_FLAGS=${ROWS_FLAGS:-}                 # more of them, such as --variants shared
PARALLEL=${PARALLEL:-$(nproc)}             # rows at a time
KEEP_MEBIBYTES=${KEEP_MEBIBYTES:-50}       # of runs that come back
MPS=${MPS:-}                               # 1: rows share the card through NVIDIA's MPS

mkdir -p "$WORK" "$OUT"

say() { echo "[$(date +%T)] $*"; }

# Make what the machine lacks importable, from wheels, in a folder of its own.
setup() {
  if compgen -G "$WHEELS/*.whl" > /dev/null; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
      --upgrade --target "$WORK/site" "$WHEELS"/*.whl || return 1
    export PYTHONPATH="$WORK/site${PYTHONPATH:+:$PYTHONPATH}"
  fi
  for part in $PARTS; do
    [ -d "$part" ] && mkdir -p "$WORK/parts" && cp -r "$part" "$WORK/parts/"
  done
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
  KERAS_BACKEND=torch "$PYTHON" -c \
    'import keras, platform; print("Keras", keras.__version__, platform.python_version())'
}

# Does the step that runs here learn what the eager step learns?
check() {
  timeout 120 "$PYTHON" -m benchmarks.gpu_check
}

speed() {
  local flags=(--rounds 3 --limit $((SPEED_SECONDS * 2 / 3)) --sections-at-once 4)
  flags+=(--parallel 24 --groups peer --output "$OUT/gpu_step.json")
  [ -n "$SMOKE" ] && flags+=(--smoke)
  say "speed: at most $SPEED_SECONDS s"
  # shellcheck disable=SC2086
  KERAS_BACKEND=torch timeout "$SPEED_SECONDS" "$PYTHON" -m benchmarks.gpu_step "${flags[@]}" $SPEED_FLAGS
  say "speed ended with $?"
}

rows() {
  local flags=(--data-dir "$WORK/data" --table "$TABLE" --extra-archs "$ARCHS")
  say "MPS: $(command -v nvidia-cuda-mps-control || echo none)"
  if [ ! -d "$WORK/data" ]; then
    "$PYTHON" -m benchmarks.carry_images unpack --folders "$WORK"/parts/* \
      --data-dir "$WORK/data" || return 1
  fi
  if [ -n "$SMOKE" ]; then
    flags+=(--base smoke --seeds 1 --num-archs 10 --overrides data=cifar10 epochs=1)
    flags+=(train_size=512)
  else
    # Fewer, larger predictions: a GPU waits for each.
    flags+=(--base two-core --overrides prediction_batch=5000)
    # Rows that have their results here are finished.
    mkdir -p "$WORK/tables" && cp -rn results/tables/two-core "$WORK/tables/"
  fi
  if [ -n "$MPS" ] && command -v nvidia-cuda-mps-control > /dev/null; then
    nvidia-cuda-mps-control -d && say "MPS is up"
  fi
  say "rows: at most $ROWS_SECONDS s"
  # shellcheck disable=SC2086
  KERAS_BACKEND=torch timeout "$ROWS_SECONDS" \
    "$PYTHON" -m evidence.tables "${flags[@]}" --only $ROWS --parallel "$PARALLEL" \
    --runs "$WORK/runs" --output "$WORK/tables" $ROWS_FLAGS > "$OUT/rows.log" 2>&1
  say "rows ended with $?"
  grep -E ": (done|failed)" "$OUT/rows.log"
  tail -qn 1 "$WORK"/runs/*/*.log | cut -c -150
}

collect() {
  say "collecting"
  "$PYTHON" -m benchmarks.carry_runs --runs "$WORK/runs" --to "$WORK/kept/runs" \
    --mebibytes "$KEEP_MEBIBYTES"
  cp -r "$WORK/tables" "$WORK/kept/"
  (cd "$WORK/kept" && tar -cz runs tables | split -b 15m - "$OUT/rows.tgz.")
  ls -l "$OUT"
}

for stage in "$@"; do
  case $stage in
    setup | check | speed | rows | collect) "$stage" || say "$stage failed" ;;
    *) echo "Stages are setup, check, speed, rows, collect. Received: $stage" >&2; exit 2 ;;
  esac
done
