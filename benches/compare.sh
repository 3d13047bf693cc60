#!/usr/bin/env bash
# Everything on one stream, in one run: a floor, the naive join in mawk and python3, our parts and the whole. Writes
# docs/performance.md.
#
#   benches/compare.sh            1 million records, a quick look: prints, and leaves the page as it is
#   benches/compare.sh 10000000   the real run
#
# What watching costs is measured for 60 seconds, or for KQPROC_COST_SECONDS, idle and at 1,000 forks a second. What the
# page says behind these figures is written by hand, and kept.
#
# The files (about 130 bytes a record) go to $TMPDIR or target/, and away in the end. Times are processor time, the best
# of three: other work on the machine changes them little.
set -euo pipefail
cd "$(dirname "$0")/.."
records=${1:-1000000}
real=10000000
watched=${KQPROC_COST_SECONDS:-60}
cargo build --quiet --release --bin kqproc_exporter --example bench
bench=target/release/examples/bench
exporter=target/release/kqproc_exporter
dir=$(mktemp -d "${TMPDIR:-$PWD/target}/compare.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# Processor seconds of a command, the best of three; its output goes to $dir/out.
seconds() {
	local best='' user system
	for _ in 1 2 3; do
		TIMEFORMAT='%U %S'
		read -r user system < <({ time "$@" >"$dir/out" 2>&1; } 2>&1)
		best=$(awk -v b="$best" -v u="$user" -v s="$system" 'BEGIN { t = u + s; print (b == "" || t < b) ? t : b }')
	done
	echo "$best"
}

row() { # what, events, seconds
	awk -v what="$1" -v n="$2" -v s="$3" -v m="$mawk_rate" 'BEGIN {
		r = n / (s > 0 ? s : 0.001)
		printf "| %s | %d | %.2f | %.1f | %.2f |\n", what, n, s, r / 1e6, r / m
	}'
}

fail() {
	echo "compare.sh: $*" >&2
	exit 1
}

read -r births deaths < <($bench stream "$dir" "$records")
lines=$(wc -l <"$dir/dtrace.txt")
events=$(wc -l <"$dir/both.txt")

# The scripts must count every create and exit, and agree with the cross-check but for 1 in 10,000: once they have missed
# one note of a pid, they join its later lives wrongly.
counts() {
	awk -v c="$(grep -c '^C' "$dir/dtrace.txt")" -v x="$(grep -c '^X' "$dir/dtrace.txt")" -v b="$births" -v d="$deaths" '
		function near(m, n) { return (m - n) ^ 2 <= (n / 10000) ^ 2 }
		END { exit !($1 == c && $2 == x && near($3, b) && near($4, d)) }' "$dir/out" ||
		fail "$1 counts $(cat "$dir/out"), not about $births births and $deaths deaths"
}

floor=$(seconds wc -l "$dir/both.txt")
mawk=$(seconds mawk -f benches/naive.awk "$dir/both.txt")
counts naive.awk
python=$(seconds python3 benches/naive.py "$dir/both.txt")
counts naive.py
mawk_rate=$(awk -v n="$events" -v s="$mawk" 'BEGIN { print n / s }')
lives=$(seconds mawk -f benches/lives.awk "$dir/dtrace.txt")
decode=$(seconds $bench decode "$dir/dtrace.txt")
grep -q "^$lines records, 0 bad" "$dir/out" || fail "decode: $(cat "$dir/out")"

# Decoding and cross-check without reading and decompressing: the best of three.
checked() {
	for _ in 1 2 3; do $bench check "$dir/stream.kqr" "$1"; done | awk '{ if (!n || $3 < s) { n = $1; s = $3 } } END { print n, s }'
}
read -r check_events check < <(checked 1000000000000)
replay=$(seconds $exporter replay "$dir/stream.kqr" --format json)
grep -q "\"agreed\": $births" "$dir/out" || fail "the replay does not agree in $births births: $(cat "$dir/out")"
raw=$(seconds $exporter replay "$dir/raw" --format json)
disagreement=
grep -q "\"agreed\": $births" "$dir/out" ||
	disagreement=$'Not all verdicts of the raw directory are those of the recording.\n\n'

curve() {
	local n count time
	for n in 10000 100000 1000000 10000000; do
		[ "$n" -le "$events" ] || continue
		read -r count time < <(checked "$n")
		awk -v n="$count" -v s="$time" 'BEGIN { printf "| %d | %.4f | %.1f |\n", n, s, s * 1e9 / n }'
	done
}

