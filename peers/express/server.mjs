// Express, stopped as "Health checks and graceful shutdown" of its documentation does it: at SIGTERM
// by server.close(). The page's example has no handler for SIGINT, so Node ends it there.
// With `default` behind the port it is Express as its "Hello world" has it, which has no handler at all.
import { pipeline, Readable } from 'node:stream';
import { setTimeout as wait } from 'node:timers/promises';

import express from 'express';

const CHUNK = Buffer.alloc(64 * 1024, 'x');

const app = express();

app.get(['/', '/fast'], (request, response) => {
  response.send('ok');
});

app.get('/slow', async (request, response) => {
  await wait(Number(request.query.ms));
  response.send('ok');
});

app.get('/big', (request, response) => {
  const length = Number(request.query.mib) * 2 ** 20;
  const chunks = function* () {
    for (let left = length; left > 0; left -= CHUNK.length) yield CHUNK;
  };
  response.set('Content-Length', length);
  // A client that goes away ends the pipeline, which is all there is to do about it.
  pipeline(Readable.from(chunks()), response, () => {});
});

app.get('/events', (request, response) => {
  response.set('Content-Type', 'text/event-stream');
  const timer = setInterval(() => response.write('data: more\n\n'), 20);
  response.on('close', () => clearInterval(timer));
});

app.post('/upload', (request, response) => {
  let bytes = 0;
  request.on('data', (chunk) => (bytes += chunk.length));
  request.on('end', () => response.send(`got ${bytes}`));
});

const server = app.listen(Number(process.argv[2]), '127.0.0.1');

if (process.argv[3] !== 'default') process.on('SIGTERM', () => server.close());
