# What the scripts of this directory have in common at their start: their arguments, the rows they know, the program to
# measure. Sourced as
#
#   known=(ROW ...); more=(hp)            # options with a value beside --binary, --only and --raw
#   source "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"
#   needs gcc python3; find_binary
#
# It sets here, command_line, binary, only, raw, quick and a variable for each of `more`.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
script=$0
command_line="scripts/bench/$(basename "$script") $*"
binary='' only='' raw='' quick=no
die() { printf 'bench: %s\n' "$*" >&2; exit 2; }
say() { printf 'bench: %s\n' "$*" >&2; }
valued=" binary only raw ${more[*]-} "
for option in ${more[@]+"${more[@]}"}; do declare "$option="; done
while [[ $# -gt 0 ]]; do
    case $1 in
        --quick) quick=yes; shift ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$script"; exit 0 ;;
        *)
            [[ $1 == --* && $valued == *" ${1#--} "* ]] || die "unknown argument '$1' (see --help)"
            [[ $# -ge 2 ]] || die "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
    esac
done
for row in ${only//,/ }; do [[ " ${known[*]} " == *" $row "* ]] || die "no row '$row' (there are: ${known[*]})"; done
# Whether a row is to be measured.
wanted() { [[ -z $only || ",$only," == *",$1,"* ]]; }

needs() {
    local tool
    for tool in "$@"; do command -v "$tool" >/dev/null || die "$tool is missing"; done
}

# The program to measure: what was named, else a release build, made now.
find_binary() {
    if [[ -z $binary ]]; then
        (cd "$here" && cargo build --release --locked --quiet)
        binary=$here/target/release/storefs
    fi
    [[ -x $binary ]] || die "no program at $binary"
    binary=$(realpath "$binary")
}
