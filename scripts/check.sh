#!/usr/bin/env bash
# Everything that must be good before a change is: format, lints, documentation, a release build, all tests, what
# schemathesis asks a server, and the public file system suites. Installs what is missing on Debian (as root). Prints each
# step with its duration.
#
#   scripts/check.sh [STEP...]
#
# Without STEP all of them run, in this order; one that fails does not keep the others from running:
#   fmt clippy doc build test schemathesis conformance
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
all=(fmt clippy doc build test schemathesis conformance)
steps=("$@")
[[ ${#steps[@]} -gt 0 ]] || steps=("${all[@]}")

for name in "${steps[@]}"; do
    if [[ " ${all[*]} " != *" $name "* ]]; then
        printf 'check: no such step: %s (there are: %s)\n' "$name" "${all[*]}" >&2
        exit 2
    fi
done

summary=() failed=0
# step NAME COMMAND...
step() {
    local name=$1 start=$SECONDS outcome=ok
    shift
    printf '\n=== %s\n' "$name"
    "$@" || outcome=FAILED
    [[ $outcome == ok ]] || failed=1
    summary+=("$(printf '%-12s %-6s %5d s' "$name" "$outcome" $((SECONDS - start)))")
    printf '=== %s: %s, %d s\n' "$name" "$outcome" $((SECONDS - start))
}

# Debian packages the tests use, as `command package` lines. Without root, what is missing is only named.
packages() {
    local wanted=() command package
    while read -r command package; do
        command -v "$command" >/dev/null || wanted+=("$package")
    done <<'END'
fusermount3 fuse3
cc gcc
getfattr attr
setfacl acl
rsync rsync
vim vim-tiny
jq jq
fio fio
curl curl
tar tar
perl perl
python3 python3
setpriv util-linux
mkfs.ext4 e2fsprogs
mkfs.exfat exfatprogs
mount.exfat-fuse exfat-fuse
END
    # Debian's small vim is called vim.tiny.
    if command -v vim.tiny >/dev/null; then
        local index
        for index in "${!wanted[@]}"; do
            [[ ${wanted[index]} != vim-tiny ]] || unset "wanted[index]"
        done
    fi
    [[ ${#wanted[@]} -gt 0 ]] || return 0
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        printf 'check: please install: %s\n' "${wanted[*]}" >&2
        return 1
    fi
    printf 'apt-get install %s\n' "${wanted[*]}"
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
}

# The parts of the toolchain that a minimal one lacks.
components() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    command -v rustup >/dev/null || { echo "check: rustfmt and clippy are missing" >&2; return 1; }
    rustup component add rustfmt clippy
}

tools() {
    packages && components || return
    if [[ -x scripts/install-tools.sh ]]; then scripts/install-tools.sh; fi
}

# Test programs that mostly wait: for timeouts, for pauses, for what must not happen.
waiting=(mount_faults mount_remote_away mount_remote_hostile mount_remote_together remote_retry dir_feed)

# All test programs run, also after one that fails. Those that wait run beside the others.
tests() {
    local beside=() rest=() file name log outcome=0 waiter
    for file in tests/*.rs; do
        name=$(basename "$file" .rs)
        if [[ " ${waiting[*]} " == *" $name "* ]]; then beside+=(--test "$name"); else rest+=(--test "$name"); fi
    done
    cargo test --locked --no-run || return
    log=$(mktemp) || return
    cargo test --locked --no-fail-fast "${beside[@]}" >"$log" 2>&1 &
    waiter=$!
    cargo test --locked --no-fail-fast --lib --bins "${rest[@]}" || outcome=1
    cargo test --locked --doc || outcome=1
    wait "$waiter" || outcome=1
    cat "$log"
    rm -f "$log"
    return "$outcome"
}

conformance() {
    if [[ ! -x scripts/conformance.sh ]]; then
        echo "no scripts/conformance.sh"
        return
    fi
    if [[ -x scripts/install-conformance.sh ]]; then scripts/install-conformance.sh || return; fi
    scripts/conformance.sh --binary target/release/storefs
}

if ! command -v cargo >/dev/null; then
    echo "check: cargo is missing; scripts/quickstart.sh says how to get it" >&2
    exit 1
fi
step tools tools
for name in "${steps[@]}"; do
    case $name in
        fmt) step fmt cargo fmt --check ;;
        clippy) step clippy cargo clippy --locked --all-targets --quiet -- -D warnings ;;
        doc) RUSTDOCFLAGS=-Dwarnings step doc cargo doc --locked --no-deps --quiet ;;
        build) step build cargo build --locked --release --quiet ;;
        test) step test tests ;;
        schemathesis) step schemathesis scripts/schemathesis.sh ;;
        conformance) step conformance conformance ;;
    esac
done

printf '\n'
printf '%s\n' "${summary[@]}"
if [[ $failed != 0 ]]; then
    echo "check: FAILED"
    exit 1
fi
echo "check: all good"
