"""The Python client against a server: `py.py sync` or `py.py async`.

Each check is one line on stdout: {"check": NAME, "why": null or what is wrong}."""
import asyncio
import gzip
import hashlib
import inspect
import io
import json
import os
import sys
import traceback
import urllib.error
import urllib.request
import zlib
from datetime import datetime, timedelta

from apify_client import ApifyClient, ApifyClientAsync
from apify_client.errors import ApifyApiError, ForbiddenError, InvalidRequestError, NotFoundError, UnauthorizedError

URL = os.environ['CLIENT_URL']
IS_SYNC = sys.argv[1] == 'sync'
CASES = json.load(open(os.environ['CLIENT_CASES'], encoding='utf-8'))


def made(token):
    kind = ApifyClient if IS_SYNC else ApifyClientAsync
    # One attempt: an answer that has to be asked for twice is a wrong one.
    return kind(token, api_url=URL, api_public_url=URL, max_retries=0)


client = made(os.environ['CLIENT_TOKEN'])
other = made(os.environ['CLIENT_OTHER_TOKEN'])


async def done(given):
    """What a call of either client gives."""
    return await given if inspect.isawaitable(given) else given


async def every(given):
    """All of an iterator of either client."""
    if hasattr(given, '__aiter__'):
        return [one async for one in given]
    return list(given)


async def streamed(given):
    """A hash, the length and the type of a record that is read piece by piece."""
    digest, length = hashlib.sha256(), 0
    if IS_SYNC:
        with given as record:
            for piece in record['value'].iter_bytes():
                digest.update(piece)
                length += len(piece)
    else:
        async with given as record:
            async for piece in record['value'].aiter_bytes():
                digest.update(piece)
                length += len(piece)
    return digest.hexdigest(), length, record['content_type']


async def fails(kind, error_type, call):
    try:
        await done(call())
    except kind as error:
        assert error_type in (None, error.type), f'{error.type}: {error}'
        return error
    raise AssertionError('it succeeded')


