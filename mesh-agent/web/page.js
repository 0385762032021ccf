// The page: one stream of what the agent sees, drawn as it comes, and not at all while nobody looks.

import { say, set } from "./dom.js";
import { log } from "./events.js";
import { box, choose, type } from "./filter.js";
import { History } from "./history.js";
import { cards } from "./nodes.js";
import { board, notices } from "./notices.js";
import { table } from "./services.js";
import { listen } from "./stream.js";
import { details } from "./task.js";
import { count } from "./words.js";

const PHASES = { connecting: "Connecting", live: "Live", lost: "Old data", unanswered: "No answer" };
const COLOURS = 10;

const at = (id) => document.getElementById(id);
const input = document.querySelector("#filter input");
const history = new History();
const colours = new Map();
let view = null;
let phase = "connecting";
let since = new Date();
let version = null;
let terms = [];

const tell = board(at("notices"));
const events = log(at("events"));
const dialog = details(at("task"), (id) => nodes.focus(id));
const nodes = cards(at("nodes"), (id) => {
  dialog.open(id, view);
  dialog.draw(history, view.Node.Counts);
});
const services = table(at("services"), (name) => {
  const term = `service:${name.toLowerCase()}`;
  type(input, input.value === term ? "" : term);
});

box(input, (read) => {
  terms = read;
  draw("state");
});

/** What was told, with what the page needs to find its way in it. */
function known(state) {
  const byId = (list) => new Map(list.map((item) => [item.ID, item]));
  const [of, on, tasks] = [state.Services, state.Nodes, state.Tasks].map(byId);
  for (const id of colours.keys()) if (!of.has(id)) colours.delete(id);
  for (const service of state.Services) service.colour = colour(service.ID);
  for (const task of state.Tasks) task.colour = colours.get(task.ServiceID);
  history.keep((id) => tasks.has(id) || of.has(id));
  return { ...state, tasks, service: (task) => of.get(task.ServiceID), node: (task) => on.get(task.NodeID) };
}

/** A service keeps its colour for as long as it is there. */
function colour(id) {
  if (!colours.has(id)) {
    const taken = [...colours.values()];
    const used = Array.from({ length: COLOURS }, (_, one) => taken.filter((other) => other === one).length);
    colours.set(id, used.indexOf(Math.min(...used)));
  }
  return colours.get(id);
}

const wanted = new Set();
let frame = 0;

/** Draws parts of the page with the next frame; a tab that nobody sees has none. */
function draw(...parts) {
  for (const part of parts) wanted.add(part);
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (wanted.has("phase") || wanted.has("state")) drawPhase();
    if (view && wanted.has("state")) drawState();
    if (view) drawRates();
    wanted.clear();
  });
}

function drawPhase() {
  const connection = at("connection");
  say(connection, PHASES[phase]);
  set(connection, "data-phase", phase);
  set(document.body, "data-phase", phase);
  tell(notices(phase, since, view, version));
}

function drawState() {
  const shown = choose(view, terms);
  const filtered = terms.length > 0;
  say(at("self"), view.Node.Name);
  document.title = view.Node.Name ? `Mesh – ${view.Node.Name}` : "Mesh";
  const tasks = filtered
    ? `${shown.tasks.size.toLocaleString("en")} of ${count(view.Tasks.length, "task")}`
    : count(view.Tasks.length, "task");
  say(at("summary"), [count(view.Nodes.length, "node"), count(view.Services.length, "service"), tasks].join(" · "));
  const sender = view.Node.Name || "this node";
  say(at("source"), view.Node.Counts ? `Flows: what ${sender} sends` : `The data plane of ${sender} counts no flows`);
  services.show(view.Services, shown.services, filtered);
  nodes.show(view.Nodes, view.Tasks, shown, filtered);
  dialog.show(view);
}

function drawRates() {
  services.draw(view.Services, history, view.Node.Counts);
  nodes.draw(history, view.Node.Counts);
  dialog.draw(history, view.Node.Counts);
}

listen(
  "../v1/ui/stream",
  {
    state(state) {
      view = known(state);
      version ??= view.Node.Version;
      draw("state");
    },
    rates({ Tasks }) {
      history.add(Tasks, (id) => view?.tasks.get(id)?.ServiceID);
      draw();
    },
    past(past) {
      events.clear();
      past.forEach(events.add);
    },
    events: (fresh) => fresh.forEach(events.add),
  },
  (next) => {
    phase = next;
    since = new Date();
    draw("phase");
  },
);
