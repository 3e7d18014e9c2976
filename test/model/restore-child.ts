import { writeFileSync } from 'node:fs';
import { Checkpointer } from '../../lib/index.js';
import { allocate, NAMES, viewOf } from './model.js';

// `restore-child <store> <folder> <id>...`: restores each of them, the first into fresh memory, and writes what came back to files.
const [, , store, folder, ...ids] = process.argv;
const memory = allocate();
const checkpointer = await Checkpointer.open(store!, { regions: memory });
for (const id of ids.map(Number)) {
  await checkpointer.restore(id);
  for (const name of NAMES) writeFileSync(`${folder}/${id}.${name}`, viewOf(memory[name]));
}
await checkpointer.close();
