#!/usr/bin/env bash
# What takes too long for every run of the tests: the daemon is killed 500 times under load (tests/crash.rs), a record of 2 GiB
# goes through a server up and down (tests/http_memory.rs), and fsx runs with many seeds. Takes about half an hour.
#
#   scripts/soak.sh [--kills N] [--seeds N] [--binary PATH]
#
# --binary   the storefs to test (default: a release build, made now)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
kills=500 seeds=50 binary=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --kills | --seeds | --binary)
            [[ $# -ge 2 ]] || { echo "soak: $1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift 2
            ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "soak: unknown argument '$1' (see --help)" >&2; exit 2 ;;
    esac
done
if [[ -z $binary ]]; then
    cargo build --release --locked
    binary=$PWD/target/release/storefs
fi
binary=$(realpath "$binary")
started=$SECONDS
STOREFS_KILLS=$kills cargo test --release --locked --test crash -- --nocapture
killed=$((SECONDS - started))
STOREFS_LONG_MIB=2048 cargo test --release --locked --test http_memory a_long_record -- --nocapture
echo "soak: $kills kills in $killed s, a record of 2 GiB in $((SECONDS - started - killed)) s"
scripts/install-conformance.sh
scripts/conformance.sh --binary "$binary" --only fsx --seeds "$seeds"
echo "soak: good, $((SECONDS - started)) s in all"
