#!/usr/bin/env bash
# Builds storefs on a fresh Debian, mounts a sample storage folder that a real SDK wrote, reads the input, writes an
# output, shows its type, and unmounts. Everything happens in a temporary directory, which is removed at the end.
#
#   scripts/quickstart.sh
#
# Missing Debian packages are installed with apt-get (as root, or with sudo), and Rust with rustup: Debian's, or else the
# one from rust-lang.org, into ~/.cargo. Works as root and as a user who may open /dev/fuse.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
sample=tests/fixtures/js-memory-storage
needed=1.95 # as rust-version in Cargo.toml

bold='' plain=''
if [[ -t 1 ]]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }
# Shows a command and runs it.
run() { printf '$ %s\n' "$*"; bash -c "$*"; }

# install PACKAGE...
install() {
    command -v apt-get >/dev/null || die "please install these first: $*"
    local as_root=()
    if [[ $(id -u) != 0 ]]; then
        command -v sudo >/dev/null || die "please run this as root first: apt-get install $*"
        as_root=(sudo)
    fi
    say "Installing $*"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install_missing() {
    local wanted=()
    command -v fusermount3 >/dev/null || wanted+=(fuse3)
    command -v cc >/dev/null || wanted+=(gcc libc6-dev)
    command -v getfattr >/dev/null || wanted+=(attr)
    if [[ ${#wanted[@]} -gt 0 ]]; then install "${wanted[@]}"; fi
}

# True when the first version is at least the second.
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

# Puts rustup into ~/.cargo, as https://rustup.rs does it.
rustup_init() {
    local from=https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu/rustup-init to
    command -v curl >/dev/null || install curl ca-certificates
    # What it does depends on its name.
    to=$(mktemp -d)
    say "Fetching rustup"
    if curl --proto =https --tlsv1.2 -sSf -o "$to/rustup-init" "$from" && chmod 700 "$to/rustup-init"; then
        "$to/rustup-init" -y --quiet --no-modify-path --profile minimal || true
    fi
    rm -rf "$to"
    # Before an older cargo of Debian's.
    export PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH"
}

install_rust() {
    export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2 || true)
    if [[ -n $version ]] && at_least "$version" "$needed"; then return; fi
    # Debian has it since 13; before, apt-cache knows the name and no version.
    if ! command -v rustup >/dev/null; then
        if apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
            install rustup
        else
            rustup_init
        fi
    fi
    hash -r
    if command -v rustup >/dev/null; then
        say "Installing Rust with rustup"
        rustup toolchain install stable --profile minimal && rustup default stable
        version=$(cargo --version 2>/dev/null | cut -d' ' -f2 || true)
    fi
    [[ -n $version ]] && at_least "$version" "$needed" ||
        die "Rust $needed or newer is needed, and there is ${version:-none}. Debian's own rustc may be too old;" \
            "get it from https://rustup.rs, then run this again."
}

work='' mounted='' log=''
cleanup() {
    local code=$?
    trap - EXIT INT TERM
    if [[ -n $mounted ]]; then
        ./target/release/storefs umount --lazy "$mounted" 2>/dev/null || true
    fi
    if [[ -n $log && $code == 0 ]]; then rm -f "$log"; fi
    if [[ -n $work ]]; then rm -rf "$work"; fi
    if [[ $code != 0 ]]; then printf '\nquickstart: failed (exit code %s)\n' "$code" >&2; fi
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install_missing
install_rust
if [[ ! -e /dev/fuse ]] && command -v modprobe >/dev/null; then modprobe fuse 2>/dev/null || true; fi
[[ -e /dev/fuse ]] ||
    die "there is no /dev/fuse: load the kernel's module (modprobe fuse); in a container: --device /dev/fuse --cap-add SYS_ADMIN"

say "Building (a few minutes the first time)"
cargo build --release --locked --quiet
PATH="$PWD/target/release:$PATH"

work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-quickstart.XXXXXX")
cp -a "$sample/." "$work/"
# As `apify run --input` leaves it.
store=$work/storage/key_value_stores/default
if ! compgen -G "$store/INPUT*" >/dev/null; then
    printf '{\n  "startUrls": [{ "url": "https://example.com" }],\n  "maxPages": 10\n}' >"$store/INPUT.json"
fi

say "Mounting a storage folder of the JavaScript SDK"
cd "$work"
mounted=$work/mnt
run "storefs mount storage mnt"
log=$(storefs status mnt | sed -n 's/^log: //p')

say "Stores are directories, records are files named by their keys"
run "ls mnt"
run "ls mnt/default | head -n 5"

say "The input of the run"
run "cat mnt/default/INPUT"
echo

say "Writing the output, as any program writes a file"
run "echo '{\"pages\": 10, \"done\": true}' > mnt/default/OUTPUT"
run "cat mnt/default/OUTPUT"

say "Its content type is an extended attribute"
run "getfattr -n user.mime_type mnt/default/OUTPUT"

say "What the SDK will find"
run "ls storage/key_value_stores/default | grep OUTPUT"

say "Unmounting"
run "storefs umount mnt"
mounted=''

say "It works. Now try it on a project of yours:"
cat <<END
  cd YOUR-PROJECT          # with its storage/ or crawlee_storage/ folder
  $(dirname "$(command -v storefs)")/storefs mount mnt
  ls mnt; cat mnt/default/INPUT
  storefs status
  storefs umount mnt
More: storefs --help, and README.md.
END
