"""A process that uses the Python SDK as an Actor would, driven line by line.

Each line on stdin is one JSON request, each line on stdout its answer: {"ok": ...} or {"error": "..."}.
The first line written is {"ready": true}. It ends when stdin ends. js.mjs speaks the same language.
"""

import asyncio
import json
import logging
import sys

from apify import Actor

logging.disable(logging.CRITICAL)


def shown(value):
    """What the SDK hands out, in a form that keeps strings and bytes apart."""
    if value is None:
        return {'kind': 'none'}
    if isinstance(value, (bytes, bytearray)):
        return {'kind': 'bytes', 'hex': bytes(value).hex()}
    if isinstance(value, str):
        return {'kind': 'text', 'hex': value.encode().hex()}
    return {'kind': 'json', 'json': value}


async def opened(request):
    return await Actor.open_key_value_store(name=request.get('store'))


async def list_keys(request):
    return [entry.key async for entry in (await opened(request)).iterate_keys()]


async def get(request):
    store = await opened(request)
    key = request['key']
    types = {entry.key: entry.content_type async for entry in store.iterate_keys()}
    if key not in types:
        return None
    return {'type': types[key], 'value': shown(await store.get_value(key))}


async def set_value(request):
    store = await opened(request)
    content_type = request.get('type')
    if 'hex' not in request:
        value = request.get('json')
    else:
        value = bytes.fromhex(request['hex'])
        # The SDK itself encodes what is stored as JSON, so it wants the value and not its text.
        if content_type is not None and 'application/json' in content_type:
            value = json.loads(value)
    await store.set_value(request['key'], value, content_type)


async def delete(request):
    await (await opened(request)).delete_value(request['key'])


async def exists(request):
    return await (await opened(request)).record_exists(request['key'])


async def get_url(request):
    return await (await opened(request)).get_public_url(request['key'])


async def drop(request):
    await (await opened(request)).drop()


async def get_input(_request):
    return shown(await Actor.get_input())


OPERATIONS = {
    'list': list_keys,
    'get': get,
    'set': set_value,
    'delete': delete,
    'exists': exists,
    'url': get_url,
    'drop': drop,
    'input': get_input,
}


def answer(line):
    sys.stdout.write(json.dumps(line) + '\n')
    sys.stdout.flush()


async def main():
    async with Actor(exit_process=False, configure_logging=False):
        answer({'ready': True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            try:
                answer({'ok': await OPERATIONS[request['op']](request)})
            except Exception as error:
                answer({'error': f'{type(error).__name__}: {error}'})


asyncio.run(main())
