//! Sizes and durations as users write them: on the command line, in a policy, in documents and in
//! test cases. All functions are pure.

use std::time::Duration;

/// Size of a page of WebAssembly memory, the minimum for a guest with a memory.
const PAGE_BYTES: u64 = 64 << 10;

/// Parses a number of bytes: `268435456`, `256M`, `256MiB`, `1.5 GiB`, `2Gi`.
///
/// K, M, G and T are powers of 1024, with or without an `i` or a `B` after them, in upper or lower
/// case: `1kB` is 1024 bytes.
///
/// # Errors
/// A sentence for the user if the text is not a size, is 0 or does not fit into 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("must be a size such as \"256MiB\", \"4G\" or \"1.5G\", not {text:?}");
    let number = text
        .trim()
        .trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
    let shift = match text.trim()[number.len()..]
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return Err(wrong()),
    };
    if !is_plain_number(number) {
        return Err(wrong());
    }
    let bytes = match number.split_once('.') {
        None => number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift)),
        // A size cannot contain a fraction of a byte.
        Some(_) if shift == 0 => None,
        Some(_) => number
            .parse::<f64>()
            .ok()
            .and_then(|number| whole_bytes(number * (1_u64 << shift) as f64)),
    };
    bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// Parses the memory limit of a call: a size of at least one page of WebAssembly memory.
///
/// # Errors
/// A sentence for the user, as for [`parse_bytes`], or for a smaller size. A number without a unit
/// is in bytes, and one below a page was probably meant as MiB.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes >= PAGE_BYTES {
        return Ok(bytes);
    }
    let text = text.trim();
    let advice = match text.parse::<u64>() {
        Ok(number) => format!("write \"{number}M\" for {number} MiB"),
        Err(_) => "give at least \"64KiB\"".to_owned(),
    };
    Err(format!(
        "{text:?} is {bytes} bytes, less than a page of WebAssembly memory (64 KiB); {advice}"
    ))
}

/// Parses a duration above 0: `30s`, `10min`, `1h 30m`, `1.5h`, `200ms`.
///
/// # Errors
/// A sentence for the user if the text is not a duration, is 0, has no unit, or has the unit `M`.
/// Some programs read it as a month, others as a minute.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong = |advice: String| {
        Err(format!(
            "must be a time such as \"30s\", \"10min\" or \"2h\", not {text:?}{advice}"
        ))
    };
    if is_plain_number(text)
        && let Ok(number) = text.parse::<f64>()
    {
        let advice = format!("; write \"{text}s\" for seconds or \"{text}min\" for minutes");
        return if number == 0.0 {
            Err(zero_time(text))
        } else {
            wrong(advice)
        };
    }
    if units(text).any(|unit| unit == "M") {
        return wrong(format!(
            ": `M` can be a month or a minute; write {:?} for minutes",
            text.replace('M', "min")
        ));
    }
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(zero_time(text)),
        Ok(time) => Ok(time),
        Err(_) if humantime::parse_duration(&text.to_lowercase()).is_ok() => {
            wrong(format!("; write {:?}", text.to_lowercase()))
        }
        Err(humantime::DurationError::NumberOverflow) => {
            wrong(": the number is too large".to_owned())
        }
        Err(_) => wrong(String::new()),
    }
}

fn zero_time(text: &str) -> String {
    format!("must be longer than {text:?}; leave it out to have no time limit of its own")
}

/// Returns the units in a duration.
fn units(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphabetic())
        .filter(|unit| !unit.is_empty())
}

/// Returns true for digits and points. Rust's own parsers also accept signs, exponents and `inf`.
fn is_plain_number(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Returns a number of bytes without its fraction; `None` if it does not fit.
fn whole_bytes(bytes: f64) -> Option<u64> {
    // The smallest number that does not fit. The largest one that fits has no exact `f64`.
    const TOO_MANY: f64 = 18_446_744_073_709_551_616.0;
    (bytes < TOO_MANY).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_bytes("17"), Ok(17));
        assert_eq!(parse_bytes("256M"), Ok(256 << 20));
        assert_eq!(parse_bytes(" 4 GiB "), Ok(4 << 30));
        assert_eq!(parse_bytes("1tb"), Ok(1 << 40));
        assert_eq!(parse_bytes("2Gi"), Ok(2 << 30));
        assert_eq!(parse_bytes("1.5G"), Ok(3 << 29));
        assert_eq!(parse_bytes("0.5 KiB"), Ok(512));
        assert_eq!(parse_bytes(".25k"), Ok(256));
        assert_eq!(parse_bytes("18446744073709551615"), Ok(u64::MAX));
        let wrong = [
            "",
            "0",
            "0.0G",
            "-1",
            "+1",
            "4 apples",
            "1.5",
            "1.2.3G",
            "1,5G",
            "1e3M",
            "infG",
            "99999999999T",
            "99999999999.5T",
            "G",
            ".G",
            "K9",
            "18446744073709551616",
            "2Gbit",
            "1 000M",
        ];
        for wrong in wrong {
            assert!(
                parse_bytes(wrong).is_err_and(|text| text.contains("such as \"256MiB\"")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn memory_below_a_page_is_a_mistake() {
        assert_eq!(parse_memory("65536"), Ok(64 << 10));
        assert_eq!(parse_memory("64K"), Ok(64 << 10));
        assert_eq!(parse_memory("1.5G"), Ok(3 << 29));
        let check = |text: &str, advice: &str| {
            let refused = parse_memory(text).expect_err(text);
            assert!(refused.contains(advice), "{refused}");
        };
        check(
            "500",
            "\"500\" is 500 bytes, less than a page of WebAssembly memory (64 KiB); write \
             \"500M\" for 500 MiB",
        );
        check(" 65535 ", "write \"65535M\"");
        check("63K", "give at least \"64KiB\"");
        check("0", "must be a size");
    }

    #[test]
    fn times_are_read() {
        let check = |text: &str, milliseconds: u64| {
            assert_eq!(
                parse_time(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        };
        check("30s", 30_000);
        check(" 1h 30m ", 5_400_000);
        check("1.5h", 5_400_000);
        check("200ms", 200);
        check("10 min", 600_000);
        check("1 month", 2_630_016_000);
        assert_eq!(
            parse_time("18446744073709551615s 999ms").map(|time| time.as_secs()),
            Ok(u64::MAX)
        );
    }

    #[test]
    fn times_that_are_mistakes_get_the_right_form() {
        let check = |text: &str, expected: &str| {
            let refused = parse_time(text).expect_err(text);
            assert!(
                refused.contains(expected) && !refused.contains("months"),
                "{refused}"
            );
        };
        check("0", "must be longer than \"0\"");
        check("0s", "must be longer than \"0s\"");
        check("0h 0min", "must be longer than");
        check(
            "30",
            "not \"30\"; write \"30s\" for seconds or \"30min\" for minutes",
        );
        check("1.5", "write \"1.5s\"");
        check("5M", "write \"5min\" for minutes");
        check("5 M", "write \"5 min\" for minutes");
        check("1h 5M", "write \"1h 5min\"");
        check("30S", "write \"30s\"");
        check("2 Hours", "write \"2 hours\"");
        check("99999999999999999999s", "the number is too large");
        for wrong in ["", "soon", "-5s", "inf", "01:30:00", "5 fortnights"] {
            check(wrong, "must be a time such as \"30s\"");
        }
    }
}
