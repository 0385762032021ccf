// What happened lately, the newest first. Without events there is no list.

import { el } from "./dom.js";
import { clock } from "./words.js";

/** How many are kept. */
const MOST = 200;

/** A list in a section of the page. */
export function log(section) {
  const list = section.querySelector("ol");
  return {
    add({ time, Type, Action, Actor }) {
      const at = new Date(time * 1000);
      const name = Actor?.Attributes?.name ?? Actor?.ID ?? "";
      const when = el("time", { datetime: at.toISOString(), title: at.toLocaleString() }, clock(at));
      const what = el("span", { class: "what" }, `${Type} ${Action}`);
      list.prepend(el("li", {}, when, what, el("span", { class: "name" }, name)));
      if (list.children.length > MOST) list.lastChild.remove();
      section.hidden = false;
    },
    clear() {
      list.replaceChildren();
      section.hidden = true;
    },
  };
}
