//! The WebAssembly features that are off, and what an author changes whose module needs one.

use wasmtime::{Config, WasmFeatures};

/// A proposal that guests cannot use.
#[cfg_attr(not(feature = "compiler"), expect(dead_code, reason = "only the compiler meets modules that need one"))]
pub(super) struct OffFeature {
    flag: WasmFeatures,
    /// Its name, as tools write it.
    name: &'static str,
    /// What to change in the build.
    advice: &'static str,
}

const JAVA_LIKE: &str = "compile to linear memory, not to WasmGC (as Kotlin, Dart, Java and OCaml compilers do)";
const NOT_ASYNC: &str =
    "build for WASI 0.2 (`wasm32-wasip2`) and not for WASI 0.3, and lift and lower no function as async";
const PLAIN_TYPES: &str = "use only types of WIT that WASI 0.2 has";

/// SIMD, exceptions, tail calls and all older features are on: C++ and Python guests need them. No guest that a task
/// author builds needs these.
const OFF: &[OffFeature] = &[
    off(
        WasmFeatures::THREADS,
        "threads",
        "shared memory and atomics: build without `-pthread`, `-matomics` and `-C target-feature=+atomics`, for \
         `wasm32-wasip1` and not `wasm32-wasip1-threads`; calls of a parallel task are what runs side by side",
    ),
    off(WasmFeatures::SHARED_EVERYTHING_THREADS, "shared-everything-threads", "build without threads"),
    off(WasmFeatures::MEMORY64, "memory64", "build for a `wasm32` target, without `-m64`, `wasm64` and `-sMEMORY64`"),
    off(
        WasmFeatures::MULTI_MEMORY,
        "multi-memory",
        "build without `-mmultimemory`, and merge modules by other means than `wasm-merge`, or make them a WASM component",
    ),
    off(WasmFeatures::GC, "gc", JAVA_LIKE),
    off(WasmFeatures::FUNCTION_REFERENCES, "function-references", JAVA_LIKE),
    off(WasmFeatures::CUSTOM_DESCRIPTORS, "custom-descriptors", JAVA_LIKE),
    off(
        WasmFeatures::LEGACY_EXCEPTIONS,
        "legacy-exceptions",
        "C++ exceptions of the old form: build with `-fwasm-exceptions -mllvm -wasm-use-legacy-eh=false`, or translate \
         the module with `wasm-opt --translate-to-exnref`",
    ),
    off(WasmFeatures::STACK_SWITCHING, "stack-switching", "build without it"),
    off(WasmFeatures::WIDE_ARITHMETIC, "wide-arithmetic", "build without `-mwide-arithmetic`"),
    off(WasmFeatures::CUSTOM_PAGE_SIZES, "custom-page-sizes", "build with pages of 64 KiB"),
    off(WasmFeatures::MEMORY_CONTROL, "memory-control", "build without it"),
    off(WasmFeatures::COMPACT_IMPORTS, "compact-imports", "build without it"),
    off(WasmFeatures::CM_ASYNC, "component-model-async", NOT_ASYNC),
    off(WasmFeatures::CM_ASYNC_STACKFUL, "component-model-async-stackful", NOT_ASYNC),
    off(WasmFeatures::CM_MORE_ASYNC_BUILTINS, "component-model-more-async-builtins", NOT_ASYNC),
    off(WasmFeatures::CM_THREADING, "component-model-threading", NOT_ASYNC),
    off(WasmFeatures::CM_ERROR_CONTEXT, "component-model-error-context", NOT_ASYNC),
    off(WasmFeatures::CM_VALUES, "component-model-values", PLAIN_TYPES),
    off(WasmFeatures::CM_FIXED_LENGTH_LISTS, "component-model-fixed-length-lists", PLAIN_TYPES),
    off(WasmFeatures::CM_MAP, "component-model-map", PLAIN_TYPES),
    off(WasmFeatures::CM_GC, "component-model-gc", JAVA_LIKE),
    off(WasmFeatures::CM64, "component-model-64-bit", "build for a `wasm32` target"),
];

const fn off(flag: WasmFeatures, name: &'static str, advice: &'static str) -> OffFeature {
    OffFeature { flag, name, advice }
}

/// Turns the features off.
pub(super) fn configure(config: &mut Config) {
    for feature in OFF {
        config.wasm_features(feature.flag, false);
    }
}

/// A feature that a module needs and that is off.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MissingFeature {
    /// Its name, such as `threads`.
    pub name: &'static str,
    /// What to change in the build.
    pub advice: &'static str,
}

/// Every feature of a proposal that this program knows.
#[cfg(feature = "compiler")]
pub(super) fn all() -> WasmFeatures {
    OFF.iter().fold(WasmFeatures::default(), |all, feature| all | feature.flag)
}

/// The features that a module needs and that are off: those without which it would be invalid, where it is valid with all
/// of them. Empty too if it is valid with none, or invalid in any case.
#[cfg(feature = "compiler")]
pub(super) fn missing(bytes: &[u8]) -> Vec<MissingFeature> {
    use wasmparser::Validator;
    let valid = |features| Validator::new_with_features(features).validate_all(bytes).is_ok();
    if valid(OFF.iter().fold(all(), |on, feature| on - feature.flag)) || !valid(all()) {
        return Vec::new();
    }
    let needed = OFF.iter().filter(|feature| !valid(all() - feature.flag));
    needed.map(|feature| MissingFeature { name: feature.name, advice: feature.advice }).collect()
}

/// Why a module that needs features that are off is refused: a sentence for the user, or `None` if it needs none.
#[cfg(feature = "compiler")]
pub(super) fn refusal(missing: &[MissingFeature]) -> Option<String> {
    let names: Vec<_> = missing.iter().map(|feature| format!("`{}`", feature.name)).collect();
    // Features that one change of the build does without.
    let mut advice: Vec<_> = missing.iter().map(|feature| feature.advice).collect();
    advice.dedup();
    (!missing.is_empty())
        .then(|| format!("needs WebAssembly features that are off here, {}: {}", names.join(", "), advice.join("; ")))
}

#[cfg(all(test, feature = "compiler"))]
mod tests {
    use super::*;

    #[test]
    fn the_feature_that_a_module_needs_is_found() {
        for (name, text) in [
            ("threads", "(memory 1 1 shared)"),
            ("memory64", "(memory i64 1)"),
            ("multi-memory", "(memory 1) (memory 1)"),
            ("gc", "(type (struct))"),
            (
                "wide-arithmetic",
                "(func (param i64 i64 i64 i64) (result i64 i64) (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))",
            ),
            ("custom-page-sizes", "(memory 1 (pagesize 1))"),
            ("legacy-exceptions", "(func try catch_all end)"),
        ] {
            let bytes = wat::parse_str(format!("(module {text})")).expect("valid WAT");
            let missing = missing(&bytes);
            assert!(missing.iter().any(|feature| feature.name == name), "{name}: {missing:?}");
            assert!(refusal(&missing).is_some_and(|text| text.contains(name)));
        }
        for text in ["", "(memory 1)", "(tag)", "(func (result v128) (v128.const i64x2 0 0))"] {
            assert_eq!(missing(&wat::parse_str(format!("(module {text})")).expect("valid WAT")), []);
        }
        assert_eq!(missing(b"\0asm\x01\0\0\0\xff"), []);
    }
}
