// A link to one file, for those who have no key.

import { ask } from "./api.js";
import { field, form, options, secret, tell } from "./dialogs.js";
import { h } from "./dom.js";

const DAY_S = 86400;
const LASTS = [[3600, "One hour"], [DAY_S, "One day"], [7 * DAY_S, "A week"], [30 * DAY_S, "30 days"], [365 * DAY_S, "A year"]];

export async function share(bucket, key) {
  const uses = h("input", { name: "uses", type: "number", min: 1, max: 1000000, placeholder: "as often as one likes" });
  const fields = [
    h("p", { class: "hint code" }, `${bucket}/${key}`),
    field("Works for", options("lasts", LASTS.map(([value, text]) => [String(value), text]), String(7 * DAY_S))),
    field("Downloads", uses, "Then the link ends"),
    field("Note", h("input", { name: "note", maxlength: 200 }), "For your list of shares"),
  ];
  const made = await form("Share", fields, {
    label: "Make a link",
    work: (data) => {
      const wish = { bucket, key, lasts_s: Number(data.get("lasts")), uses_max: Number(data.get("uses") || 0), note: data.get("note") };
      return ask("shares", { method: "POST", body: wish });
    },
  });
  if (!made) return;
  await tell("The link", h("p", {}, "Whoever has it may download the file. It is shown this once."), secret("Link", made.url ?? location.origin + made.path));
}
