// What people must know before they trust what they see.

import { el, List, say, set } from "./dom.js";
import { clock, count } from "./words.js";

/** What there is to be said, the most urgent first: `[kind, text]`. */
export function notices(phase, since, view, version) {
  const all = [];
  if (phase === "unanswered") all.push(["bad", "The agent does not answer. Trying again…"]);
  if (phase === "lost") {
    all.push(["bad", `The agent does not answer: what you see is from ${clock(since)}. Trying again…`]);
  }
  if (!view) return all;
  const { Node, Nodes, TasksLeftOut } = view;
  const name = Node.Name || "This node";
  if (version && Node.Version !== version) all.push(["info", "The agent is of another version now: reload the page."]);
  if (!Node.StoreConnected) all.push(["warn", `${name} cannot ask the store: traffic goes on, news may be missing.`]);
  const others = Nodes.filter(({ Self }) => !Self);
  if (others.length && others.every(({ State }) => State === "down" || State === "disconnected")) {
    all.push(["bad", `${name} reaches no other node.`]);
  }
  for (const { About, Message } of Node.Problems) all.push(["warn", `${About}: ${Message}`]);
  if (Node.Failing) {
    all.push(["warn", `${name} cannot apply ${count(Node.Failing, "object")} of its kernel: see mesh status.`]);
  }
  if (TasksLeftOut) all.push(["info", `${count(TasksLeftOut, "task")} more than a page can show are left out.`]);
  return all;
}

/** A place that says so, once each. */
export function board(place) {
  const list = new List(
    place,
    ([, text]) => text,
    () => el("p"),
    (line, [kind, text]) => {
      set(line, "data-kind", kind);
      say(line, text);
    },
  );
  return (all) => list.show(all);
}
