#!/usr/bin/env bash
# All measurements, one after another, on a machine that does nothing else: text, JSON and pictures into a directory,
# with report.md on top. `disstream` and `python` must be those of the environment to be measured (`make bench-report`).
#
#   benchmarks/report.sh [--short] [--no-soak] DIRECTORY [PART ...]
#
# PART: peers ceiling reading rates orders latency sweeps bodies aggregation memory outage idle soak (default: all).
# --short: minutes instead of half an hour, for a look. --no-soak leaves out the twelve minutes of writing. VERSUS holds more arguments for the peers.
set -uo pipefail
trap 'exit 130' INT # a part that is interrupted cleans up and ends; the next one must not begin

short= soak=yes
while [[ "${1:-}" == --* ]]; do
  case "$1" in
    --short) short=yes ;;
    --no-soak) soak= ;;
    *) echo "unknown option $1: see the head of $0" >&2; exit 2 ;;
  esac
  shift
done
if [[ $# -eq 0 ]]; then
  echo "where to? $0 [--short] [--no-soak] DIRECTORY [PART ...]" >&2
  exit 2
fi
out=$1
shift
parts=" ${*:-peers ceiling reading rates orders latency sweeps bodies aggregation memory outage idle soak} "
here=$(dirname "$0")
mkdir -p "$out"
report=$out/report.md
failed=()

# part NAME FORMAT COMMAND...: run it, keep its text, and add it to the report as code or as the Markdown that it is.
part() {
  local name=$1 format=$2
  shift 2
  echo "== $name ($(date +%T)): $*" >&2
  "$@" >"$out/$name.txt" 2>"$out/$name.log" || { failed+=("$name"); tail -3 "$out/$name.log" >&2; }
  cat "$out/$name.txt"
  {
    printf '\n## %s\n\n' "$name"
    if [[ $format == code ]]; then printf '```\n'; cat "$out/$name.txt"; printf '```\n'; else cat "$out/$name.txt"; fi
    [[ -f $out/$name.png ]] && printf '\n![%s](%s.png)\n' "$name" "$name"
  } >>"$report"
}

bench() {
  local name=$1
  shift
  part "$name" code disstream bench "$@" --data-dir "$out/data/$name" --json "$out/$name.json"
  rm -rf "$out/data/$name"
}

# wants PART: whether it was asked for.
wants() { [[ $parts == *" $1 "* ]]; }

# pick SHORT LONG: the value for this run.
pick() { [[ -n $short ]] && echo "$1" || echo "$2"; }

echo "# Measured $(date -u +%F), load before: $(cut -d' ' -f1-3 /proc/loadavg 2>/dev/null)" >"$report"

if wants peers; then
  mkdir -p "$out/data"
  # shellcheck disable=SC2086  # several words
  part peers markdown python "$here/peers/versus.py" --rounds "$(pick 1 5)" --seconds "$(pick 0.3 2)" \
    --data-dir "$out/data" --json "$out/peers.json" ${VERSUS:-}
fi
if wants ceiling; then
  part ceiling code python "$here/producer_ceiling.py" --rounds "$(pick 2 5)" --records "$(pick 200000 500000)"
fi
if wants reading; then
  for size in 100 1024; do
    part "reading-$size" code python "$here/consumer_ceiling.py" --size "$size" --rounds "$(pick 2 5)" \
      --records "$(pick 200000 "$((size == 100 ? 1000000 : 200000))")"
  done
fi
if wants rates; then
  repeats=$(pick 1 5)
  modes=(--mode send --mode receipts --mode send_many)
  small=(--size 100 --records "$(pick 150000 500000)" --repeats "$repeats")
  large=(--size 1024 --records "$(pick 60000 200000)" --repeats "$repeats")
  bench produce-100 produce "${modes[@]}" "${small[@]}"
  bench produce-1024 produce "${modes[@]}" "${large[@]}"
  bench consume-100 consume "${small[@]}"
  bench consume-1024 consume "${large[@]}"
fi
if wants orders; then
  bench orders produce --order all --mode send_many --records "$(pick 10000 50000)" --repeats "$(pick 1 3)"
fi
if wants latency; then
  bench latency latency --rate 1000 --seconds "$(pick 5 30)" --repeats "$(pick 1 3)"
  bench end-to-end latency --end-to-end --rate 1000 --seconds "$(pick 5 30)" --repeats "$(pick 1 3)"
fi
if wants sweeps; then
  for swept in "partitions send" "partitions send_many" "keys send" "keys send_many" "size send"; do
    read -r subject mode <<<"$swept"
    bench "sweep-$subject-$mode" sweep "$subject" --mode "$mode" --records "$(pick 50000 300000)" \
      --repeats "$(pick 1 3)" --png "$out/sweep-$subject-$mode.png"
  done
fi
if wants bodies; then
  part bodies markdown python "$here/bodies.py" --megabytes "$(pick 0.5 6)" --rounds "$(pick 1 3)" \
    --json "$out/bodies.json"
fi
if wants aggregation; then
  part aggregation code python "$here/aggregation.py" --seconds "$(pick 6 10)" --records "$(pick 20000 200000)" \
    --rounds "$(pick 1 3)"
fi
if wants memory; then
  part memory code python "$here/producer_memory.py"
fi
if wants outage; then
  for service in refuses silent; do
    part "outage-$service" code python "$here/outage.py" --service "$service" --seconds "$(pick 360 3600)" \
      --json "$out/outage-$service.json"
  done
fi
if wants idle; then
  part idle code python "$here/consumer_idle.py" --seconds "$(pick 4 20)" --partitions "$(pick 1,50 1,50,1000)"
fi
if wants soak && [[ -n $soak ]]; then
  bench soak soak --seconds "$(pick 10 600)" --png "$out/soak.png"
fi
rm -rf "$out/data"

echo "== done ($(date +%T)): $report" >&2
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "failed: ${failed[*]}; why is in $out/*.log" >&2
  exit 1
fi
