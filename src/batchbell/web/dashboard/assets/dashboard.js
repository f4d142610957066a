// The pages work without this. With it they follow the database, copy ids and say times as people do.
"use strict";

const live = document.getElementById("live");
const AGAIN_MS = 5000;
const SILENCE_MS = 45000; // three heartbeats
// A browser has six connections to a server. Pages in sight keep so many; the others look at times.
const KEPT = 4;
const LOOK_MS = 10000;
let stream = null;
let giveBack = null; // the place among those that keep a connection
let isAsking = false;
let timer = null;
let heardAt = 0;

document.documentElement.classList.add("has-script");

// The answer to a form: to load it again is to ask for its page, and not to send the form again.
const page = document.body.dataset.page;
if (page) history.replaceState(null, "", page);

// --- times -----------------------------------------------------------------------------------

let aheadMs = 0; // the clock here of the server's

function apart(seconds) {
  const away = Math.abs(seconds);
  if (away < 5) return "just now";
  const [unit, size] =
    away < 60 ? ["s", 1] : away < 3600 ? ["min", 60] : away < 172800 ? ["h", 3600] : ["days", 86400];
  const said = `${Math.round(away / size)} ${unit}`;
  return seconds >= 0 ? `${said} ago` : `in ${said}`;
}

function tellTimes(within) {
  for (const one of within.querySelectorAll("time[datetime]")) {
    const says = apart((Date.now() - aheadMs - Date.parse(one.dateTime)) / 1000);
    if (one.textContent !== says) one.textContent = says;
  }
}

// --- live ------------------------------------------------------------------------------------

// Make `old` like `young` and leave alone what is alike: focus, what is opened and typed stays.
function morph(old, young) {
  if (old.nodeType !== young.nodeType || old.nodeName !== young.nodeName) {
    old.replaceWith(young.cloneNode(true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== young.nodeValue) old.nodeValue = young.nodeValue;
    return;
  }
  if (old.isEqualNode(young)) return;
  const isTime = old.nodeName === "TIME" && old.getAttribute("datetime") === young.getAttribute("datetime");
  if (isTime || (old === document.activeElement && "value" in old)) return;
  for (const { name } of [...old.attributes]) {
    const keeps = name === "open" && old.nodeName === "DETAILS";
    if (!young.hasAttribute(name) && !keeps) old.removeAttribute(name);
  }
  for (const { name, value } of young.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, young);
}

function morphChildren(old, young) {
  const named = new Map([...old.children].filter((one) => one.id).map((one) => [one.id, one]));
  let at = old.firstChild;
  for (const next of [...young.childNodes]) {
    const same = next.id ? named.get(next.id) : null;
    if (same) {
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      morph(same, next);
    } else if (next.id || !at || at.id) {
      old.insertBefore(next.cloneNode(true), at);
    } else {
      const after = at.nextSibling;
      morph(at, next);
      at = after;
    }
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

function say(state, words) {
  const shown = document.querySelector(".live");
  if (!shown || (shown.dataset.state === state && shown.textContent === words)) return;
  shown.dataset.state = state;
  shown.querySelector(".live-says").textContent = words;
  const stale = state === "away" ? `${words}. What is shown may be old.` : "";
  document.getElementById("stale").textContent = stale;
}

function follow() {
  clearTimeout(timer);
  if (stream || !live || document.hidden) return;
  stream = new EventSource(location.href);
  heardAt = Date.now();
  stream.addEventListener("clock", (event) => {
    heard();
    aheadMs = Date.now() - 1000 * JSON.parse(event.data);
  });
  stream.addEventListener("version", (event) => {
    heard();
    if (JSON.parse(event.data) !== document.body.dataset.version) loadAgain();
  });
  stream.addEventListener("page", (event) => {
    heard();
    const young = document.createElement("div");
    young.append(...new DOMParser().parseFromString(JSON.parse(event.data), "text/html").body.childNodes);
    morphChildren(live, young);
    tellTimes(live);
    say("on", "Live");
    keepOrLeave();
  });
  stream.addEventListener("away", () => {
    heard();
    say("away", "The database does not answer");
  });
  stream.addEventListener("over", loadAgain);
  stream.addEventListener("error", () => {
    say("away", "Reconnecting");
    if (stream && stream.readyState === EventSource.CLOSED) {
      leave();
      timer = setTimeout(lookAgain, AGAIN_MS);
    }
  });
}

// What is shown this once stays until whoever reads it goes on.
function loadAgain() {
  leave();
  if (document.querySelector(".secret")) say("off", "Not live");
  else location.reload();
}

async function keepOrLeave() {
  if (giveBack || isAsking || !navigator.locks) return;
  isAsking = true;
  for (let at = 0; at < KEPT && !giveBack; at++) await ask(at);
  isAsking = false;
  if (giveBack && stream) return;
  leave();
  timer = setTimeout(follow, LOOK_MS);
}

function ask(at) {
  return new Promise((answered) => {
    navigator.locks.request(`batchbell-stream-${at}`, { ifAvailable: true }, (place) => {
      answered();
      return place && new Promise((resolve) => (giveBack = resolve));
    });
  });
}

function heard() {
  heardAt = Date.now();
}

// A network may lose a connection without a word, and a server may hang.
function checkSilence() {
  if (!stream || Date.now() - heardAt < SILENCE_MS) return;
  say("away", "Reconnecting");
  leave();
  follow();
}

function leave() {
  if (stream) stream.close();
  if (giveBack) giveBack();
  stream = giveBack = null;
}

// The stream was refused: the server is away, or wants to know again who looks.
async function lookAgain() {
  try {
    const answer = await fetch(location.href, { redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 404) return loadAgain();
  } catch {
    // it is away still
  }
  follow();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) leave();
  else follow();
});
window.addEventListener("pagehide", leave);
// What is asked for next needs a connection, before this page is gone.
window.addEventListener("beforeunload", () => {
  leave();
  clearTimeout(timer);
  timer = setTimeout(follow, AGAIN_MS); // it was a download
});
window.addEventListener("pageshow", follow);

// --- small things ----------------------------------------------------------------------------

async function copy(button) {
  const then = document.getElementById(button.dataset.then);
  const text = button.dataset.copy + (then ? then.textContent : "");
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // where there is no https
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.classList.add("copied");
  document.getElementById("said").textContent = "Copied";
  setTimeout(() => button.classList.remove("copied"), 1200);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
  const menu = event.target.closest(".menu");
  if (menu) {
    const open = document.getElementById("menu").classList.toggle("open");
    menu.setAttribute("aria-expanded", String(open));
  }
  for (const one of document.querySelectorAll("details.sure[open]")) {
    if (!one.contains(event.target)) one.open = false;
  }
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    const open = document.querySelector("details.sure[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  }
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    const search = document.querySelector("[data-slash]");
    if (search) {
      event.preventDefault();
      search.focus();
    }
  }
});

setInterval(() => tellTimes(document), 15000);
setInterval(checkSilence, AGAIN_MS);
follow();
