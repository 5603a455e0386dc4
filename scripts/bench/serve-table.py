"""Makes the table of scripts/bench/serve.sh: serve-table.py RESULTS SMALL LARGE STREAM LONG."""

import sys

from measured import Measured

path, small, large, stream, long = sys.argv[1], *map(int, sys.argv[2:])
measured = Measured(path)
median, ratio = measured.median, measured.ratio


def rate(value):
    return f'{value:,.0f}/s'


def row(title, own, other, goal, shown):
    found = ratio(own, other)
    if found is None:
        return
    wanted = '' if goal is None else f'{goal} {"✓" if found >= goal else "✗"}'
    print(f'| {title} | {shown(median(*other))} | {shown(median(*own))} | **{found:.2f}** | {wanted} |')


def mib(seconds):
    return f'{stream / seconds:,.0f} MiB/s'


print('| work | compared with | storefs serve | ratio of rates | goal |')
print('|---|---|---|---|---|')
for title, operation, goal in [
    ('GET of 1 KiB, 32 connections', 'get', 0.7),
    ('PUT of 1 KiB over a record, 32 connections', 'overwrite', 0.7),
    ('PUT of 1 KiB as a new record, 32 connections', 'create', 0.7),
]:
    row(f'{title}, to nginx', ('storefs', operation), ('nginx', operation), goal, rate)
for title, operation in [('upload', 'upload'), ('download', 'download')]:
    # Times: the ratio of the rates is the other way round.
    own, other = ('storefs', operation), ('nginx', operation)
    found = ratio(other, own)
    if found is not None:
        print(f'| {title} of {stream} MiB, to nginx | {mib(median(*other))} | {mib(median(*own))} | **{found:.2f}** | |')
for title, operation in [('setValue', 'sdk-set'), ('getValue', 'sdk-get')]:
    row(f'{title} of the JavaScript SDK, to its own local storage', ('storefs', operation), ('sdk', operation), None, rate)

slow, fast = median('large', 'page'), median('small', 'page')
if slow and fast:
    flat = ratio(('small', 'page'), ('large', 'page'))
    print()
    print(
        f'- a page of 1,000 keys at a random position takes {1e3 / fast:.2f} ms among {small:,} records and '
        f'{1e3 / slow:.2f} ms among {large:,}: {flat:.2f} times as long (goal 1.5 {"✓" if flat <= 1.5 else "✗"})'
    )
    print(
        f'- the first page after the start takes {median("small", "first"):.2f} s and {median("large", "first"):.2f} s, '
        f'because the folder is read once; peak memory with {large:,} records {median("large", "memory"):.0f} MiB'
    )
peak = median('storefs', 'long-memory')
if peak:
    print(f'- peak memory of a server after a record of {long:,} MiB came and went: {peak:.0f} MiB (goal 64 {"✓" if peak < 64 else "✗"})')
