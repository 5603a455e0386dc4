// A process that uses the JS SDK as an Actor would, driven line by line.
//
// Each line on stdin is one JSON request, each line on stdout its answer: {"ok": ...} or {"error": "..."}.
// The first line written is {"ready": true}. It ends when stdin ends. py.py speaks the same language.
import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';

const require = createRequire(path.join(process.env.STOREFS_TEST_TOOLS, 'js', 'x.js'));
// Only answers may be written to stdout; whatever the SDK logs goes to stderr.
const answer = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
for (const name of ['log', 'info', 'debug', 'warn', 'error']) console[name] = (...text) => process.stderr.write(`${text.join(' ')}\n`);

const { Actor } = require('apify');

// What the SDK hands out, in a form that keeps strings and bytes apart.
const shown = (value) => {
    if (value === null || value === undefined) return { kind: 'none' };
    if (Buffer.isBuffer(value)) return { kind: 'bytes', hex: value.toString('hex') };
    if (typeof value === 'string') return { kind: 'text', hex: Buffer.from(value).toString('hex') };
    return { kind: 'json', json: value };
};

const operations = {
    async list({ store }) {
        const keys = [];
        await (await Actor.openKeyValueStore(store)).forEachKey((key) => { keys.push(key); });
        return keys;
    },
    async get({ store, key }) {
        const opened = await Actor.openKeyValueStore(store);
        // The type and the bytes as stored; getValue() gives neither.
        const record = await opened.client.getRecord(key, { buffer: true });
        if (!record) return null;
        return { type: record.contentType, raw: record.value.toString('hex'), value: shown(await opened.getValue(key)) };
    },
    async set({ store, key, json, hex, type }) {
        const opened = await Actor.openKeyValueStore(store);
        if (hex === undefined) await opened.setValue(key, json);
        else await opened.setValue(key, Buffer.from(hex, 'hex'), { contentType: type });
    },
    async delete({ store, key }) {
        await (await Actor.openKeyValueStore(store)).setValue(key, null);
    },
    async exists({ store, key }) {
        return (await Actor.openKeyValueStore(store)).recordExists(key);
    },
    async url({ store, key }) {
        return (await Actor.openKeyValueStore(store)).getPublicUrl(key);
    },
    async drop({ store }) {
        await (await Actor.openKeyValueStore(store)).drop();
    },
    async input() {
        return shown(await Actor.getInput());
    },
};

await Actor.init();
answer({ ready: true });
for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    try {
        answer({ ok: (await operations[request.op](request)) ?? null });
    } catch (error) {
        answer({ error: `${error.message}` });
    }
}
await Actor.exit({ exit: false });
process.exit(0);
