// The JavaScript client against a server. Each check is one line on stdout: {"check": NAME, "why": null or what is wrong}.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';

const { CLIENT_TOOLS, CLIENT_URL, CLIENT_TOKEN, CLIENT_OTHER_TOKEN, CLIENT_CASES } = process.env;
const { ApifyClient } = createRequire(path.join(CLIENT_TOOLS, 'js', 'x.js'))('apify-client');

// One attempt: an answer that has to be asked for twice is a wrong one.
const options = { baseUrl: CLIENT_URL, publicBaseUrl: CLIENT_URL, maxRetries: 0 };
const client = new ApifyClient({ ...options, token: CLIENT_TOKEN });
const other = new ApifyClient({ ...options, token: CLIENT_OTHER_TOKEN });
const check = async (name, body) => {
    let why = null;
    try {
        await body();
    } catch (error) {
        why = `${error.stack ?? error}`;
    }
    process.stdout.write(`${JSON.stringify({ check: name, why })}\n`);
};
const fails = async (promise, statusCode, type) => {
    const error = await promise.then(() => assert.fail('it succeeded'), (why) => why);
    assert.deepEqual([error.statusCode, error.type], [statusCode, type], `${error}`);
};
const all = async (pages) => {
    const found = [];
    for await (const one of pages) found.push(one);
    return found;
};
const many = async (count, body) => {
    let next = 0;
    const worker = async () => { while (next < count) await body(next++); };
    await Promise.all(Array.from({ length: 8 }, worker));
};
const sha = (bytes) => crypto.createHash('sha256').update(bytes).digest('hex');

const { id } = await client.keyValueStores().getOrCreate('cases');
const store = client.keyValueStore(id);
const cases = JSON.parse(fs.readFileSync(CLIENT_CASES, 'utf8'));

await check('a store is made once and found by each of its names', async () => {
    const again = await client.keyValueStores().getOrCreate('cases');
    assert.equal(again.id, id);
    const me = await client.user('me').get();
    for (const reference of [id, '~cases', `${me.username}/cases`, `${me.username}~cases`, `${me.id}~cases`]) {
        const found = await client.keyValueStore(reference).get();
        assert.deepEqual([found.id, found.name, found.userId], [id, 'cases', me.id], reference);
        assert(found.createdAt instanceof Date && found.modifiedAt instanceof Date && found.accessedAt instanceof Date);
    }
    assert.equal(await client.keyValueStore('~nothing').get(), undefined);
    const unnamed = [await client.keyValueStores().getOrCreate(), await client.keyValueStores().getOrCreate()];
    assert.notEqual(unnamed[0].id, unnamed[1].id);
    for (const one of unnamed) await client.keyValueStore(one.id).delete();
    assert.equal(await client.keyValueStore(unnamed[0].id).get(), undefined);
});

await check('records come back with the bytes and the type they were set with', async () => {
    for (const { key, type, text: words, hex } of cases) {
        const value = hex === undefined ? Buffer.from(words) : Buffer.from(hex, 'hex');
        await store.setRecord({ key, value, contentType: type });
        const read = await store.getRecord(key, { buffer: true });
        assert.deepEqual([read.key, read.contentType], [key, type]);
        assert(value.equals(read.value ?? Buffer.alloc(0)), key);
        assert.equal(await store.recordExists(key), true, key);
    }
});

await check('values are parsed by their types', async () => {
    const values = [
        ['v-json', { a: [1, 'two', null], 'ž': '🐎' }, 'application/json; charset=utf-8'],
        ['v-long-json', { text: 'long '.repeat(2000) }, 'application/json; charset=utf-8'],
        ['v-null', null, 'application/json; charset=utf-8'],
        ['v-text', 'Příliš žluťoučký kůň', 'text/plain; charset=utf-8'],
        ['v-long-text', 'žluťoučký kůň '.repeat(1000), 'text/plain; charset=utf-8'],
        ['v-bytes', crypto.randomBytes(100_000), 'application/octet-stream'],
    ];
    for (const [key, value, type] of values) {
        await store.setRecord({ key, value });
        const read = await store.getRecord(key);
        assert.deepEqual([read.value, read.contentType], [value, type], key);
    }
    // What is empty has no value for this client.
    await store.setRecord({ key: 'v-empty', value: '' });
    assert.deepEqual(await store.getRecord('v-empty'), { key: 'v-empty', value: undefined, contentType: 'text/plain; charset=utf-8' });
});

await check('what was compressed on the way is whole for whoever accepts no compression', async () => {
    const url = `${CLIENT_URL}/v2/key-value-stores/${id}/records/v-long-text`;
    const plain = await fetch(url, { headers: { authorization: `Bearer ${CLIENT_TOKEN}`, 'accept-encoding': 'identity' } });
    assert.equal(plain.headers.get('content-encoding'), null);
    assert.equal(await plain.text(), 'žluťoučký kůň '.repeat(1000));
    const small = await fetch(url, { headers: { authorization: `Bearer ${CLIENT_TOKEN}`, 'accept-encoding': 'br' } });
    assert.equal(small.headers.get('content-encoding'), 'br');
    assert(Number(small.headers.get('content-length')) < 1000);
});

