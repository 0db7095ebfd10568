// Who is here, folded from the rolls that the server's processes publish (see presence.py).
// All times are the server's, so that a page whose clock is wrong, or that replays old rolls, gets it right.

const ANSWER_S = 3; // a process that lives confirms its roll within this time after a call
const FORGET_S = 20; // so long a name that is no longer confirmed is shown as reconnecting

export class People {
  #rolls = new Map(); // process → {names, doubted: time of the first call it has not answered, or null}
  #lastSeen = new Map(); // name → time of the last roll that spoke for it
  #now = { server: 0, here: 0 };

  fold({ process, names, call, at }) {
    this.#now = { server: at, here: Date.now() / 1000 };
    const before = this.#rolls.get(process)?.names ?? [];
    this.#rolls.set(process, { names, doubted: null });
    for (const name of [...before, ...names]) this.#lastSeen.set(name, at);
    if (!call) return;
    for (const [other, roll] of this.#rolls) if (other !== process) roll.doubted ??= at;
  }

  // Everybody to be shown, by name: [{user, state: "connected" | "reconnecting"}].
  list() {
    const now = this.#now.server + Date.now() / 1000 - this.#now.here;
    for (const [process, { names, doubted }] of this.#rolls) {
      if (doubted === null || now < doubted + ANSWER_S) continue;
      for (const name of names) this.#lastSeen.set(name, Math.max(this.#lastSeen.get(name), doubted));
      this.#rolls.delete(process);
    }
    const connected = new Set([...this.#rolls.values()].flatMap(({ names }) => names));
    const people = [];
    for (const [user, seen] of this.#lastSeen) {
      if (connected.has(user)) people.push({ user, state: "connected" });
      else if (now < seen + FORGET_S) people.push({ user, state: "reconnecting" });
      else this.#lastSeen.delete(user);
    }
    return people.sort((a, b) => a.user.localeCompare(b.user));
  }
}
