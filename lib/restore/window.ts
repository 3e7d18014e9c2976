import { setTimeout } from 'node:timers/promises';
import { deltasBetween, notWhatWasStored, type Part, Parts } from '../chain/assembly.js';
import { isDamage } from '../chain/damage.js';
import { type RegionTable, Version } from '../chain/page-table.js';
import type { CodecPorts } from '../engine/codec-ports.js';
import type { FillPages } from '../engine/protocol.js';
import type { Staging } from '../engine/staging.js';
import { TidemarkError } from '../errors.js';
import { SEGMENT_PAGES } from '../kernel/addon.js';
import type { RegionPlan } from './plan.js';

/** Milliseconds between two looks for free staging. */
const LOOK_AGAIN_MS = 1;

/** Reads extents and has them decoded: everything of `parts`, and what else is wanted of the same extents. */
export type DecodeParts = (parts: readonly Part[], combine: boolean, segments: Int32Array) => Promise<void>;

/** Pages of a region that are put together in segments of staging, some thousand at a time. */
export class Window {
  readonly #plan: RegionPlan;
  readonly #codecs: CodecPorts;
  readonly #staging: Staging;
  readonly #segments: Int32Array;
  /** Ascending; the place of a page is its index. */
  readonly #pages: Uint32Array;
  readonly #from: number;

  private constructor(plan: RegionPlan, from: number, codecs: CodecPorts, staging: Staging, segments: Int32Array) {
    this.#plan = plan;
    this.#from = from;
    this.#codecs = codecs;
    this.#staging = staging;
    this.#segments = segments;
    this.#pages = plan.assembled.subarray(from, from + segments.length * SEGMENT_PAGES);
  }

  /**
   * For the pages of a plan from number `from` on, as many as there is staging for. Half of what is free is left to others: captures must go on beside a restore
   * that waits for its caller, which may itself be in such a capture.
   * @param giveUp frees something that the same restore keeps, if it keeps anything: nobody else would
   */
  static async open(
    plan: RegionPlan,
    from: number,
    codecs: CodecPorts,
    aborted: () => boolean,
    giveUp: () => boolean,
  ): Promise<Window> {
    const want = Math.ceil((plan.assembled.length - from) / SEGMENT_PAGES);
    for (;;) {
      const { staging } = codecs;
      if (staging === undefined) throw new TidemarkError('TIDEMARK_STALLED', 'no codec thread is running', { hint: 'try again' });
      if (aborted()) throw new TidemarkError('TIDEMARK_ABORTED', 'the restore was aborted');
      const half = Math.floor(staging.free() / 2);
      const segments = half === 0 ? undefined : staging.tryAcquire(Math.min(want, half));
      if (segments !== undefined) return new Window(plan, from, codecs, staging, segments);
      if (!giveUp()) await setTimeout(LOOK_AGAIN_MS);
    }
  }

  /** The number in the plan of the first page behind it. */
  get end(): number {
    return this.#from + this.#pages.length;
  }

  /** Its memory is gone when the codec threads were replaced. */
  get usable(): boolean {
    return this.#codecs.staging === this.#staging;
  }

  /** Puts the pages together and compares them; what was made of memory and is not right is made again of what is stored. */
  async assemble(decode: DecodeParts): Promise<void> {
    const { plan, places } = { plan: this.#plan, places: Uint32Array.from(this.#pages.keys()) };
    const fromMemory = places.filter((place) => plan.fromMemory[this.#from + place] === 1);
    const fromChain = places.filter((place) => plan.fromMemory[this.#from + place] === 0);
    const deltas = new Parts();
    for (const place of fromMemory) {
      const page = this.#pages[place]!;
      for (const version of deltasBetween(plan.has!, plan.wanted, page)!) deltas.add(version, place);
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
    if (again.length > 0 && again.length === wrong.length) {
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
    this.#staging.releaseAll(this.#segments);
  }

  #pagesAt(places: Uint32Array): Uint32Array {
    return places.map((place) => this.#pages[place]!);
  }

  async #read(places: Uint32Array): Promise<void> {
    const jobs: Promise<unknown>[] = [];
    for (let k = 0; k < places.length; k += SEGMENT_PAGES) {
      const some = places.slice(k, k + SEGMENT_PAGES);
      const region = this.#plan.request.native;
      jobs.push(this.#codecs.run({ type: 'read', region, pages: this.#pagesAt(some), places: some, segments: this.#segments }));
    }
    await settled(jobs);
  }

  /** The full versions first: the deltas are put over them. */
  async #fromChain(places: Uint32Array, deltas: Parts, decode: DecodeParts): Promise<void> {
    const full = new Parts();
    for (const place of places) {
      this.#plan.wanted.versions(this.#pages[place]!, (kind, record, slot) =>
        (kind === Version.full ? full : deltas).add({ kind, record, slot }, place),
      );
    }
    await decode(full.list(), false, this.#segments);
    await decode(deltas.list(), true, this.#segments);
  }

  /** @returns the places of the pages that are wrong */
  async #finish(into?: RegionPlan['request']): Promise<Uint32Array> {
    const jobs = Array.from(this.#segments, async (segment, k) => {
      const pages = this.#pages.slice(k * SEGMENT_PAGES, (k + 1) * SEGMENT_PAGES);
      const wrong = await this.#codecs.run({ type: 'finish', segment, ...fillPages(this.#plan.wanted, pages, into) });
      return wrong.map((index) => k * SEGMENT_PAGES + index);
    });
    return Uint32Array.from((await settled(jobs)).flatMap((wrong) => [...wrong]));
  }
}

/** What a codec thread must know of pages to fill them. */
export function fillPages(wanted: RegionTable, pages: Uint32Array, into: RegionPlan['request'] | undefined): FillPages {
  return {
    region: into?.native ?? 0,
    pages,
    crcs: pages.map((page) => wanted.crc[page]!),
    depths: Uint8Array.from(pages, (page) => wanted.depth(page)),
    shadow: into?.shadow ?? null,
  };
}

/** Whatever fails, nothing is under way any more when it ends: what went on would write into memory that others have by then. */
async function settled<T>(jobs: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(jobs);
  return Promise.all(jobs);
}
