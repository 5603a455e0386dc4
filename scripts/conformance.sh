#!/usr/bin/env bash
# Runs two public file system test suites against a mount: pjdfstest (what POSIX asks of each call) and fsx
# (random reads, writes, truncations and mappings of one file, compared with what they must give).
#
#   scripts/conformance.sh [--binary PATH] [--only pjdfstest|fsx] [--seeds N] [--operations N] [--on FOLDER]
#
# --binary   the storefs to test (default: the one in target/release or target/debug that was built last)
# --on       run in FOLDER, on whatever file system it is, instead of mounting: checks the suites themselves
# --keep     keep the suites' output and say where it is
#
# pjdfstest: every case of tests/conformance/pjdfstest-pass.list must pass; every case that fails must be in
# pjdfstest-fail.list beside the sentence of the README it follows from; every case that is skipped must be in
# pjdfstest-skip.list. Anything else, also a listed failure that passes, fails the run.
# fsx: all seeds, once with files handed to the kernel (passthrough) and once through the daemon.
# Needs root (pjdfstest switches users, passthrough is for the privileged).
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lists=$here/tests/conformance
tools=${STOREFS_TOOLS:-${HOME:?HOME is not set}/.cache/storefs-tools}
binary='' only='' on='' keep=no seeds=5 operations=10000

say() { printf '%s\n' "$*"; }
die() { printf 'conformance: %s\n' "$*" >&2; exit 2; }
need() { [[ $# -ge 2 ]] || die "$1 needs a value"; }
while [[ $# -gt 0 ]]; do
    case $1 in
        --binary) need "$@"; binary=$2; shift 2 ;;
        --only) need "$@"; only=$2; shift 2 ;;
        --seeds) need "$@"; seeds=$2; shift 2 ;;
        --operations) need "$@"; operations=$2; shift 2 ;;
        --on) need "$@"; on=$2; shift 2 ;;
        --keep) keep=yes; shift ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) die "unknown argument '$1' (see --help)" ;;
    esac
done
case $only in '' | pjdfstest | fsx) ;; *) die "--only takes pjdfstest or fsx, not '$only'" ;; esac
[[ $seeds =~ ^[0-9]+$ && $operations =~ ^[0-9]+$ ]] || die "--seeds and --operations take numbers"
[[ $(id -u) == 0 ]] || die "needs root: pjdfstest switches to other users"
[[ -x $tools/bin/fsx && -x $tools/bin/pjdfstest ]] || die "the suites are not installed; run scripts/install-conformance.sh"
if [[ -z $on ]]; then
    if [[ -z $binary ]]; then # the one built last
        binary=$(ls -t "$here/target/release/storefs" "$here/target/debug/storefs" 2>/dev/null | head -n 1)
    fi
    [[ -x $binary ]] || die "no storefs at '$binary'; build it or give --binary PATH"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-conformance.XXXXXX")
