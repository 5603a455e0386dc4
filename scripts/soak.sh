#!/usr/bin/env bash
# What takes too long for every run of the tests: the daemon is killed under load, 500 times over a folder (tests/crash.rs) and
# 1000 times over a server (tests/server_crash.rs), a record of 2 GiB goes through a server up and down (tests/http_memory.rs),
# and fsx runs with many seeds. Takes about an hour.
#
#   scripts/soak.sh [--kills N] [--server-kills N] [--seeds N] [--binary PATH]
#
# A number that is 0 leaves that part out.
# --binary   the storefs that fsx tests (default: a release build, made now)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
kills=500 server_kills=1000 seeds=50 binary=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --kills | --server-kills | --seeds | --binary)
            [[ $# -ge 2 ]] || { echo "soak: $1 needs a value" >&2; exit 2; }
            name=${1#--}
            declare "${name//-/_}=$2"
            shift 2
            ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "soak: unknown argument '$1' (see --help)" >&2; exit 2 ;;
    esac
done
started=$SECONDS
if ((kills > 0)); then
    STOREFS_KILLS=$kills cargo test --release --locked --test crash -- --nocapture
    echo "soak: $kills kills in $((SECONDS - started)) s"
fi
if ((server_kills > 0)); then
    before=$SECONDS
    STOREFS_KILLS=$server_kills cargo test --release --locked --test server_crash -- --nocapture
    echo "soak: $server_kills kills over a server in $((SECONDS - before)) s"
fi
before=$SECONDS
STOREFS_LONG_MIB=2048 cargo test --release --locked --test http_memory a_long_record -- --nocapture
echo "soak: a record of 2 GiB in $((SECONDS - before)) s"
if ((seeds > 0)); then
    if [[ -z $binary ]]; then
        cargo build --release --locked
        binary=$PWD/target/release/storefs
    fi
    scripts/install-conformance.sh
    scripts/conformance.sh --binary "$(realpath "$binary")" --only fsx --seeds "$seeds"
fi
echo "soak: good, $((SECONDS - started)) s in all"
