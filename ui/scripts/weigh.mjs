// Print what the browser loads at first and what later, gzipped; fail when the first is too heavy.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const MOST_INITIAL_KB = 350;
const folder = new URL('../../medsearch_desktop/serve/static/', import.meta.url);
const manifest = JSON.parse(readFileSync(new URL('.vite/manifest.json', folder), 'utf8'));

function reached(name, seen, dynamic) {
  if (seen.has(name)) return seen;
  seen.add(name);
  const part = manifest[name];
  for (const next of part.imports ?? []) reached(next, seen, dynamic);
  if (dynamic) for (const next of part.dynamicImports ?? []) reached(next, seen, dynamic);
  return seen;
}

const weight = (name) => gzipSync(readFileSync(new URL(manifest[name].file, folder))).length / 1000;
const scripts = (names) => [...names].filter((name) => manifest[name].file.endsWith('.js'));
const initial = scripts(reached('index.html', new Set(), false));
const all = scripts(reached('index.html', new Set(), true));
const sum = (names) => names.reduce((total, name) => total + weight(name), 0);
for (const name of all) {
  const when = initial.includes(name) ? 'at first ' : 'on demand';
  console.log(`${when} ${weight(name).toFixed(1).padStart(8)} kB gzipped  ${manifest[name].file}`);
}
const first = sum(initial);
console.log(`initial JavaScript: ${first.toFixed(1)} kB gzipped of at most ${MOST_INITIAL_KB}`);
if (first > MOST_INITIAL_KB) {
  console.error('The initial JavaScript is too heavy: load something on demand, or do without it.');
  process.exit(1);
}
