#!/usr/bin/env bash
# Measures a mount of a local folder against native ext4 and libfuse's passthrough_hp, on a journaled ext4 in a file, and
# prints a table as Markdown: the ratios (time to time, lower is better), the goals, and whether they are met.
#
#   scripts/bench/local.sh [--binary PATH] [--hp PATH] [--quick] [--only ROW,...] [--raw FILE]
#
# --binary   the storefs to measure (default: a release build, made now)
# --hp       a passthrough_hp of libfuse; without it scripts/bench/build-hp.sh builds one from Debian's source package
# --quick    fewer rounds and records: to see that it works, not for numbers
# --only     rows: read stat create dual overwrite rename unlink type list stream memory
# --raw      keep every single measurement there (round, file system, operation, value)
#
# The file systems are measured in turn, round after round, so that what else the machine does hits all alike; a ratio is
# taken within a round, and the table has the medians. Needs root, fio, gcc, e2fsprogs, about 14 GiB in ${TMPDIR:-/tmp}
# and 5 GiB in /dev/shm; for the row "dual" also node and scripts/install-tools.sh.
set -euo pipefail

known=(read stat create dual overwrite rename unlink type list stream memory) more=(hp)
source "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"
any() { local row; for row in "$@"; do wanted "$row" && return; done; return 1; }
[[ $(id -u) == 0 ]] || die "needs root: it mounts file systems"
needs gcc mkfs.ext4 fio python3 losetup
find_binary
[[ -n $hp ]] || hp=$("$here/scripts/bench/build-hp.sh")
[[ -x $hp ]] || die "no passthrough_hp at $hp"
if [[ -f $(dirname "$hp")/version ]]; then
    hp_version=$(<"$(dirname "$hp")/version")
else
    hp_version="libfuse $("$hp" --version 2>/dev/null | sed -n 's/.*libfuse version \([0-9.a-z-]*\).*/\1/p;s/.*library version \([0-9.a-z-]*\).*/\1/p' | head -n 1)"
fi
hp=$(realpath "$hp")

if [[ $quick == yes ]]; then
    rounds=3 records=500 listed=20000 stream_rounds=1 stream=256 many=100000
else
    rounds=11 records=2000 listed=100000 stream_rounds=5 stream=1024 many=1000000
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-bench.XXXXXX")
shm=''
results=${raw:-$work/results.tsv}
: >"$results"
cleanup() {
    trap - EXIT INT TERM
    local place
    for place in dual plain hp; do gone "$work/$place"; done
    [[ -z $shm ]] || { gone "$work/many"; rm -rf "$shm"; }
    if mountpoint -q "$work/disk" 2>/dev/null; then umount "$work/disk" || umount -l "$work/disk"; fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# gone PLACE: unmounts what is there and waits for its daemon.
gone() {
    local pid
    mountpoint -q "$1" 2>/dev/null || return 0
    umount "$1" 2>/dev/null || { sleep 1; umount "$1" || umount -l "$1"; }
    for pid in $(jobs -rp); do
        if [[ $(cat "$work/$(basename "$1").pid" 2>/dev/null) == "$pid" ]]; then wait "$pid" || true; fi
    done
}
# up NAME COMMAND...: starts a daemon in the foreground and waits until it has mounted $work/NAME.
up() {
    local name=$1
    shift
    mkdir -p "$work/$name"
    "$@" >"$work/$name.log" 2>&1 &
    echo $! >"$work/$name.pid"
    for _ in $(seq 400); do
        mountpoint -q "$work/$name" && return
        sleep 0.05
    done
    die "$name did not mount: $(tail -n 3 "$work/$name.log")"
}
up_storefs() { up "$1" "$binary" mount --foreground "$2" "$work/$1" -o "layout=$3,allow_other"; }
up_hp() { up hp "$hp" --foreground "$disk/hp" "$work/hp"; }

# note ROUND SYSTEM OPERATION VALUE
note() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$results"; }
# kv ROUND SYSTEM OPERATION NAME FOLDER COUNT [FILES]: one measurement of kv.c, noted under NAME.
kv() { note "$1" "$2" "$4" "$("$work/kv" "$5" "$3" "${@:6}")"; }
warm() { "$work/kv" "$@" >/dev/null; }

say "making the disk in $work"
gcc -O2 -o "$work/kv" "$here/scripts/bench/kv.c"
truncate -s 24G "$work/disk.img"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -N 1600000 "$work/disk.img"
mkdir "$work/disk"
mount -o loop,noatime "$work/disk.img" "$work/disk"
disk=$work/disk
mkdir -p "$disk/ext4" "$disk/hp" "$disk/plain" "$disk/dual"

# The folder of a file system in which a round works.
place() {
    case $1 in
        ext4) echo "$disk/ext4/$2" ;;
        hp) echo "$work/hp/$2" ;;
        plain | dual) echo "$work/$1/$2" ;;
    esac
}

