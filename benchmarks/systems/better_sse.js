// node better_sse.js FOLDER PORT: better-sse is taken from the node_modules of the folder.
const http = require("node:http");
const { createRequire } = require("node:module");

const [folder, port] = process.argv.slice(2);
const { createChannel, createSession } = createRequire(`${folder}/`)("better-sse");
const bench = createChannel();

const server = http.createServer(async (request, response) => {
  if (request.method === "GET" && request.url === "/stream") {
    bench.register(await createSession(request, response));
  } else if (request.method === "POST" && request.url === "/pub") {
    let body = "";
    request.setEncoding("utf8");
    for await (const part of request) body += part;
    bench.broadcast(body, "message");
    response.writeHead(204).end();
  } else {
    response.writeHead(404).end();
  }
});
server.keepAliveTimeout = 3_600_000;
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
