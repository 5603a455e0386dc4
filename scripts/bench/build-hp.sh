#!/usr/bin/env bash
# Builds libfuse's example passthrough_hp, the file system that storefs is measured against, and prints its path.
# The source is Debian's package fuse3, read through a list of sources of its own: the machine's are left as they are.
#
#   scripts/bench/build-hp.sh [SUITE]      default: trixie (libfuse 3.17.2, the first with passthrough in this example)
#
# When that suite cannot be had, the machine's own is used (libfuse 3.14 on Debian 12). Beside the program lies the file
# `version`. Built once, into ${STOREFS_TOOLS:-~/.cache/storefs-tools}/hp-SUITE.
set -euo pipefail

tools=${STOREFS_TOOLS:-${HOME:?HOME is not set}/.cache/storefs-tools}
say() { printf 'build-hp: %s\n' "$*" >&2; }
work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-hp.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$tools"
exec 9>"$tools/.hp.lock"
flock 9

need=()
for pair in g++:g++ dpkg-source:dpkg-dev python3:python3 pkg-config:pkg-config; do
    command -v "${pair%:*}" >/dev/null || need+=("${pair#*:}")
done
if [[ ${#need[@]} -gt 0 ]]; then
    say "these packages are missing: apt-get install ${need[*]}"
    exit 1
fi

# download SUITE: unpacks the source into $work/SUITE/source.
download() {
    local suite=$1 folder=$work/$1 keys=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    echo "deb-src [signed-by=$keys] http://deb.debian.org/debian $suite main" >"$folder/sources.list"
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root)
    (cd "$folder" && "${apt[@]}" update && "${apt[@]}" source --download-only fuse3) >"$folder/log" 2>&1 || return 1
    dpkg-source --no-check -x "$folder"/fuse3_*.dsc "$folder/source" >>"$folder/log" 2>&1
}

build() {
    local suite=$1 target=$2 source=$work/$1/source
    python3 -m venv "$work/venv" >/dev/null
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check meson ninja
    PATH=$work/venv/bin:$PATH
    (cd "$source" && meson setup build --buildtype=release -Ddefault_library=static -Dexamples=true -Dutils=false \
        -Dtests=false && ninja -C build example/passthrough_hp) >"$work/build.log" 2>&1 || {
        tail -n 20 "$work/build.log" >&2
        return 1
    }
    mkdir -p "$target"
    "$source/build/example/passthrough_hp" --help >/dev/null
    echo "libfuse $(cd "$source" && sed -n "s/.*version: *'\([0-9.a-z-]*\)'.*/\1/p" meson.build | head -n 1) (Debian $suite)" >"$target/version"
    mv "$source/build/example/passthrough_hp" "$target/passthrough_hp"
}

own=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
for suite in "${1:-trixie}" "$own"; do
    target=$tools/hp-$suite
    if [[ ! -x $target/passthrough_hp ]]; then
        say "building passthrough_hp from the source package fuse3 of Debian $suite"
        download "$suite" || { say "cannot get it: $(tail -n 1 "$work/$suite/log")"; continue; }
        build "$suite" "$target" || { say "cannot build it"; continue; }
    fi
    echo "$target/passthrough_hp"
    exit 0
done
exit 1