await check('20 MB are streamed up and down', async () => {
    const pieces = Array.from({ length: 320 }, () => crypto.randomBytes(62_500));
    await store.setRecord({ key: 'stream', value: Readable.from(pieces), contentType: 'video/mp4' });
    const read = await store.getRecord('stream', { stream: true });
    assert.equal(read.contentType, 'video/mp4');
    const hash = crypto.createHash('sha256');
    let length = 0;
    for await (const piece of read.value) {
        length += piece.length;
        hash.update(piece);
    }
    assert.deepEqual([length, hash.digest('hex')], [20_000_000, sha(Buffer.concat(pieces))]);
});

await check('records are overwritten, deleted, and missed', async () => {
    await store.setRecord({ key: 'gone', value: 'one' });
    await store.setRecord({ key: 'gone', value: { two: 2 } });
    assert.deepEqual((await store.getRecord('gone')).value, { two: 2 });
    await store.deleteRecord('gone');
    await store.deleteRecord('gone');
    assert.equal(await store.recordExists('gone'), false);
    assert.equal(await store.getRecord('gone'), undefined);
    await fails(client.keyValueStore('~nothing').listKeys(), 404, 'record-not-found');
    await fails(store.setRecord({ key: 'a~b', value: 1 }), 400, 'invalid-record-key');
    // Key and slash are lost on the way out of this client: the store must still be there.
    await assert.rejects(store.deleteRecord('..'));
    await assert.rejects(store.deleteRecord(''));
    assert.equal((await store.get()).id, id);
});

await check('keys are listed in pages, by prefix and from a key on', async () => {
    const listed = client.keyValueStore((await client.keyValueStores().getOrCreate('listed')).id);
    const keys = Array.from({ length: 1150 }, (_, at) => `${at % 10 ? 'a' : 'b'}-${String(at).padStart(5, '0')}`).sort();
    await many(keys.length, (at) => listed.setRecord({ key: keys[at], value: 'x'.repeat(at % 7) }));
    const page = await listed.listKeys();
    assert.deepEqual([page.items.length, page.isTruncated, page.nextExclusiveStartKey], [1000, true, keys[999]]);
    assert.deepEqual((await all(listed.listKeys())).map(({ key }) => key), keys);
    assert.deepEqual((await all(listed.listKeys({ limit: 250, prefix: 'b-' }))).map(({ key }) => key), keys.filter((key) => key.startsWith('b-')));
    const last = await listed.listKeys({ limit: 3, exclusiveStartKey: keys[1147] });
    assert.deepEqual(last.items.map(({ key, size }) => [key, size]), [[keys[1148], 1148 % 7], [keys[1149], 1149 % 7]]);
    assert.deepEqual([last.isTruncated, last.nextExclusiveStartKey], [false, null]);
    const seen = [];
    await (async () => { for (let from; ;) {
        const part = await listed.listKeys({ limit: 333, exclusiveStartKey: from });
        seen.push(...part.items.map(({ key }) => key));
        if (!part.isTruncated) return;
        from = part.nextExclusiveStartKey;
    } })();
    assert.deepEqual(seen, keys);
    await listed.delete();
    assert.equal(await listed.get(), undefined);
});

await check('stores are listed in pages, and with those that have no name', async () => {
    for (const name of ['page-1', 'page-2', 'page-3']) await client.keyValueStores().getOrCreate(name);
    const unnamed = await client.keyValueStores().getOrCreate();
    const named = await client.keyValueStores().list({ limit: 2 });
    assert.deepEqual([named.count, named.limit, named.offset, named.desc], [2, 2, 0, false]);
    assert.equal(named.total, 4);
    const names = (await all(client.keyValueStores().list())).map(({ name }) => name);
    assert.deepEqual(names, ['cases', 'page-1', 'page-2', 'page-3']);
    const newest = await client.keyValueStores().list({ desc: true, offset: 1, limit: 2 });
    assert.deepEqual(newest.items.map(({ name }) => name), ['page-2', 'page-1']);
    const everything = await client.keyValueStores().list({ unnamed: true });
    assert(everything.items.some((one) => one.id === unnamed.id));
    for (const name of ['page-1', 'page-2', 'page-3']) await client.keyValueStore(`~${name}`).delete();
    await client.keyValueStore(unnamed.id).delete();
});

await check('stores are renamed, named not at all, and keep their records', async () => {
    const made = await client.keyValueStores().getOrCreate('first-name');
    const renamed = client.keyValueStore(made.id);
    await renamed.setRecord({ key: 'kept', value: 'kept' });
    const changed = await renamed.update({ name: 'second-name', title: 'A title' });
    assert.deepEqual([changed.id, changed.name, changed.title], [made.id, 'second-name', 'A title']);
    assert.equal(await client.keyValueStore('~first-name').get(), undefined);
    assert.equal((await client.keyValueStore('~second-name').getRecord('kept')).value, 'kept');
    await fails(renamed.update({ name: 'cases' }), 409, 'name-not-unique');
    await fails(renamed.update({ name: 'no name' }), 400, 'invalid-input');
    assert.equal((await renamed.update({ name: null })).name ?? null, null);
    assert.equal((await renamed.getRecord('kept')).value, 'kept');
    await renamed.delete();
});

