// What the node does right now, and what it holds.

import { admin } from "./api.js";
import { Chart } from "./charts.js";
import { bytes, h, number } from "./dom.js";

const EVERY_MS = 2000;
const KEPT = 400;

const figure = (name, value, bad = false) =>
  h("div", { class: "card" }, h("div", { class: "figure-name" }, name), h("div", { class: bad ? "figure bad" : "figure" }, value));

const small = (value) => (value >= 100 || Number.isInteger(value) ? number(Math.round(value)) : value.toFixed(value < 1 ? 2 : 1));
const ms = (value) => (value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${small(value)} ms`);

function charts(every) {
  const rate = (name) => (sample) => sample[name] / every;
  return [
    new Chart({ title: "Requests", format: (value) => `${small(value)}/s`, series: [{ name: "all", of: rate("requests") }] }),
    new Chart({ title: "Bytes", binary: true, format: (value) => `${bytes(value)}/s`,
      series: [{ name: "out", of: rate("bytes_out") }, { name: "in", of: rate("bytes_in") }] }),
    new Chart({ title: "Latency", format: ms, series: [{ name: "p50", of: (each) => each.p50_ms }, { name: "p99", of: (each) => each.p99_ms }] }),
    new Chart({ title: "Errors", format: (value) => `${small(value)}/s`, series: [{ name: "status 500 and above", of: rate("errors") }] }),
  ];
}

function figures(status) {
  const free = status.drives.reduce((sum, each) => sum + each.free, 0);
  const damaged = status.damaged_records ?? status.damaged.length;
  const sick = status.drives.filter((each) => each.failed || (each.health && each.health !== "ok")).length;
  return [
    figure("Objects", number(status.objects)),
    figure("Stored", bytes(status.bytes)),
    figure("Free", bytes(free)),
    figure("Drives", sick ? `${sick} of ${status.drives.length} not well` : `${status.drives.length} well`, sick > 0),
    figure("Damaged records", number(damaged), damaged > 0),
  ];
}

export async function overview({ onLeave }) {
  const [status, history] = await Promise.all([admin("status"), admin("history")]);
  const plots = charts(history.every_s);
  const cards = h("div", { class: "grid-cards" }, figures(status));
  const live = h("span", { class: "badge good" }, "live");
  let samples = history.samples.slice(-KEPT);
  let timer = 0;
  let turns = 0;
  const draw = () => plots.forEach((plot) => plot.update(samples));
  const tick = async () => {
    try {
      const last = samples.length ? samples[samples.length - 1].at_s : 0;
      samples = [...samples, ...(await admin(`history?after=${last}`)).samples].slice(-KEPT);
      draw();
      turns += 1;
      if (turns % 5 === 0) cards.replaceChildren(...figures(await admin("status")));
      live.replaceChildren("live");
      live.className = "badge good";
    } catch (error) {
      if (error.status === 401) return;
      live.replaceChildren("no answer");
      live.className = "badge bad";
    }
    if (timer !== null) timer = setTimeout(tick, EVERY_MS);
  };
  onLeave(() => {
    clearTimeout(timer);
    timer = null;
  });
  draw();
  timer = setTimeout(tick, EVERY_MS);
  return [
    h("div", { class: "head" }, h("h1", {}, "Overview"), live, h("span", { class: "spring" }), h("span", { class: "lead" }, `Node ${status.node.slice(0, 12)}`)),
    cards,
    h("div", { class: "grid-charts" }, plots.map((plot) => plot.node)),
  ];
}