daemon='' mnt='' failures=0
cleanup() {
    trap - EXIT INT TERM
    stop_mount
    if [[ $keep == yes ]]; then say "output kept in $work"; else rm -rf "$work"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
problem() { failures=$((failures + 1)); say "PROBLEM: $*"; }

# start_mount NAME OPTIONS: mounts a new folder at $mnt, or counts a problem and returns 1.
start_mount() {
    local name=$1 options=$2
    mkdir -p "$work/$name/source"
    if [[ -n $on ]]; then
        mnt=$(mktemp -d "$on/storefs-conformance.XXXXXX") || die "cannot make a folder in $on"
        chmod 755 "$mnt"
        return 0
    fi
    mnt=$work/$name/mnt
    mkdir -p "$mnt"
    chmod 755 "$work" "$work/$name" "$mnt"
    "$binary" mount --foreground "$work/$name/source" "$mnt" -o "$options" >"$work/$name/daemon.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do
        mountpoint -q "$mnt" && return 0
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.05
    done
    problem "storefs mount -o $options did not come up: $(tail -n 5 "$work/$name/daemon.log")"
    stop_mount
    return 1
}

stop_mount() {
    if [[ -n $on ]]; then
        [[ -n $mnt ]] && rm -rf "$mnt"
    elif [[ -n $mnt ]]; then
        mountpoint -q "$mnt" 2>/dev/null && { umount "$mnt" 2>/dev/null || umount -l "$mnt"; }
        if [[ -n $daemon ]]; then
            for _ in $(seq 100); do kill -0 "$daemon" 2>/dev/null || break; sleep 0.1; done
            kill -KILL "$daemon" 2>/dev/null
            wait "$daemon" 2>/dev/null
        fi
        umount -l "$mnt" 2>/dev/null
    fi
    daemon='' mnt=''
}

# The daemon must outlive a suite: one that died and was seen as failing cases would be a confusing report.
still_alive() {
    [[ -n $on ]] && return 0
    kill -0 "$daemon" 2>/dev/null && mountpoint -q "$mnt" && return 0
    problem "the daemon died during $1: $(tail -n 5 "$work/$1/daemon.log")"
    return 1
}

plain_names() { sed -e 's/[[:space:]]*#.*//' -e '/^[[:space:]]*$/d' "$1" | sort -u; }
show() { head -n 40 "$1" | sed 's/^/    /'; [[ $(wc -l <"$1") -le 40 ]] || say "    ... (all: --keep)"; }
# compare WHAT FILE: a problem for a file that is not empty.
compare() { [[ ! -s $2 ]] || { problem "pjdfstest: $(wc -l <"$2") $1:"; show "$2"; }; }

run_pjdfstest() {
    local dir=$work/pjdfstest rc
    start_mount pjdfstest layout=plain,allow_other || return
    timeout 200 "$tools/bin/pjdfstest" -c "$lists/pjdfstest.toml" -p "$mnt" >"$dir/colour" 2>&1
    rc=$?
    still_alive pjdfstest
    stop_mount
    sed 's/\x1b\[[0-9;]*m//g' "$dir/colour" >"$dir/output"
    awk '/^[a-z_]+::/ && $NF == "ok" && NF == 2 {print $1}' "$dir/output" | sort -u >"$dir/passed"
    awk '/^[a-z_]+::/ && $NF == "FAILED" && NF == 2 {print $1}' "$dir/output" | sort -u >"$dir/failed"
    awk '/^[a-z_]+::/ && $NF == "skipped" && NF == 2 {print $1}' "$dir/output" | sort -u >"$dir/skipped"
    local summary total
    summary=$(grep '^Summary: ' "$dir/output" | tail -n 1)
    total=$(cat "$dir/passed" "$dir/failed" "$dir/skipped" | wc -l)
    if [[ -z $summary ]]; then
        problem "pjdfstest ended without its summary (exit code $rc): the suite itself failed; its last lines:"
        tail -n 8 "$dir/output" | sed 's/^/    /'
    elif [[ $summary != *" $total total" ]]; then
        problem "pjdfstest says '$summary' but $total cases were read from its output"
    fi
    # A line of the list of failures is: case -> sentence.
    sed -n 's/^\([a-z_0-9:]*\) -> .*/\1/p' "$lists/pjdfstest-fail.list" | sort -u >"$dir/may-fail"
    plain_names "$lists/pjdfstest-pass.list" >"$dir/must-pass"
    plain_names "$lists/pjdfstest-skip.list" >"$dir/may-skip"
    comm -23 "$dir/must-pass" "$dir/passed" >"$dir/lost"
    comm -23 "$dir/failed" "$dir/may-fail" | comm -23 - "$dir/must-pass" >"$dir/unlisted"
    comm -12 "$dir/may-fail" "$dir/passed" >"$dir/gained"
    comm -23 "$dir/passed" "$dir/must-pass" | comm -23 - "$dir/may-fail" >"$dir/new"
    comm -23 "$dir/skipped" "$dir/may-skip" | comm -23 - "$dir/must-pass" >"$dir/skips"
    comm -23 "$dir/may-fail" <(sort "$dir/passed" "$dir/failed") >"$dir/unknown"
    compare "cases of pjdfstest-pass.list did not pass" "$dir/lost"
    compare "cases failed that are not in pjdfstest-fail.list" "$dir/unlisted"
    compare "cases of pjdfstest-fail.list passed; move them to pjdfstest-pass.list" "$dir/gained"
    compare "cases passed that are in no list; add them to pjdfstest-pass.list" "$dir/new"
    compare "cases were skipped that are not in pjdfstest-skip.list" "$dir/skips"
    compare "cases of pjdfstest-fail.list did not run" "$dir/unknown"
    if [[ -s $dir/lost || -s $dir/unlisted ]]; then
        say "what the first of them said:"
        sort "$dir/lost" "$dir/unlisted" | head -n 8 | while read -r case; do
            grep -A2 "^$case " "$dir/output" | head -n 3 | cut -c1-200 | sed 's/^/    /'
        done
    fi
    say "pjdfstest: ${summary#Summary: }; expected $(wc -l <"$dir/must-pass") passed, $(wc -l <"$dir/may-fail") failed"
    check_reasons
}

# Every reason given for a failure must be a sentence of the README, letter for letter.
check_reasons() {
    local readme sentence
    [[ -f $here/README.md ]] || { problem "there is no README.md to check the reasons of pjdfstest-fail.list against"; return; }
    readme=$(tr -s '[:space:]' ' ' <"$here/README.md")
    while IFS= read -r sentence; do
        [[ $readme == *"$sentence"* ]] || problem "pjdfstest-fail.list gives a reason that README.md does not say: $sentence"
    done < <(sed -n 's/^[a-z_0-9:]* -> //p' "$lists/pjdfstest-fail.list" | sort -u)
    while IFS= read -r sentence; do
        problem "pjdfstest-fail.list has a line that is not 'case -> sentence': $sentence"
    done < <(grep -vE '^#|^$|^[a-z_0-9:]+ -> .+' "$lists/pjdfstest-fail.list")
}

# How many write requests the daemon has had.
writes() { sed -n 's/^ *"write": \([0-9]*\),*$/\1/p' "$mnt/.storefs/status" 2>/dev/null; }

# run_fsx NAME OPTIONS: all seeds in one mount.
run_fsx() {
    local name=$1 options=$2 seed good=0 started=$SECONDS through
    start_mount "$name" "$options" || return
    mkdir -p "$mnt/fsx" "$work/$name/artifacts" || { problem "$name: cannot make a store in the mount"; stop_mount; return; }
    for seed in $(seq "$seeds"); do
        if timeout 100 "$tools/bin/fsx" -q -f "$lists/fsx.toml" -N "$operations" -S "$seed" \
            -P "$work/$name/artifacts" "$mnt/fsx/file-$seed" >"$work/$name/seed-$seed" 2>&1; then
            good=$((good + 1))
            rm -f "$mnt/fsx/file-$seed"
        else
            problem "$name: seed $seed failed (exit code $?); its last lines:"
            tail -n 12 "$work/$name/seed-$seed" | cut -c1-200 | sed 's/^/    /'
            still_alive "$name" || break
        fi
    done
    if [[ -z $on ]]; then
        # What was run must be what it is called: with passthrough the daemon sees no write, otherwise all.
        through=$(writes)
        case $name:${through:-none} in
            *:none) problem "$name: .storefs/status does not say how many writes there were" ;;
            fsx-passthrough:0 | fsx-through-daemon:[1-9]*) ;;
            *) problem "$name: the daemon had $through write requests" ;;
        esac
    fi
    stop_mount
    say "$name: $good of $seeds seeds of $operations operations good, $((SECONDS - started)) s"
}

[[ $only == fsx ]] || run_pjdfstest
if [[ $only != pjdfstest ]]; then
    run_fsx fsx-passthrough layout=plain,allow_other
    [[ -n $on ]] || run_fsx fsx-through-daemon layout=plain,allow_other,no_passthrough
fi
if [[ $failures -gt 0 ]]; then
    say "conformance: FAILED, $failures problems"
    exit 1
fi
say "conformance: good"
