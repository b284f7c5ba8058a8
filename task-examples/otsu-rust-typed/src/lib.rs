//! Otsu's threshold as a typed task.

mod task;

use serde_json::json;

wit_bindgen::generate!({ world: "task", path: "../../wit" });
use mandelbox::task::host::{self, Level};

struct Task;
export!(Task);

impl Guest for Task {
    fn run(args: String) -> Result<Option<String>, String> {
        let args =
            serde_json::from_str(&args).map_err(|err| format!("the args are no JSON: {err}"))?;
        let output = task::run(&args, |line| host::log(Level::Info, line))?;
        Ok(Some(output.to_string()))
    }

    fn describe() -> String {
        let description = json!({
            "name": "Otsu threshold",
            "input_type": "Any",
            "output_type": "Any",
            "meta": { "parallelization_level": "image" },
            "args_schema": {
                "type": "object",
                "properties": {
                    "bins": {
                        "type": "integer",
                        "minimum": 2,
                        "maximum": 65536,
                        "default": 256,
                        "description": "Bins of the histogram over all values that a pixel can have."
                    },
                    "write_mask": {
                        "type": "boolean",
                        "default": true,
                        "description": "Whether to write the mask, or to find the threshold only."
                    }
                },
                "additionalProperties": false
            },
            "docs_info": "Finds a threshold between dark and bright pixels of a grey PGM image and writes the mask of the bright ones."
        });
        description.to_string()
    }
}
