// Compiles the contracts of the tests; prints {name: {abi, bytecode}} as JSON.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const solc = require('solc');
const here = dirname(fileURLToPath(import.meta.url));

const sources = { 'Tokens.sol': { content: readFileSync(join(here, 'Tokens.sol'), 'utf8') } };
const settings = { outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object'] } }, evmVersion: 'cancun' };
const input = JSON.stringify({ language: 'Solidity', sources, settings });
const load = (path) => ({ contents: readFileSync(join(here, 'node_modules', path), 'utf8') });
const output = JSON.parse(solc.compile(input, { import: load }));
const errors = (output.errors ?? []).filter((error) => error.severity === 'error');
if (errors.length) {
  console.error(errors.map((error) => error.formattedMessage).join('\n'));
  process.exit(1);
}
const made = Object.entries(output.contracts['Tokens.sol']).map(([name, contract]) => [
  name,
  { abi: contract.abi, bytecode: '0x' + contract.evm.bytecode.object },
]);
process.stdout.write(JSON.stringify(Object.fromEntries(made)));
