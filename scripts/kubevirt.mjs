// Writes the virtual machines of a manifest down as typed TypeScript, and checks what types do not: kinds and names.
// Called by kubevirt.sh.
import { readFileSync, writeFileSync } from 'node:fs';
import { parseAllDocuments } from 'yaml';

const [, , manifest, output] = process.argv;

function fail(message) {
  console.error(`${manifest}: ${message}`);
  process.exit(1);
}

const machines = parseAllDocuments(readFileSync(manifest, 'utf8')).map((document) => {
  if (document.errors.length > 0) fail(document.errors[0].message);
  return document.toJS();
});
if (machines.length === 0) fail('there is nothing in it');

for (const { apiVersion, kind, metadata, spec } of machines) {
  if (apiVersion !== 'kubevirt.io/v1' || kind !== 'VirtualMachine') fail(`${apiVersion} ${kind} is no virtual machine`);
  if (!/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(metadata?.name ?? '')) fail(`${metadata?.name} cannot be a name`);
  const volumes = (spec.template.spec.volumes ?? []).map(({ name }) => name);
  const disks = (spec.template.spec.domain.devices.disks ?? []).map(({ name }) => name);
  if (volumes.sort().join() !== disks.sort().join()) fail(`volumes ${volumes} are not disks ${disks}`);
}

writeFileSync(
  output,
  `import type { V1VirtualMachine } from '@kubevirt-ui-ext/kubevirt-api/kubevirt';\n` +
    machines.map((machine, at) => `export const machine${at}: V1VirtualMachine = ${JSON.stringify(machine, null, 2)};\n`).join(''),
);
