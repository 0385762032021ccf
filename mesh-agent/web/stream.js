// What the agent tells: server-sent events, again and again for as long as somebody looks.

// The agent says something each second.
const SILENT = 4000;
const RETRY = [250, 5000];
// Who does not look for so long is told nothing, which costs the agent nothing.
const HIDDEN = 30_000;

/**
 * Listens until the page is gone. `told` has a function for each type of event, which gets its data; `phase` is called
 * with "connecting", "live" or "lost" whenever that changes.
 */
export function listen(url, told, phase) {
  let source = null;
  let heard = 0;
  let wait = RETRY[0];
  let retry = 0;
  let hide = 0;
  let now = "connecting";

  const become = (next) => {
    if (next !== now) phase((now = next));
  };
  const close = () => {
    source?.close();
    source = null;
  };
  const open = () => {
    close();
    clearTimeout(retry);
    heard = Date.now();
    source = new EventSource(url);
    source.onerror = lose;
    for (const [type, hear] of Object.entries(told)) {
      source.addEventListener(type, ({ data }) => {
        heard = Date.now();
        wait = RETRY[0];
        hear(JSON.parse(data));
        // Before a state was told there is nothing that could be new.
        if (type === "state") become("live");
      });
    }
  };
  const lose = () => {
    close();
    become(now === "connecting" ? "unanswered" : "lost");
    // Many pages must not come back at the same moment.
    clearTimeout(retry);
    retry = setTimeout(open, wait * (0.75 + Math.random() / 2));
    wait = Math.min(wait * 2, RETRY[1]);
  };

  setInterval(() => source && Date.now() - heard > SILENT && lose(), 1000);
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hide);
    if (!document.hidden && !source) open();
    if (document.hidden) {
      hide = setTimeout(() => {
        close();
        clearTimeout(retry);
      }, HIDDEN);
    }
  });
  open();
}
