#!/usr/bin/env bash
# Measures `storefs serve` against nginx with WebDAV on the same file system, against the JavaScript SDK's own local
# storage, and small stores against large ones. Prints a table as Markdown: the rates, the ratios, the goals, and whether
# they are met.
#
#   scripts/bench/serve.sh [--binary PATH] [--quick] [--only ROW,...] [--raw FILE]
#
# --binary   the storefs to measure (default: a release build, made now)
# --quick    fewer and shorter rounds, smaller stores: to see that it works, not for numbers
# --only     rows: get put page stream sdk memory
# --raw      keep every single measurement there (round, system, operation, value)
#
# The systems are measured in turn, round after round, so that what else the machine does hits all alike; a ratio is taken
# within a round, and the table has the medians. Both servers write an access log, as they do by default. Everything
# stays on 127.0.0.1. Needs wrk, nginx with WebDAV (Debian: nginx-light), curl, gcc, about 5 GiB in ${TMPDIR:-/tmp}
# and 5 GiB in /dev/shm; for the row "sdk" also node and scripts/install-tools.sh.
set -euo pipefail

known=(get put page stream sdk memory)
source "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"
export PATH="$PATH:/usr/sbin"
needs wrk nginx curl gcc python3
nginx -V 2>&1 | grep -q http_dav_module || die "this nginx has no WebDAV"
find_binary

if [[ $quick == yes ]]; then
    rounds=1 seconds=2 records=1000 small=10000 large=100000 stream=64 long=256 count=50
