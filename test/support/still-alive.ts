/**
 * Mocha does not force its process to end (`exit: false`), so a thread, handle or timer that the library leaves open shows. This makes
 * it a failure that names what is open, instead of a run that hangs. The timer is unreferenced: it fires only if something else is alive.
 */
const GRACE_MS = 20_000;

export function mochaGlobalTeardown(): void {
  setTimeout(() => {
    console.error(
      `\nThe tests are over, but after ${GRACE_MS / 1000} s the process is still alive: ${process.getActiveResourcesInfo().join(', ')}`,
    );
    // Mocha sets the exit code in a listener of its own; this one comes after it.
    process.on('exit', () => {
      process.exitCode ||= 1;
    });
    process.exit();
  }, GRACE_MS).unref();
}
