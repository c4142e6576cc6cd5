// Renews what has changed on a page, and says which runs wait for the viewer. Nothing needs this script.
//
// The server's events (/events) say what has changed. After one that concerns this page, it is fetched again, and its
// elements with `data-live` and an id are replaced where their HTML differs: only the server renders anything.

// English, unless the page has a text of its own, such as <body data-broken="…">.
const texts = {
  broken: "Not live: trying again.",
  store: "Not live: the store does not answer.",
  loggedOut: "You are logged out. Reload the page to log in.",
  notify: "Notify me",
  waits: "A run waits for you",
};
const text = (name) => document.body.dataset[name] ?? texts[name];

// Times in the viewer's zone; the tooltip keeps UTC.
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = time.textContent;
    time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    time.dataset.local = "";
  }
}

// A live region must be there before its text, or it is not announced.
function liveRegion(className) {
  const region = document.createElement("p");
  region.className = className;
  region.setAttribute("role", "status");
  document.body.append(region);
  return region;
}
const statusLine = liveRegion("live-status");
const announcement = liveRegion("unseen");

// What is wrong, in one line.
const troubles = new Map();
function setTrouble(of, name) {
  name ? troubles.set(of, text(name)) : troubles.delete(of);
  const [first = ""] = troubles.values();
  if (statusLine.textContent !== first) statusLine.textContent = first;
}

const LIVE = "[data-live][id]";
const live = () => [...document.querySelectorAll(LIVE)].filter((element) => !element.parentElement.closest(LIVE));
// The HTML as the server sent it, by id: the document's own has local times and opened details.
const served = new Map(live().map((element) => [element.id, element.outerHTML]));
// A page that answers a form stays as it is: it shows what was typed, and why it was refused.
if (document.querySelector("[data-still]")) served.clear();

// The element in `fresh` that stands for `element` in `old`: by id, or else by its place among those like it.
function counterpart(old, fresh, element) {
  if (element === old) return fresh;
  if (element.id) return fresh.querySelector(`#${CSS.escape(element.id)}`);
  const isLike = (other) => ["name", "value", "href"].every((a) => other.getAttribute(a) === element.getAttribute(a));
  const alike = (root) => [...root.querySelectorAll(element.localName)].filter(isLike);
  return alike(fresh)[alike(old).indexOf(element)];
}

// Whether replacing it would lose something typed, or text that is being selected. Then it is renewed later.
function isInUse(element) {
  const selection = getSelection();
  if (selection && !selection.isCollapsed && selection.containsNode(element, true)) return true;
  const isTyped = (field) => field.value !== field.defaultValue && !["checkbox", "radio"].includes(field.type);
  return [...element.querySelectorAll("input, textarea")].some(isTyped);
}

// Replaces an element, and keeps what the person did to it.
function replace(old, fresh) {
  const active = document.activeElement;
  const focused = old.contains(active) && counterpart(old, fresh, active);
  const positions = [];
  for (const was of [old, ...old.querySelectorAll("*")]) {
    const [isOpening, isTicked] = [was.localName === "details", ["checkbox", "radio"].includes(was.type)];
    const { scrollTop, scrollLeft } = was;
    const is = (isOpening || isTicked || scrollTop || scrollLeft) && counterpart(old, fresh, was);
    if (!is) continue;
    if (isOpening) is.open = was.open;
    if (isTicked) is.checked = was.checked;
    positions.push([is, { scrollTop, scrollLeft }]);
  }
  localTimes(fresh);
  old.replaceWith(fresh);
  for (const [element, position] of positions) Object.assign(element, position);
  if (focused) focused.focus({ preventScroll: true });
  // For what other scripts have attached to it.
  fresh.dispatchEvent(new CustomEvent("renewed", { bubbles: true }));
}

// Returns whether an element has to be renewed later.
function renewFrom(page) {
  let isLater = false;
  for (const old of live()) {
    const fresh = page.getElementById(old.id);
    const html = fresh ? fresh.outerHTML : "";
    if (html === served.get(old.id)) continue;
    if (isInUse(old)) isLater = true;
    else {
      served.set(old.id, html);
      fresh ? replace(old, document.adoptNode(fresh)) : old.replaceChildren();
    }
  }
  setTitle(page.title);
  return isLater;
}

// The page is fetched at most four times a second and a quarter of the time, and only while somebody sees it.
const PAUSE_MIN = 250;
const RETRY = 2000;
let isWanted = false;
let isFetching = false;
let timer = 0;
let notBefore = 0;

// A change comes seldom alone: `delay` waits for the others.
function renewSoon(delay = 40) {
  isWanted = true;
  if (document.hidden || isFetching || timer || !served.size) return;
  timer = setTimeout(renew, Math.max(delay, notBefore - performance.now()));
}

async function fetchPage(url) {
  const response = await fetch(url, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(20_000) });
  if (new URL(response.url).pathname === "/login") {
    setTrouble("login", "loggedOut");
    closeStream();
    return;
  }
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

async function renew() {
  [timer, isWanted, isFetching] = [0, false, true];
  const began = performance.now();
  let delay;
  try {
    const page = await fetchPage(location.href);
    if (!page) return;
    if (renewFrom(page)) delay = RETRY;
    setTrouble("page");
    watchRuns();
  } catch {
    setTrouble("page", "broken");
    delay = RETRY;
  } finally {
    isFetching = false;
    notBefore = began + Math.max(PAUSE_MIN, 4 * (performance.now() - began));
  }
  if (delay || isWanted) renewSoon(delay);
}

