// Small charts: a line over an area, as wide as their place. Numbers beside them say the same in text.

import { set, svg } from "./dom.js";

const HEIGHT = 20;

/** An empty chart. */
export function chart() {
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const attributes = { class: "chart", preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", attributes, area, line);
}

/** Draws values, the oldest first; NaN leaves a gap. The scale begins at 0 and ends at `most`, or the largest value. */
export function draw(chart, values, most = 0) {
  const top = Math.max(most, ...values.filter((value) => !Number.isNaN(value))) || 1;
  const [area, line] = chart.children;
  let lines = "";
  let areas = "";
  let run = [];
  const end = () => {
    if (run.length === 0) return;
    // A second that stands alone is as wide as a second.
    if (run.length === 1) run.push([run[0][0] + 1, run[0][1]]);
    const points = run.map(([x, y]) => `${x} ${y}`).join("L");
    lines += `M${points}`;
    areas += `M${run[0][0]} ${HEIGHT}L${points}L${run.at(-1)[0]} ${HEIGHT}Z`;
    run = [];
  };
  values.forEach((value, x) => {
    if (Number.isNaN(value)) end();
    // The line must not be cut at the edges.
    else run.push([x, Math.round((HEIGHT - 1 - (value / top) * (HEIGHT - 2)) * 100) / 100]);
  });
  end();
  set(chart, "viewBox", `0 0 ${values.length - 1} ${HEIGHT}`);
  set(line, "d", lines);
  set(area, "d", areas);
}
