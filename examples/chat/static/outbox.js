// What was written here and is not stored yet. Each message has a key; it is sent, one after the other, until
// the server says that it is stored, always with the same key: so it is stored once, however often it was sent.
// It outlives a reload of the page.

const TIMEOUT_MS = 10_000;
const RETRY_MS = 4_000; // besides: at once when the stream is open again

export class Outbox {
  #busy = false;
  #timer = 0;

  // `changed()` is told of every change; `refused(message, why)` of one that the server will never take.
  constructor({ changed, refused }) {
    this.changed = changed;
    this.refused = refused;
    this.messages = JSON.parse(sessionStorage.getItem("outbox") ?? "[]");
  }

  add(user, text) {
    this.messages.push({ key: newKey(), user, text, state: "sending" });
    this.#save();
    this.flush();
  }

  // Its own stream brought the message, or the server took it.
  remove(key) {
    const left = this.messages.filter((message) => message.key !== key);
    if (left.length === this.messages.length) return;
    this.messages = left;
    this.#save();
  }

  async flush() {
    if (this.#busy) return;
    this.#busy = true;
    clearTimeout(this.#timer);
    while (this.messages.length) {
      const message = this.messages[0];
      const answer = await post(message);
      if (answer.stored) this.remove(message.key);
      else if (answer.final) {
        this.remove(message.key);
        this.refused(message, answer.why);
      } else {
        for (const each of this.messages) each.state = "waiting";
        this.#save();
        this.#timer = setTimeout(() => this.flush(), RETRY_MS);
        break;
      }
    }
    this.#busy = false;
  }

  #save() {
    sessionStorage.setItem("outbox", JSON.stringify(this.messages));
    this.changed();
  }
}

async function post({ user, text, key }) {
  try {
    const response = await fetch("say", {
      method: "POST",
      body: new URLSearchParams({ user, text, key }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const final = response.status >= 400 && response.status < 500 && ![408, 425, 429].includes(response.status);
    return { stored: response.ok, final, why: final ? await response.text() : "" };
  } catch {
    return { stored: false, final: false }; // no answer: the message may be stored or not, and the key makes that safe
  }
}

// crypto.randomUUID exists on https and localhost only.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
