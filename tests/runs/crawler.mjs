// A crawler as people write one, without a word of storefs: it crawls two pages of a server on this machine and stores a record
// for each. The second page is served only when the file that GO names is there, so that there is time to look at the first.
import { createRequire } from 'node:module';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';

const require = createRequire(path.join(process.env.STOREFS_TEST_TOOLS, 'js', 'x.js'));
const { CheerioCrawler, KeyValueStore } = require('crawlee');
// As an Actor, when it is called so.
const Actor = process.argv[2] === 'actor' ? require('apify').Actor : null;

const server = http.createServer(async (request, response) => {
    while (request.url === '/two' && !fs.existsSync(process.env.GO)) await new Promise((done) => setTimeout(done, 20));
    response.setHeader('content-type', 'text/html');
    response.end(request.url === '/' ? '<title>one</title><a href="/two">two</a>' : '<title>two</title>');
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

await Actor?.init();
const input = Actor ? await Actor.getInput() : await KeyValueStore.getInput();
const results = await KeyValueStore.open('crawled-pages');
const crawler = new CheerioCrawler({
    async requestHandler({ request, $, body, enqueueLinks }) {
        const title = $('title').text();
        await KeyValueStore.setValue(title, { path: new URL(request.url).pathname, of: input.name });
        await results.setValue(title, body, { contentType: 'text/html' });
        await enqueueLinks();
    },
});
await crawler.run([`http://127.0.0.1:${server.address().port}/`]);
server.close();
await Actor?.exit({ exit: false });
