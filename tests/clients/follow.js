// Follows a stream with the npm package `eventsource`, and writes all that it is told, a line of JSON each.
//
//     node follow.js URL [EVENT TYPE...]
import { EventSource } from "eventsource";

const [url, ...types] = process.argv.slice(2);
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const source = new EventSource(url);
source.addEventListener("open", () => tell({ kind: "open" }));
source.addEventListener("error", ({ code }) => {
  const closed = source.readyState === EventSource.CLOSED;
  tell({ kind: closed ? "closed" : "lost", code });
});
for (const type of ["message", "penstock.position", "penstock.gap", "penstock.end", "penstock.error", ...types]) {
  source.addEventListener(type, ({ data, lastEventId }) => tell({ kind: "event", type, data, id: lastEventId }));
}
