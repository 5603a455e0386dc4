#!/bin/sh
# Installs the real SDKs that the tests drive, at pinned versions, into one shared folder.
# Safe to run again: what is already there at the right version is left alone.
#
#   scripts/install-tools.sh            install what is missing
#   STOREFS_TOOLS=/some/dir ...         another folder (default: ~/.cache/storefs-tools)
#
# After it:  $STOREFS_TOOLS/js/node_modules   npm apify and crawlee
#            $STOREFS_TOOLS/py/bin/python     Python with apify and crawlee
set -eu

JS_APIFY=3.7.2
JS_CRAWLEE=3.18.1
PY_APIFY=4.1.0
PY_CRAWLEE=1.11.0

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
js_stamp="apify@$JS_APIFY crawlee@$JS_CRAWLEE"
if [ "$(cat "$tools/js/.installed" 2>/dev/null)" != "$js_stamp" ]; then
    say "npm: $js_stamp"
    rm -rf "$tools/js"
    mkdir -p "$tools/js"
    echo '{"private": true}' >"$tools/js/package.json"
    # No browsers and no install scripts: only the storage half of the SDKs is used.
    (cd "$tools/js" && npm install --silent --no-audit --no-fund --ignore-scripts --save-exact \
        "apify@$JS_APIFY" "crawlee@$JS_CRAWLEE" "@crawlee/memory-storage@$JS_CRAWLEE")
    echo "$js_stamp" >"$tools/js/.installed"
fi

py_stamp="apify==$PY_APIFY crawlee==$PY_CRAWLEE"
if [ "$(cat "$tools/py/.installed" 2>/dev/null)" != "$py_stamp" ]; then
    say "pip: $py_stamp"
    rm -rf "$tools/py"
    python3 -m venv "$tools/py"
    "$tools/py/bin/pip" install --quiet --disable-pip-version-check "apify==$PY_APIFY" "crawlee==$PY_CRAWLEE"
    echo "$py_stamp" >"$tools/py/.installed"
fi

say "ready in $tools"
