// Where the bytes lie: drives and their health, the scrub, what is damaged.

import { admin, adminIfThere } from "./api.js";
import { attempt } from "./dialogs.js";
import { ago, bytes, h, meter, number, table, when } from "./dom.js";

const EVERY_MS = 3000;
const NS = 1e9;
const KINDS = { ok: "good", suspect: "warn", "read-only": "warn", failed: "bad" };

function drive(each) {
  const health = each.health ?? (each.failed ? "failed" : "ok");
  const used = each.total - each.free;
  const text = each.total ? `${bytes(each.free)} free of ${bytes(each.total)}` : "size unknown";
  return h("section", { class: "card" },
    h("div", { class: "line" }, h("h2", { class: "code" }, each.path), h("span", { class: `badge ${KINDS[health] ?? ""}` }, health)),
    h("p", { class: "figure-name" }, text), meter(`Used of ${each.path}`, used, each.total, text),
    each.why ? h("p", { class: "wrong" }, each.why) : null,
    each.errors ? h("p", { class: "hint" }, `${number(each.errors)} errors`) : null);
}

function scrubCard(found, change) {
  if (!found) return h("p", { class: "empty" }, "This node has no scrub.");
  const share = found.total_bytes ? found.done_bytes / found.total_bytes : 0;
  const text = `${(100 * share).toFixed(0)} %: ${bytes(found.done_bytes)} of ${bytes(found.total_bytes)}`;
  const lines = [
    ["Last whole round", found.ended_ns ? when(found.ended_ns / NS) : "none yet"],
    ["This round", found.started_ns ? `${number(found.records)} records, ${bytes(found.bytes)}, since ${when(found.started_ns / NS)}` : "none under way"],
    ["Found damaged", number(found.found)],
    ["Pace", `up to ${bytes(found.bytes_per_s)}/s, a round every ${ago(found.period_s)}`],
  ];
  return h("div", { class: "card" },
    h("div", { class: "line" }, h("span", { class: found.running ? "badge good" : "badge" }, found.running ? "running" : found.stopped ? "stopped" : "waits"),
      h("button", { type: "button", onclick: () => change(found.running ? "stop" : "start") }, found.running ? "Stop" : "Start now")),
    h("p", { class: "figure-name" }, text), meter("Scrub", found.done_bytes, found.total_bytes, text, "progressbar"),
    h("dl", { class: "facts" }, lines.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
}

function damageTable(found) {
  const columns = [{ title: "Volume", class: "num" }, { title: "Position", class: "num" }, { title: "What" }];
  const rows = found.map(({ volume, position, ...rest }) => [volume, number(position), Object.entries(rest).map(([name, value]) => `${name} ${value}`).join(", ")]);
  return table("Damaged records", columns, rows, "No record is known to be damaged.");
}

export async function drives({ onLeave }) {
  const places = h("div", { class: "grid-drives" });
  const scrub = h("div", {});
  const damage = h("div", {});
  const fill = async () => {
    const [all, progress, status] = await Promise.all([admin("drives"), adminIfThere("scrub"), admin("status")]);
    places.replaceChildren(...all.drives.map(drive));
    const focused = scrub.contains(document.activeElement);
    scrub.replaceChildren(scrubCard(progress, change));
    if (focused) scrub.querySelector("button")?.focus();
    damage.replaceChildren(damageTable(status.damaged));
  };
  const change = (what) => attempt(async () => {
    await admin("scrub", { method: "POST", body: { do: what } });
    await fill();
  });
  let timer = 0;
  const tick = async () => {
    await fill().catch(() => {});
    if (timer !== null) timer = setTimeout(tick, EVERY_MS);
  };
  onLeave(() => {
    clearTimeout(timer);
    timer = null;
  });
  await fill();
  timer = setTimeout(tick, EVERY_MS);
  return [
    h("div", { class: "head" }, h("h1", {}, "Drives")),
    places,
    h("section", { class: "section" }, h("h2", {}, "Scrub"), scrub),
    h("section", { class: "section" }, h("h2", {}, "Damaged records"), damage),
  ];
}
