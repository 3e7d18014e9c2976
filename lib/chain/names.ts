/** A branch or a label: one namespace. */
export interface Name {
  type: 'branch' | 'label';
  id: number;
  /** The record that made it so: a manifest or a ref. */
  record: number;
}

/** The names of a store, and which checkpoint each is of. */
export class Names {
  readonly #names = new Map<string, Name>();
  /** Labels of each checkpoint. */
  readonly #labels = new Map<number, Set<string>>();

  get(name: string): Name | undefined {
    return this.#names.get(name);
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** Of two records for one name the higher one counts, in whatever order they come. */
  set(name: string, value: Name): void {
    const before = this.#names.get(name);
    if (before !== undefined && before.record >= value.record) return;
    if (before?.type === 'label') this.#labels.get(before.id)?.delete(name);
    this.#names.set(name, value);
    if (value.type !== 'label') return;
    const labels = this.#labels.get(value.id);
    if (labels === undefined) this.#labels.set(value.id, new Set([name]));
    else labels.add(name);
  }

  /** Those of a checkpoint, the one given last at the end. */
  labelsOf(id: number): string[] {
    const labels = this.#labels.get(id);
    if (labels === undefined || labels.size === 0) return [];
    return [...labels].sort((a, b) => this.#names.get(a)!.record - this.#names.get(b)!.record);
  }

  clear(): void {
    this.#names.clear();
    this.#labels.clear();
  }

  [Symbol.iterator](): IterableIterator<[string, Name]> {
    return this.#names.entries();
  }
}
