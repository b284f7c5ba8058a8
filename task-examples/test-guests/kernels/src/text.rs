//! JSON as metadata has it.

use super::{Random, checksum};

/// Builds a document of about 1 MB, then parses and prints it `n` times.
pub(super) fn json(n: u32) -> std::io::Result<u64> {
    let mut random = Random(7);
    let images: Vec<_> = (0..5_000)
        .map(|index| {
            serde_json::json!({
                "path": format!("plate.zarr/B/{:02}/{index}", index % 24),
                "channels": ["DAPI", "GFP"],
                "shape": [1, 2, random.next() % 60, 2160, 2560],
                "scale": [1.0, 0.1625 * (random.next() % 8) as f64],
                "is_focused": random.next().is_multiple_of(2),
            })
        })
        .collect();
    let mut text = serde_json::to_string(&images)?;
    for _ in 0..n {
        let value: serde_json::Value = serde_json::from_str(&text)?;
        text = serde_json::to_string(&value)?;
    }
    Ok(checksum(text.bytes().map(u64::from)))
}
