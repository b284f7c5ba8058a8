//! Tests of arrays: what is written is read, arrays of other programs, and damage.

use super::write::{metadata_v2, put_bytes};
use super::{Array, ArrayWriter, Options};
use crate::codec::{Codec, Encoder};
use crate::group::{Format, METADATA_V3, write_json};
use crate::pixel::{AnyPlane, PixelType};
use crate::plane::Plane;
use crate::shard::crc32c;
use serde_json::json;
use std::fs;
use std::path::Path;

fn plane() -> Plane {
    Plane {
        width: 3,
        height: 3,
        values: (1..=9).map(|i| i * 256).collect(),
    }
}

fn options(format: Format) -> Options<'static> {
    Options {
        format,
        axes: "czyx",
        chunk_size: 2,
        compression_level: Some(1),
    }
}

#[test]
fn edge_chunks_are_filled_up() {
    let mut bytes = Vec::new();
    for (place, expected) in [
        ((0, 0), [0, 1, 0, 2, 0, 4, 0, 5]),
        ((2, 0), [0, 3, 0, 0, 0, 6, 0, 0]),
        ((0, 0), [0, 1, 0, 2, 0, 4, 0, 5]),
        ((2, 2), [0, 9, 0, 0, 0, 0, 0, 0]),
    ] {
        put_bytes(&plane(), place, (2, 2), &mut bytes);
        assert_eq!(bytes, expected);
    }
}

fn damage(folder: &Path, array: &Array, chunk: &str, damaged: &[Vec<u8>]) {
    let path = folder.join(chunk);
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        let error = array.read_plane::<u16>(&[1, 0]).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{chunk}: ")) && error.contains("the chunk is damaged"),
            "{error}"
        );
    }
}

#[test]
fn what_is_written_is_read() {
    for format in [Format::V04, Format::V05] {
        let name = format!("ome-zarr-array-{}-{}", std::process::id(), format.version());
        let folder = std::env::temp_dir().join(name);
        let mut writer = ArrayWriter::create(
            folder.clone(),
            PixelType::U16,
            &[2, 1],
            (3, 3),
            options(format),
        )
        .unwrap();
        writer.write_plane(&[1, 0], &plane()).unwrap();
        writer.finish().unwrap();
        let array = Array::open(folder.clone()).unwrap();
        assert_eq!(
            (array.outer(), array.size(), array.compression_level()),
            (&[2, 1][..], (3, 3), Some(1))
        );
        assert_eq!(array.read_plane(&[1, 0]).unwrap(), plane());
        assert_eq!(
            array.read_plane::<u16>(&[0, 0]).unwrap().values,
            [0; 9],
            "a chunk that is not there"
        );
        assert_eq!(array.read_any(&[1, 0]).unwrap(), AnyPlane::U16(plane()));
        let error = array.read_plane::<u32>(&[1, 0]).unwrap_err().to_string();
        assert!(
            error.ends_with("its pixels are uint16, not uint32"),
            "{error}"
        );

        let chunk = if format == Format::V04 {
            "1/0/1/0"
        } else {
            "c/0/0/0/0"
        };
        let whole = fs::read(folder.join(chunk)).unwrap();
        let mut damaged = vec![whole[..whole.len() / 2].to_vec(), Vec::new()];
        match format {
            Format::V04 => damaged.extend([6, 9].map(|n| {
                Encoder::new(Codec::Zlib(1), 2)
                    .encode(&vec![0; n])
                    .unwrap()
                    .to_vec()
            })),
            Format::V05 => {
                let mut wrong = whole.clone();
                wrong[12] ^= 0xff;
                damaged.push(wrong);
            }
        }
        damage(&folder, &array, chunk, &damaged);
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// Chunks of several planes, in shards that do not contain the whole array, with checksums.
#[test]
fn arrays_of_other_programs_are_read() {
    let folder = std::env::temp_dir().join(format!("ome-zarr-array-{}-other", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let shard = json!({
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [2, 1, 2],
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "index_location": "start",
        },
    });
    let metadata = json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": [3, 2, 4],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 2, 2]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": [shard],
    });
    write_json(&folder.join(METADATA_V3), &metadata).unwrap();
    let chunk = [1, 2, 3, 4];
    let mut bytes: Vec<u8> = [u64::MAX, u64::MAX, 32, 8]
        .iter()
        .flat_map(|n: &u64| n.to_le_bytes())
        .collect();
    bytes.extend(chunk);
    bytes.extend(crc32c(&chunk).to_le_bytes());
    fs::write(folder.join("c.0.0.1"), bytes).unwrap();
    let array = Array::open(folder.clone()).unwrap();
    assert_eq!(
        array.read_plane::<u8>(&[0]).unwrap().values,
        [0, 0, 0, 0, 0, 0, 1, 2]
    );
    assert_eq!(
        array.read_plane::<u8>(&[1]).unwrap().values,
        [0, 0, 0, 0, 0, 0, 3, 4]
    );
    assert_eq!(array.read_plane::<u8>(&[2]).unwrap().values, [0; 8]);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_not_supported_is_refused() {
    let folder =
        std::env::temp_dir().join(format!("ome-zarr-array-{}-refused", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let good = metadata_v2(PixelType::U16, &[2, 4, 4], &[1, 2, 2], Codec::Zlib(1));
    for (key, value, expected) in [
        (
            "dtype",
            json!("<f8"),
            "its pixels are \"<f8\", not one of |u1, <u2",
        ),
        (
            "compressor",
            json!({"id": "lzma"}),
            "is not supported; zlib, gzip, zstd, blosc and none are",
        ),
        ("fill_value", json!(7), "fill_value is 7, not 0"),
        ("order", json!("F"), "order is \"F\", not \"C\""),
        (
            "chunks",
            json!([1, 0, 2]),
            "shape and chunks are not those of an array of planes",
        ),
        (
            "chunks",
            json!([1, 2]),
            "shape and chunks are not those of an array of planes",
        ),
        (
            "shape",
            json!([4]),
            "shape and chunks are not those of an array of planes",
        ),
    ] {
        let mut metadata = good.clone();
        metadata[key] = value;
        write_json(&folder.join(".zarray"), &metadata).unwrap();
        let error = Array::open(folder.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_dir_all(&folder).unwrap();
}
