import { deltasBetween, notWhatWasStored, type Part, Parts } from '../chain/assembly.js';
import { isDamage } from '../chain/damage.js';
import { type RegionTable, Version } from '../chain/page-table.js';
import type { CodecPorts, Lent } from '../engine/codec-ports.js';
import type { FillPages, Segments } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { SEGMENT_PAGES } from '../kernel/addon.js';
import type { RegionPlan } from './plan.js';

/** Reads extents and has them decoded: everything of `parts`, and what else is wanted of the same extents. */
export type DecodeParts = (parts: readonly Part[], combine: boolean, into: Segments) => Promise<void>;

/** Pages of a region that are put together in segments of staging, some thousand at a time. */
export class Window {
  readonly #plan: RegionPlan;
  readonly #codecs: CodecPorts;
  readonly #lent: Lent;
  readonly #isReserve: boolean;
  /** Ascending; the place of a page is its index. */
  readonly #pages: Uint32Array;
  readonly #from: number;

  private constructor(plan: RegionPlan, from: number, codecs: CodecPorts, lent: Lent, isReserve: boolean) {
    this.#plan = plan;
    this.#from = from;
    this.#codecs = codecs;
    this.#lent = lent;
    this.#isReserve = isReserve;
    this.#pages = plan.assembled.subarray(from, from + lent.segments.length * SEGMENT_PAGES);
  }

  /**
   * For the pages of a plan from number `from` on, as many as there is staging for.
   * @param reserve what it is where there is none. It never waits for staging: what is there may wait for the log to be reopened, and that for a restore that
   * has pinned it
   */
  static open(plan: RegionPlan, from: number, codecs: CodecPorts, reserve: Lent | undefined): Window {
    const lent = codecs.lend(Math.ceil((plan.assembled.length - from) / SEGMENT_PAGES));
    if (lent !== undefined) return new Window(plan, from, codecs, lent, false);
    if (reserve === undefined || reserve.staging !== codecs.staging)
      throw new TidemarkError('TIDEMARK_STALLED', 'the codec threads of the engine were replaced', { hint: 'try again' });
    return new Window(plan, from, codecs, reserve, true);
  }

  /** Whether it may be kept until the restore goes on: the reserve is wanted for what comes next. */
  get isKeepable(): boolean {
    return !this.#isReserve;
  }

  /** The number in the plan of the first page behind it. */
  get end(): number {
    return this.#from + this.#pages.length;
  }

  /** Its memory is gone when the codec threads were replaced. */
  get usable(): boolean {
    return this.#codecs.staging === this.#lent.staging;
  }

  /** Puts the pages together and compares them; what was made of memory and is not right is made again of what is stored. */
  async assemble(decode: DecodeParts): Promise<void> {
    const { plan, places } = { plan: this.#plan, places: Uint32Array.from(this.#pages.keys()) };
    const fromMemory = places.filter((place) => plan.fromMemory[this.#from + place] === 1);
    const fromChain = places.filter((place) => plan.fromMemory[this.#from + place] === 0);
    const deltas = new Parts();
    for (const place of fromMemory) {
      const page = this.#pages[place]!;
      for (const { kind, record, slot } of deltasBetween(plan.has!, plan.wanted, page)!) deltas.add(kind, record, slot, place);
    }
    try {
      await this.#read(fromMemory);
      await this.#fromChain(fromChain, deltas, decode);
    } catch (error) {
      // The deltas that lead there from what is in memory may be of checkpoints that are not asked for: damage to these is no reason to fail.
      if (fromMemory.length === 0 || !isDamage(error)) throw error;
      await this.#fromChain(places, new Parts(), decode);
    }
    let wrong = await this.#finish();
    // The kernel does not see every write, and memory may rot.
    const again = wrong.filter((place) => plan.fromMemory[this.#from + place] === 1);
    if (again.length > 0) {
      await this.#fromChain(again, new Parts(), decode);
      wrong = await this.#finish();
    }
    if (wrong.length > 0) throw notWhatWasStored(plan.wanted.name, this.#pagesAt(wrong));
  }

  /** Fills the pages into the region, which may have moved since they were put together. */
  async fill({ request }: RegionPlan): Promise<void> {
    const wrong = await this.#finish(request);
    if (wrong.length > 0) throw notWhatWasStored(this.#plan.wanted.name, this.#pagesAt(wrong));
  }

  close(): void {
    if (!this.#isReserve) this.#lent.staging.releaseAll(this.#lent.segments);
  }

  get #into(): Segments {
    return { ring: this.#lent.staging.handle.ring, segments: this.#lent.segments };
  }

  #pagesAt(places: Uint32Array): Uint32Array {
    return places.map((place) => this.#pages[place]!);
  }

  async #read(places: Uint32Array): Promise<void> {
    const jobs: Promise<unknown>[] = [];
    for (let k = 0; k < places.length; k += SEGMENT_PAGES) {
      const some = places.slice(k, k + SEGMENT_PAGES);
      const region = this.#plan.request.native;
      jobs.push(this.#codecs.run({ type: 'read', region, pages: this.#pagesAt(some), places: some, ...this.#into }));
    }
    await settled(jobs);
  }

  /** The full versions first: the deltas are put over them. */
  async #fromChain(places: Uint32Array, deltas: Parts, decode: DecodeParts): Promise<void> {
    const full = new Parts();
    for (const place of places) {
      this.#plan.wanted.versions(this.#pages[place]!, (kind, record, slot) =>
        (kind === Version.full ? full : deltas).add(kind, record, slot, place),
      );
    }
    await decode(full.list(), false, this.#into);
    await decode(deltas.list(), true, this.#into);
  }

  /** @returns the places of the pages that are wrong */
  async #finish(into?: RegionPlan['request']): Promise<Uint32Array> {
    const jobs = Array.from(this.#lent.segments, async (segment, k) => {
      const pages = this.#pages.slice(k * SEGMENT_PAGES, (k + 1) * SEGMENT_PAGES);
      const { ring } = this.#into;
      const wrong = await this.#codecs.run({ type: 'finish', ring, segment, ...fillPages(this.#plan.wanted, pages, into) });
      return wrong.map((index) => k * SEGMENT_PAGES + index);
    });
    return Uint32Array.from((await settled(jobs)).flatMap((wrong) => [...wrong]));
  }
}

/** What a codec thread must know of pages to fill them. */
export function fillPages(wanted: RegionTable, pages: Uint32Array, into: RegionPlan['request'] | undefined): FillPages {
  const crcs = new Uint32Array(pages.length);
  const depths = new Uint8Array(pages.length);
  for (let k = 0; k < pages.length; k++) {
    crcs[k] = wanted.crc[pages[k]!]!;
    depths[k] = wanted.depth(pages[k]!);
  }
  return { region: into?.native ?? 0, pages, crcs, depths, shadow: into?.shadow ?? null, lazy: into?.lazy ?? 0 };
}

/** Whatever fails, nothing is under way any more when it ends: what went on would write into memory that others have by then. */
async function settled<T>(jobs: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(jobs);
  return Promise.all(jobs);
}
