#!/usr/bin/env bash
# Measures what `storefs run` costs: its start and end against Node and against `apify run` of an empty Actor, and the rate of
# small records through the mount of a run against the SDKs' own local storage. Prints a table as Markdown.
#
#   scripts/bench/run.sh [--binary PATH] [--hp PATH] [--quick] [--only ROW,...] [--raw FILE]
#
# --binary   the storefs to measure (default: a release build, made now)
# --hp       a passthrough_hp of libfuse; without it scripts/bench/build-hp.sh builds one from Debian's source package
# --quick    fewer rounds: to see that it works, not for numbers
# --only     rows: start records
# --raw      keep every single measurement there (round, system, operation, value)
#
# The systems are measured in turn, round after round, so that what else the machine does hits all alike; a ratio is taken
# within a round, and the table has the medians. Three of them show what limits a set: passthrough_hp with the same calls, one
# file for each record; a mount of a folder in memory, where files cost next to nothing; and the files that storefs makes of a
# record, made by plain calls. Needs /dev/fuse, gcc, node, python3, a tmpfs at /dev/shm and scripts/install-tools.sh.
set -euo pipefail

known=(start records) more=(hp)
source "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"
needs gcc node python3
tools=${STOREFS_TOOLS:-${HOME:?HOME is not set}/.cache/storefs-tools}
[[ -e $tools/js/.installed && -e $tools/cli/.installed && -e $tools/py/bin/python ]] || die "the SDKs are missing: scripts/install-tools.sh"
find_binary
if wanted records; then
    [[ -n $hp ]] || hp=$("$here/scripts/bench/build-hp.sh")
    [[ -x $hp ]] || die "no passthrough_hp at $hp"
    hp=$(realpath "$hp")
fi
if [[ $quick == yes ]]; then starts=3 rounds=1 count=300; else starts=21 rounds=7 count=2000; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-bench.XXXXXX")
memory=$(mktemp -d /dev/shm/storefs-bench.XXXXXX)
trap 'umount "$work/hp" "$memory/mnt" 2>/dev/null || true; rm -rf "$work" "$memory"' EXIT
results=${raw:-$work/results.tsv}
: >"$results"
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
export APIFY_DISABLE_KEYRING=1 APIFY_CLI_DISABLE_TELEMETRY=1 APIFY_CLI_SKIP_UPDATE_CHECK=1 CI=1
mkdir -p "$work/home" "$work/storage" "$work/empty/.actor"
echo '{"actorSpecification": 1, "name": "empty", "version": "0.0"}' >"$work/empty/.actor/actor.json"
echo '{"name": "empty", "version": "0.0.1", "type": "module", "scripts": {"start": "node main.js"}}' >"$work/empty/package.json"
: >"$work/empty/main.js"

# note ROUND SYSTEM OPERATION VALUE
note() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$results"; }

# took COMMAND...: milliseconds of wall time, without those of a shell.
took() {
    python3 - "$@" <<'END'
import subprocess, sys, time
quiet = subprocess.DEVNULL
begun = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdin=quiet, stdout=quiet, stderr=quiet)
print(f'{(time.perf_counter() - begun) * 1000:.2f}')
END
}

starts() {
    local round
    for ((round = 1; round <= starts; round++)); do
        say "starts, round $round of $starts"
        note "$round" nothing start "$(took true)"
        note "$round" storefs start "$(took "$binary" run "$work/storage" -- true)"
        note "$round" without start "$(took "$binary" run --no-mount "$work/storage" -- true)"
        note "$round" node start "$(took node -e 0)"
        # Slow, and about the same each time.
        if ((round % 3 == 0)); then
            note "$round" apify start "$(cd "$work/empty" && HOME=$work/home took node "$tools/cli/node_modules/.bin/apify" run)"
        fi
    done
}

# rates ROUND SYSTEM: takes the two rates that are written on standard input.
rates() {
    local set get
    read -r set
    read -r get
    note "$1" "$2" set "$set"
    note "$1" "$2" get "$get"
}

