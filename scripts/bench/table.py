"""Makes the table of scripts/bench/local.sh from its measurements (lines of round, file system, operation, value).

usage: table.py RESULTS MANY LISTED STREAM
"""

import sys

from measured import Measured

results, many, listed, stream = sys.argv[1], *map(int, sys.argv[2:5])
measured = Measured(results)
median = measured.median


def ratio(system, operation, base, base_operation=None):
    return measured.ratio((system, operation), (base, base_operation or operation))


def time(value):
    return "" if value is None else f"{value:.1f} µs" if value < 100 else f"{value:.0f} µs"


def shown(value, goal):
    """A ratio beside its goal."""
    if value is None:
        return "", ""
    if goal is None:
        return f"{value:.2f}", ""
    return f"**{value:.2f}**", f"{goal:g} {'✓' if round(value, 2) <= goal else '✗'}"


# title, system, operation, operation of the others, goal to ext4, goal to passthrough_hp
ROWS = [
    ("open, read, close of 1 KiB, warm", "plain", "read", None, 6, 0.4),
    ("stat, warm", "plain", "stat", None, 1.3, 0.8),
    ("create, write 1 KiB, close; layout plain", "plain", "create", None, 3.6, 0.5),
    ("the same, layout dual", "dual", "create", None, 8, 1.2),
    ("overwrite with 1 KiB", "plain", "overwrite", None, 4, 0.8),
    ("rename", "plain", "rename", None, 2.3, 0.8),
    ("unlink", "plain", "unlink", None, 2.5, 0.8),
    ("getxattr of the type", "plain", "gettype", None, 7, 0.8),
    ("setxattr of the type", "plain", "settype", None, 7, 0.8),
    (f"`ls -f` of {listed:,}, warm", "plain", "names", None, 0.5, None),
    ("the same, first after mounting", "plain", "names-cold", "names", 2.2, None),
    (f"`ls -l` of {listed:,}, warm", "plain", "rows", None, 1.1, None),
    ("the same, first after mounting", "plain", "rows-cold", "rows", 4, None),
    (f"sequential write of {stream} MiB, per MiB", "plain", "stream-write", None, 1.05, 1.0),
    (f"sequential read of {stream} MiB, per MiB", "plain", "stream-read", None, 1.05, 1.0),
    ("random read of 4 KiB", "plain", "stream-random", None, 1.05, 1.0),
]

lines = []
for title, system, operation, other, ext4_goal, hp_goal in ROWS:
    own = median(system, operation)
    if own is None:
        continue
    to_ext4, ext4_met = shown(ratio(system, operation, "ext4", other), ext4_goal)
    to_hp, hp_met = shown(ratio(system, operation, "hp", other), hp_goal)
    if operation.startswith(("names", "rows")):
        to_hp, hp_met = "cannot", ""
    lines.append(
        f"| {title} | {time(median('ext4', other or operation))} | {time(median('hp', other or operation))} "
        f"| {time(own)} | {to_ext4} | {ext4_met} | {to_hp} | {hp_met} |"
    )
if lines:
    print("| work | ext4 | passthrough_hp | storefs | to ext4 | goal | to passthrough_hp | goal |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))

also = []
sdk, dual = median("sdk", "create"), median("dual", "create")
if sdk and dual:
    rate = sdk / dual
    also.append(
        f"`setValue` of the JavaScript SDK takes {sdk:.0f} µs, a create in layout dual {dual:.0f} µs: "
        f"{rate:.1f} times its rate (goal 10 {'✓' if rate >= 10 else '✗'})"
    )
memory = median("plain", "memory")
if memory:
    also.append(
        f"resident memory after `ls -l` of {many:,} records, layout plain: {memory:.0f} MiB, at most "
        f"{median('plain', 'memory-most'):.0f} MiB (goal 300 {'✓' if memory <= 300 else '✗'}); "
        f"{median('plain', 'rows-many'):.1f} µs per record"
    )
ready = median("plain", "ready-full")
if ready:
    also.append(
        f"the mount is ready after {ready:.3f} s with {many:,} records, {median('plain', 'ready-empty'):.3f} s with none "
        f"(goal 0.1 {'✓' if ready <= 0.1 else '✗'})"
    )
if also:
    print()
    print("\n".join(f"- {line}" for line in also))
