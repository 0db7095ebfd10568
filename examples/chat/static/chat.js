// The page: one EventSource in, one form out. What it shows came through the log, so all pages show the same.
import { Outbox } from "./outbox.js";
import { People } from "./people.js";

const $ = (selector, root = document) => root.querySelector(selector);
const messages = $("#messages");
const scroll = $("#scroll");

// ---- The stream -----------------------------------------------------------------------------------------

const SILENCE_MS = 40_000; // the server speaks every 15 s: after this the connection is dead, unnoticed
const REOPEN_MS = 3_000;
const GAP_WORDS = {
  expired: "Some messages are missing here: they were older than the server keeps, and it no longer has them.",
  epoch: "Some messages may be missing here: the server has begun a new log and no longer has the old one.",
  ahead: "Some messages may be missing here: the server's log went back to an earlier state and no longer has them.",
  malformed: "Some messages may be missing here: the server could not tell where this page had stopped reading.",
};
const STATE_WORDS = {
  connecting: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
  closed: "Closed",
};

let source = null;
let position = ""; // the last event id: where this page is in the log
let heardAt = 0;
let reopening = 0;

function connect() {
  source?.close();
  clearTimeout(reopening);
  const query = new URLSearchParams();
  if (me) query.set("user", me);
  if (position) query.set("last_event_id", position); // EventSource sends it by itself only when it comes back
  source = new EventSource(`events?${query}`);
  source.onopen = () => {
    heard();
    setState("connected");
    outbox.flush();
  };
  source.onerror = () => {
    if (state === "closed") return;
    setState(state === "connecting" ? "connecting" : "reconnecting");
    // A refusal (a proxy without its server, a server without room) ends an EventSource for good: open another.
    if (source.readyState === EventSource.CLOSED) reopening = setTimeout(reopen, REOPEN_MS);
  };
  source.onmessage = (event) => {
    heard(event);
    showMessage(event);
  };
  on("penstock.position", () => {});
  on("presence", (event) => {
    people.fold(JSON.parse(event.data));
    showPeopleSoon();
  });
  on("penstock.gap", (event) => showGap(JSON.parse(event.data).reason));
  on("penstock.error", () => setState("reconnecting")); // the server could not go on, and ends the stream
  on("penstock.end", (event) => {
    if (JSON.parse(event.data).channel === "chat") closeRoom();
  });
}

function on(type, listener) {
  source.addEventListener(type, (event) => {
    heard(event);
    listener(event);
  });
}

function heard(event) {
  heardAt = Date.now();
  if (event?.lastEventId) position = event.lastEventId;
}

// 204 means that the room has ended. EventSource does not tell the status, so it is asked for.
async function reopen() {
  const question = new AbortController();
  const query = new URLSearchParams({ last_event_id: position });
  const answer = await fetch(`events?${query}`, { signal: question.signal }).catch(() => null);
  question.abort();
  if (answer?.status === 204) closeRoom();
  else connect();
}

function closeRoom() {
  source.close();
  setState("closed");
  append(notice("closed", "This room was closed. Thank you for coming."));
  $("#say").inert = true;
  $("#text").placeholder = "This room is closed";
}

setInterval(() => {
  if (state === "connected" && Date.now() - heardAt > SILENCE_MS) {
    setState("reconnecting");
    connect();
  }
  showPeople();
}, 1_000);

let state = "connecting";
function setState(next) {
  state = next;
  $("#state").dataset.state = next;
  $("#state .words").textContent = STATE_WORDS[next];
  document.body.dataset.state = next;
  showPeople();
}

// ---- Messages -------------------------------------------------------------------------------------------

const GROUP_S = 300; // messages of one person within this time stand together
const MOST_SHOWN = 1_000;
const SENDING_WORDS = { sending: "Sending…", waiting: "Not sent yet, will retry" };
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

function showMessage({ data, lastEventId }) {
  if ($(`.message[data-id="${CSS.escape(lastEventId)}"]`, messages)) return;
  const message = parse(data);
  const day = message.at && calendar.format(message.at * 1000);
  if (day && day !== showMessage.day) {
    append(notice("day", day === calendar.format(Date.now()) ? "Today" : day));
    showMessage.day = day;
  }
  const item = bubble(message);
  item.dataset.id = lastEventId;
  const wasWaiting = outbox.messages.some(({ key }) => key === message.key);
  item.classList.toggle("fresh", !busy && !wasWaiting);
  append(item);
  if (wasWaiting) outbox.remove(message.key);
  else if (!busy) countUnread();
}

// Anybody may publish to the channel, `penstock publish` for one: what is not ours is shown as it is.
function parse(data) {
  try {
    const { user, text, at, key } = JSON.parse(data);
    if (typeof text === "string") return { user: String(user ?? "Somebody"), text, at: Number(at) || 0, key };
  } catch {
    // not JSON
  }
  return { user: "Somebody", text: data, at: 0 };
}

function bubble({ user, text, at, state: sending }) {
  const item = element("li", "message");
  item.dataset.user = user;
  item.dataset.at = at ?? "";
  item.classList.toggle("mine", user === me);
  const head = element("p", "head");
  head.append(element("span", "user", user));
  if (at) {
    const time = element("time", "time", clock.format(at * 1000));
    time.dateTime = new Date(at * 1000).toISOString();
    head.append(" ", time);
    item.title = `${calendar.format(at * 1000)}, ${time.textContent}`;
  }
  const words = element("div", "words");
  words.style.setProperty("--hue", hue(user));
  words.append(head, element("p", "text", text));
  if (sending) words.append(element("p", "sending", SENDING_WORDS[sending]));
  item.append(avatar(user), words);
  return item;
}

