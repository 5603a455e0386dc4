// Measures how many records per second the JavaScript SDK writes with Actor.setValue and then reads with Actor.getValue,
// one after the other, in a local storage folder or where APIFY_IS_AT_HOME leads. Prints the two rates, each on a line.
//
//   CRAWLEE_STORAGE_DIR=FOLDER node sdk-set.mjs NODE_MODULES COUNT
import { createRequire } from 'node:module';
import path from 'node:path';

const [modules, count] = [process.argv[2], Number(process.argv[3])];
const quiet = { CRAWLEE_PURGE_ON_START: '0', APIFY_PURGE_ON_START: '0', APIFY_LOG_LEVEL: 'ERROR', CRAWLEE_LOG_LEVEL: 'ERROR' };
Object.assign(process.env, quiet);
const { Actor } = createRequire(path.join(modules, 'any.js'))('apify');
await Actor.init();
// As large as the records of kv.c: 1 KiB of JSON as the SDK formats it.
const value = { value: 'x'.repeat(1024 - JSON.stringify({ value: '' }, null, 2).length) };
const started = performance.now();
for (let n = 0; n < count; n += 1) await Actor.setValue(`rec-${n}`, value);
const written = performance.now();
for (let n = 0; n < count; n += 1) {
    const stored = await Actor.getValue(`rec-${n}`);
    if (stored?.value !== value.value) throw new Error('a record did not come back');
}
const read = performance.now();
for (const took of [written - started, read - written]) console.log(((count * 1000) / took).toFixed(1));
process.exit(0);