small_operations() {
    local round system folder systems=(ext4 hp plain)
    wanted dual && systems+=(dual)
    for ((round = 1; round <= rounds; round++)); do
        say "small records, round $round of $rounds"
        # Another order in every round: nobody always comes after the same one.
        for system in $(printf '%s\n' "${systems[@]}" | shuf --random-source=<(yes "$round")); do
            folder=$(place "$system" "round-$round")
            mkdir "$folder"
            kv "$round" "$system" create create "$folder" "$records"
            if [[ $system == dual ]]; then rm -rf "$folder"; continue; fi
            warm "$folder" read "$records"
            if wanted read; then kv "$round" "$system" read read "$folder" $((records * 2)) "$records"; fi
            warm "$folder" stat "$records"
            if wanted stat; then kv "$round" "$system" stat stat "$folder" $((records * 5)) "$records"; fi
            if wanted type; then
                kv "$round" "$system" settype settype "$folder" "$records"
                kv "$round" "$system" gettype gettype "$folder" $((records * 2)) "$records"
            fi
            if wanted overwrite; then kv "$round" "$system" overwrite overwrite "$folder" "$records"; fi
            if wanted unlink; then kv "$round" "$system" unlink unlink "$folder" $((records / 2)); fi
            rm -rf "$folder"
            if wanted rename; then
                folder=$(place "$system" "rename-$round")
                mkdir "$folder"
                warm "$folder" create "$records"
                kv "$round" "$system" rename rename "$folder" "$records"
                rm -rf "$folder"
            fi
        done
    done
}

sdk_rate() {
    local modules=${STOREFS_TOOLS:-$HOME/.cache/storefs-tools}/js/node_modules round count=300
    [[ -d $modules/apify ]] || { say "the JavaScript SDK is not installed (scripts/install-tools.sh): its rate is left out"; return; }
    for round in 1 2 3 4 5; do
        mkdir "$disk/sdk"
        note "$round" sdk create "$(CRAWLEE_STORAGE_DIR=$disk/sdk node "$here/scripts/bench/sdk-set.mjs" "$modules" $count |
            python3 -c 'print(f"{1e6 / float(input()):.4f}")')"
        rm -rf "$disk/sdk"
        [[ $quick == no ]] || break
    done
}

listings() {
    local round system
    say "making directories of $listed"
    mkdir "$disk/ext4/list" "$disk/plain/key_value_stores/list"
    warm "$disk/ext4/list" fill "$listed"
    warm "$disk/plain/key_value_stores/list" fill "$listed"
    for ((round = 1; round <= (rounds + 1) / 2; round++)); do
        say "listings, round $round"
        for operation in names rows; do
            warm "$disk/ext4/list" "$operation" "$listed"
            warm "$disk/plain/key_value_stores/list" "$operation" "$listed"
            kv "$round" ext4 "$operation" "$operation" "$disk/ext4/list" "$listed"
            gone "$work/plain"
            up_storefs plain "$disk/plain" plain
            kv "$round" plain "$operation" "$operation-cold" "$work/plain/list" "$listed"
            warm "$work/plain/list" "$operation" "$listed"
            kv "$round" plain "$operation" "$operation" "$work/plain/list" "$listed"
        done
    done
    rm -rf "$disk/ext4/list" "$disk/plain/key_value_stores/list"
}

