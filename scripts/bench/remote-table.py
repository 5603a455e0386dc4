"""Makes the table of scripts/bench/remote.sh from its measurements (lines of round, system, operation, value).

usage: remote-table.py RESULTS DELAYS RECORDS LISTED STREAM MANY MINUTES
"""

import sys

from measured import Measured

path, delays = sys.argv[1], sys.argv[2].split(",")
records, listed, stream, many, minutes = map(int, sys.argv[3:])
measured = Measured(path)
median = measured.median


def times(system, operation, other, other_operation=None):
    """How many times as fast as the other one."""
    return measured.ratio((other, other_operation or operation), (system, operation))


def shown(seconds):
    if seconds is None:
        return ""
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def met(value, goal):
    return "" if value is None else f"**{value:.2f}**" if goal is None else f"**{value:.2f}** (goal {goal:g} {'✓' if round(value, 2) >= goal else '✗'})"


# title, operation, that of curl, goal against rclone, goal against curl
ROWS = [
    (f"{records:,} records of 10 KiB in, until the last close", "closed", "there", 5, None),
    ("the same, until the server has them all", "there", "there", 5, None),
    (f"{records:,} records of 10 KiB out, cold", "cold", "cold", None, None),
    ("the same, warm, per record", "warm", None, None, None),
    (f"`ls -l` of {listed:,}, cold", "list", "list", None, None),
    ("the same, again", "list-again", None, None, None),
    (f"{stream:,} MiB in, until the close", "stream-in", "stream-in", None, None),
    ("the same, until the server has it", "stream-there", "stream-in", None, None),
    (f"{stream:,} MiB out, cold; `curl -o FILE`", "stream-out", "stream-kept", None, 0.8),
    ("the same; `curl -o /dev/null`", "stream-out", "stream-out", None, 0.8),
    (f"first byte of {stream:,} MiB, cold, in a listed directory", "first", "first", None, None),
]

lines = []
for title, operation, of_curl, to_rclone, to_curl in ROWS:
    for delay in delays:
        name = f"{operation}-{delay}"
        own = median("storefs", name)
        if own is None:
            continue
        scale = 1e-6 if operation == "warm" else 1
        curl = f"{of_curl}-{delay}"
        theirs = [median("rclone", name), median("curl", curl) if of_curl else None]
        cells = [shown(value and value * scale) for value in (*theirs, own)]
        ratios = [
            met(times("storefs", name, "rclone"), to_rclone),
            met(times("storefs", name, "curl", curl), to_curl) if of_curl else "",
        ]
        lines.append(f"| {title} | {delay} ms | " + " | ".join(cells + ratios) + " |")
        at_once = times("storefs", name, "rclone-at-once")
        if at_once is not None and operation == "there":
            seconds = shown(median("rclone-at-once", name))
            lines.append(f"| … against `--vfs-write-back 0s` | {delay} ms | {seconds} | | {shown(own)} | {met(at_once, None)} | |")
if lines:
    print("| work | round trip | rclone mount | curl | storefs | times as fast as rclone | as curl |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(lines))

also = []
local = median("local", "warm-0")
warm = times("storefs", "warm-0", "local")
if warm is not None:
    also.append(
        f"a warm read takes {median('storefs', 'warm-0'):.1f} µs, and {local:.1f} µs through a mount of the folder itself: "
        f"{met(warm, None)} times as fast (goal 0.95 {'✓' if warm >= 0.95 else '✗'})"
    )
for delay in delays:
    asked = median("storefs", f"warm-requests-{delay}")
    if asked is not None:
        also.append(f"requests of {records * 5:,} warm reads: {asked:.0f} (goal 0 {'✓' if asked == 0 else '✗'})")
    asked = median("storefs", f"first-requests-{delay}")
    if asked is not None and float(delay) > 0:
        # All of the time counts, also what is none of the network's.
        trips = {system: median(system, f"first-{delay}") * 1000 / float(delay) for system in ("storefs", "rclone")}
        also.append(
            f"the first byte of a large record comes within {trips['storefs']:.1f} round trips of {delay} ms and {asked:.0f} request(s) "
            f"(goal 2 {'✓' if trips['storefs'] <= 2 else '✗'}), rclone's within {trips['rclone']:.1f}"
        )
idle = median("storefs", "idle")
if idle is not None:
    also.append(
        f"requests of an idle mount: {idle / minutes:.1f} a minute (goal 2 {'✓' if idle / minutes <= 2 else '✗'}), "
        f"rclone {median('rclone', 'idle') / minutes:.1f}; over {minutes} minutes"
    )
memory = median("storefs", "memory")
if memory is not None:
    also.append(
        f"resident memory after `ls -l` of {many:,} records: {memory:.0f} MiB, at most {median('storefs', 'memory-most'):.0f} MiB "
        f"(goal 80 {'✓' if memory < 80 else '✗'}); rclone {median('rclone', 'memory'):.0f} MiB, at most "
        f"{median('rclone', 'memory-most'):.0f} MiB; the listing took {shown(median('storefs', 'memory-time'))} and "
        f"{shown(median('rclone', 'memory-time'))}"
    )
if also:
    print()
    print("\n".join(f"- {line}" for line in also))
