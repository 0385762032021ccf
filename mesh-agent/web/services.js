// The table of services: where they are reached, how many tasks serve, and what this node sends to them.

import { chart, draw } from "./chart.js";
import { el, List, say, set } from "./dom.js";
import { ACTIVE, BYTES, FLOWS } from "./history.js";
import { bytes, count, number } from "./words.js";

const COLUMNS = ["Service", "Tasks", "Address", "Published ports", "New flows, 3 min", "New", "Data", "Open"];

/** A table in a place of the page; `chosen` is told which service was clicked. */
export function table(place, chosen) {
  const head = el("div", { role: "row", class: "head" });
  head.append(...COLUMNS.map((name) => el("span", { role: "columnheader" }, name)));
  const body = el("div", { role: "rowgroup" });
  const whole = el("div", { role: "table", "aria-labelledby": "services-title", class: "services" });
  whole.append(el("div", { role: "rowgroup" }, head), body);
  const empty = el("p", { class: "empty" }, "No service yet. Make one: ");
  empty.append(
    el("code", {}, "mesh network create app"),
    " and ",
    el("code", {}, "mesh service create --name web --network app -p 8080:80"),
  );
  const nothing = el("p", { class: "empty" }, "No service matches the filter.");

  const make = ({ Name }) => {
    const name = el("button", { type: "button", class: "service" }, el("i", { class: "swatch" }), el("span"));
    name.addEventListener("click", () => chosen(Name));
    const cell = (content, kind) => el("span", { role: "cell", class: kind }, content);
    const row = el("div", { role: "row" }, cell(name, "name"));
    row.append(...["tasks", "address", "ports"].map((kind) => cell(null, kind)));
    row.append(cell(chart(), "trend"));
    row.append(...["flows number", "bytes number", "active number"].map((kind) => cell(null, kind)));
    return row;
  };
  const update = (row, service) => {
    const [name, tasks, address, ports] = row.children;
    set(row, "data-colour", service.colour);
    say(name.querySelector("span"), service.Name);
    set(name.firstChild, "aria-label", `${service.Name}: show only its tasks`);
    const few = service.RunningTasks < service.DesiredTasks || service.DesiredTasks === 0;
    say(tasks, `${service.RunningTasks}/${service.DesiredTasks}`);
    set(tasks, "class", few ? "tasks few" : "tasks");
    set(tasks, "title", `${service.RunningTasks} of ${count(service.DesiredTasks, "task")} get new flows`);
    if (service.Update) tasks.append(el("small", {}, service.Update));
    lines(address, service.VirtualIPs, service.Mode === "dnsrr" ? "names only" : "–");
    const published = service.Ports.map(({ Published, Target, Protocol, Mode }) => {
      const port = Published === Target ? `${Published}` : `${Published} → ${Target}`;
      return `${port}${Protocol === "tcp" ? "" : `/${Protocol}`}${Mode === "host" ? " (host)" : ""}`;
    });
    lines(ports, published, "–");
  };
  const rows = new List(body, ({ ID }) => ID, make, update);

  return {
    show(services, shown, filtered) {
      rows.show(services);
      for (const { ID } of services) set(rows.element(ID), "hidden", !shown.has(ID) && "");
      const some = services.some(({ ID }) => shown.has(ID));
      const part = some ? whole : filtered && services.length ? nothing : empty;
      if (place.firstElementChild !== part) place.replaceChildren(part);
    },
    draw(services, history, counts) {
      set(whole, "data-counts", counts);
      if (!counts) return;
      for (const { ID } of services) {
        const row = rows.element(ID);
        if (!row || row.hidden) continue;
        const [trend, flows, data, active] = [...row.children].slice(4);
        draw(trend.firstChild, history.values(ID, FLOWS), 1);
        say(flows, `${number(history.last(ID, FLOWS))}/s`);
        say(data, bytes(history.last(ID, BYTES)));
        say(active, `${number(history.last(ID, ACTIVE))} open`);
      }
    },
  };
}

function lines(cell, all, none) {
  cell.replaceChildren(...(all.length ? all : [none]).map((text) => el("span", {}, text)));
}
