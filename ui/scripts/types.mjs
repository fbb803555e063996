// Write src/api/schema.d.ts from openapi.json, which `medsearch` writes; with --check, fail when it is not current.
import { readFileSync, writeFileSync } from 'node:fs';
import openapi, { astToString } from 'openapi-typescript';

const target = new URL('../src/api/schema.d.ts', import.meta.url);
const text = `// Made by \`npm run types\` from openapi.json; not to be edited.\n${astToString(await openapi(new URL('../openapi.json', import.meta.url)))}`;
if (!process.argv.includes('--check')) writeFileSync(target, text);
else if (readFileSync(target, 'utf8') !== text) {
  console.error('src/api/schema.d.ts is not what openapi.json says: run `npm run types`.');
  process.exit(1);
}
