// Line charts over time, as SVG. One scale per chart; a crosshair tells the values, by mouse and by arrow keys.

import { h, svg } from "./dom.js";

const WIDTH = 560;
const HEIGHT = 190;
const LEFT = 66;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 22;
const SPANS_S = [120, 300, 600];
const SPAN_S_MAX = 600;

// The least of 1, 2, 5 × 10^n (or × 2^n for bytes) at or above a value.
function niceTop(value, binary) {
  if (value <= 0) return 1;
  if (binary) {
    let top = 1;
    while (top < value) top *= 2;
    return top;
  }
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value);
}

const past = (seconds) => (seconds >= 60 ? `−${seconds / 60} min` : `−${seconds} s`);

export class Chart {
  // series: [{name, of: sample => value or null}]; format: value → text
  constructor({ title, series, format, binary = false }) {
    this.series = series;
    this.format = format;
    this.binary = binary;
    this.title = title;
    this.samples = [];
    this.at = null;
    this.plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: "0", class: "plot" });
    this.tip = h("div", { class: "tip", hidden: true });
    this.legend = h("ul", { class: "legend" }, series.map((each, index) =>
      h("li", {}, h("span", { class: `swatch series-${index + 1}` }), each.name, " ", h("output", {}))));
    this.node = h("figure", { class: "card chart" }, h("figcaption", {}, h("h2", {}, title), this.legend),
      h("div", { class: "plot-frame" }, this.plot, this.tip));
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.show(null));
    this.plot.addEventListener("blur", () => this.show(null));
    this.plot.addEventListener("keydown", (event) => this.step(event));
  }

  update(samples) {
    const end = samples.length ? samples[samples.length - 1].at_s : 0;
    this.samples = samples.filter((each) => each.at_s > end - SPAN_S_MAX);
    const age = this.samples.length ? end - this.samples[0].at_s : 0;
    this.span = SPANS_S.find((each) => each >= age) ?? SPAN_S_MAX;
    this.end = end;
    this.draw();
  }

  x(at) {
    return LEFT + (WIDTH - LEFT - RIGHT) * (1 - (this.end - at) / this.span);
  }

  y(value) {
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / this.top);
  }

  draw() {
    const values = this.samples.flatMap((each) => this.series.map((one) => one.of(each) ?? 0));
    this.top = niceTop(Math.max(0, ...values), this.binary);
    const parts = [];
    for (let step = 0; step <= 4; step += 1) {
      const value = (this.top * step) / 4;
      const y = this.y(value);
      parts.push(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y, class: step ? "grid" : "axis" }));
      if (step % 2 === 0) parts.push(svg("text", { x: LEFT - 6, y: y + 4, class: "label end" }, this.format(value).replace(/\.0+(?=\D)/, "")));
    }
    for (let step = 0; step <= 4; step += 1) {
      const before = (this.span * step) / 4;
      const anchor = step === 0 ? "label end" : step === 4 ? "label" : "label middle";
      parts.push(svg("text", { x: this.x(this.end - before), y: HEIGHT - 6, class: anchor }, step ? past(before) : "now"));
    }
    this.series.forEach((one, index) => parts.push(...this.lines(one, index)));
    this.cross = svg("g", { class: "cross" });
    this.plot.replaceChildren(...parts, this.cross);
    const last = this.samples[this.samples.length - 1];
    const texts = this.series.map((one) => {
      const value = last ? one.of(last) : null;
      return value === null || value === undefined ? "–" : this.format(value);
    });
    [...this.legend.querySelectorAll("output")].forEach((output, index) => output.replaceChildren(texts[index]));
    const told = this.series.map((one, index) => `${one.name} ${texts[index]}`).join(", ");
    this.plot.setAttribute("aria-label", `${this.title}, the last minutes. Now: ${told}. Arrow keys walk along.`);
    if (this.at !== null) this.show(Math.min(this.at, this.samples.length - 1));
  }

  // Pieces of a line: where there is no value, there is a gap.
  lines(one, index) {
    const pieces = [[]];
    for (const sample of this.samples) {
      const value = one.of(sample);
      if (value === null || value === undefined) pieces.push([]);
      else pieces[pieces.length - 1].push([this.x(sample.at_s), this.y(value)]);
    }
    return pieces.filter((piece) => piece.length).map((piece) => piece.length === 1
      ? svg("circle", { cx: piece[0][0], cy: piece[0][1], r: 2, class: `dot series-${index + 1}` })
      : svg("polyline", { points: piece.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "), class: `line series-${index + 1}` }));
  }

  point(event) {
    const box = this.plot.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    let best = null;
    this.samples.forEach((each, index) => {
      if (best === null || Math.abs(this.x(each.at_s) - x) < Math.abs(this.x(this.samples[best].at_s) - x)) best = index;
    });
    this.show(best);
  }

  step(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || !this.samples.length) return;
    event.preventDefault();
    const from = this.at ?? this.samples.length - 1;
    this.show(Math.max(0, Math.min(this.samples.length - 1, from + moves[event.key])));
  }

  show(index) {
    this.at = index !== null && this.samples[index] ? index : null;
    this.tip.hidden = this.at === null;
    if (this.at === null) return this.cross.replaceChildren();
    const sample = this.samples[this.at];
    const x = this.x(sample.at_s);
    const marks = this.series.flatMap((one, number) => {
      const value = one.of(sample);
      return value === null || value === undefined ? [] : [svg("circle", { cx: x, cy: this.y(value), r: 4, class: `dot series-${number + 1}` })];
    });
    this.cross.replaceChildren(svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, class: "hair" }), ...marks);
    this.tip.replaceChildren(h("strong", {}, new Date(sample.at_s * 1000).toLocaleTimeString("en-GB")),
      ...this.series.map((one) => h("span", {}, `${one.name} ${one.of(sample) === null ? "–" : this.format(one.of(sample))}`)));
    this.tip.style.left = `${(100 * x) / WIDTH}%`;
    this.tip.classList.toggle("leftward", x > WIDTH * 0.6);
    return undefined;
  }
}
