// A card for each node, with its tasks as boxes: colour and edge are the service's, the shape is the task's condition.

import { chart, draw } from "./chart.js";
import { el, icon, List, say, set, turn } from "./dom.js";
import { FLOWS } from "./history.js";
import { CONDITIONS, count, number } from "./words.js";

/** Of so many tasks on, boxes have one line only. */
const DENSE = 150;
const SHAPES = { ready: "serving", down: "failed", disconnected: "unreachable", leaving: "draining", unknown: "idle" };
const AVAILABILITY = { drain: "drained", pause: "paused" };
/** How much of the past a box has, in seconds. */
const RECENT = 60;

/** Cards in a place of the page; `opened` is told which task was chosen. */
export function cards(place, opened) {
  const empty = el("p", { class: "empty panel" }, "This agent is in no mesh yet; see ");
  empty.append(el("code", {}, "mesh status"), ".");
  const nothing = el("p", { class: "empty panel" }, "No node and no task matches the filter.");
  const grid = el("div", { class: "nodes" });
  const seen = new Set();
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target);
  });
  let counts = false;

  const makeTask = ({ ID }) => {
    const box = el("button", { type: "button", class: "task", "data-id": ID, tabindex: -1 }, icon("serving"));
    box.append(el("span", { class: "name" }), el("span", { class: "rate" }), el("span", { class: "word" }), chart());
    box.addEventListener("click", () => opened(ID));
    sight.observe(box);
    return el("li", {}, box);
  };
  const updateTask = (item, task) => {
    const box = item.firstChild;
    const [shape, name, , word] = box.children;
    const condition = CONDITIONS[task.Condition] ?? task.Condition;
    turn(shape, task.Condition);
    say(name, task.Name);
    say(word, condition);
    set(box, "data-condition", task.Condition);
    set(box, "data-colour", task.colour);
    set(box, "aria-label", [task.Name, condition, task.Reason].filter(Boolean).join(", "));
    set(box, "title", `${task.Name}: ${task.Reason || condition}`);
  };
  const makeNode = ({ ID }) => {
    const list = el("ul", { class: "tasks" });
    const state = el("p", { class: "state" }, icon("idle"), el("span"));
    const head = el("header", {}, el("h3", { id: `node-${ID}` }), state, el("p", { class: "where" }));
    const card = el("section", { class: "node panel", "aria-labelledby": `node-${ID}` }, head);
    card.append(el("p", { class: "why" }), list, el("p", { class: "empty" }, "No task"));
    card.tasks = new List(list, (task) => task.ID, makeTask, updateTask);
    return card;
  };
  const updateNode = (card, node) => {
    const [head, why] = card.children;
    const [name, state, where] = head.children;
    say(name, node.Name);
    set(card, "data-state", node.State);
    const drained = node.State === "ready" && node.Availability === "drain";
    set(card, "data-availability", node.Availability);
    turn(state.firstChild, drained ? "draining" : (SHAPES[node.State] ?? "idle"));
    say(state.lastChild, [node.State, AVAILABILITY[node.Availability]].filter(Boolean).join(", "));
    say(where, [node.Addr, node.Role, node.Self && "this node"].filter(Boolean).join(" · "));
    // What is wrong on the node that tells is at the top of the page.
    const told = node.Problems > 0 && !node.Self;
    const problems = told ? `${count(node.Problems, "problem")}: see mesh status on ${node.Name}` : "";
    say(why, [node.Message, problems].filter(Boolean).join("; "));
  };
  const all = new List(grid, ({ ID }) => ID, makeNode, updateNode);

  // One stop of the Tab key for all boxes, the first until somebody moves it; arrows go from one to the next.
  const boxes = () => [...grid.querySelectorAll(".task")].filter((box) => box.offsetParent);
  let at = null;
  let moved = false;
  const stop = (box) => {
    if (at === box) return;
    at?.setAttribute("tabindex", -1);
    box?.setAttribute("tabindex", 0);
    at = box;
  };
  grid.addEventListener("focusin", ({ target }) => {
    if (!target.matches(".task")) return;
    moved = true;
    stop(target);
  });
  grid.addEventListener("keydown", (event) => {
    const from = event.target.closest(".task");
    if (!from || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = next(boxes(), from, event.key);
    if (!to) return;
    event.preventDefault();
    to.focus();
  });

  return {
    show(nodes, tasks, shown, filtered) {
      const of = Map.groupBy(tasks, ({ NodeID }) => NodeID);
      set(grid, "data-dense", tasks.length >= DENSE && "");
      all.show(nodes);
      const visible = [];
      for (const { ID } of nodes) {
        const card = all.element(ID);
        const own = of.get(ID) ?? [];
        const before = visible.length;
        card.tasks.show(own);
        for (const task of own) {
          const item = card.tasks.element(task.ID);
          item.hidden = !shown.tasks.has(task.ID);
          if (!item.hidden) visible.push(item.firstChild);
        }
        card.hidden = !shown.nodes.has(ID);
        const none = visible.length === before;
        card.tasks.parent.hidden = none;
        card.lastChild.hidden = !none;
        say(card.lastChild, own.length ? "No task matches the filter" : "No task");
      }
      if (!moved || !visible.includes(at)) stop(visible[0]);
      for (const box of seen) if (!box.isConnected) seen.delete(box);
      const some = nodes.some(({ ID }) => shown.nodes.has(ID));
      const part = some ? grid : filtered && nodes.length ? nothing : empty;
      if (place.firstElementChild !== part) place.replaceChildren(part);
    },
    draw(history, counted) {
      if (counts !== counted) set(grid, "data-counts", (counts = counted) && "");
      if (!counted || "dense" in grid.dataset) return;
      for (const box of seen) {
        const id = box.dataset.id;
        const rate = history.last(id, FLOWS);
        say(box.children[2], rate > 0 ? `${number(rate)}/s` : "");
        draw(box.lastChild, history.values(id, FLOWS, RECENT), 1);
      }
    },
    focus(id) {
      grid.querySelector(`.task[data-id="${CSS.escape(id)}"]`)?.focus();
    },
  };
}

/** The box that a key leads to from another; up and down is what is nearest on the next line. */
function next(boxes, from, key) {
  const at = boxes.indexOf(from);
  const steps = { ArrowRight: boxes[at + 1], ArrowLeft: boxes[at - 1], Home: boxes[0], End: boxes.at(-1) };
  if (key in steps) return steps[key];
  if (key !== "ArrowUp" && key !== "ArrowDown") return null;
  const own = from.getBoundingClientRect();
  const down = key === "ArrowDown" ? 1 : -1;
  let best = null;
  let least = Infinity;
  for (const box of boxes) {
    const place = box.getBoundingClientRect();
    const away = (place.top - own.top) * down;
    if (away < own.height / 2) continue;
    // Lines count more than columns.
    const distance = away * 3 + Math.abs(place.left - own.left);
    if (distance < least) [best, least] = [box, distance];
  }
  return best;
}
