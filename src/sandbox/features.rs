//! WebAssembly features that are disabled, with advice for authors whose modules need one.

use wasmtime::{Config, WasmFeatures};

/// WebAssembly proposal that guests cannot use.
#[cfg_attr(
    not(feature = "compiler"),
    expect(dead_code, reason = "only the compiler meets modules that need one")
)]
pub(super) struct OffFeature {
    flag: WasmFeatures,
    /// Name of the proposal, as tools write it.
    name: &'static str,
    /// Advice on how to build without it.
    advice: &'static str,
}

const JAVA_LIKE: &str =
    "compile to linear memory, not to WasmGC (as Kotlin, Dart, Java and OCaml compilers do)";
const NOT_ASYNC: &str = "build for WASI 0.2 (`wasm32-wasip2`) and not for WASI 0.3, and lift and \
    lower no function as async";
const PLAIN_TYPES: &str = "use only types of WIT that WASI 0.2 has";

/// Disabled features. No guest that a task author builds needs one of them. SIMD, exceptions, tail
/// calls and all older features are enabled: C++ and Python guests need them.
const OFF: &[OffFeature] = &[
    off(
        WasmFeatures::THREADS,
        "threads",
        "shared memory and atomics: build without `-pthread`, `-matomics` and `-C \
         target-feature=+atomics`, for `wasm32-wasip1` and not `wasm32-wasip1-threads`; only the \
         calls of a parallel task run in parallel",
    ),
    off(
        WasmFeatures::SHARED_EVERYTHING_THREADS,
        "shared-everything-threads",
        "build without threads",
    ),
    off(
        WasmFeatures::MEMORY64,
        "memory64",
        "build for a `wasm32` target, without `-m64`, `wasm64` and `-sMEMORY64`",
    ),
    off(
        WasmFeatures::MULTI_MEMORY,
        "multi-memory",
        "build without `-mmultimemory`, and merge modules by other means than `wasm-merge`, or \
         make them a WASM component",
    ),
    off(WasmFeatures::GC, "gc", JAVA_LIKE),
    off(
        WasmFeatures::FUNCTION_REFERENCES,
        "function-references",
        JAVA_LIKE,
    ),
    off(
        WasmFeatures::CUSTOM_DESCRIPTORS,
        "custom-descriptors",
        JAVA_LIKE,
    ),
    off(
        WasmFeatures::LEGACY_EXCEPTIONS,
        "legacy-exceptions",
        "C++ exceptions of the old form: build with `-fwasm-exceptions -mllvm \
         -wasm-use-legacy-eh=false`, or translate the module with `wasm-opt \
         --translate-to-exnref`",
    ),
    off(
        WasmFeatures::STACK_SWITCHING,
        "stack-switching",
        "build without it",
    ),
    off(
        WasmFeatures::WIDE_ARITHMETIC,
        "wide-arithmetic",
        "build without `-mwide-arithmetic`",
    ),
    off(
        WasmFeatures::CUSTOM_PAGE_SIZES,
        "custom-page-sizes",
        "build with pages of 64 KiB",
    ),
    off(
        WasmFeatures::MEMORY_CONTROL,
        "memory-control",
        "build without it",
    ),
    off(
        WasmFeatures::COMPACT_IMPORTS,
        "compact-imports",
        "build without it",
    ),
    off(WasmFeatures::CM_ASYNC, "component-model-async", NOT_ASYNC),
    off(
        WasmFeatures::CM_ASYNC_STACKFUL,
        "component-model-async-stackful",
        NOT_ASYNC,
    ),
    off(
        WasmFeatures::CM_MORE_ASYNC_BUILTINS,
        "component-model-more-async-builtins",
        NOT_ASYNC,
    ),
    off(
        WasmFeatures::CM_THREADING,
        "component-model-threading",
        NOT_ASYNC,
    ),
    off(
        WasmFeatures::CM_ERROR_CONTEXT,
        "component-model-error-context",
        NOT_ASYNC,
    ),
    off(
        WasmFeatures::CM_VALUES,
        "component-model-values",
        PLAIN_TYPES,
    ),
    off(
        WasmFeatures::CM_FIXED_LENGTH_LISTS,
        "component-model-fixed-length-lists",
        PLAIN_TYPES,
    ),
    off(WasmFeatures::CM_MAP, "component-model-map", PLAIN_TYPES),
    off(WasmFeatures::CM_GC, "component-model-gc", JAVA_LIKE),
    off(
        WasmFeatures::CM64,
        "component-model-64-bit",
        "build for a `wasm32` target",
    ),
];

const fn off(flag: WasmFeatures, name: &'static str, advice: &'static str) -> OffFeature {
    OffFeature { flag, name, advice }
}

/// Disables the features of [`OFF`].
pub(super) fn configure(config: &mut Config) {
    for feature in OFF {
        config.wasm_features(feature.flag, false);
    }
}

/// Disabled feature that a module needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MissingFeature {
    /// Name of the feature, such as `threads`.
    pub name: &'static str,
    /// Advice on how to build without the feature.
    pub advice: &'static str,
}

