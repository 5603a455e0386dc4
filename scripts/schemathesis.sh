#!/usr/bin/env bash
# Lets schemathesis ask a server everything that an OpenAPI document allows, and much that it does not: first its own
# document, then another one of the same API if there is such a file. No answer may be an error of the server or differ
# from the document. The requests are the same in every run.
#
#   scripts/schemathesis.sh [--binary PATH] [--document FILE] [--examples N]
#
# --binary     the storefs to ask (default: target/release/storefs)
# --document   the other document (default: $STOREFS_OTHER_DOCUMENT, or reference/openapi-kvs.yaml in a folder `shared`
#              beside the project)
# --examples   requests of each kind and operation (default 20)
#
# The one status above 500 that is an answer is 501: to `collection`, which this server does not know yet. The stream of
# changes has no end and is left out.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
binary=$here/target/release/storefs examples=20
other=${STOREFS_OTHER_DOCUMENT:-$(dirname "$here")/shared/reference/openapi-kvs.yaml}
die() { printf 'schemathesis: %s\n' "$*" >&2; exit 2; }
while [[ $# -gt 0 ]]; do
    case $1 in
        --binary) binary=${2:?}; shift 2 ;;
        --document) other=${2:?}; shift 2 ;;
        --examples) examples=${2:?}; shift 2 ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) die "unknown argument '$1' (see --help)" ;;
    esac
done
tools=${STOREFS_TOOLS:-$HOME/.cache/storefs-tools}/schemathesis/bin
[[ -x $tools/st ]] || die "schemathesis is not installed: run scripts/install-tools.sh"
[[ -x $binary ]] || die "no program at $binary"
binary=$(realpath "$binary")

work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-schemathesis.XXXXXX")
server=''
cleanup() {
    trap - EXIT INT TERM
    if [[ -n $server ]]; then
        kill -9 "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 SCHEMATHESIS_HOOKS=

# serve NAME: a server of its own folder; sets url and token.
serve() {
    mkdir -p "$work/$1/storage"
    token=$("$binary" token new --user ann --tokens "$work/$1/tokens")
    : >"$work/$1/told"
    "$binary" serve "$work/$1/storage" --layout plain --listen 127.0.0.1:0 --tokens "$work/$1/tokens" \
        >"$work/$1/told" 2>"$work/$1/log" &
    server=$!
    for _ in $(seq 200); do
        url=$(sed -n 's/^serving .* at \(http:.*\)$/\1/p' "$work/$1/told")
        [[ -z $url ]] || return 0
        sleep 0.05
    done
    die "the server did not start: $(tail -n 3 "$work/$1/log")"
}

# ask NAME DOCUMENT: exits with schemathesis' own status.
ask() {
    cat >"$work/$1.toml" <<'END'
[parameters]
"path.runId" = "storefsRun0000001"
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 501]
END
    local status=0
    (cd "$work" && timeout 600 "$tools/st" --config-file "$work/$1.toml" run "$2" --url "$url" \
        --header "Authorization: Bearer $token" --exclude-path-regex '/changes$' \
        --seed 20 --max-examples "$examples" --phases examples,coverage,fuzzing --generation-database none \
        --continue-on-failure --request-timeout 30 --suppress-health-check all --warnings off --no-color \
        --checks "$checks") || status=$?
    kill -0 "$server" 2>/dev/null || { echo "schemathesis: the server is gone: $(tail -n 3 "$work/$1/log")"; status=1; }
    if grep -n 'panicked' "$work/$1/log"; then status=1; fi
    kill "$server"
    wait "$server" || status=1
    server=''
    return "$status"
}

conformance=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance
failed=0
echo "schemathesis: the server's own document"
checks=$conformance,unsupported_method,ignored_auth,use_after_free,ensure_resource_availability
serve own
curl -fsS "$url/v2/openapi.json" >"$work/own.json"
ask own "$work/own.json" || failed=1

if [[ -f $other ]]; then
    echo "schemathesis: $(basename "$other")"
    checks=$conformance,unsupported_method
    # It does not know two statuses of this server: 409 for a name that is taken, 501 for `collection`. And it takes a
    # record for an object whatever was stored.
    "$tools/python" - "$other" "$work/other.json" <<'END'
import json, sys, yaml

document = yaml.safe_load(open(sys.argv[1], encoding='utf-8'))
for path, operations in document['paths'].items():
    for method, operation in operations.items():
        if isinstance(operation, dict) and 'responses' in operation:
            for status in ('409', '501'):
                operation['responses'].setdefault(status, {'description': 'An answer of this server.'})
            if path.endswith('/records/{recordKey}') and method == 'get':
                operation['responses']['200'] = {'description': 'The record.', 'content': {'*/*': {}}}
json.dump(document, open(sys.argv[2], 'w', encoding='utf-8'), default=str)
END
    serve other
    ask other "$work/other.json" || failed=1
else
    echo "schemathesis: no other document at $other: that half is skipped"
fi
exit "$failed"
