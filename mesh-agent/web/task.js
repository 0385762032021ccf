// One task, in a dialog: all that the page knows of it.

import { chart, draw } from "./chart.js";
import { el, icon, List, say, set, turn } from "./dom.js";
import { ACTIVE, BYTES, FLOWS, LENGTH } from "./history.js";
import { bytes, CONDITIONS, number, span } from "./words.js";

const CHARTS = [
  ["New flows", FLOWS, (value) => `${number(value)}/s`],
  ["Data", BYTES, bytes],
  ["Open flows", ACTIVE, number],
];

/** The dialog; `closed` is told of which task it was. */
export function details(dialog, closed) {
  const title = el("h2", { id: "task-title" });
  const state = el("p", { class: "state" }, icon("idle"), el("span"));
  const close = el("button", { type: "button", "aria-label": "Close" }, icon("failed"));
  const facts = el("dl");
  const charts = el("div", { class: "charts" });
  const figures = CHARTS.map(([name]) => {
    const figure = el("figure", {}, el("figcaption", {}, el("span", {}, name), el("b"), el("small")), chart());
    charts.append(figure);
    return figure;
  });
  charts.append(el("p", { class: "axis", "aria-hidden": "true" }, el("span", {}, "3 min ago"), el("span", {}, "now")));
  const hint = el("p", { class: "hint" }, "More: ", el("code"));
  dialog.append(el("header", {}, title, state, close), facts, charts, hint);

  const rows = new List(
    facts,
    ([name]) => name,
    ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
    (row, [, value]) => say(row.lastChild, value),
  );
  let id = null;
  close.addEventListener("click", () => dialog.close());
  // A click beside it closes it, too.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    const was = id;
    id = null;
    closed(was);
  });

  const show = (view) => {
    if (!id) return;
    const task = view.tasks.get(id);
    set(dialog, "data-gone", !task && "");
    if (!task) return say(state.lastChild, "gone");
    const node = view.node(task);
    set(dialog, "data-condition", task.Condition);
    set(dialog, "data-colour", task.colour);
    say(title, task.Name);
    turn(state.firstChild, task.Condition);
    say(state.lastChild, CONDITIONS[task.Condition] ?? task.Condition);
    say(hint.lastChild, `mesh task inspect ${task.ID.slice(0, 12)}`);
    rows.show(
      [
        ["Why", task.Reason],
        ["Service", view.service(task)?.Name],
        ["Node", node && `${node.Name} (${node.Addr})`],
        ["State", task.State],
        ["Health", task.Health === "none" ? "not checked" : task.Health],
        ["Weight", String(task.Weight)],
        ["Addresses", task.Addresses.join("\n")],
        ["Last change", `${span(Date.now() - Date.parse(task.UpdatedAt))} ago`],
        ["Connections left", task.Connections?.toString()],
      ].filter(([, value]) => value),
    );
  };
  return {
    open(task, view) {
      id = task;
      show(view);
      dialog.showModal();
    },
    show,
    draw(history, counts) {
      set(charts, "hidden", !counts && "");
      if (!id || !counts) return;
      CHARTS.forEach(([, kind, words], index) => {
        const [{ children: text }, picture] = figures[index].children;
        const values = history.values(id, kind, LENGTH);
        const most = Math.max(0, ...values.filter((value) => !Number.isNaN(value)));
        say(text[1], words(history.last(id, kind)));
        say(text[2], `at most ${words(most)}`);
        draw(picture, values, 1);
      });
    },
  };
}
