// Links that were made, how often they were used, and ending them.

import { ask } from "./api.js";
import { confirm } from "./dialogs.js";
import { addressOf, h, number, table, when } from "./dom.js";

const folderOf = (key) => key.slice(0, key.lastIndexOf("/") + 1);

export async function shares({ session, again }) {
  const { shares: all } = await ask("shares");
  const revoke = async (each) => {
    const done = await confirm("End this link?", `Nobody can download ${each.key} with it any more.`, "End it", () => ask(`shares/${each.id}`, { method: "DELETE" }));
    if (done) again();
  };
  const columns = [{ title: "File" }, { title: "Note", class: "wide" }, { title: "Downloads", class: "num" }, { title: "Ends" }, { title: "", class: "acts" }];
  const rows = all.reverse().map((each) => [
    h("a", { href: addressOf("browse", each.bucket, folderOf(each.key)) }, `${each.bucket}/${each.key}`),
    each.note,
    each.uses_max ? `${number(each.uses)} of ${number(each.uses_max)}` : number(each.uses),
    each.holds ? when(each.expires_s) : h("span", { class: "badge warn" }, each.uses_max && each.uses >= each.uses_max ? "used up" : "expired"),
    h("button", { type: "button", class: "danger", "aria-label": `End the link to ${each.key}`, onclick: () => revoke(each) }, "End"),
  ]);
  const lead = session.is_root ? "Links of all users." : "Links that you made.";
  return [h("div", { class: "head" }, h("h1", {}, "Shares"), h("p", { class: "lead whole" }, lead)),
    table("Shares", columns, rows, "There are no links. Choose Share at a file to make one.")];
}
