#!/bin/sh
# Installs the real SDKs that the tests drive, at pinned versions, into one shared folder.
# Safe to run again: what is already there at the right version is left alone.
#
#   scripts/install-tools.sh            install what is missing
#   STOREFS_TOOLS=/some/dir ...         another folder (default: ~/.cache/storefs-tools)
#
# After it:  $STOREFS_TOOLS/js/node_modules       npm apify, crawlee and apify-client
#            $STOREFS_TOOLS/py/bin/python         Python with apify, crawlee and apify-client
#            $STOREFS_TOOLS/cli/node_modules      npm apify-cli
#            $STOREFS_TOOLS/schemathesis/bin/st   schemathesis
set -eu

JS_APIFY=3.7.2
JS_CRAWLEE=3.18.1
JS_CLIENT=2.25.0
JS_CLI=1.10.0
PY_APIFY=4.1.0
PY_CRAWLEE=1.11.0
PY_CLIENT=3.4.0
PY_SCHEMATHESIS=4.32.5

tools=${STOREFS_TOOLS:-${HOME:?HOME is not set, and STOREFS_TOOLS neither}/.cache/storefs-tools}

say() { echo "install-tools: $*" >&2; }
die() { say "$*"; exit 1; }

# Installs Debian packages, for the commands that are missing.
debian() {
    command -v apt-get >/dev/null || die "these packages are missing and this is no Debian: $*"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        as_root=$(command -v sudo) || die "run this first, as root: apt-get install $*"
    fi
    say "apt-get install $*"
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

wanted=
command -v node >/dev/null || wanted="$wanted nodejs"
command -v npm >/dev/null || wanted="$wanted npm"
# Debian's python3 has the module venv, but it fails without the package python3-venv.
python3 -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3 python3-venv"
# shellcheck disable=SC2086  # a list of words
[ -z "$wanted" ] || debian $wanted

mkdir -p "$tools"
# Two runs at once would write the same folders; the second waits and then finds everything there.
if command -v flock >/dev/null; then
    exec 9>"$tools/.lock"
    flock 9
fi

# The stamp is written last, so a broken installation is done again.
# installed FOLDER PACKAGES: whether exactly these are there.
installed() { [ "$(cat "$tools/$1/.installed" 2>/dev/null)" = "$2" ]; }

# npm_into FOLDER PACKAGE...: no browsers and no install scripts, only the storage half of the SDKs is used.
npm_into() {
    folder=$tools/$1
    shift
    installed "${folder##*/}" "$*" && return
    say "npm: $*"
    rm -rf "$folder"
    mkdir -p "$folder"
    echo '{"private": true}' >"$folder/package.json"
    (cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts --save-exact "$@")
    echo "$*" >"$folder/.installed"
}

# pip_into FOLDER PACKAGE...: an environment of its own.
pip_into() {
    folder=$tools/$1
    shift
    installed "${folder##*/}" "$*" && return
    say "pip: $*"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
    echo "$*" >"$folder/.installed"
}

npm_into js "apify@$JS_APIFY" "crawlee@$JS_CRAWLEE" "@crawlee/memory-storage@$JS_CRAWLEE" "apify-client@$JS_CLIENT"
npm_into cli "apify-cli@$JS_CLI"
pip_into py "apify==$PY_APIFY" "crawlee==$PY_CRAWLEE" "apify-client==$PY_CLIENT"
pip_into schemathesis "schemathesis==$PY_SCHEMATHESIS"

say "ready in $tools"
