// Measures how many records per second the JavaScript SDK writes with Actor.setValue, one after the other, into a local
// storage folder. Prints the rate.
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
const seconds = (performance.now() - started) / 1000;
const stored = await Actor.getValue(`rec-${count - 1}`);
if (stored?.value !== value.value) throw new Error('the last record did not come back');
console.log((count / seconds).toFixed(1));
process.exit(0);
