//! What the task does, whichever way it is called.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Name of an image in its folder.
const IMAGE: &str = "image.pgm";

/// A grey image of `width * height` pixels, row by row, each from 0 to `max`.
struct Image {
    width: u64,
    height: u64,
    max: u64,
    pixels: Vec<u16>,
}

/// A call of either version of Fractal. In version 1 the args have `input_paths`.
///
/// Returns the output of the call.
pub fn run(args: &Value, log: impl Fn(&str)) -> Result<Value, String> {
    match args.get("input_paths") {
        None => run_v2(args, log),
        Some(_) => run_v1(args, log),
    }
}

/// Makes the mask of the image in the folder `zarr_url`; without it, imports the images of a
/// folder.
///
/// Returns the changes of the image list.
fn run_v2(args: &Value, log: impl Fn(&str)) -> Result<Value, String> {
    let Some(zarr_url) = args["zarr_url"].as_str() else {
        return import_images(args);
    };
    let folder = Path::new(zarr_url);
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let threshold = segment(&name, &folder.join(IMAGE), &folder.join("mask.pgm"), args)?;
    log(&format!("{name}: threshold {threshold}"));
    Ok(
        json!({ "image_list_updates": [{ "zarr_url": zarr_url, "attributes": { "threshold": threshold } }] }),
    )
}

/// Copies each image of `folder` to a folder of its own in `zarr_dir`.
fn import_images(args: &Value) -> Result<Value, String> {
    let folder = args["folder"].as_str().ok_or("folder is no path")?;
    let zarr_dir = args["zarr_dir"].as_str().ok_or("zarr_dir is no path")?;
    let mut updates = Vec::new();
    for file in image_names(folder)? {
        let from = Path::new(folder).join(&file);
        let to = Path::new(zarr_dir).join(file.trim_end_matches(".pgm"));
        let image =
            fs::read(&from).map_err(|err| format!("cannot read {}: {err}", from.display()))?;
        let written = fs::create_dir_all(&to).and_then(|()| fs::write(to.join(IMAGE), image));
        written.map_err(|err| format!("cannot write {}: {err}", to.display()))?;
        updates.push(json!({ "zarr_url": to, "attributes": { "file": file } }));
    }
    Ok(json!({ "image_list_updates": updates }))
}

/// Makes the mask of the image that `component` names; without a component, says which images there
/// are.
///
/// Returns the metadiff.
fn run_v1(args: &Value, log: impl Fn(&str)) -> Result<Value, String> {
    let input = args["input_paths"][0]
        .as_str()
        .ok_or("input_paths has no path")?;
    let Some(component) = args["component"].as_str() else {
        return Ok(json!({ "image": image_names(input)?, "image_folder": input }));
    };
    // In a workflow only the first task gets the input: what lists the images says where they are.
    let folder = args["metadata"]["image_folder"].as_str().unwrap_or(input);
    let output = args["output_path"]
        .as_str()
        .ok_or("output_path is no path")?;
    let stem = component.strip_suffix(".pgm").unwrap_or(component);
    let mask = Path::new(output).join(format!("{stem}_mask.pgm"));
    let threshold = segment(component, &Path::new(folder).join(component), &mask, args)?;
    log(&format!("{component}: threshold {threshold}"));
    Ok(json!({ "thresholds": { component: threshold } }))
}

/// Finds the threshold of an image, and writes its mask unless `write_mask` is false.
///
/// * `name`: name of the image for messages.
fn segment(name: &str, path: &Path, mask_path: &Path, args: &Value) -> Result<u64, String> {
    let bins = args
        .get("bins")
        .map_or(Some(256), Value::as_u64)
        .filter(|bins| (2..=65536).contains(bins));
    let bins = bins.ok_or("bins must be a whole number from 2 to 65536")?;
    let write_mask = args.get("write_mask").map_or(Some(true), Value::as_bool);
    let write_mask = write_mask.ok_or("write_mask must be true or false")?;

    let bytes = fs::read(path).map_err(|err| format!("cannot read {}: {err}", path.display()))?;
    let image = parse_pgm(&bytes).map_err(|err| format!("{name}: {err}"))?;
    let threshold = otsu_threshold(&image, bins);
    if write_mask {
        let mut mask = format!("P5\n{} {}\n255\n", image.width, image.height).into_bytes();
        mask.extend(image.pixels.iter().map(|&pixel| {
            if u64::from(pixel) >= threshold {
                255
            } else {
                0
            }
        }));
        fs::write(mask_path, mask)
            .map_err(|err| format!("cannot write {}: {err}", mask_path.display()))?;
    }
    Ok(threshold)
}