else
    rounds=7 seconds=5 records=1000 small=10000 large=1000000 stream=256 long=2048 count=300
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/storefs-bench.XXXXXX")
shm=''
results=${raw:-$work/results.tsv}
: >"$results"
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
servers=()
cleanup() {
    trap - EXIT INT TERM
    local pid
    for pid in "${servers[@]}"; do
        # Again until it is gone: one that is just being started may miss the first.
        while kill "$pid" 2>/dev/null; do sleep 0.1; done
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work" ${shm:+"$shm"}
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# note ROUND SYSTEM OPERATION VALUE
note() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$results"; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# up_storefs NAME SOURCE: sets url and pid.
up_storefs() {
    : >"$work/$1.told"
    "$binary" serve "$2" --layout plain --listen 127.0.0.1:0 --tokens "$work/tokens" >"$work/$1.told" 2>"$work/$1.log" &
    pid=$!
    servers+=("$pid")
    for _ in $(seq 400); do
        url=$(sed -n 's/^serving .* at \(http:.*\)$/\1/p' "$work/$1.told")
        [[ -z $url ]] || return 0
        sleep 0.05
    done
    die "storefs did not start: $(tail -n 3 "$work/$1.log")"
}

up_nginx() {
    local port user=''
    port=$(free_port)
    [[ $(id -u) != 0 ]] || user='user root;'
    mkdir -p "$work/nginx/temp"
    cat >"$work/nginx/conf" <<END
$user
worker_processes auto;
daemon off;
pid $work/nginx/pid;
error_log $work/nginx/error.log;
events { worker_connections 1024; }
http {
    access_log $work/nginx/access.log;
    client_body_temp_path $work/nginx/temp;
    proxy_temp_path $work/nginx/proxy;
    fastcgi_temp_path $work/nginx/fastcgi;
    uwsgi_temp_path $work/nginx/uwsgi;
    scgi_temp_path $work/nginx/scgi;
    client_max_body_size 0;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 100000000;
    default_type application/octet-stream;
    server {
        listen 127.0.0.1:$port;
        root $work/nginx/files;
        location / { dav_methods PUT DELETE; create_full_put_path on; }
        # The very files that the other server serves.
        location /same/ { alias $work/storage/key_value_stores/bench/; }
    }
}
END
    mkdir -p "$work/nginx/files"
    nginx -e "$work/nginx/error.log" -p "$work/nginx" -c "$work/nginx/conf" &
    servers+=("$!")
    nginx_url=http://127.0.0.1:$port
    for _ in $(seq 400); do
        if curl -s -o /dev/null "$nginx_url/"; then return; fi
        sleep 0.05
    done
    die "nginx did not start: $(tail -n 3 "$work/nginx/error.log")"
}

# load ROUND SYSTEM OPERATION URL BEFORE CONNECTIONS COUNT: one run of wrk, noted.
load() {
    local said rate failed threads=2
    [[ $6 -ge 2 ]] || threads=1
    said=$(wrk -t "$threads" -c "$6" -d "${seconds}s" --timeout 10s -H "Authorization: Bearer $token" \
        -s "$here/scripts/bench/serve-wrk.lua" "$4" -- "${3%%-*}" "$5" "$7")
    read -r _ rate _ failed _ _ < <(grep '^RATE' <<<"$said") || die "wrk: $said"
    [[ $failed == 0 ]] || die "$2, $3: $failed requests failed: $said"
    note "$1" "$2" "$3" "$rate"
}

# The systems in another order in every round: nobody always comes after the same one.
shuffled() { local round=$1; shift; printf '%s\n' "$@" | shuf --random-source=<(yes "$round"); }

small_records() {
    local round system operation base before
    for ((round = 1; round <= rounds; round++)); do
        say "records of 1 KiB, round $round of $rounds"
        for operation in get overwrite create; do
            if [[ $operation == get ]]; then wanted get || continue; else wanted put || continue; fi
            for system in $(shuffled "$round" storefs nginx); do
                base=$url before=$records_path
                if [[ $system == nginx ]]; then
                    base=$nginx_url before=/put/
                    [[ $operation != get ]] || before=/same/
                fi
                load "$round" "$system" "$operation" "$base" "$before" 32 "$records"
            done
        done
        find "$work/storage/key_value_stores/bench" "$work/nginx/files" -name 'new-*' -delete
    done
}

pages() {
    local round size id
    shm=$(mktemp -d /dev/shm/storefs-bench.XXXXXX)
    say "stores of $small and $large records"
    gcc -O2 -o "$work/kv" "$here/scripts/bench/kv.c"
    mkdir -p "$shm/key_value_stores/small" "$shm/key_value_stores/large"
    "$work/kv" "$shm/key_value_stores/small" fill "$small" >/dev/null
    "$work/kv" "$shm/key_value_stores/large" fill "$large" >/dev/null
    up_storefs pages "$shm"
    for size in small large; do
        note 1 "$size" first "$(curl -fsS -o /dev/null -w '%{time_total}' -H "Authorization: Bearer $token" "$url/v2/key-value-stores/~$size/keys")"
    done
    for ((round = 1; round <= rounds; round++)); do
        say "pages of 1,000 keys, round $round of $rounds"
        for size in $(shuffled "$round" small large); do
            load "$round" "$size" page "$url" "/v2/key-value-stores/~$size/keys?limit=1000&exclusiveStartKey=" 1 "${!size}"
        done
    done
    note 1 large memory "$(awk '/VmHWM/ {print $2 / 1024}' "/proc/$pid/status")"
    ended "$pid"
    rm -rf "$shm"
}

# ended PID: ends a server and forgets it.
ended() {
    local pid=$1 kept=() other
    kill "$pid" && wait "$pid" || true
    for other in "${servers[@]}"; do [[ $other == "$pid" ]] || kept+=("$other"); done
    servers=("${kept[@]}")
}

# curled OPTIONS...: how long a transfer takes, in seconds.
curled() { curl -fsS -o /dev/null -w '%{time_total}\n' -H "Authorization: Bearer $token" -H 'Expect:' "$@"; }

streams() {
    local round system target
    say "records of $stream MiB"
    head -c "${stream}M" /dev/urandom >"$work/stream"
    for ((round = 1; round <= rounds; round++)); do
        for system in $(shuffled "$round" storefs nginx); do
            target=$nginx_url/stream
            [[ $system == nginx ]] || target=$url${records_path}stream
            sync -f "$work"
            note "$round" "$system" upload "$(curled -T "$work/stream" "$target")"
            sync -f "$work"
            curled "$target" >/dev/null
            note "$round" "$system" download "$(curled "$target")"
        done
    done
    rm "$work/stream" "$work/nginx/files/stream" "$work/storage/key_value_stores/bench/stream"
}

sdk() {
    local modules=${STOREFS_TOOLS:-$HOME/.cache/storefs-tools}/js/node_modules round system rates
    [[ -d $modules/apify ]] || { say "the JavaScript SDK is not installed (scripts/install-tools.sh): its rates are left out"; return; }
    local default
    default=$(curl -fsS -X POST -H "Authorization: Bearer $token" "$url/v2/key-value-stores" | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"]["id"])')
    for ((round = 1; round <= (rounds + 1) / 2; round++)); do
        say "the JavaScript SDK, round $round"
        for system in $(shuffled "$round" storefs sdk); do
            mkdir "$work/sdk"
            mapfile -t rates < <(
                export CRAWLEE_STORAGE_DIR=$work/sdk
                if [[ $system == storefs ]]; then
                    export APIFY_IS_AT_HOME=1 APIFY_API_BASE_URL=$url APIFY_TOKEN=$token ACTOR_RUN_ID=storefsRun0000001
                    export ACTOR_DEFAULT_KEY_VALUE_STORE_ID=$default
                fi
                node "$here/scripts/bench/sdk-set.mjs" "$modules" "$count"
            )
            [[ ${#rates[@]} == 2 ]] || die "the SDK did not work with $system"
            note "$round" "$system" sdk-set "${rates[0]}"
            note "$round" "$system" sdk-get "${rates[1]}"
            rm -rf "$work/sdk"
        done
    done
}

memory() {
    say "a record of $long MiB"
    # A process of its own: the peak is of its whole life.
    mkdir -p "$work/long"
    up_storefs long "$work/long"
    curl -fsS -o /dev/null -X POST -H "Authorization: Bearer $token" "$url/v2/key-value-stores?name=long"
    local target=$url/v2/key-value-stores/~long/records/long
    head -c "${long}M" /dev/zero | curl -fsS -o /dev/null -T - -H "Authorization: Bearer $token" "$target"
    [[ $(curl -fsS -H "Authorization: Bearer $token" "$target" | wc -c) == $((long << 20)) ]] || die "the long record did not come back whole"
    note 1 storefs long-memory "$(awk '/VmHWM/ {print $2 / 1024}' "/proc/$pid/status")"
    ended "$pid"
    rm -rf "$work/long"
}

token=$("$binary" token new --user bench --tokens "$work/tokens")
mkdir -p "$work/storage/key_value_stores/bench"
up_nginx
up_storefs main "$work/storage"
main=$url
id=$(curl -fsS -H "Authorization: Bearer $token" "$url/v2/key-value-stores/~bench" | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"]["id"])')
records_path=/v2/key-value-stores/$id/records/
say "making $records records"
head -c 1024 /dev/zero >"$work/record"
for ((at = 0; at < records; at++)); do
    printf 'next\nurl = "%s"\nupload-file = "%s"\nheader = "Authorization: Bearer %s"\noutput = /dev/null\n' \
        "$url${records_path}rec-$at" "$work/record" "$token"
done | curl -fsS --config -
if wanted get || wanted put; then small_records; fi
if wanted stream; then streams; fi
if wanted sdk; then sdk; fi
if wanted page; then pages; fi
url=$main
if wanted memory; then memory; fi

python3 "$here/scripts/bench/serve-table.py" "$results" "$small" "$large" "$stream" "$long"
cat <<END

Measured on $(date -u +%F) with \`$command_line\`: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, Linux $(uname -r), $("$binary" --version), $(nginx -v 2>&1 | sed 's/.*: //'), $(wrk --version 2>&1 | sed -n '1s/ Copy.*//p'); medians of $rounds rounds.
END