/// Valid module: its types, and the disabled features that it needs.
#[cfg(feature = "compiler")]
pub(super) struct Validated {
    pub(super) types: wasmparser::types::Types,
    pub(super) missing: Vec<MissingFeature>,
}

/// Validates a module as if every feature of [`OFF`] were enabled.
///
/// Each function is validated once. Only the first function that needs a feature is validated again
/// to find out which feature this is. Large modules therefore cost no more than one validation.
#[cfg(feature = "compiler")]
pub(super) fn validate(bytes: &[u8]) -> wasmparser::Result<Validated> {
    use wasmparser::{FuncToValidate, FuncValidatorAllocations, FunctionBody, ValidatorResources};
    let off = all_of(OFF);
    let mut on = WasmFeatures::default() - off;
    let sections = |features| validate_sections(bytes, features);
    let (types, functions) = match sections(on) {
        Ok(valid) => valid,
        Err(_) => {
            on |= needed(on, |features| sections(features).map(drop))?;
            sections(on)?
        }
    };
    let mut allocations = FuncValidatorAllocations::default();
    let mut check =
        |function: &FuncToValidate<ValidatorResources>, body: &FunctionBody<'_>, features| {
            let FuncToValidate {
                ref resources,
                index,
                ty,
                ..
            } = *function;
            let function = FuncToValidate {
                resources: resources.clone(),
                index,
                ty,
                features,
            };
            let mut validator = function.into_validator(std::mem::take(&mut allocations));
            let checked = validator.validate(body);
            allocations = validator.into_allocations();
            checked
        };
    for (function, body) in functions {
        if check(&function, &body, on).is_err() {
            on |= needed(on, |features| check(&function, &body, features))?;
        }
    }
    let missing = OFF.iter().filter(|feature| on.contains(feature.flag));
    let missing = missing
        .map(|feature| MissingFeature {
            name: feature.name,
            advice: feature.advice,
        })
        .collect();
    Ok(Validated { types, missing })
}

#[cfg(feature = "compiler")]
fn all_of(features: &[OffFeature]) -> WasmFeatures {
    features
        .iter()
        .fold(WasmFeatures::empty(), |all, feature| all | feature.flag)
}

/// Returns the features that a part of a module needs in addition to the enabled ones. None of them
/// can be left out. Fails if the part is invalid with every feature.
#[cfg(feature = "compiler")]
fn needed(
    on: WasmFeatures,
    mut check: impl FnMut(WasmFeatures) -> wasmparser::Result<()>,
) -> wasmparser::Result<WasmFeatures> {
    let mut features = on | all_of(OFF);
    check(features)?;
    // Start at the end: if one of two features is sufficient, the better known one comes first and
    // is kept.
    for feature in OFF
        .iter()
        .rev()
        .filter(|feature| !on.contains(feature.flag))
    {
        if check(features - feature.flag).is_ok() {
            features -= feature.flag;
        }
    }
    Ok(features)
}

/// Functions of a module, each with the data that its validation needs.
#[cfg(feature = "compiler")]
type Functions<'a> = Vec<(
    wasmparser::FuncToValidate<wasmparser::ValidatorResources>,
    wasmparser::FunctionBody<'a>,
)>;

