// Otsu's threshold as a typed task.
import { log } from 'mandelbox:task/host@0.1.0';
import { createFolder, listFolder, readFile, writeFile } from './files.js';

/** Name of an image in its folder. */
const IMAGE = 'image.pgm';

/** Of the world: makes a call. A string that is thrown is its error; any other exception is a trap. */
export function run(args) {
  try {
    args = JSON.parse(args);
    // In Fractal v1 the args have `input_paths`.
    return JSON.stringify(args.input_paths === undefined ? call(args) : callV1(args));
  } catch (error) {
    throw error instanceof Error ? error.message : String(error);
  }
}

/** Of the world: the task's entry in a manifest. */
export function describe() {
  return JSON.stringify({
    name: 'Otsu threshold',
    input_type: 'Any',
    output_type: 'Any',
    meta: { parallelization_level: 'image' },
    args_schema: {
      type: 'object',
      properties: {
        bins: {
          type: 'integer',
          minimum: 2,
          maximum: 65536,
          default: 256,
          description: 'Bins of the histogram over all values that a pixel can have.',
        },
        write_mask: {
          type: 'boolean',
          default: true,
          description: 'Whether to write the mask, or to find the threshold only.',
        },
      },
      additionalProperties: false,
    },
    docs_info:
      'Finds a threshold between dark and bright pixels of a grey PGM image and writes the mask of the bright ones.',
  });
}

/**
 * Makes the mask of the image in the folder `zarr_url`; without it, imports the images of `folder`. Returns the changes
 * of the image list.
 */
function call(args) {
  const { zarr_url: zarrUrl, zarr_dir: zarrDir, folder } = args;
  if (zarrUrl === undefined) return importImages(folder, zarrDir);
  const name = zarrUrl.split('/').pop();
  const threshold = segment(name, `${zarrUrl}/${IMAGE}`, `${zarrUrl}/mask.pgm`, args);
  return { image_list_updates: [{ zarr_url: zarrUrl, attributes: { threshold } }] };
}

/** Copies each image of a folder to a folder of its own in `zarrDir`. */
function importImages(folder, zarrDir) {
  const updates = imageNames(folder).map((file) => {
    const zarrUrl = `${zarrDir}/${file.replace(/\.pgm$/, '')}`;
    createFolder(zarrUrl);
    writeFile(`${zarrUrl}/${IMAGE}`, readFile(`${folder}/${file}`));
    return { zarr_url: zarrUrl, attributes: { file } };
  });
  return { image_list_updates: updates };
}

/**
 * Makes the mask of the image that `component` names; without a component, says which images there are.
 * Returns the metadiff.
 */
function callV1(args) {
  const { input_paths: [input], output_path: output, metadata, component } = args;
  if (component === undefined) return { image: imageNames(input), image_folder: input };
  // In a workflow only the first task gets the input: what lists the images says where they are.
  const folder = metadata.image_folder ?? input;
  const maskPath = `${output}/${component.replace(/\.pgm$/, '')}_mask.pgm`;
  return { thresholds: { [component]: segment(component, `${folder}/${component}`, maskPath, args) } };
}

/** The names of the images in a folder, sorted. */
function imageNames(folder) {
  const names = listFolder(folder).filter((name) => name.endsWith('.pgm')).sort();
  if (names.length === 0) throw new Error(`there is no .pgm image in ${folder}`);
  return names;
}

/** Finds the threshold of an image, and writes its mask unless `write_mask` is false. */
function segment(name, path, maskPath, { bins = 256, write_mask: writeMask = true }) {
  if (!Number.isInteger(bins) || bins < 2 || bins > 65536) {
    throw new Error('bins must be a whole number from 2 to 65536');
  }
  const image = parsePgm(name, readFile(path));
  const threshold = otsuThreshold(image, bins);
  log('info', `${name}: threshold ${threshold}`);
  if (writeMask) {
    const header = new TextEncoder().encode(`P5\n${image.width} ${image.height}\n255\n`);
    const mask = new Uint8Array(header.length + image.pixels.length);
    mask.set(header);
    mask.set(image.pixels.map((pixel) => (pixel >= threshold ? 255 : 0)), header.length);
    writeFile(maskPath, mask);
  }
  return threshold;
}

/**
 * Reads a binary PGM image: `P5`, width, height, maximum, one blank, pixels of one byte, or two if the maximum is above
 * 255.
 */
function parsePgm(component, bytes) {
  const fail = (reason) => {
    throw new Error(`${component}: ${reason}`);
  };
  const isBlank = (byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d || byte === 0x0a;
  if (bytes[0] !== 0x50 || bytes[1] !== 0x35) fail('no binary PGM image, which begins with P5');
  let position = 2;
  // A number of 7 digits at most, with the blanks and comments before it; 0 if there is none.
  const takeNumber = () => {
    for (; isBlank(bytes[position]) || bytes[position] === 0x23; position++) {
      if (bytes[position] === 0x23) while (position < bytes.length && bytes[position] !== 0x0a) position++;
    }
    let digits = '';
    while (bytes[position] >= 0x30 && bytes[position] <= 0x39) digits += bytes[position++] - 0x30;
    return digits.length <= 7 ? Number(digits) : 0;
  };
  const [width, height, max] = [takeNumber(), takeNumber(), takeNumber()];
  if (!width || !height || !max || max > 65535 || !isBlank(bytes[position])) {
    fail('its header needs a width, a height and a maximum of at most 65535, each above 0');
  }
  const data = bytes.subarray(position + 1);
  const needed = width * height * (max < 256 ? 1 : 2);
  if (data.length < needed) {
    fail(`cut off: ${width} x ${height} pixels need ${needed} bytes, and there are ${data.length}`);
  }
  const pixels = new Uint16Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = max < 256 ? data[i] : (data[2 * i] << 8) | data[2 * i + 1];
    if (pixels[i] > max) fail(`a pixel is ${pixels[i]}, above the maximum ${max}`);
  }
  return { width, height, max, pixels };
}

/**
 * The smallest pixel value of the foreground: the bound between two bins that separates the pixels best. In an image of
 * one bin only it is above every pixel.
 *
 * Source: N. Otsu, "A threshold selection method from gray-level histograms", 1979.
 */
function otsuThreshold({ max, pixels }, bins) {
  const nValues = max + 1;
  const histogram = new Array(bins).fill(0);
  for (const pixel of pixels) histogram[Math.floor((pixel * bins) / nValues)]++;
  const totalSum = histogram.reduce((sum, n, bin) => sum + bin * n, 0);
  let [below, sumBelow, bestVariance, threshold] = [0, 0, 0, nValues];
  histogram.forEach((n, bin) => {
    below += n;
    sumBelow += bin * n;
    const above = pixels.length - below;
    if (below === 0 || above === 0) return;
    const difference = sumBelow / below - (totalSum - sumBelow) / above;
    const variance = below * above * difference * difference;
    if (variance > bestVariance) {
      bestVariance = variance;
      threshold = Math.ceil(((bin + 1) * nValues) / bins);
    }
  });
  return threshold;
}
