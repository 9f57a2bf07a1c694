/** A string, or one of the brackets and separators that matter for finding keys. */
const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:,]/gs;

/**
 * The first key that occurs twice in one object of a JSON text, or undefined.
 * `JSON.parse` keeps the last of equal keys in silence, which would hide a damaged or hostile file.
 *
 * @param text valid JSON
 */
export function findDuplicateKey(text: string): string | undefined {
  const open: (Set<string> | null)[] = [];
  let lastString: string | undefined;
  for (const [match] of text.matchAll(token)) {
    if (match === '{') open.push(new Set());
    else if (match === '[') open.push(null);
    else if (match === '}' || match === ']') open.pop();
    else if (match.startsWith('"')) lastString = match;
    else if (match === ':') {
      const key: string = JSON.parse(lastString!);
      const keys = open.at(-1)!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}
