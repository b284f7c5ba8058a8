// node build.mjs NODE_MODULES MODULE: makes the task a WASM component.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [nodeModules, module] = process.argv.slice(2);
const entry = join(nodeModules, '@bytecodealliance/componentize-js/src/componentize.js');
const { componentize } = await import(pathToFileURL(resolve(entry)));

// The task's world, and the files of WASI, which files.js uses.
const WORLD = `
  package local:task;
  world with-files {
    include mandelbox:task/task@0.1.0;
    import wasi:filesystem/preopens@0.2.12;
  }
`;
const wit = await mkdtemp(join(tmpdir(), 'task-wit-'));
try {
  await writeFile(join(wit, 'world.wit'), WORLD);
  await cp('../../wit', join(wit, 'deps/mandelbox-task'), { recursive: true });
  for (const name of ['wasi-clocks', 'wasi-filesystem', 'wasi-io']) {
    const from = join(nodeModules, '@bytecodealliance/jco/lib/wit/builtin/0.2.12', name);
    await cp(from, join(wit, 'deps', name), { recursive: true });
  }
  const { component } = await componentize({
    sourcePath: 'task.js',
    witPath: wit,
    worldName: 'with-files',
    disableFeatures: ['http', 'fetch-event'],
  });
  await writeFile(module, component);
} finally {
  await rm(wit, { recursive: true });
}