def fetched(url, **headers):
    """Status, headers and body, as a program without any client gets them."""
    request = urllib.request.Request(url, headers={name.replace('_', '-'): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
async def a_store_is_made_once_and_found_by_each_of_its_names(store, store_id):
    again = await done(client.key_value_stores().get_or_create(name='cases'))
    assert again.id == store_id
    me = await done(client.user('me').get())
    for reference in [store_id, '~cases', f'{me.username}/cases', f'{me.username}~cases', f'{me.id}~cases']:
        found = await done(client.key_value_store(reference).get())
        assert (found.id, found.name, found.user_id) == (store_id, 'cases', me.id), reference
        assert isinstance(found.created_at, datetime) and found.created_at.tzinfo
    assert await done(client.key_value_store('~nothing').get()) is None
    unnamed = [await done(client.key_value_stores().get_or_create()) for _ in range(2)]
    assert unnamed[0].id != unnamed[1].id
    for one in unnamed:
        await done(client.key_value_store(one.id).delete())


@check
async def records_come_back_with_the_bytes_and_the_type_they_were_set_with(store, store_id):
    for case in CASES:
        key = case['key']
        value = bytes.fromhex(case['hex']) if 'hex' in case else case['text'].encode()
        await done(store.set_record(key, value, content_type=case['type']))
        read = await done(store.get_record_as_bytes(key))
        assert (read['key'], read['content_type'], read['value']) == (key, case['type'], value), key
        assert await done(store.record_exists(key)), key


@check
async def values_are_parsed_by_their_types(store, store_id):
    for key, value, content_type in [
        ('v-json', {'a': [1, 'two', None], 'ž': '🐎'}, 'application/json; charset=utf-8'),
        ('v-long-json', {'text': 'long ' * 2000}, 'application/json; charset=utf-8'),
        ('v-null', None, 'application/json; charset=utf-8'),
        ('v-text', 'Příliš žluťoučký kůň', 'text/plain; charset=utf-8'),
        ('v-long-text', 'žluťoučký kůň ' * 1000, 'text/plain; charset=utf-8'),
        ('v-empty', '', 'text/plain; charset=utf-8'),
        ('v-bytes', os.urandom(100_000), 'application/octet-stream'),
        ('v-no-bytes', b'', 'application/octet-stream'),
    ]:
        await done(store.set_record(key, value))
        read = await done(store.get_record(key))
        assert (read['value'], read['content_type']) == (value, content_type), (key, read)


@check
async def what_is_compressed_already_stays_so_and_is_whole_for_everybody(store, store_id):
    text = ('žluťoučký kůň ' * 1000).encode()
    url = f'{URL}/v2/key-value-stores/{store_id}/records/'
    deflated = zlib.compress(text)
    for encoding, body in [('gzip', gzip.compress(text)), ('deflate', deflated)]:
        await done(store.set_record(encoding, body, content_type='text/plain; charset=utf-8', content_encoding=encoding))
        assert (await done(store.get_record(encoding)))['value'] == text.decode()
        bearer = 'Bearer ' + os.environ['CLIENT_TOKEN']
        status, headers, plain = fetched(url + encoding, authorization=bearer, accept_encoding='identity')
        assert (status, headers['content-encoding'], plain) == (200, None, text)
        status, headers, sent = fetched(url + encoding, authorization=bearer, accept_encoding=encoding)
        assert (status, headers['content-encoding'], sent) == (200, encoding, body)
    await fails(ApifyApiError, 'unsupported-content-encoding', lambda: store.set_record('x', b'x', content_encoding='bla'))
    await fails(InvalidRequestError, None, lambda: store.set_record('x', b'this is no gzip', content_encoding='gzip'))
    assert not await done(store.record_exists('x'))


@check
async def twenty_megabytes_are_streamed_up_and_down(store, store_id):
    content = os.urandom(20_000_000)
    expected = (hashlib.sha256(content).hexdigest(), len(content), 'video/mp4')
    pieces = (content[at:at + 62_500] for at in range(0, len(content), 62_500))
    for body in [io.BytesIO(content), pieces]:
        await done(store.set_record('stream', body, content_type='video/mp4'))
        assert await streamed(store.stream_record('stream')) == expected
        await done(store.delete_record('stream'))
    await done(store.set_record('stream', io.BytesIO(content), content_type='video/mp4'))


@check
async def records_are_overwritten_deleted_and_missed(store, store_id):
    await done(store.set_record('gone', 'one'))
    await done(store.set_record('gone', {'two': 2}))
    assert (await done(store.get_record('gone')))['value'] == {'two': 2}
    await done(store.delete_record('gone'))
    await done(store.delete_record('gone'))
    assert not await done(store.record_exists('gone'))
    assert await done(store.get_record('gone')) is None
    await fails(NotFoundError, 'record-not-found', lambda: client.key_value_store('~nothing').list_keys())
    await fails(InvalidRequestError, 'invalid-record-key', lambda: store.set_record('a~b', 1))
    key = "!-_.'()"
    await done(store.set_record(key, 'all marks'))
    assert (await done(store.get_record(key)))['value'] == 'all marks'


@check
async def keys_are_listed_in_pages_by_prefix_and_from_a_key_on(store, store_id):
    listed = client.key_value_store((await done(client.key_value_stores().get_or_create(name='listed'))).id)
    keys = sorted(f'{"a" if at % 10 else "b"}-{at:05}' for at in range(1150))
    for at, key in enumerate(keys):
        await done(listed.set_record(key, 'x' * (at % 7)))
    page = await done(listed.list_keys())
    assert (len(page.items), page.is_truncated, page.next_exclusive_start_key) == (1000, True, keys[999])
    assert [one.key for one in await every(listed.iterate_keys())] == keys
    assert [one.key for one in await every(listed.iterate_keys(prefix='b-'))] == [key for key in keys if key.startswith('b-')]
    last = await done(listed.list_keys(limit=3, exclusive_start_key=keys[1147]))
    assert [(one.key, one.size) for one in last.items] == [(keys[at], at % 7) for at in (1148, 1149)]
    assert (last.is_truncated, last.next_exclusive_start_key) == (False, None)
    await done(listed.delete())
    assert await done(listed.get()) is None


@check
async def stores_are_listed_in_pages_and_with_those_that_have_no_name(store, store_id):
    for at in range(3):
        await done(client.key_value_stores().get_or_create(name=f'page-{at}'))
    unnamed = await done(client.key_value_stores().get_or_create())
    page = await done(client.key_value_stores().list(limit=2))
    assert (page.count, page.limit, page.offset, page.desc, page.total) == (2, 2, 0, False, 4)
    names = [one.name for one in (await done(client.key_value_stores().list())).items]
    assert names == ['cases', 'page-0', 'page-1', 'page-2']
    newest = await done(client.key_value_stores().list(desc=True, offset=1, limit=2))
    assert [one.name for one in newest.items] == ['page-1', 'page-0']
    everything = await done(client.key_value_stores().list(unnamed=True))
    assert unnamed.id in [one.id for one in everything.items]
    for at in range(3):
        await done(client.key_value_store(f'~page-{at}').delete())
    await done(client.key_value_store(unnamed.id).delete())


@check
async def stores_are_renamed_and_keep_their_records(store, store_id):
    first = await done(client.key_value_stores().get_or_create(name='first-name'))
    renamed = client.key_value_store(first.id)
    await done(renamed.set_record('kept', 'kept'))
    changed = await done(renamed.update(name='second-name', title='A title'))
    assert (changed.id, changed.name) == (first.id, 'second-name')
    assert await done(client.key_value_store('~first-name').get()) is None
    assert (await done(client.key_value_store('~second-name').get_record('kept')))['value'] == 'kept'
    await fails(ApifyApiError, 'name-not-unique', lambda: renamed.update(name='cases'))
    await fails(InvalidRequestError, 'invalid-input', lambda: renamed.update(name='no name'))
    await done(renamed.delete())


@check
async def signed_urls_open_what_they_are_for_to_anybody(store, store_id):
    url = await done(store.get_record_public_url('OUTPUT'))
    status, headers, body = fetched(url)
    assert (status, headers['content-type']) == (200, 'application/json; charset=utf-8')
    assert json.loads(body)['hello'] == 'world'
    assert fetched(url.replace('OUTPUT', 'number'))[0] == 403
    assert fetched(url.split('?')[0])[0] == 401
    status, _, body = fetched(await done(store.create_keys_public_url(limit=2, expires_in=timedelta(minutes=1))))
    assert (status, len(json.loads(body)['data']['items'])) == (200, 2)
    late = await done(store.create_keys_public_url(expires_in=timedelta(minutes=-1)))
    assert fetched(late)[0] == 403
    for one in (await done(store.list_keys(limit=5))).items:
        assert len(fetched(str(one.record_public_url))[2]) == one.size, one.key
    signature = url.split('signature=')[1]
    opened = await done(other.key_value_store(store_id).get_record('OUTPUT', signature=signature))
    assert opened['value']['hello'] == 'world'


@check
async def another_user_gets_in_only_where_the_owner_lets_everybody_in(store, store_id):
    stranger = other.key_value_store(store_id)
    for call in [
        lambda: stranger.get(), lambda: stranger.get_record('OUTPUT'), lambda: stranger.list_keys(),
        lambda: stranger.set_record('OUTPUT', 1), lambda: stranger.delete_record('OUTPUT'),
        lambda: stranger.update(title='x'), lambda: stranger.delete(),
    ]:
        error = await fails(ForbiddenError, 'insufficient-permissions', call)
        assert str(error).startswith('Insufficient permissions for the key-value store.'), error
    await done(store.update(general_access='ANYONE_WITH_ID_CAN_READ'))
    assert (await done(stranger.get_record('OUTPUT')))['value']['hello'] == 'world'
    await fails(ForbiddenError, 'insufficient-permissions', lambda: stranger.set_record('OUTPUT', 1))
    await done(store.update(general_access='RESTRICTED'))
    await fails(ForbiddenError, 'insufficient-permissions', lambda: stranger.get_record('OUTPUT'))
    await fails(UnauthorizedError, 'invalid-token', lambda: made('apify_api_wrong').key_value_store(store_id).list_keys())


@check
async def the_store_of_a_run_is_reached_by_each_of_its_paths(store, store_id):
    run = client.run('storefsRun0000001')
    await done(run.key_value_store().set_record('OUTPUT', {'from': 'run'}))
    described = await done(run.get())
    for same in [
        run.key_value_store(), client.actor('someone/actor').last_run().key_value_store(),
        client.task('someone/task').last_run().key_value_store(),
        client.key_value_store(described.default_key_value_store_id),
    ]:
        assert (await done(same.get_record('OUTPUT')))['value'] == {'from': 'run'}
        assert await done(same.record_exists('OUTPUT'))


async def main():
    store_id = (await done(client.key_value_stores().get_or_create(name='cases'))).id
    for function in CHECKS:
        why = None
        try:
            await function(client.key_value_store(store_id), store_id)
        except BaseException:
            why = traceback.format_exc()
        print(json.dumps({'check': function.__name__.replace('_', ' '), 'why': why}), flush=True)


asyncio.run(main())