await check('signed URLs open what they are for, to anybody', async () => {
    const url = await store.getRecordPublicUrl('OUTPUT');
    // Without being told, the client does not take the public URL for that of the server.
    const untold = new ApifyClient({ ...options, publicBaseUrl: undefined, token: CLIENT_TOKEN });
    assert.match(await untold.keyValueStore(id).getRecordPublicUrl('OUTPUT'), /^https:\/\/api\.apify\.com\/v2\//);
    const opened = await fetch(url);
    assert.equal(opened.status, 200);
    assert.equal(opened.headers.get('content-type'), 'application/json; charset=utf-8');
    assert.equal((await opened.json()).hello, 'world');
    assert.equal((await fetch(url.replace('OUTPUT', 'number'))).status, 403);
    assert.equal((await fetch(url.replace(/\?.*/, ''))).status, 401);
    const keys = await fetch(await store.createKeysPublicUrl({ limit: 2, expiresInSecs: 60 }));
    assert.equal(keys.status, 200);
    assert.equal((await keys.json()).data.items.length, 2);
    assert.equal((await fetch(await store.createKeysPublicUrl({ expiresInSecs: -60 }))).status, 403);
    const listed = await store.listKeys({ limit: 1000 });
    for (const { key, size, recordPublicUrl } of listed.items.slice(0, 5)) {
        assert.equal((await (await fetch(recordPublicUrl)).arrayBuffer()).byteLength, size, key);
    }
    const signature = new URL(url).searchParams.get('signature');
    assert.equal((await other.keyValueStore(id).getRecord('OUTPUT', { signature })).value.hello, 'world');
});

await check('another user gets in only where the owner lets everybody in', async () => {
    const stranger = other.keyValueStore(id);
    // One after the other: a refusal that nobody waits for yet would end the process.
    for (const refused of [() => stranger.get(), () => stranger.getRecord('OUTPUT'), () => stranger.listKeys(),
        () => stranger.recordExists('OUTPUT'), () => stranger.setRecord({ key: 'OUTPUT', value: 1 }),
        () => stranger.deleteRecord('OUTPUT'), () => stranger.update({ title: 'x' }), () => stranger.delete()]) {
        const error = await refused().then(() => assert.fail('it succeeded'), (why) => why);
        assert.equal(error.statusCode, 403);
    }
    const error = await stranger.getRecord('OUTPUT').catch((why) => why);
    assert.equal(error.type, 'insufficient-permissions');
    assert.match(error.message, /^Insufficient permissions for the key-value store\./);
    await store.update({ generalAccess: 'ANYONE_WITH_ID_CAN_READ' });
    assert.equal((await stranger.getRecord('OUTPUT')).value.hello, 'world');
    await fails(stranger.setRecord({ key: 'OUTPUT', value: 1 }), 403, 'insufficient-permissions');
    const open = await fetch(`${CLIENT_URL}/v2/key-value-stores/${id}/records/text-plain`);
    assert.equal(await open.text(), 'line one\nline two\n');
    await store.update({ generalAccess: 'RESTRICTED' });
    await fails(stranger.getRecord('OUTPUT'), 403, 'insufficient-permissions');
    const nobody = new ApifyClient({ ...options });
    await fails(nobody.keyValueStore(id).getRecord('OUTPUT'), 401, 'token-not-provided');
    const wrong = new ApifyClient({ ...options, token: 'apify_api_wrong' });
    await fails(wrong.keyValueStore(id).getRecord('OUTPUT'), 401, 'invalid-token');
});

await check('the store of a run is reached by each of its paths', async () => {
    const run = client.run('storefsRun0000001');
    await run.keyValueStore().setRecord({ key: 'OUTPUT', value: { from: 'run' } });
    const { defaultKeyValueStoreId } = await run.get();
    for (const same of [run.keyValueStore(), client.actor('someone/actor').lastRun().keyValueStore(),
        client.task('someone/task').lastRun({ status: 'SUCCEEDED' }).keyValueStore(), client.keyValueStore(defaultKeyValueStoreId)]) {
        assert.deepEqual((await same.getRecord('OUTPUT')).value, { from: 'run' });
        assert.equal(await same.recordExists('OUTPUT'), true);
        assert.deepEqual((await same.listKeys()).items.map(({ key }) => key), ['OUTPUT']);
    }
});

await check('all records come as one archive', async () => {
    const archive = await fetch(`${CLIENT_URL}/v2/key-value-stores/${id}/records?prefix=text`, { headers: { authorization: `Bearer ${CLIENT_TOKEN}` } });
    assert.equal(archive.headers.get('content-type'), 'application/zip');
    assert.match(await text(Readable.from([Buffer.from(await archive.arrayBuffer()).subarray(0, 2)])), /^PK/);
});
