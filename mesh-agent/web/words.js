// Numbers, times and conditions for people.

/** What each condition of a task means; the names are those that the agent tells. */
export const CONDITIONS = {
  serving: "serving",
  running: "running",
  starting: "starting",
  unhealthy: "unhealthy",
  ejected: "left out",
  draining: "draining",
  idle: "no flows",
  unreachable: "unreachable",
  failed: "failed",
  ended: "ended",
};

/** `0`, `0.4`, `12`, `1.2k` */
export function number(value) {
  if (value >= 1e9) return `${short(value / 1e9)}G`;
  if (value >= 1e6) return `${short(value / 1e6)}M`;
  if (value >= 1e3) return `${short(value / 1e3)}k`;
  return value > 0 && value < 0.05 ? "<0.1" : short(value);
}

function short(value) {
  return value < 9.95 && !Number.isInteger(value) ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value));
}

/** `0 B/s`, `1.2 kB/s` */
export function bytes(value) {
  const text = number(value);
  const unit = text.match(/[kMG]$/)?.[0] ?? "";
  return `${text.slice(0, text.length - unit.length)} ${unit}B/s`;
}

/** `1 task`, `3 tasks`, `1,000 tasks` */
export function count(amount, thing) {
  return `${amount.toLocaleString("en")} ${thing}${amount === 1 ? "" : "s"}`;
}

/** `5 s`, `3 min`, `2 h`, `4 d` */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** `14:03:22` */
export function clock(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}
