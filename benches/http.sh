#!/usr/bin/env bash
# Our /metrics against Debian's prometheus-node-exporter, both on loopback in one run, with wrk.
#
#   benches/http.sh [SECONDS]      a measurement takes so long (5)
#
# Each line is one measurement: who, whether gzip was asked for (Prometheus asks for it), bytes of the page, requests
# a second, latencies, and resident memory behind it. "busy" is ours while a replay runs at full speed beside it.
# Needs wrk, curl, prometheus-node-exporter, and a release build.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-5}
threads=1
connections=4
ours=${EXPORTER:-target/release/kqproc_exporter}
for tool in wrk curl prometheus-node-exporter "$ours"; do
	command -v "$tool" >/dev/null || {
		echo "benches/http.sh: $tool is missing (apt-get install wrk curl prometheus-node-exporter; cargo build --release)" >&2
		exit 69
	}
done

work=$(mktemp -d)
running=()
stop() {
	[ ${#running[@]} = 0 ] || kill "${running[@]}" 2>/dev/null || true
	wait 2>/dev/null || true
	running=()
}
trap 'stop; rm -rf "$work"' EXIT

start() { # start PORT COMMAND...
	local port=$1
	shift
	"$@" >"$work/log" 2>&1 &
	running+=($!)
	for _ in $(seq 100); do
		if curl -fso /dev/null "http://127.0.0.1:$port/metrics"; then return; fi
		sleep 0.1
	done
	echo "benches/http.sh: no answer from: $*" >&2
	cat "$work/log" >&2
	exit 1
}

resident_mib() {
	awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/${running[-1]}/status"
}

measure() { # measure NAME PORT
	local url=http://127.0.0.1:$2/metrics encoding bytes
	for encoding in identity gzip; do
		bytes=$(curl -fs -H "Accept-Encoding: $encoding" "$url" | wc -c)
		wrk -t$threads -c$connections -d1s -H "Accept-Encoding: $encoding" "$url" >/dev/null
		wrk -t$threads -c$connections -d"${seconds}s" --latency -H "Accept-Encoding: $encoding" "$url" >"$work/wrk"
		awk -v name="$1" -v encoding="$encoding" -v bytes="$bytes" -v rss="$(resident_mib)" '
			/^Requests\/sec/ { rate = $2 }
			$1 == "50%" { p50 = $2 }
			$1 == "99%" { p99 = $2 }
			/Non-2xx|Socket errors/ { bad = " " $0 }
			END { printf "%-34s %-8s %8d %10.0f %10s %10s %8s%s\n", name, encoding, bytes, rate, p50, p99, rss, bad }
		' "$work/wrk"
	done
}

echo "$(nproc) CPUs; wrk -t$threads -c$connections -d${seconds}s; $(prometheus-node-exporter --version 2>&1 | head -n 1)"
printf '%-34s %-8s %8s %10s %10s %10s %8s\n' server encoding bytes req/s p50 p99 MiB

start 10190 "$ours" serve --web.listen-address=127.0.0.1:10190 --source=replay --speed=0
measure "kqproc_exporter at rest" 10190
stop
start 10190 "$ours" serve --web.listen-address=127.0.0.1:10190 --source=replay --speed=0 --loop
measure "kqproc_exporter busy" 10190
stop
start 10191 prometheus-node-exporter --web.listen-address=127.0.0.1:10191 --collector.disable-defaults
measure "node_exporter disable-defaults" 10191
stop
start 10191 prometheus-node-exporter --web.listen-address=127.0.0.1:10191
measure "node_exporter defaults" 10191
stop
