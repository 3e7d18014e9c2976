import { type Part, pageList } from '../chain/assembly.js';
import { foundIn } from '../chain/damage.js';
import type { Log } from '../chain/log.js';
import { type Stored, Version } from '../chain/page-table.js';
import { present } from '../chain/read-pages.js';
import { Kind } from '../chain/record.js';
import { concat } from '../chain/runs.js';
import type { CodecPorts, Lent } from '../engine/codec-ports.js';
import type { DecodeJob, Segments } from '../engine/protocol.js';
import type { ExtentUse, RegionPlan } from './plan.js';
import { fillPages, Window } from './window.js';

const READ_AT_ONCE = 8;

/** An extent to be decoded, for one purpose or both. */
interface Wanted {
  record: number;
  kind: Stored;
  plain: ExtentUse | undefined;
  part: DecodeJob['part'];
  pages: Uint32Array;
}

/** What plans are carried out with. */
export interface RunContext {
  readonly log: Log;
  readonly codecs: CodecPorts;
  /** Throws when it is to end at the next opportunity. */
  checkAborted(): void;
  /** Staging for a window where nothing more is free. */
  reserve(): Lent | undefined;
}

/** Has the extents that a plan needs read, decoded, checked and (`fill`) put into the region. */
export class PlanRunner {
  readonly #context: RunContext;

  constructor(context: RunContext) {
    this.#context = context;
  }

  /**
   * @param kept what a checking pass has put together
   * @returns what it has put together, when it is to be kept: all that is assembled fitted into one window
   */
  async run(
    plan: RegionPlan,
    fill: boolean,
    kept: Window | undefined,
    onPages: (pages: number) => void,
  ): Promise<Window | undefined> {
    let keep: Window | undefined;
    if (fill && kept?.usable) {
      await kept.fill(plan);
      onPages(plan.assembled.length);
    } else {
      keep = await this.#assemble(plan, fill, onPages);
    }
    try {
      const rest = [...plan.plain.values()].map((use) => wantedOf(use));
      plan.plain.clear();
      await this.#decodeAll(rest, plan, fill, onPages);
      return keep;
    } catch (error) {
      keep?.close();
      throw error;
    }
  }

  async #assemble(plan: RegionPlan, fill: boolean, onPages: (pages: number) => void): Promise<Window | undefined> {
    let kept: Window | undefined;
    for (let from = 0; from < plan.assembled.length; ) {
      this.#context.checkAborted();
      const window = Window.open(plan, from, this.#context.codecs, this.#context.reserve());
      let keep = false;
      try {
        await window.assemble((parts, combine, into) =>
          this.#decodeAll(
            parts.map((part) => this.#withPlain(part, combine, into, plan, from)),
            plan,
            fill,
            onPages,
          ),
        );
        if (fill) await window.fill(plan);
        keep = !fill && window.isKeepable && from === 0 && window.end === plan.assembled.length;
      } finally {
        if (keep) kept = window;
        else window.close();
      }
      onPages(window.end - from);
      from = window.end;
    }
    return kept;
  }

  /** An extent is read once: what else is wanted of it goes along. */
  #withPlain({ record, kind, slots, places }: Part, combine: boolean, into: Segments, plan: RegionPlan, from: number): Wanted {
    const plain = plan.plain.get(record);
    // All that a damaged extent takes along.
    const pages = concat([places.map((place) => plan.assembled[from + place]!), ...(plain === undefined ? [] : [plain.pages])]);
    return { record, kind, plain, part: { slots, places, combine, ...into }, pages };
  }

  /**
   * Reads the extents a few at a time and keeps the codec threads busy with them. Whatever fails, no job is under way any more when it ends:
   * one that went on would write into memory that the program has back.
   */
  async #decodeAll(all: readonly Wanted[], plan: RegionPlan, fill: boolean, onPages: (pages: number) => void): Promise<void> {
    const running = new Set<Promise<void>>();
    let failure: unknown;
    const start = (wanted: Wanted, record: Uint8Array | undefined): void => {
      const job = this.#decode(wanted, record, plan, fill)
        .then(() => {
          // Only now: what fails may be done again in another way.
          plan.plain.delete(wanted.record);
          onPages(wanted.plain?.pages.length ?? 0);
        })
        .catch((error) => {
          failure ??= foundIn(pageList(plan.wanted.name, wanted.pages), error);
        })
        .finally(() => running.delete(job));
      running.add(job);
    };
    try {
      for (let k = 0; k < all.length && failure === undefined; k += READ_AT_ONCE) {
        this.#context.checkAborted();
        const some = all.slice(k, k + READ_AT_ONCE);
        const records = await this.#context.log.records(
          some.map(({ record }) => record),
          Kind.extent,
        );
        for (const [j, wanted] of some.entries()) {
          while (running.size >= this.#context.codecs.width && failure === undefined) await Promise.race(running);
          if (failure === undefined) start(wanted, records[j]);
        }
      }
    } finally {
      await Promise.all(running);
    }
    if (failure !== undefined) throw failure;
  }

  async #decode(
    { record: number, kind, plain, part }: Wanted,
    record: Uint8Array | undefined,
    plan: RegionPlan,
    fill: boolean,
  ): Promise<void> {
    await this.#context.codecs.run({
      type: 'decode',
      record: present(record, number),
      number,
      store: this.#context.log.store,
      kind,
      plain:
        plain === undefined
          ? null
          : { slots: plain.slots, ...fillPages(plan.wanted, plain.pages, fill ? plan.request : undefined) },
      part,
    });
  }
}

function wantedOf(use: ExtentUse): Wanted {
  return { record: use.record, kind: Version.full, plain: use, part: null, pages: use.pages };
}
