// Files by their path, on top of WASI: a task in JavaScript has no node:fs.
import { getDirectories } from 'wasi:filesystem/preopens@0.2.12';

const CHUNK = 1 << 20;

/** The names of the entries of a folder, in any order. */
export function listFolder(path) {
  return explained(`cannot list ${path}`, () => {
    const entries = open(path, { directory: true }, { read: true }).readDirectory();
    const names = [];
    for (let entry; (entry = entries.readDirectoryEntry()); ) names.push(entry.name);
    return names;
  });
}

/** The bytes of a file. */
export function readFile(path) {
  return explained(`cannot read ${path}`, () => {
    const file = open(path, {}, { read: true });
    const bytes = new Uint8Array(Number(file.stat().size));
    let length = 0;
    for (let atEnd = false; !atEnd && length < bytes.length; ) {
      const [chunk, end] = file.read(BigInt(Math.min(CHUNK, bytes.length - length)), BigInt(length));
      bytes.set(chunk, length);
      length += chunk.length;
      atEnd = end;
    }
    return bytes.subarray(0, length);
  });
}

/** Creates a folder whose parent exists, unless it is there. */
export function createFolder(path) {
  explained(`cannot create ${path}`, () => {
    const [descriptor, relative] = locate(path);
    try {
      descriptor.createDirectoryAt(relative);
    } catch (error) {
      if (error.payload !== 'exist') throw error;
    }
  });
}

/** Writes a file, in place of one that is there. */
export function writeFile(path, bytes) {
  explained(`cannot write ${path}`, () => {
    const file = open(path, { create: true, truncate: true }, { write: true });
    for (let length = 0; length < bytes.length; ) {
      length += Number(file.write(bytes.subarray(length, length + CHUNK), BigInt(length)));
    }
  });
}

function open(path, openFlags, flags) {
  const [descriptor, relative] = locate(path);
  return descriptor.openAt({ symlinkFollow: true }, relative, openFlags, flags);
}

/** The folder that the host has opened for the task and that a path is below, and the rest of the path. */
function locate(path) {
  const below = ([, folder]) => path === folder || path.startsWith(folder.endsWith('/') ? folder : `${folder}/`);
  const [best] = getDirectories().filter(below).sort(([, a], [, b]) => b.length - a.length);
  if (!best) throw new Error('it is in no folder that the task may see');
  const [descriptor, folder] = best;
  return [descriptor, path.slice(folder.length).replace(/^\/+/, '') || '.'];
}

/** A failed call of WASI throws an error whose payload is a code, such as `no-entry`. */
function explained(what, action) {
  try {
    return action();
  } catch (error) {
    throw new Error(`${what}: ${error.payload ?? error.message}`);
  }
}
