#!/usr/bin/env bash
# Installs the two public file system test suites that scripts/conformance.sh runs:
# fsx (File System eXerciser) and pjdfstest, both from crates.io, into
# ${STOREFS_TOOLS:-~/.cache/storefs-tools}/bin. Quick when they are already there.
#
# pjdfstest works two directories below the path it is given, and names them with a leading dot. A mount holds
# stores directly below its root, and a store holds no directories, so a copy of its source is changed to make
# one directory per test directly below that path. No source of either suite is kept in this repository.
set -euo pipefail

FSX_VERSION=0.3.2
PJD_VERSION=0.2.2
PATCH_LEVEL=2 # raise it when the change below changes, so that old installations are built anew

tools=${STOREFS_TOOLS:-${HOME:?HOME is not set}/.cache/storefs-tools}
mkdir -p "$tools/bin" "$tools/stamps"
exec 9>"$tools/.conformance.lock"
flock 9 # two runs at once would build into the same folder

say() { printf 'install-conformance: %s\n' "$*"; }
fail() { printf 'install-conformance: %s\n' "$*" >&2; exit 1; }
command -v cargo >/dev/null || fail "cargo is not in PATH; install Rust first"

work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-install.XXXXXX")
trap 'rm -rf "$work"' EXIT

install_fsx() {
    local stamp="$tools/stamps/fsx-$FSX_VERSION"
    if [[ -x $tools/bin/fsx && -e $stamp ]]; then
        say "fsx $FSX_VERSION is there"
        return
    fi
    say "building fsx $FSX_VERSION"
    cargo install --quiet --locked --force --root "$tools" --target-dir "$tools/build" "fsx@$FSX_VERSION"
    touch "$stamp"
}

install_pjdfstest() {
    local stamp="$tools/stamps/pjdfstest-$PJD_VERSION-two-levels-$PATCH_LEVEL" source="$work/pjdfstest"
    if [[ -x $tools/bin/pjdfstest && -e $stamp ]]; then
        say "pjdfstest $PJD_VERSION (two levels) is there"
        return
    fi
    say "building pjdfstest $PJD_VERSION, changed for a file system of two levels"
    download pjdfstest "$PJD_VERSION" "$source"
    # The folder of the whole run: no leading dot, since no store begins with one.
    change "$source/src/main.rs" 'tempdir_in(path)?' \
        'tempfile::Builder::new().prefix("pjdrun").tempdir_in(path)?'
    # The folder of one test: beside that folder, not in it.
    change "$source/src/main.rs" 'tempdir_in(base_dir.path()).unwrap()' \
        'tempfile::Builder::new().prefix("pjd").tempdir_in(base_dir.path().parent().unwrap()).unwrap()'
    change "$source/src/main.rs" 'use tempfile::{tempdir_in, TempDir};' 'use tempfile::TempDir;'
    cargo install --quiet --locked --force --root "$tools" --target-dir "$tools/build" --path "$source"
    touch "$stamp"
}

# download NAME VERSION FOLDER: the published source, through cargo (which checks its checksum).
download() {
    local name=$1 version=$2 folder=$3 found
    mkdir -p "$work/wrap/src"
    : >"$work/wrap/src/lib.rs"
    printf '[package]\nname = "wrap"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = "=%s"\n[workspace]\n' \
        "$name" "$version" >"$work/wrap/Cargo.toml"
    cargo fetch --quiet --manifest-path "$work/wrap/Cargo.toml" 2>"$work/fetch.log" || {
        cat "$work/fetch.log" >&2
        fail "cannot download $name $version from crates.io"
    }
    found=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -type d -name "$name-$version" -print -quit)
    [[ -n $found ]] || fail "cargo downloaded $name $version but its source is not in the registry folder"
    cp -R "$found" "$folder"
    chmod -R u+w "$folder"
}

# change FILE OLD NEW: replaces a text that must stand there exactly once.
change() {
    local file=$1 old=$2 new=$3 count
    count=$(grep -cF -- "$old" "$file" || true)
    [[ $count == 1 ]] || fail "$file has '$old' $count times, not once: this version of pjdfstest is another one"
    old=$(sed 's/[][\\/.*^$]/\\&/g' <<<"$old")
    new=$(sed 's/[\\/&]/\\&/g' <<<"$new")
    sed -i "s/$old/$new/" "$file"
}

install_fsx
install_pjdfstest
rm -rf "$tools/build" # hundreds of megabytes that nothing needs again
say "done: $tools/bin/fsx, $tools/bin/pjdfstest"
