// The frame: signing in and out, areas, and which view stands where the address says.

import { signIn, signOut, whoAmI } from "./api.js";
import { browse } from "./browse.js";
import { buckets } from "./buckets.js";
import { attempt, field } from "./dialogs.js";
import { addressOf, h } from "./dom.js";
import { drives } from "./drives.js";
import { overview } from "./overview.js";
import { settings } from "./settings.js";
import { shares } from "./shares.js";
import { user, users } from "./users.js";

// Where: shown in the navigation under `name`; `root`: only for the administrator; `under`: whose entry is marked.
const VIEWS = {
  overview: { name: "Overview", show: overview, root: true },
  buckets: { name: "Buckets", show: buckets },
  browse: { under: "buckets", show: browse },
  settings: { under: "buckets", show: settings },
  shares: { name: "Shares", show: shares },
  users: { name: "Users", show: users, root: true },
  user: { under: "users", show: user, root: true },
  drives: { name: "Drives", show: drives, root: true },
};

const byId = (id) => document.getElementById(id);
let session = null;
let shown = 0;
let leave = () => {};

function placeNow() {
  let parts;
  try {
    parts = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  } catch {
    parts = [""];
  }
  const view = VIEWS[parts[0]];
  const home = session.is_root ? "overview" : "buckets";
  return view && (!view.root || session.is_root) ? { at: parts[0], args: parts.slice(1) } : { at: home, args: [] };
}

async function show() {
  const { at, args } = placeNow();
  const turn = (shown += 1);
  leave();
  const stops = [];
  leave = () => stops.splice(0).forEach((stop) => stop());
  const context = { session, args, go: (...parts) => (location.hash = addressOf(...parts)), again: show, onLeave: (stop) => stops.push(stop) };
  const marked = VIEWS[at].under ?? at;
  for (const link of byId("nav").children) {
    if (link.dataset.at === marked) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  let content;
  try {
    content = await VIEWS[at].show(context);
  } catch (error) {
    if (error.status === 401) return;
    content = [h("h1", {}, VIEWS[marked].name), h("p", { class: "empty" }, error.message)];
  }
  if (turn !== shown) {
    stops.forEach((stop) => stop());
    return;
  }
  byId("main").replaceChildren(...[content].flat());
  document.title = `${byId("main").querySelector("h1")?.textContent ?? "Console"} · Trove`;
}

async function move() {
  if (!session) return;
  await show();
  byId("main").focus();
  scrollTo(0, 0);
}

function enter(found) {
  session = found;
  byId("door").replaceChildren();
  byId("shell").hidden = false;
  byId("who").replaceChildren(h("span", {}, "Signed in as "), h("strong", {}, session.user));
  const views = Object.entries(VIEWS).filter(([, view]) => view.name && (!view.root || session.is_root));
  byId("nav").replaceChildren(...views.map(([at, view]) => h("a", { href: addressOf(at), "data-at": at }, view.name)));
  show();
}

function askWho() {
  if (!session && byId("door").firstChild) return;
  session = null;
  shown += 1;
  leave();
  document.querySelectorAll("dialog").forEach((each) => each.close());
  byId("shell").hidden = true;
  byId("main").replaceChildren();
  document.title = "Sign in · Trove";
  const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
  const key = h("input", { name: "access", autocomplete: "username", required: true, spellcheck: "false", autocapitalize: "none" });
  const secret = h("input", { name: "secret", type: "password", autocomplete: "current-password", required: true });
  const button = h("button", { class: "main whole" }, "Sign in");
  const knock = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      enter(await signIn(key.value.trim(), secret.value));
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
      secret.select();
    }
    button.disabled = false;
  };
  const brand = h("h1", { class: "brand" }, h("img", { src: "/icon.svg", alt: "", width: 34, height: 34 }), "Trove");
  byId("door").replaceChildren(h("form", { class: "card door-card", onsubmit: knock }, brand,
    field("Access key", key), field("Secret key", secret), wrong, button,
    h("p", { class: "hint" }, "The node printed its first pair when it was started for the first time.")));
  key.focus();
}

// -- theme: of the system, or chosen
const THEMES = { auto: "System", light: "Light", dark: "Dark" };

function nextTheme(turn) {
  const names = Object.keys(THEMES);
  let now = document.documentElement.dataset.theme ?? "auto";
  if (turn) now = names[(names.indexOf(now) + 1) % names.length];
  if (now === "auto") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("theme");
  } else {
    document.documentElement.dataset.theme = now;
    localStorage.setItem("theme", now);
  }
  byId("theme").textContent = `Theme: ${THEMES[now].toLowerCase()}`;
}

byId("theme").addEventListener("click", () => nextTheme(true));
byId("sign-out").addEventListener("click", () => attempt(async () => {
  await signOut();
  askWho();
}));
addEventListener("hashchange", move);
addEventListener("signed-out", askWho);
nextTheme(false);
whoAmI().then((found) => (found ? enter(found) : askWho()), askWho);
