import type { Checkpoint } from '../chain/header.js';
import type { RegionShadow } from '../engine/shadows.js';
import { TidemarkError } from '../errors.js';
import type { Region } from '../region/region.js';

/** A region of a checkpointer. */
export interface Member {
  readonly name: string;
  readonly region: Region;
  /** What its extents are addressed by; another one each time a region is attached. */
  readonly slot: number;
  /** Its memory does not descend from what the checkpointer is based on: the next capture takes everything in it. */
  fresh: boolean;
  /** Undefined: without deltas. */
  readonly shadow: RegionShadow | undefined;
}

/** The regions of a checkpointer, by name, and what each descends from. */
export class Members {
  readonly #owner: object;
  readonly #members = new Map<string, Member>();
  #nextSlot = 0;

  readonly #makeShadow: () => RegionShadow | undefined;

  constructor(owner: object, makeShadow: () => RegionShadow | undefined) {
    this.#owner = owner;
    this.#makeShadow = makeShadow;
  }

  /** Regions that were claimed for `claimant` before. */
  take(regions: ReadonlyMap<string, Region>, claimant: object): void {
    for (const [name, region] of regions) {
      region.transferClaim(claimant, this.#owner);
      this.#members.set(name, { name, region, slot: this.nextSlot(), fresh: false, shadow: this.#makeShadow() });
    }
  }

  /** @throws {TidemarkError} `TIDEMARK_REGION_BUSY`, `TIDEMARK_CLOSED` */
  attach(name: string, region: Region, base: Checkpoint | undefined): void {
    if (this.#members.has(name)) throw new TypeError(`there is a region ${name} already: detach it first`);
    region.claim(this.#owner);
    const descends = base !== undefined && region.lineage?.name === name && region.lineage.uid === base.uid;
    if (!descends) region.lineage = undefined;
    this.#members.set(name, { name, region, slot: this.nextSlot(), fresh: !descends, shadow: this.#makeShadow() });
  }

  detach(name: string): Member {
    const member = this.need(name);
    this.#members.delete(name);
    member.region.release(this.#owner);
    member.shadow?.close();
    return member;
  }

  need(name: string): Member {
    const member = this.#members.get(name);
    if (member !== undefined) return member;
    throw new TidemarkError('TIDEMARK_NOT_FOUND', `the checkpointer has no region ${name}`, {
      hint: `it has ${[...this.#members.keys()].join(', ') || 'none'}`,
    });
  }

  nextSlot(): number {
    return this.#nextSlot++;
  }

  get names(): string[] {
    return [...this.#members.keys()];
  }

  get all(): Member[] {
    return [...this.#members.values()];
  }

  /** Whether it is still there, and not another one under its name. */
  has(member: Member): boolean {
    return this.#members.get(member.name) === member;
  }

  /** What the memory of these regions descends from now. Regions that were detached since do not: their writes were taken by others. */
  descend(members: readonly Member[], checkpoint: Checkpoint | undefined): void {
    for (const member of members) {
      if (!this.has(member)) continue;
      member.region.lineage = checkpoint === undefined ? undefined : { name: member.name, uid: checkpoint.uid };
    }
  }

  releaseAll(): void {
    for (const { region, shadow } of this.#members.values()) {
      region.release(this.#owner);
      shadow?.close();
    }
  }
}

/** The checkpoint that all regions descend from, under the names they have here. */
export function commonLineage(regions: ReadonlyMap<string, Region>): string | null {
  let uid: string | null | undefined;
  for (const [name, { lineage }] of regions) {
    const own = lineage?.name === name ? lineage.uid : null;
    if (uid !== undefined && uid !== own) return null;
    uid = own;
  }
  return uid ?? null;
}
