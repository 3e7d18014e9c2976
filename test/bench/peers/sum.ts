/** FNV-1a over 32-bit words, word k in lane k % 4; as `sumOf` in native/load.h. A word that differs always changes its lane. */
export function sumOf(bytes: Uint8Array): string {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  let [a, b, c, d] = [0x811c9dc5, 0x811c9dc5, 0x811c9dc5, 0x811c9dc5];
  for (let k = 0; k < words.length; k += 4) {
    a = Math.imul(a ^ words[k]!, 0x01000193);
    b = Math.imul(b ^ words[k + 1]!, 0x01000193);
    c = Math.imul(c ^ words[k + 2]!, 0x01000193);
    d = Math.imul(d ^ words[k + 3]!, 0x01000193);
  }
  return [a, b, c, d].map((lane) => (lane >>> 0).toString(16).padStart(8, '0')).join('');
}
