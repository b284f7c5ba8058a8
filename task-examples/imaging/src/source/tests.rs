use super::*;
use std::fs;
use std::panic::catch_unwind;

/// Type, count and value of a tag.
type Tag = (u16, u16, u32, u32);

/// A TIFF file of pages with one pixel each.
pub(crate) fn small_tiff(n_pages: u32, description: &str) -> Vec<u8> {
    let pages: Vec<Vec<Tag>> = (0..n_pages).map(|index| page(1, 1, 8, index)).collect();
    tiff_bytes(&vec![0; n_pages as usize], description, &pages)
}

/// A little-endian TIFF file with one strip of `pixels` and the pages of `tags`.
fn tiff_bytes(pixels: &[u8], description: &str, pages: &[Vec<Tag>]) -> Vec<u8> {
    let mut bytes = b"II*\0\0\0\0\0".to_vec();
    bytes.extend(pixels);
    let description_offset = bytes.len() as u32;
    bytes.extend(description.as_bytes());
    bytes.push(0);
    let mut link = 4;
    for tags in pages {
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        let start = bytes.len() as u32;
        bytes[link..link + 4].copy_from_slice(&start.to_le_bytes());
        let mut tags = tags.clone();
        if !description.is_empty() {
            tags.push((
                tag::DESCRIPTION,
                2,
                description.len() as u32 + 1,
                description_offset,
            ));
        }
        bytes.extend((tags.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in tags {
            bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
            bytes.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
        }
        link = bytes.len();
        bytes.extend([0; 4]);
    }
    bytes
}

fn page(width: u32, height: u32, bits: u32, offset: u32) -> Vec<Tag> {
    vec![
        (tag::WIDTH, 4, 1, width),
        (tag::HEIGHT, 4, 1, height),
        (tag::BITS, 3, 1, bits),
        (tag::PHOTOMETRIC, 3, 1, 1),
        (tag::STRIP_OFFSETS, 4, 1, 8 + offset),
        (tag::STRIP_LENGTHS, 4, 1, width * height * bits / 8),
    ]
}

/// Each test has a file name of its own, as tests run side by side.
fn with_file<T>(
    name: &str,
    bytes: &[u8],
    action: impl FnOnce(Result<ImageFile, String>) -> T,
) -> T {
    let path = std::env::temp_dir().join(format!("imaging-source-{}-{name}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    let shown = path.display().to_string();
    let result = action(open(&path).map_err(|err| err.to_string().replace(&shown, "FILE")));
    fs::remove_file(&path).unwrap();
    result
}

fn read(name: &str, bytes: &[u8], position: Option<Position>) -> Result<AnyPlane, String> {
    with_file(name, bytes, |file| {
        file.and_then(|mut file| file.read(position).map_err(|err| err.to_string()))
    })
}

fn refused(name: &str, bytes: &[u8], expected: &str) {
    let error = read(name, bytes, None).unwrap_err();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn pages_are_z_planes_unless_the_description_differs() {
    let pixels: Vec<u8> = (0..24).collect();
    let pages: Vec<Vec<Tag>> = (0..6).map(|index| page(2, 2, 8, 4 * index)).collect();
    with_file("stack.tif", &tiff_bytes(&pixels, "", &pages), |file| {
        let mut file = file.unwrap();
        let series = file.series()[0].clone();
        assert_eq!(
            (series.n_z, series.channels.len(), series.has_axes),
            (6, 1, false)
        );
        let plane = file
            .read(Some(Position {
                z: 2,
                ..Position::default()
            }))
            .unwrap();
        assert_eq!(plane.to_f64(), [8.0, 9.0, 10.0, 11.0]);
        assert!(
            file.read(None)
                .unwrap_err()
                .to_string()
                .contains("it has 6 planes, but one is expected")
        );
        let error = file
            .read(Some(Position {
                z: 6,
                ..Position::default()
            }))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no plane for image 1, time point 1, z 7, channel 1"),
            "{error}"
        );
    });
    let text = "ImageJ=1.54f\nimages=6\nchannels=2\nslices=3\nunit=um\nspacing=2\n";
    // The second form has one page, behind which all planes are.
    for (name, pages) in [("hyper.tif", &pages[..]), ("raw.tif", &pages[..1])] {
        with_file(name, &tiff_bytes(&pixels, text, pages), |file| {
            let mut file = file.unwrap();
            let series = file.series()[0].clone();
            assert_eq!(
                (series.n_z, series.channels.len(), series.z_step_um),
                (3, 2, Some(2.0))
            );
            let plane = file
                .read(Some(Position {
                    z: 1,
                    channel: 1,
                    ..Position::default()
                }))
                .unwrap();
            assert_eq!(plane.to_f64(), [12.0, 13.0, 14.0, 15.0]);
        });
    }
    let cut = tiff_bytes(&pixels[..8], text, &pages[..1]);
    assert!(read("cut.tif", &cut, None).is_err());
}

#[test]
fn the_first_full_page_is_the_image() {
    let smaller = [page(1, 1, 8, 0), vec![(tag::SUBFILE_TYPE, 4, 1, 1)]].concat();
    let bytes = tiff_bytes(&[9, 1, 2, 3, 4], "", &[smaller, page(2, 2, 8, 1)]);
    let plane = read("thumbnail.tif", &bytes, None).unwrap();
    assert_eq!(
        (plane.size(), plane.to_f64()),
        ((2, 2), vec![1.0, 2.0, 3.0, 4.0])
    );
}

#[test]
fn values_are_kept_as_they_are() {
    let pixels = [0xff, 0xff, 0, 0x80];
    let mut signed = page(2, 1, 16, 0);
    signed.push((tag::SAMPLE_FORMAT, 3, 1, 2));
    assert_eq!(
        read("i16.tif", &tiff_bytes(&pixels, "", &[signed]), None)
            .unwrap()
            .to_f64(),
        [-1.0, -32768.0]
    );
    let float = vec![(tag::SAMPLE_FORMAT, 3, 1, 3)];
    let float = [page(1, 1, 32, 0), float].concat();
    assert_eq!(
        read(
            "f32.tif",
            &tiff_bytes(&1.5_f32.to_le_bytes(), "", &[float]),
            None
        )
        .unwrap()
        .to_f64(),
        [1.5]
    );
    let mut white = page(2, 1, 16, 0);
    white[3].3 = 0;
    with_file("white.tif", &tiff_bytes(&pixels, "", &[white]), |file| {
        let mut file = file.unwrap();
        assert!(
            file.warnings()[0].contains("MinIsWhite"),
            "{:?}",
            file.warnings()
        );
        assert_eq!(file.read(None).unwrap().to_f64(), [65535.0, 32768.0]);
    });
}

#[test]
fn colors_are_channels_on_request() {
    let mut color = page(2, 1, 8, 0);
    color[3].3 = 2;
    color[5].3 = 6;
    color.push((tag::SAMPLES, 3, 1, 3));
    let bytes = tiff_bytes(&[1, 2, 3, 4, 5, 6], "", &[color]);
    refused(
        "rgb.tif",
        &bytes,
        "it is an RGB image; set the argument `rgb_channels`",
    );
    let green = Some(Position {
        channel: 1,
        ..Position::default()
    });
    assert_eq!(read("rgb.tif", &bytes, green).unwrap().to_f64(), [2.0, 5.0]);
}

#[test]
fn wrong_files_are_refused() {
    let good = page(2, 2, 8, 0);
    let change = |index: usize, value: u32| {
        let mut page = good.clone();
        page[index].3 = value;
        tiff_bytes(&[0; 4], "", &[page])
    };
    refused("empty.tif", b"", "the file is empty");
    refused(
        "text.tif",
        b"a text",
        "it does not begin like a TIFF or PNG file; the file is damaged or no TIFF",
    );
    refused(
        "version.tif",
        b"II\x07\0\0\0\0\0",
        "its version is 7, not 42 (TIFF) or 43 (BigTIFF)",
    );
    refused("no-page.tif", b"II*\0\0\0\0\0", "it has no page");
    refused("zero.tif", &change(0, 0), "no width or no height");
    refused(
        "bits.tif",
        &change(2, 24),
        "its pixels are 24-bit unsigned; save it with 8, 16 or 32 bits",
    );
    refused("offset.tif", &change(4, 1 << 30), "it ends too early");
    refused(
        "huge.tif",
        &change(0, u32::MAX),
        "more than the 256 MiB that a plane may have",
    );
    let webp = tiff_bytes(
        &[0; 4],
        "",
        &[[good.clone(), vec![(tag::COMPRESSION, 3, 1, 50001)]].concat()],
    );
    refused(
        "webp.tif",
        &webp,
        "compressed with WebP, which is not supported; save it with LZW",
    );
    let tiles = vec![
        (tag::TILE_WIDTH, 4, 1, 1 << 16),
        (tag::TILE_HEIGHT, 4, 1, 1 << 16),
    ];
    refused(
        "tiles.tif",
        &tiff_bytes(&[0; 4], "", &[[good.clone(), tiles].concat()]),
        "have 65536x65536 pixels",
    );
    let mut cycle = tiff_bytes(&[0; 4], "", &[good]);
    let (n, first) = (cycle.len(), cycle[4..8].to_vec());
    cycle[n - 4..].copy_from_slice(&first);
    refused("cycle.tif", &cycle, "page 1 points back to an earlier page");
}

#[test]
fn no_cut_and_no_changed_byte_makes_a_panic() {
    let bytes = tiff_bytes(
        &[7; 24],
        "ImageJ=1\nimages=2\nslices=2\n",
        &[page(3, 2, 16, 0), page(3, 2, 16, 12)],
    );
    let position = Some(Position {
        z: 1,
        ..Position::default()
    });
    for length in 0..bytes.len() {
        let cut = catch_unwind(|| read("fuzz.tif", &bytes[..length], position)).expect("no panic");
        assert!(cut.is_err(), "cut at {length} of {}", bytes.len());
    }
    for index in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[index] ^= flip;
            let read = catch_unwind(|| read("fuzz.tif", &changed, position));
            assert!(read.is_ok(), "byte {index} changed by {flip:#x}");
        }
    }
}

#[test]
fn units_of_length() {
    for (unit, expected) in [
        ("\u{b5}m", Some(1.0)),
        ("Micron", Some(1.0)),
        ("mm", Some(1e3)),
        ("pixel", None),
    ] {
        assert_eq!(um_per_unit(unit), expected);
    }
}

/// Files of 23 x 19 pixels that tifffile and Pillow wrote, with a largest difference to the formula
/// that their pixels were computed with.
const CODED: [(&str, &[u8], f64); 5] = [
    (
        "jpeg2000-u8.tif",
        include_bytes!("files/jpeg2000-u8.tif"),
        0.0,
    ),
    (
        "jpeg2000-u16-tiles.tif",
        include_bytes!("files/jpeg2000-u16-tiles.tif"),
        0.0,
    ),
    (
        "jpeg2000-i16.tif",
        include_bytes!("files/jpeg2000-i16.tif"),
        0.0,
    ),
    (
        "jpeg-tables.tif",
        include_bytes!("files/jpeg-tables.tif"),
        2.0,
    ),
    (
        "jpeg-ycbcr.tif",
        include_bytes!("files/jpeg-ycbcr.tif"),
        4.0,
    ),
];

/// A channel of a color image.
fn channel_position(channel: usize) -> Option<Position> {
    Some(Position {
        channel,
        ..Position::default()
    })
}

#[test]
fn jpeg_and_jpeg_2000_are_decoded() {
    let value = |name: &str, x: u32, y: u32, channel: u32| match name {
        "jpeg2000-u8.tif" => f64::from((x * 37 + y * 91) as u8),
        "jpeg2000-u16-tiles.tif" => f64::from((x * 3001 + y * 7013) as u16),
        "jpeg2000-i16.tif" => f64::from((x * 3001 + y * 7013) as u16 as i16),
        _ => f64::from(20 + 3 * x + 5 * y + 30 * channel),
    };
    for (name, bytes, largest) in CODED {
        let n_channels = if name == "jpeg-ycbcr.tif" { 3 } else { 1 };
        for channel in 0..n_channels {
            let position = (n_channels > 1)
                .then_some(channel_position(channel))
                .flatten();
            let plane = read(name, bytes, position).unwrap();
            assert_eq!(plane.size(), (23, 19), "{name}");
            let pixels = (0..19).flat_map(|y| (0..23).map(move |x| (x, y)));
            for ((x, y), found) in pixels.zip(plane.to_f64()) {
                let expected = value(name, x, y, channel as u32);
                assert!((found - expected).abs() <= largest, "{name} at {x}, {y}");
            }
        }
    }
    let (name, bytes, _) = CODED[4];
    refused(name, bytes, "it is an RGB image; set the argument");
}

#[test]
fn headers_of_jpeg_must_have_the_size_of_their_strip() {
    for (name, bytes, _) in CODED {
        let marker: &[u8] = if name.starts_with("jpeg2000") {
            b"\xff\x4f\xff\x51"
        } else {
            b"\xff\xc0"
        };
        let start = bytes.windows(marker.len()).position(|at| at == marker);
        let mut changed = bytes.to_vec();
        // The width of the image in SIZ, and of the frame in SOF.
        let place = start.unwrap() + if marker.len() == 4 { 8 } else { 7 };
        changed[place] = 0x7f;
        let file = format!("size-{name}");
        let error = read(&file, &changed, channel_position(0)).unwrap_err();
        assert!(
            error.contains("cannot be decompressed") && error.contains("replace it"),
            "{name}: {error}"
        );
    }
}

#[test]
fn damaged_jpeg_makes_no_panic() {
    for (name, bytes, _) in CODED {
        let name = format!("damaged-{name}");
        for length in (0..bytes.len()).step_by(7) {
            let result = catch_unwind(|| read(&name, &bytes[..length], channel_position(0)));
            assert!(result.is_ok(), "{name} cut at {length}");
        }
        for index in (0..bytes.len()).step_by(3) {
            let mut changed = bytes.to_vec();
            changed[index] ^= 0x55;
            let result = catch_unwind(|| read(&name, &changed, channel_position(0)));
            assert!(result.is_ok(), "{name} changed at {index}");
        }
    }
}