# From exec to the first answer, in milliseconds, the best of five.
start_up() {
	python3 - "$exporter" <<'PY'
import socket, subprocess, sys, time

def once():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    begin = time.monotonic()
    command = [sys.argv[1], "serve", "--source", "replay", f"--web.listen-address=127.0.0.1:{port}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.monotonic() - begin < 10:
            try:
                with socket.create_connection(("127.0.0.1", port)) as c:
                    c.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
                    if c.recv(16).startswith(b"HTTP/1."):
                        return time.monotonic() - begin
            except OSError:
                time.sleep(0.0005)
        return float("inf")
    finally:
        server.kill()
        server.wait()

print(f"{min(once() for _ in range(5)) * 1000:.0f}")
PY
}

churned=$records
resident=$($bench churn "$churned")
most=$(tr ' ' '\n' <<<"$resident" | sort -n | tail -1)
start=$(start_up)
size=$(awk -v b="$(wc -c <$exporter)" 'BEGIN { printf "%.1f", b / 1048576 }')

goal() { # what, measured, condition for awk, unit
	awk -v what="$1" -v x="$2" -v unit="$4" "BEGIN { printf \"| %s | %s%s | %s |\\n\", what, x, unit, (x $3) ? \"met\" : \"**not met**\" }"
}
ratio() { awk -v n="$1" -v s="$2" -v m="$3" -v t="$4" 'BEGIN { printf "%.2f", (n / s) / (m / t) }'; }

page() {
	cat <<PAGE
# How fast, and how much memory

Written by \`benches/compare.sh $records\` on $(uname -s) $(uname -m),
$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) processors, $(rustc --version), mawk and $(python3 --version).
To repeat it: the same command, a quarter of an hour and 2 GB in \`\$TMPDIR\`. \`cargo bench\` measures each part alone.

One stream of a simulated kernel (four threads that fork, a reader that wakes up late) in all forms: $lines lines of
dtrace's output, and with one line for each kevent $events lines. Times are processor seconds on one core.
The naive join ([naive.awk](../benches/naive.awk), [naive.py](../benches/naive.py)) counts births and deaths on which both
agree; its counts were right but for 1 in 10,000 at most. Only the cross-check and the replays know lives of a pid, blind windows, settle times and losses.

| what | events | seconds | million/s | times mawk |
|---|---|---|---|---|
$(row "\`wc -l\`: the floor" "$events" "$floor")
$(row "naive join, mawk" "$events" "$mawk")
$(row "naive join, python3" "$events" "$python")
$(row "dtrace's creates with its exits, mawk ([lives.awk](../benches/lives.awk))" "$lines" "$lives")
$(row "decoding alone (dtrace's lines)" "$lines" "$decode")
$(row "decoding and cross-check, from memory" "$check_events" "$check")
$(row "replay of a compressed recording" "$events" "$replay")
$(row "replay of a directory (JSON, text)" "$events" "$raw")

${disagreement}## Goals

| goal | measured | |
|---|---|---|
$(goal "decoding at least 6 times mawk's naive join" "$(ratio "$lines" "$decode" "$events" "$mawk")" ">= 6" " times")
$(goal "decoding at least 6 times mawk on dtrace's lines alone, its lightest join" "$(ratio "$lines" "$decode" "$lines" "$lives")" ">= 6" " times")
$(goal "cross-check at least 3 times mawk's naive join" "$(ratio "$check_events" "$check" "$events" "$mawk")" ">= 3" " times")
$(goal "cross-check at least half as fast as decoding alone" "$(ratio "$check_events" "$check" "$lines" "$decode")" ">= 0.5" " times")
$(goal "resident memory while $churned processes come and go below 32 MiB" "$most" "< 32" " MiB at most")
$(goal "from exec to the first HTTP answer below 50 ms" "$start" "< 50" " ms")
$(goal "binary below 8 MiB, stripped" "$size" "< 8" " MiB")

That nothing is allocated for an event, that every table is bounded and its evictions counted, and that verdicts fall
within the settle time and one switch interval is proved by \`tests/allocations.rs\`, \`tests/check/bounds.rs\` and
\`tests/check/latency.rs\`.

## Cost by load

| events | seconds | ns an event |
|---|---|---|
$(curve)

Resident MiB after each tenth of $churned births (the simulated kernel is part of it): $resident.

## What watching costs

Measured by \`scripts/cost\` for $watched s each, with stand-ins for FreeBSD's kernel and dtrace(1). While nothing happens:

$(scripts/cost --release idle "$watched" | sed 's/^idle: /- /')

While 1,000 processes a second are born and end in a tree:

$(scripts/cost --release forks "$watched" | sed 's/^forks: /- /')

$(sed -n '/^In version 0.1.0/,$p' docs/performance.md)
PAGE
}

page >"$dir/page.md"
cat "$dir/page.md"
[ "$records" -lt "$real" ] || cp "$dir/page.md" docs/performance.md