# Nothing is removed between the rounds: for five minutes ext4 looks at every inode that was freed before it takes a new one
# (recently_deleted in fs/ext4/ialloc.c), which made a file cost 800 µs instead of 15.
records() {
    local round script
    gcc -O2 -o "$work/kv" "$here/scripts/bench/kv.c"
    # shellcheck disable=SC2016  # for the shell of the run
    script='for operation in create read; do
        "$KV" "$ACTOR_MOUNT/default" $operation '$count' | awk "{ print 1000000 / \$1 }"
    done'
    mkdir "$work/hp" "$work/hp-folder"
    "$hp" "$work/hp-folder" "$work/hp"
    mkdir "$memory/mnt"
    for ((round = 1; round <= rounds; round++)); do
        say "records of 1 KiB, round $round of $rounds"
        CRAWLEE_STORAGE_DIR=$work/local-$round node "$here/scripts/bench/sdk-set.mjs" "$tools/js" $count | rates "$round" sdk
        CRAWLEE_STORAGE_DIR=$work/python-$round "$tools/py/bin/python" "$here/scripts/bench/sdk-set.py" $count | rates "$round" python
        "$binary" run --env "KV=$work/kv" "$work/storage" -- bash -c "$script" 2>/dev/null | rates "$round" mount
        mkdir -p "$work/hp/$round/default"
        KV=$work/kv ACTOR_MOUNT=$work/hp/$round bash -c "$script" | rates "$round" hp
        # The records are read by the name that is a link.
        mkdir "$work/files-$round"
        for operation in dual read; do
            "$work/kv" "$work/files-$round" $operation $count | awk '{ print 1000000 / $1 }'
        done | rates "$round" files
        mkdir -p "$memory/$round/key_value_stores/default"
        "$binary" mount "$memory/$round" "$memory/mnt" -o layout=plain >&2
        KV=$work/kv ACTOR_MOUNT=$memory/mnt bash -c "$script" | rates "$round" memory
        "$binary" umount "$memory/mnt" >&2
        "$binary" run "$work/storage" -- node "$here/scripts/bench/sdk-set.mjs" "$tools/js" $count 2>/dev/null | rates "$round" api
    done
}

if wanted start; then starts; fi
if wanted records; then records; fi

python3 - "$results" "$command_line" "$("$binary" --version)" <<'END'
import collections, os, platform, statistics, sys, time
results, command, version = sys.argv[1:]
of = collections.defaultdict(dict)
for line in open(results):
    round, system, operation, value = line.split()
    of[system, operation][int(round)] = float(value)
median = lambda system, operation: statistics.median(of[system, operation].values())
def ratio(one, other, operation):
    a, b = of[one, operation], of[other, operation]
    return statistics.median(a[round] / b[round] for round in a if round in b)
met = lambda good: '✓' if good else '✗'
if of['storefs', 'start']:
    own = {system: statistics.median(value - of['nothing', 'start'][round] for round, value in of[system, 'start'].items())
           for system in ('storefs', 'without')}
    print('| `-- true`, start to end | wall time | own time | goal |\n|---|---|---|---|')
    print(f"| `true` alone | {median('nothing', 'start'):.1f} ms | | |")
    print(f"| `storefs run -- true` | {median('storefs', 'start'):.1f} ms | **{own['storefs']:.1f} ms** | 60 ms {met(own['storefs'] < 60)} |")
    print(f"| `storefs run --no-mount -- true` | {median('without', 'start'):.1f} ms | {own['without']:.1f} ms | |")
    print(f"| `node -e 0` | {median('node', 'start'):.1f} ms ({ratio('node', 'storefs', 'start'):.1f} times storefs) | | |")
    if of['apify', 'start']:
        print(f"| `apify run` of an empty Actor | {median('apify', 'start'):.0f} ms ({ratio('apify', 'storefs', 'start'):.0f} times storefs) | | |")
    print()
if of['mount', 'set']:
    print('| records of 1 KiB | set, per second | to the JavaScript SDK | to the Python SDK | get, per second | to the JavaScript SDK | to the Python SDK |')
    print('|---|---|---|---|---|---|---|')
    for system, name in (('sdk', 'local storage of the JavaScript SDK'), ('python', 'local storage of the Python SDK'),
                         ('mount', 'through the mount of a run'), ('hp', 'through passthrough_hp, one file each'),
                         ('files', 'the three files of a record of layout dual, without a mount'),
                         ('memory', 'through a mount of a folder in memory, one file each'),
                         ('api', 'JavaScript SDK in a run, by the API')):
        line = f'| {name} |'
        for operation in ('set', 'get'):
            line += f' {median(system, operation):.0f} |'
            for sdk in ('sdk', 'python'):
                times = ratio(system, sdk, operation)
                if system == 'mount':
                    line += f' **{times:.1f}** (goal 10 {met(times >= 10)}) |'
                else:
                    line += '  |' if system in ('sdk', 'python') else f' {times:.1f} |'
        print(line)
    print()
print(f"Measured on {time.strftime('%Y-%m-%d')} with `{command.strip()}`: {os.cpu_count()} cores, Linux {platform.release()}, {version}; "
      'medians of interleaved rounds.')
END