/// Validates a module except for the bodies of its functions.
#[cfg(feature = "compiler")]
fn validate_sections(
    bytes: &[u8],
    features: WasmFeatures,
) -> wasmparser::Result<(wasmparser::types::Types, Functions<'_>)> {
    use wasmparser::{Parser, ValidPayload, Validator};
    let mut validator = Validator::new_with_features(features);
    let mut parser = Parser::new(0);
    parser.set_features(features);
    let (mut types, mut functions) = (None, Vec::new());
    for payload in parser.parse_all(bytes) {
        match validator.payload(&payload?)? {
            ValidPayload::Func(function, body) => functions.push((function, body)),
            // The last types are those of the whole module, after those of nested modules.
            ValidPayload::End(of_ended) => types = Some(of_ended),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
    }
    Ok((
        types.expect("bytes without an end are an error of the parser"),
        functions,
    ))
}

/// Returns the disabled features that a module needs. Also returns none if the module is invalid
/// with every feature.
#[cfg(feature = "compiler")]
pub(super) fn missing(bytes: &[u8]) -> Vec<MissingFeature> {
    validate(bytes)
        .map(|validated| validated.missing)
        .unwrap_or_default()
}

/// Returns a sentence for the user about a module that needs disabled features, or `None` if it
/// needs none.
#[cfg(feature = "compiler")]
pub(super) fn refusal(missing: &[MissingFeature]) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let names: Vec<_> = missing
        .iter()
        .map(|feature| format!("`{}`", feature.name))
        .collect();
    // Several features can be avoided by the same change to the build.
    let mut advice: Vec<_> = missing.iter().map(|feature| feature.advice).collect();
    advice.dedup();
    Some(format!(
        "needs WebAssembly features that are disabled here, {}: {}",
        names.join(", "),
        advice.join("; ")
    ))
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
                "(func (param i64 i64 i64 i64) (result i64 i64) (i64.add128 (local.get 0) \
                 (local.get 1) (local.get 2) (local.get 3)))",
            ),
            ("custom-page-sizes", "(memory 1 (pagesize 1))"),
            ("legacy-exceptions", "(func try catch_all end)"),
        ] {
            let missing = missing_of(text);
            assert!(missing.contains(&name), "{name}: {missing:?}");
            let refusal = refusal(&super::missing(&module(text)));
            assert!(refusal.is_some_and(|text| text.contains(name)));
        }
        for text in [
            "",
            "(memory 1)",
            "(tag)",
            "(func (result v128) (v128.const i64x2 0 0))",
        ] {
            assert_eq!(missing_of(text), [""; 0]);
        }
        assert_eq!(missing(b"\0asm\x01\0\0\0\xff"), []);
    }

    #[test]
    fn features_of_several_functions_and_sections_are_all_found() {
        let add =
            "(drop (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0))) drop";
        let text = format!(
            "(memory 1) (memory 1) (func) (func try catch_all end) (func try catch_all end) (func \
             {add})"
        );
        assert_eq!(
            missing_of(&text),
            ["multi-memory", "legacy-exceptions", "wide-arithmetic"]
        );
        let both = format!("(func try {add} catch_all (drop (ref.i31 (i32.const 0))) end)");
        assert_eq!(
            missing_of(&both),
            ["gc", "legacy-exceptions", "wide-arithmetic"]
        );
        let inside = format!("(core module {both}) (core module (memory i64 1))");
        let component = wat::parse_str(format!("(component {inside})")).expect("valid WAT");
        assert_eq!(
            names(&missing(&component)),
            ["memory64", "gc", "legacy-exceptions", "wide-arithmetic"]
        );
    }

    #[test]
    fn of_two_features_that_would_do_one_is_named() {
        assert_eq!(
            missing_of("(type $t (func)) (func (param (ref null $t)))"),
            ["gc"]
        );
    }

    #[test]
    fn what_is_invalid_with_every_feature_misses_none() {
        for text in [
            "(func try catch_all end) (func i32.const 1)",
            "(func i32.const 1) (func try catch_all end)",
        ] {
            let bytes = module(text);
            assert_eq!(missing(&bytes), []);
            let why = validate(&bytes)
                .err()
                .map(|err| err.message().to_owned())
                .unwrap_or_default();
            assert!(why.contains("values remaining on stack"), "{why}");
        }
    }

    /// Checks every change of one byte. The module must be valid with the features that are
    /// reported. If none are reported, it must be valid without any or invalid with all of them.
    #[test]
    fn messages_about_a_changed_module_are_true() {
        let bytes = module(
            "(type $t (func (param i32) (result i32))) (memory 1 1) (table 1 funcref) \
             (global (mut i64) (i64.const 0)) \
             (func (type $t) (block (result i32) (i32.load (local.get 0)) \
             (call_indirect (type $t) (i32.const 0)))) \
             (func (param i64) (drop (i64.add (local.get 0) (global.get 0))) \
             (memory.fill (i32.const 0) (i32.const 0) (i32.const 1)) loop nop end) \
             (export \"f\" (func 0)) (data (i32.const 0) \"x\")",
        );
        let mut n_missing = 0;
        for index in 8..bytes.len() {
            for byte in 0..=255 {
                let mut changed = bytes.clone();
                changed[index] = byte;
                let names = names(&missing(&changed));
                let on = OFF.iter().filter(|feature| names.contains(&feature.name));
                let on = on.fold(WasmFeatures::default() - all_of(OFF), |all, feature| {
                    all | feature.flag
                });
                let valid = |features| {
                    wasmparser::Validator::new_with_features(features)
                        .validate_all(&changed)
                        .is_ok()
                };
                n_missing += usize::from(!names.is_empty());
                assert!(
                    valid(on) || names.is_empty() && !valid(on | all_of(OFF)),
                    "{index} {byte}: {names:?}"
                );
            }
        }
        assert!(n_missing >= 10, "{n_missing}");
    }

    fn module(text: &str) -> Vec<u8> {
        wat::parse_str(format!("(module {text})")).expect("valid WAT")
    }

    fn names(missing: &[MissingFeature]) -> Vec<&'static str> {
        missing.iter().map(|feature| feature.name).collect()
    }

    /// Returns the disabled features that a module needs. Checks that it is valid with them and
    /// invalid without any one of them.
    fn missing_of(text: &str) -> Vec<&'static str> {
        let bytes = module(text);
        let names = names(&missing(&bytes));
        let valid = |left_out: &str| {
            let on = OFF
                .iter()
                .filter(|feature| names.contains(&feature.name) && feature.name != left_out);
            let features = on.fold(WasmFeatures::default() - all_of(OFF), |all, feature| {
                all | feature.flag
            });
            wasmparser::Validator::new_with_features(features)
                .validate_all(&bytes)
                .is_ok()
        };
        assert!(valid(""), "{text}: {names:?}");
        assert!(names.iter().all(|name| !valid(name)), "{text}: {names:?}");
        names
    }
}
