// The application of both peers of node:http; how it stops is theirs.
import { createServer } from 'node:http';
import { pipeline, Readable } from 'node:stream';
import { setTimeout as wait } from 'node:timers/promises';

const CHUNK = Buffer.alloc(64 * 1024, 'x');

export const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://peer');
  switch (`${request.method} ${pathname}`) {
    case 'GET /':
    case 'GET /fast':
      return response.end('ok');
    case 'GET /slow':
      await wait(Number(searchParams.get('ms')));
      return response.end('ok');
    case 'GET /big':
      return big(response, Number(searchParams.get('mib')));
    case 'GET /events':
      return events(response, searchParams);
    case 'POST /upload':
      return upload(request, response);
    default:
      response.statusCode = 404;
      return response.end('not found');
  }
});

function big(response, mib) {
  response.setHeader('Content-Length', mib * 2 ** 20);
  const chunks = function* () {
    for (let left = mib * 2 ** 20; left > 0; left -= CHUNK.length) yield CHUNK;
  };
  // A client that goes away ends the pipeline, which is all there is to do about it.
  pipeline(Readable.from(chunks()), response, () => {});
}

function events(response, query) {
  response.setHeader('Content-Type', 'text/event-stream');
  // Without a count there is no end.
  let left = Number(query.get('count') ?? Infinity);
  const timer = setInterval(() => {
    response.write('data: more\n\n');
    if (--left === 0) response.end();
  }, Number(query.get('gap') ?? 20));
  response.on('close', () => clearInterval(timer));
}

function upload(request, response) {
  let bytes = 0;
  request.on('data', (chunk) => (bytes += chunk.length));
  request.on('end', () => response.end(`got ${bytes}`));
}