/// The names of the images in a folder, sorted.
fn image_names(folder: &str) -> Result<Vec<String>, String> {
    let failed = |err| format!("cannot list {folder}: {err}");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.extend(
            entry
                .map_err(failed)?
                .file_name()
                .into_string()
                .ok()
                .filter(|name| name.ends_with(".pgm")),
        );
    }
    names.sort();
    if names.is_empty() {
        return Err(format!("there is no .pgm image in {folder}"));
    }
    Ok(names)
}

/// Reads a binary PGM image: `P5`, width, height, maximum, one blank, pixels of one byte, or two if
/// the maximum is above 255.
fn parse_pgm(bytes: &[u8]) -> Result<Image, String> {
    const HEADER: &str =
        "its header needs a width, a height and a maximum of at most 65535, each above 0";
    let mut rest = bytes
        .strip_prefix(b"P5")
        .ok_or("no binary PGM image, which begins with P5")?;
    let mut number = || take_number(&mut rest).filter(|number| *number > 0);
    let (width, height, max) = (
        number().ok_or(HEADER)?,
        number().ok_or(HEADER)?,
        number().ok_or(HEADER)?,
    );
    let [b' ' | b'\t' | b'\r' | b'\n', data @ ..] = rest else {
        return Err(HEADER.to_owned());
    };
    if max > 65535 {
        return Err(HEADER.to_owned());
    }
    let pixel_bytes = if max < 256 { 1 } else { 2 };
    let needed = width * height * pixel_bytes;
    if (data.len() as u64) < needed {
        return Err(format!(
            "cut off: {width} x {height} pixels need {needed} bytes, and there are {}",
            data.len()
        ));
    }
    let pixels = data[..needed as usize].chunks_exact(pixel_bytes as usize);
    let pixels: Vec<_> = pixels
        .map(|bytes| {
            bytes
                .iter()
                .fold(0, |value, &byte| value << 8 | u16::from(byte))
        })
        .collect();
    match pixels.iter().find(|pixel| u64::from(**pixel) > max) {
        Some(pixel) => Err(format!("a pixel is {pixel}, above the maximum {max}")),
        None => Ok(Image {
            width,
            height,
            max,
            pixels,
        }),
    }
}

/// Takes a number of 7 digits at most, with the blanks and comments before it, from the start of
/// `rest`.
fn take_number(rest: &mut &[u8]) -> Option<u64> {
    while let [b' ' | b'\t' | b'\r' | b'\n' | b'#', after @ ..] = *rest {
        let is_comment = rest[0] == b'#';
        let end = if is_comment {
            after.iter().position(|byte| *byte == b'\n')?
        } else {
            0
        };
        *rest = &after[end..];
    }
    let n_digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, after) = rest.split_at(n_digits);
    *rest = after;
    std::str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|_| n_digits <= 7)
}

/// The smallest pixel value of the foreground: the bound between two bins that separates the pixels
/// best. In an image of one bin only it is above every pixel.
///
/// Source: N. Otsu, "A threshold selection method from gray-level histograms", 1979.
fn otsu_threshold(image: &Image, bins: u64) -> u64 {
    let n_values = image.max + 1;
    let mut histogram = vec![0_u64; bins as usize];
    for pixel in &image.pixels {
        histogram[(u64::from(*pixel) * bins / n_values) as usize] += 1;
    }
    let total = image.pixels.len() as f64;
    let total_sum: f64 = histogram
        .iter()
        .enumerate()
        .map(|(bin, &n)| bin as f64 * n as f64)
        .sum();
    let (mut below, mut sum_below, mut best_variance, mut threshold) = (0.0, 0.0, 0.0, n_values);
    for (bin, &n) in histogram.iter().enumerate() {
        below += n as f64;
        sum_below += bin as f64 * n as f64;
        let above = total - below;
        if below == 0.0 || above == 0.0 {
            continue;
        }
        let difference = sum_below / below - (total_sum - sum_below) / above;
        let variance = below * above * difference * difference;
        if variance > best_variance {
            best_variance = variance;
            threshold = ((bin as u64 + 1) * n_values).div_ceil(bins);
        }
    }
    threshold
}
