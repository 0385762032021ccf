// What of all is shown: words that must all be found, and `is:`, `service:` and `node:` with exactly one word.

import { CONDITIONS } from "./words.js";

/** Reads what was typed. */
export function read(text) {
  return text.toLowerCase().split(/\s+/).filter(Boolean);
}

/** Whether something is wanted: `exact` has what the prefixes name, `words` is searched for the rest. */
export function wants(terms, exact, words) {
  return terms.every((term) => {
    const [, key, value] = term.match(/^(is|service|node):(.*)$/) ?? [];
    if (key) return exact[key]?.some((word) => word.toLowerCase() === value);
    return words.some((word) => word.toLowerCase().includes(term));
  });
}

/** Chooses the tasks, services and nodes of a view: a service, or a node, also stays for the sake of a task. */
export function choose(view, terms) {
  const services = new Set();
  const nodes = new Set();
  const tasks = new Set();
  for (const task of view.Tasks) {
    const service = view.service(task)?.Name ?? "";
    const node = view.node(task)?.Name ?? "";
    const states = [task.Condition, CONDITIONS[task.Condition] ?? "", task.State, task.Health];
    const exact = { is: states, service: [service], node: [node] };
    if (!wants(terms, exact, [task.Name, service, node, ...states, ...task.Addresses])) continue;
    tasks.add(task.ID);
    services.add(task.ServiceID);
    nodes.add(task.NodeID);
  }
  for (const { ID, Name, VirtualIPs, Ports, Networks } of view.Services) {
    const ports = Ports.map((port) => `${port.Published}/${port.Protocol}`);
    if (wants(terms, { service: [Name] }, [Name, ...VirtualIPs, ...ports, ...Networks])) services.add(ID);
  }
  for (const { ID, Name, Addr, State } of view.Nodes) {
    if (wants(terms, { is: [State], node: [Name] }, [Name, Addr, State])) nodes.add(ID);
  }
  return { services, nodes, tasks };
}

/** Wires the box: `/` goes there, Escape empties and leaves it. */
export function box(input, changed) {
  input.addEventListener("input", () => changed(read(input.value)));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    type(input, "");
    input.blur();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, dialog");
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
    event.preventDefault();
    input.focus();
    input.select();
  });
}

/** As if somebody had typed that. */
export function type(input, text) {
  input.value = text;
  input.dispatchEvent(new Event("input"));
}
