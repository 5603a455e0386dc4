"""Measures how many records per second the Python SDK writes with Actor.set_value and then reads with Actor.get_value, one
after the other, in a local storage folder. Prints the two rates, each on a line.

    CRAWLEE_STORAGE_DIR=FOLDER python sdk-set.py COUNT
"""

import asyncio
import json
import logging
import os
import sys
import time

os.environ.update(CRAWLEE_PURGE_ON_START='0', APIFY_PURGE_ON_START='0')
logging.disable(logging.CRITICAL)
from apify import Actor  # noqa: E402  (reads the environment)


async def main(count: int) -> None:
    # As large as the records of kv.c: 1 KiB of JSON as the SDK formats it.
    value = {'value': 'x' * (1024 - len(json.dumps({'value': ''}, indent=2)))}
    async with Actor(exit_process=False, configure_logging=False):
        started = time.perf_counter()
        for n in range(count):
            await Actor.set_value(f'rec-{n}', value)
        written = time.perf_counter()
        for n in range(count):
            if await Actor.get_value(f'rec-{n}') != value:
                raise SystemExit('a record did not come back')
        read = time.perf_counter()
    for took in (written - started, read - written):
        print(round(count / took, 1))


asyncio.run(main(int(sys.argv[1])))
