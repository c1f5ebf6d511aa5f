// node:http, stopped by server.close() as Node's documentation describes it.
import { server } from './app.mjs';

server.listen(Number(process.argv[2]), '127.0.0.1');

process.on('SIGTERM', () => server.close());
process.on('SIGINT', () => server.close());
