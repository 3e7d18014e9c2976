import { CheckpointStore, type StoreOptions, TidemarkError } from '../lib/index.js';

/** Undefined when there is no store: a program was perhaps killed before it had made one. */
export async function openIfThere(path: string, options: StoreOptions = {}): Promise<CheckpointStore | undefined> {
  try {
    return await CheckpointStore.open(path, options);
  } catch (error) {
    if (error instanceof TidemarkError && error.code === 'TIDEMARK_NOT_FOUND') return undefined;
    throw error;
  }
}