# fio_once FOLDER NAME OPTIONS...: the time per byte of one fio job, as microseconds per MiB (or per 4 KiB read).
fio_once() {
    local folder=$1 kind=$2
    shift 2
    (cd "$folder" && fio --name=job --filename=stream.bin --ioengine=psync --output-format=json "$@") >"$work/fio.json"
    python3 - "$work/fio.json" "$kind" <<'PY'
import json, sys
job = json.load(open(sys.argv[1]))['jobs'][0]
side = job['write' if sys.argv[2] == 'write' else 'read']
scale = 4096 if sys.argv[2] == 'random' else 1 << 20
print(f"{scale / side['bw_bytes'] * 1e6:.4f}")
PY
}

streams() {
    local round system folder
    for ((round = 1; round <= stream_rounds; round++)); do
        say "streams, round $round of $stream_rounds"
        for system in $(printf '%s\n' ext4 hp plain | shuf --random-source=<(yes "$round")); do
            folder=$(place "$system" "stream-$round")
            mkdir "$folder"
            sync -f "$disk"
            note "$round" "$system" stream-write "$(fio_once "$folder" write --rw=write --bs=128k --size="${stream}m" --fallocate=none)"
            sync -f "$disk"
            # Once to have it in memory: what is measured is the way there, not the disk.
            fio_once "$folder" read --rw=read --bs=128k --size="${stream}m" --invalidate=0 >/dev/null
            note "$round" "$system" stream-read "$(fio_once "$folder" read --rw=read --bs=128k --size="${stream}m" --invalidate=0)"
            note "$round" "$system" stream-random "$(fio_once "$folder" random --rw=randread --bs=4k --size="${stream}m" --io_size=$((stream / 4))m --invalidate=0 --randrepeat=1)"
            rm -rf "$folder"
        done
    done
}

memory() {
    local pid round
    say "a store of $many records"
    shm=$(mktemp -d /dev/shm/storefs-bench.XXXXXX)
    mkdir -p "$shm/full/key_value_stores/default" "$shm/empty/key_value_stores/default" "$work/many"
    warm "$shm/full/key_value_stores/default" fill "$many"
    for round in 1 2 3 4 5; do
        for size in empty full; do
            note "$round" plain "ready-$size" "$(python3 - "$binary" "$shm/$size" "$work/many" <<'PY'
import subprocess, sys, time
begun = time.perf_counter()
# In the background, as people mount: it returns when the mount answers.
subprocess.run([sys.argv[1], 'mount', sys.argv[2], sys.argv[3], '-o', 'layout=plain,allow_other'],
               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(f'{time.perf_counter() - begun:.4f}')
PY
)"
            "$binary" umount "$work/many" >/dev/null
        done
    done
    up_storefs many "$shm/full" plain
    pid=$(<"$work/many.pid")
    note 1 plain "rows-many" "$("$work/kv" "$work/many/default" rows "$many")"
    ls -l "$work/many/default" | wc -l >/dev/null
    note 1 plain memory "$(awk '/VmRSS/ {print $2 / 1024}' "/proc/$pid/status")"
    note 1 plain memory-most "$(awk '/VmHWM/ {print $2 / 1024}' "/proc/$pid/status")"
    gone "$work/many"
}

up_hp
up_storefs plain "$disk/plain" plain
if wanted dual; then up_storefs dual "$disk/dual" dual; fi
if any read stat create dual overwrite rename unlink type; then small_operations; fi
if wanted dual; then sdk_rate; fi
if wanted list; then listings; fi
if wanted stream; then streams; fi
gone "$work/hp"
if wanted memory; then memory; fi

python3 "$here/scripts/bench/table.py" "$results" "$many" "$listed" "$stream"
cat <<END

Measured on $(date -u +%F) with \`$command_line\`: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, Linux $(uname -r), journaled ext4 in a loop-mounted file, $("$binary" --version), passthrough_hp of $hp_version; medians of $rounds rounds (streams $stream_rounds).
END
