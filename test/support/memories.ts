interface WasmMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

/** Neither our `lib` nor @types/node 20 declares it. */
export const { Memory } = (
  globalThis as unknown as {
    WebAssembly: { Memory: new (options: { initial: number; maximum: number; shared?: boolean }) => WasmMemory };
  }
).WebAssembly;

/** An ArrayBuffer that `resize` shrinks and grows, by default up to this size; what lies behind a smaller size is dropped. */
export function resizable(byteLength: number, maxByteLength = byteLength): ArrayBuffer & { resize(byteLength: number): void } {
  const Resizable = ArrayBuffer as unknown as new (
    length: number,
    options: { maxByteLength: number },
  ) => ArrayBuffer & { resize(byteLength: number): void };
  return new Resizable(byteLength, { maxByteLength });
}