// What concerns this page: `data-live-events` and `data-live-runs` on any of its elements, or else what its path says.
function concerns() {
  const named = (name) => [...document.querySelectorAll(`[${name}]`)].flatMap((element) =>
    element.getAttribute(name).split(/[\s,]+/).filter(Boolean));
  const path = location.pathname;
  const [, run] = path.match(/^\/runs\/(run_[0-9a-f]{32})$/) ?? [];
  const runs = [...new Set([run, ...named("data-live-runs")])].filter(Boolean).slice(0, 64);
  let events = named("data-live-events");
  if (!events.length) events = path.startsWith("/runs") ? ["run", "freeze"] : ["route", "evidence", "freeze", "files"];
  return new URLSearchParams({
    ...(runs.length && { run: runs.join(",") }),
    events: [...new Set(["waiting", ...(served.size ? events : [])])].join(","),
  });
}

let source, brokenTimer, reopenTimer;
let query = "";
let lastId = "";
// Whether this document notifies for all of the browser: then it also listens while nobody sees it. Others do not: a
// browser has only six connections to a server over HTTP/1.1, and each stream takes one.
let notifies = false;

function openStream() {
  clearTimeout(reopenTimer);
  if (source || (document.hidden && !notifies) || troubles.has("login")) return;
  if (!served.size && !waitingPlace) return;
  query = concerns().toString();
  source = new EventSource(`/events?${query}&after=${encodeURIComponent(lastId)}`);
  const on = (name, act) => source.addEventListener(name, (event) => {
    lastId = event.lastEventId;
    act(event);
  });
  // Something may have changed unseen, as between the rendering of the page and the beginning of the stream.
  on("reset", () => {
    renewSoon();
    renewWaiting();
  });
  on("waiting", renewWaiting);
  on("runs", renewWaiting);
  on("store", (event) => setTrouble("store", JSON.parse(event.data).answers ? "" : "store"));
  for (const name of ["run", "runs", "route", "evidence", "freeze", "files"]) on(name, () => renewSoon());
  source.onopen = () => {
    brokenTimer = clearTimeout(brokenTimer);
    setTrouble("stream");
  };
  source.onerror = () => {
    // A short interruption is not told.
    brokenTimer ||= setTimeout(setTrouble, 1500, "stream", "broken");
    if (source?.readyState !== EventSource.CLOSED) return;
    // The browser gives up after a response such as 429 (too many are open), or 401: then other requests tell why.
    source = null;
    reopenTimer = setTimeout(openStream, 3000);
    renewSoon(RETRY);
    renewWaiting();
  };
}

function closeStream() {
  clearTimeout(reopenTimer);
  brokenTimer = clearTimeout(brokenTimer);
  source = source?.close();
}

// A renewed page may show other runs.
function watchRuns() {
  if (!source || concerns().toString() === query) return;
  closeStream();
  openStream();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && !notifies) closeStream();
  openStream();
  if (isWanted) renewSoon(0);
});

// What waits is told in the title, in words for those who do not see it, and as a notification.
const waitingPlace = document.getElementById("waiting");
let title = document.title;
let waitingCount = "0";
let waitingRuns, waitingTimer;

function setTitle(page) {
  title = page;
  document.title = waitingCount === "0" ? title : `(${waitingCount}) ${title}`;
}

// At most once a second.
function renewWaiting() {
  if (waitingPlace) waitingTimer ||= setTimeout(readWaiting, waitingRuns ? 1000 : 0);
}

async function readWaiting() {
  waitingTimer = 0;
  try {
    const fresh = (await fetchPage("/waiting"))?.getElementById("waiting");
    const old = document.getElementById("waiting");
    if (!fresh || !old) return;
    waitingCount = fresh.dataset.count;
    const runs = [...fresh.querySelectorAll("[data-run]")].map((run) => [run.dataset.run, run.textContent]);
    if (fresh.outerHTML !== old.outerHTML) replace(old, document.adoptNode(fresh));
    setTitle(title);
    const added = waitingRuns && runs.filter(([id]) => !waitingRuns.has(id));
    waitingRuns = new Set(runs.map(([id]) => id));
    if (added?.length) announcement.textContent = `${text("waits")}: ${added.map(([, asks]) => asks).join("; ")}`;
    if (notifies) notifyOf(runs);
  } catch {
    waitingTimer ||= setTimeout(readWaiting, 5000);
  }
}

// For all documents of the browser, also after a reload: the runs that waited when it last notified.
const NOTIFIED = "pointsman-notified";
const remember = (runs) => localStorage.setItem(NOTIFIED, JSON.stringify([...runs]));

function notifyOf(runs) {
  let before;
  try {
    before = JSON.parse(localStorage.getItem(NOTIFIED)) ?? [];
    remember(waitingRuns);
  } catch {
    return; // Without a memory, the same runs would be notified of again and again.
  }
  for (const [id, asks] of runs.filter(([run]) => !before.includes(run)).slice(0, 5)) {
    new Notification(text("waits"), { body: asks, tag: id }).onclick = () => {
      window.focus();
      location.assign(`/runs/${id}`);
    };
  }
}

// One document notifies at a time; when it is closed, the next one does.
function takeTurn() {
  navigator.locks.request("pointsman-notices", () => {
    notifies = true;
    openStream();
    renewWaiting();
    return new Promise(() => {});
  });
}

function offerNotifications() {
  // Without https, neither is there.
  if (!window.Notification || !navigator.locks) return;
  if (Notification.permission === "granted") takeTurn();
  if (Notification.permission !== "default") return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "notify";
  button.textContent = text("notify");
  button.addEventListener("click", async () => {
    const answer = await Notification.requestPermission();
    // After "no" the browser does not ask again: the button would do nothing.
    if (answer !== "default") button.remove();
    if (answer !== "granted") return;
    remember(waitingRuns ?? []); // They are on the page.
    takeTurn();
  });
  document.getElementById("waiting").after(button);
}

localTimes(document);
if (waitingPlace) offerNotifications();
openStream();
