// The last minutes of what tasks and services get, second by second. The agent remembers nothing: a page knows what it saw.

/** How many seconds are remembered. */
export const LENGTH = 180;
/** What is remembered of each: new flows in a second, bytes in a second, flows that are there. */
export const FLOWS = 0;
export const BYTES = 1;
export const ACTIVE = 2;

export class History {
  constructor() {
    // Which second each place is of; what nobody saw leaves a gap.
    this.seconds = new Float64Array(LENGTH).fill(-1);
    this.series = new Map();
    this.now = 0;
  }

  /** What came in a second. `owner` names the service of a task: it gets the sum. */
  add(rates, owner) {
    const before = this.now;
    this.now = Math.floor(Date.now() / 1000);
    // What comes each second may fall into seconds 1, 2 and 4: the third was no gap.
    if (this.now === before + 2) this.note(before + 1, rates, owner);
    this.note(this.now, rates, owner);
  }

  note(second, rates, owner) {
    const place = second % LENGTH;
    this.seconds[place] = second;
    for (const kinds of this.series.values()) for (const kind of kinds) kind[place] = 0;
    for (const [task, values] of Object.entries(rates)) {
      for (const id of [task, owner(task)]) {
        if (id) this.of(id).forEach((kind, index) => (kind[place] += values[index]));
      }
    }
  }

  of(id) {
    if (!this.series.has(id)) this.series.set(id, [0, 1, 2].map(() => new Float32Array(LENGTH)));
    return this.series.get(id);
  }

  /** Forgets all but those that are known. */
  keep(known) {
    for (const id of this.series.keys()) if (!known(id)) this.series.delete(id);
  }

  /** What was last seen of a kind. */
  last(id, kind) {
    return this.series.get(id)?.[kind][this.now % LENGTH] ?? 0;
  }

  /** The values of a kind in the last `seconds`, the oldest first; NaN: nobody looked. */
  values(id, kind, seconds = LENGTH) {
    const series = this.series.get(id)?.[kind];
    const from = this.now - seconds + 1;
    return Array.from({ length: seconds }, (_, index) => {
      const place = (from + index) % LENGTH;
      if (this.seconds[place] !== from + index) return NaN;
      return series ? series[place] : 0;
    });
  }
}
