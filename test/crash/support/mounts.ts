import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './folders.js';

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** These tests cut, fill and break file systems; where that cannot be done they fail, and say why. */
export function requireRoot(...commands: string[]): void {
  const missing = commands.filter((command) => spawnSync('sh', ['-c', `command -v ${command}`]).status !== 0);
  const reasons = [
    process.getuid?.() === 0 ? '' : 'they must run as root',
    missing.length === 0 ? '' : `not found: ${missing.join(', ')}`,
    commands.includes('losetup') && !existsSync('/dev/loop-control') ? 'there are no loop devices (/dev/loop-control)' : '',
  ].filter(Boolean);
  if (reasons.length > 0)
    throw new Error(
      `the crash tests of \`npm run test:crash\` cannot run here: ${reasons.join('; ')} (\`npm test\` does not need this)`,
    );
}

/** A file system of its own in a temporary folder. The loop device goes with the mount (`mount -o loop` sets autoclear). */
export class Mount {
  readonly folder: string;
  /** Where it is mounted. */
  readonly path: string;
  readonly #image: string | undefined;

  private constructor(image: boolean) {
    this.folder = temporaryFolder();
    this.path = join(this.folder, 'mnt');
    this.#image = image ? join(this.folder, 'image') : undefined;
    mkdirSync(this.path);
  }

  static ext4(megabytes: number): Mount {
    const mount = new Mount(true);
    try {
      writeFileSync(mount.#image!, '');
      truncateSync(mount.#image!, megabytes * 2 ** 20);
      run('mkfs.ext4', '-q', '-F', '-m', '0', '-b', '4096', '-E', 'lazy_itable_init=1,nodiscard', mount.#image!);
      mount.mount();
      return mount;
    } catch (error) {
      mount.remove();
      throw error;
    }
  }

  static tmpfs(megabytes: number): Mount {
    const mount = new Mount(false);
    try {
      run('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m`, 'none', mount.path);
      return mount;
    } catch (error) {
      mount.remove();
      throw error;
    }
  }

  mount(): void {
    run('mount', '-o', 'loop', this.#image!, this.path);
  }

  /** The file system is gone when this returns, not only hidden: a second mount of the image reads what is on the "disk". */
  unmount(): void {
    for (let attempt = 0; ; attempt++) {
      try {
        run('umount', this.path);
        break;
      } catch (error) {
        if (attempt === 50) throw error;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
      }
    }
    while (this.#image !== undefined && run('losetup', '-j', this.#image) !== '')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
  }

  /** Never throws; what cannot be unmounted now is unmounted when nobody uses it any more. */
  remove(): void {
    if (readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${this.path} `)) {
      if (spawnSync('umount', [this.path]).status !== 0) spawnSync('umount', ['-l', this.path]);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const POWER_CUT = `
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>
// cut <mount> <flag> [<file> <offset> <length>]...: these parts of files reach the disk first, then nothing any more
int main(int count, char** arguments) {
  int folder = open(arguments[1], O_RDONLY | O_DIRECTORY);
  if (folder < 0) return perror("open"), 1;
  for (int k = 3; k + 2 < count; k += 3) {
    int file = open(arguments[k], O_RDONLY);
    if (file < 0) continue;
    const unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (atoll(arguments[k + 2]) == 0) fdatasync(file);
    else sync_file_range(file, atoll(arguments[k + 1]), atoll(arguments[k + 2]), all);
    close(file);
  }
  uint32_t flag = atoi(arguments[2]);
  if (ioctl(folder, _IOR('X', 125, uint32_t), &flag) != 0) return perror("EXT4_IOC_SHUTDOWN"), 1;
}
`;

export interface WrittenBack {
  file: string;
  offset: number;
  /** 0: all of the file, and the journal with it. */
  length: number;
}

/** Cuts the power of file systems: after `cut` nothing that is written reaches the image any more. */
export class PowerSwitch {
  readonly #folder = temporaryFolder();
  readonly #program = join(this.#folder, 'cut');

  constructor() {
    const source = join(this.#folder, 'cut.cc');
    writeFileSync(source, POWER_CUT);
    run('c++', '-O1', '-o', this.#program, source);
  }

  /**
   * @param journal whether the journal that is in memory is written before (EXT4_GOING_FLAGS_LOGFLUSH) or lost (NOLOGFLUSH)
   * @param writtenBack parts of files that the kernel happens to have written before, in an order of its own
   */
  cut(mount: Mount, journal: 'flushed' | 'lost', writtenBack: WrittenBack[]): void {
    const parts = writtenBack.flatMap(({ file, offset, length }) => [file, String(offset), String(length)]);
    run(this.#program, mount.path, journal === 'flushed' ? '1' : '2', ...parts);
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
