// node:http as it is: without a handler for any signal.
import { server } from '../node/app.mjs';

server.listen(Number(process.argv[2]), '127.0.0.1');
