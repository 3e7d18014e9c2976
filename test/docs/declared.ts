import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** What a declaration file says of one exported name. */
export interface Declared {
  name: string;
  /** Public members, of classes and interfaces (and of the object types of aliases). */
  members: string[];
  /** The declaration without its comments. */
  text: string;
}

/** Every export of a declaration file that only passes on what others declare (`export { A, type B } from './c.js'`). */
export function exportsOf(index: string): Declared[] {
  const declared: Declared[] = [];
  for (const [, names, from] of withoutComments(readFileSync(index, 'utf8')).matchAll(
    /export (?:type )?\{([^}]*)\} from '([^']+)'/g,
  )) {
    const text = withoutComments(readFileSync(join(dirname(index), from!.replace(/\.js$/, '.d.ts')), 'utf8'));
    for (const item of names!.split(',')) {
      const name = item.trim().replace(/^type /, '');
      if (name !== '') declared.push(declarationOf(name, text));
    }
  }
  return declared;
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*$/gm, '');
}

function declarationOf(name: string, text: string): Declared {
  const start = new RegExp(`export (?:declare )?(?:class|interface|type|function|const) ${name}\\b`).exec(text)?.index;
  if (start === undefined) throw new Error(`${name} is declared nowhere`);
  const next = text.indexOf('\nexport ', start + 1);
  const declaration = text.slice(start, next < 0 ? undefined : next);
  const members = /^export (?:declare )?(?:class|interface)/.test(declaration) ? membersOf(declaration) : [];
  return { name, members, text: declaration };
}

/** Names at the first level of the braces that begin the body. */
function membersOf(declaration: string): string[] {
  const names = new Set<string>();
  let depth = 0;
  for (const line of declaration.slice(declaration.indexOf('{\n')).split('\n')) {
    if (depth === 1 && !/^\s*(?:private|#|constructor)/.test(line)) {
      const member = /^\s*(?:static |readonly |get |set |async |\*)*(?:\[Symbol\.(\w+)\]|(\w+))[?(:<]/.exec(line);
      if (member !== null) names.add(member[1] ?? member[2]!);
    }
    for (const character of line) depth += '{(['.includes(character) ? 1 : '})]'.includes(character) ? -1 : 0;
  }
  return [...names];
}