function append(item) {
  const atEnd = isAtEnd();
  const previous = messages.lastElementChild;
  item.classList.toggle(
    "follows",
    Boolean(previous?.dataset.id) &&
      previous.dataset.user === item.dataset.user &&
      Math.abs(item.dataset.at - previous.dataset.at) < GROUP_S,
  );
  messages.append(item);
  while (messages.childElementCount > MOST_SHOWN) messages.firstElementChild.remove();
  $("#empty").hidden = true;
  if (atEnd) toEnd();
  restSoon();
}

function showGap(reason) {
  const item = notice("gap", GAP_WORDS[reason] ?? "Some messages are missing here: the server no longer has them.");
  item.dataset.reason = reason;
  append(item);
}

function notice(kind, words) {
  const item = element("li", kind);
  item.append(element("span", "", words));
  return item;
}

function showWaiting() {
  const atEnd = isAtEnd();
  $("#waiting").replaceChildren(
    ...outbox.messages.map((message) => {
      const item = bubble(message);
      item.classList.add("pending", "mine");
      item.dataset.state = message.state;
      return item;
    }),
  );
  if (atEnd) toEnd();
}

// While the history comes in, screen readers are not to read it all out.
let busy = true;
let resting = 0;
function restSoon() {
  clearTimeout(resting);
  resting = setTimeout(() => {
    busy = false;
    messages.ariaBusy = "false";
    $("#empty").hidden = messages.childElementCount > 0;
  }, 400);
}

// ---- Scrolling: the page follows the talk until its reader scrolls up ------------------------------------

let unread = 0;

function isAtEnd() {
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
}

function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
}

function countUnread() {
  if (isAtEnd() && !document.hidden) return;
  unread += 1;
  showUnread();
}

function showUnread() {
  $("#newer").hidden = unread === 0 || isAtEnd();
  $("#newer").textContent = unread === 1 ? "1 new message" : `${unread} new messages`;
  document.title = unread && document.hidden ? `(${unread}) Penstock chat` : "Penstock chat";
}

function read() {
  if (isAtEnd() && !document.hidden) unread = 0;
  showUnread();
}

scroll.addEventListener("scroll", read, { passive: true });
document.addEventListener("visibilitychange", read);
$("#newer").addEventListener("click", () => {
  toEnd();
  $("#text").focus();
});
let wasAtEnd = true;
scroll.addEventListener("scroll", () => (wasAtEnd = isAtEnd()), { passive: true });
new ResizeObserver(() => wasAtEnd && toEnd()).observe(scroll); // a phone's keyboard comes up

// ---- People ---------------------------------------------------------------------------------------------

const people = new People();
let showing = 0;

function showPeopleSoon() {
  clearTimeout(showing);
  showing = setTimeout(showPeople, 200);
}

function showPeople() {
  // Without a connection nobody can tell how the others are: they stay as last seen, and look it.
  const list = state === "connected" ? people.list() : (showPeople.last ?? []);
  showPeople.last = list;
  const shown = list.filter(({ user }) => user !== me);
  if (me) shown.unshift({ user: me, state });
  $("#count").textContent = shown.length || "";
  const signature = JSON.stringify(shown);
  if (signature === showPeople.signature) return;
  showPeople.signature = signature;
  $("#people").replaceChildren(
    ...shown.map(({ user, state }) => {
      const item = element("li");
      item.dataset.user = user;
      item.dataset.state = state;
      const words = element("span", "who", user);
      if (user === me) words.append(element("span", "you", " (you)"));
      item.append(avatar(user), words, element("span", "how", STATE_WORDS[state]));
      return item;
    }),
  );
}

function avatar(user) {
  const face = element("span", "avatar", [...user.trim()][0]?.toUpperCase() ?? "?");
  face.ariaHidden = "true";
  face.classList.toggle("nobody", !user.trim());
  face.style.setProperty("--hue", hue(user));
  return face;
}

// The same colour for the same name, on every page.
function hue(name) {
  let hash = 0x811c9dc5; // FNV-1a
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193) >>> 0;
  return Math.round((hash % 4096) * 137.508) % 360; // the golden angle parts what is alike
}

// ---- Name and words --------------------------------------------------------------------------------------

let me = localStorage.getItem("user") ?? "";
const outbox = new Outbox({
  changed: showWaiting,
  refused({ text }, why) {
    $("#problem").textContent = `Not sent. ${why}`;
    if (!$("#text").value) $("#text").value = text;
  },
});

function askName(asking) {
  $("#name").hidden = !asking;
  $("#say").hidden = asking;
  $("#keep").hidden = !me;
  $("#user").value = me;
  $("#name button[type=submit]").textContent = me ? "Change" : "Join";
  $("#me .avatar").replaceWith(avatar(me));
  previewName();
  $(asking ? "#user" : "#text").focus({ preventScroll: true });
}

function previewName() {
  const face = avatar($("#user").value);
  face.classList.add("large");
  $("#name .avatar").replaceWith(face);
}

$("#user").addEventListener("input", previewName);
$("#me").addEventListener("click", () => askName(true));
$("#keep").addEventListener("click", () => askName(false));
$("#name").addEventListener("keydown", (event) => event.key === "Escape" && me && askName(false));
$("#name").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("#user").value.trim();
  if (!name) return;
  const changed = name !== me;
  me = name;
  localStorage.setItem("user", me);
  askName(false);
  if (!changed) return;
  for (const item of messages.children) item.classList.toggle("mine", item.dataset.user === me);
  showPeople();
  connect();
});

$("#say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("#text").value.trim();
  if (!text) return;
  $("#problem").textContent = "";
  outbox.add(me, text);
  $("#text").value = "";
  toEnd();
});

function element(tag, className = "", words = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = words; // never as HTML
  return made;
}

askName(!me);
showWaiting();
restSoon();
connect();
