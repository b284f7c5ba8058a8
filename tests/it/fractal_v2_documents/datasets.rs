//! Broken datasets.

use super::*;

#[test]
fn broken_datasets_are_refused() {
    const FILE: &str = "dataset.json";
    let set = |pointer, value| Set(FILE, pointer, value);
    let image = |value| set("/images/1", value);
    check_all(
        &EXPORTED,
        vec![
            (
                Remove(FILE, "/zarr_dir"),
                &[],
                &["dataset.json: missing key `zarr_dir`"],
            ),
            (
                set("/zarr_dir", json!("zarr")),
                &[],
                &["dataset.json: /zarr_dir"],
            ),
            (
                set("/zarr_dir", json!("$ZARR/../zarr")),
                &[],
                &["dataset.json: /zarr_dir"],
            ),
            (set("/name", json!("a/b")), &[], &["dataset.json: /name"]),
            (set("/images", Value::Null), &[], &["dataset.json: /images"]),
            (
                image(json!({})),
                &[],
                &["dataset.json: /images/1: missing key `zarr_url`"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR" })),
                &[],
                &["dataset.json: /images/1/zarr_url"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR2/a" })),
                &[],
                &["dataset.json: /images/1/zarr_url"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/a/" })),
                &[],
                &["dataset.json: /images", "two images", "/zarr/a"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/b", "attributes": { "w": [1] } })),
                &[],
                &["dataset.json: /images/1/attributes/w"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/b", "attributes": { "w": null } })),
                &[],
                &["dataset.json: /images/1/attributes/w"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/b", "types": { "3d": 2 } })),
                &[],
                &["dataset.json: /images/1/types/3d"],
            ),
            (
                image(json!({ "zarr_url": "$ZARR/b", "types": { "a": true, " a": true } })),
                &[],
                &["dataset.json: /images/1/types"],
            ),
            (Text(FILE, r#"{"name": NaN}"#), &[], &["dataset.json:1:"]),
            (Delete(FILE), &[], &["dataset.json", "cannot be read"]),
            (
                Text("status.json", r#"{"0": {"/z/a": "submitted"}}"#),
                &[],
                &["status.json: /0/~1z~1a"],
            ),
        ],
    );
}
