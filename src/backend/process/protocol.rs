//! Messages between parent and child, over pipes.
//!
//! A message is a length (4 bytes, little endian), the length of a JSON head (likewise), the head,
//! and raw bytes: code or output. Both sides are the same version of the same program; the first
//! message has the version.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::layers::Confinement;
use crate::model::{Grant, GuestReport, Limits, TaskMetadata};
use crate::sandbox::{
    Entry, GuestEnd, GuestInput, Invocation, ModuleForm, OpenCacheFile, Reservation, TypedCall,
};

/// Bytes of a message to a child: the largest is compiled code.
pub(super) const MAX_TO_CHILD: usize = 2 << 30;
/// Bytes of a message from a child, which may be under a guest's control: a piece of output or an
/// error text.
pub(super) const MAX_FROM_CHILD: usize = 1 << 20;

/// The first message to a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: String,
    pub(super) deterministic: bool,
    pub(super) reservation: Reservation,
    pub(super) on_demand: bool,
    pub(super) folders: Vec<Grant>,
    /// Compiled code in files that the parent has open, in the order in which it must be loaded.
    pub(super) files: Vec<SharedCode>,
}

/// Compiled code that a child shares with its parent instead of receiving a copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SharedCode {
    pub(super) sha256: String,
    pub(super) form: ModuleForm,
    pub(super) file: OpenCacheFile,
}

/// A message to a child.
#[derive(Debug)]
pub(super) enum ToChild<'a> {
    Hello(Hello),
    Module {
        sha256: String,
        form: ModuleForm,
        /// Its native code.
        code: Cow<'a, [u8]>,
    },
    /// Metadata that the typed calls that follow may fetch.
    Metadata(TaskMetadata),
    Call(WireInvocation),
}

/// A message from a child.
#[derive(Debug)]
pub(super) enum FromChild {
    Ready {
        version: String,
        confinement: Confinement,
        /// Keys of the compiled code of [`Hello::files`] that the child has loaded.
        loaded: Vec<String>,
    },
    /// The child cannot serve.
    Unable {
        reason: String,
    },
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// A report of a running typed task.
    Report(GuestReport),
    /// A warning for the user.
    Warning(String),
    /// A piece of what it returned.
    Returned(Vec<u8>),
    Ended {
        end: GuestEnd,
        peak_memory_bytes: u64,
        cpu_time_ns: u64,
    },
}

/// An [`Invocation`] without what stays with the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireInvocation {
    pub(super) module_sha256: String,
    pub(super) entry: WireEntry,
    /// The parameters of a typed call, which follow the head.
    #[serde(skip)]
    pub(super) args: Vec<u8>,
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) grants: Vec<Grant>,
    pub(super) stdin: GuestInput,
    pub(super) seed: u64,
    limits: WireLimits,
}

/// [`Limits`] on the wire. Both conversions name every field, so that adding a limit does not
/// compile until process mode handles it.
#[derive(Debug, Serialize, Deserialize)]
struct WireLimits {
    memory_bytes: u64,
    wall_time_ns: Option<u64>,
    call_output_bytes: u64,
    open_files: usize,
    module_bytes: u64,
}

impl WireLimits {
    fn of(limits: &Limits) -> Self {
        // The parent receives all output, counts it and truncates it.
        let Limits {
            memory_bytes,
            wall_time,
            output_bytes: _,
            call_output_bytes,
            open_files,
            module_bytes,
        } = *limits;
        let wall_time_ns = wall_time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        Self {
            memory_bytes,
            wall_time_ns,
            call_output_bytes,
            open_files,
            module_bytes,
        }
    }

    fn limits(&self) -> Limits {
        let Self {
            memory_bytes,
            wall_time_ns,
            call_output_bytes,
            open_files,
            module_bytes,
        } = *self;
        let wall_time = wall_time_ns.map(Duration::from_nanos);
        Limits {
            memory_bytes,
            wall_time,
            output_bytes: u64::MAX,
            call_output_bytes,
            open_files,
            module_bytes,
        }
    }
}

/// An [`Entry`] without its parameters.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WireEntry {
    Command,
    Run,
    Describe,
    #[cfg(feature = "compiler")]
    Initialize,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
enum ToChildHead {
    Hello(Hello),
    Module { sha256: String, form: ModuleForm },
    Metadata,
    Call(WireInvocation),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
enum FromChildHead {
    Ready {
        version: String,
        confinement: Confinement,
        /// Keys of the compiled code of [`Hello::files`] that the child has loaded.
        loaded: Vec<String>,
    },
    Unable {
        reason: String,
    },
    Stdout,
    Stderr,
    Report {
        report: GuestReport,
    },
    Warning {
        text: String,
    },
    Returned,
    Ended {
        end: GuestEnd,
        peak_memory_bytes: u64,
        #[serde(default)]
        cpu_time_ns: u64,
    },
}

impl WireInvocation {
    pub(super) fn of(invocation: &Invocation<'_>) -> Self {
        let (entry, args) = match &invocation.entry {
            Entry::Command => (WireEntry::Command, Vec::new()),
            Entry::Run(TypedCall { args, .. }) => (WireEntry::Run, args.as_bytes().to_vec()),
            Entry::Describe => (WireEntry::Describe, Vec::new()),
            #[cfg(feature = "compiler")]
            Entry::Initialize(_) => (WireEntry::Initialize, Vec::new()),
        };
        Self {
            module_sha256: invocation.module_sha256.to_owned(),
            entry,
            args,
            argv: invocation.argv.to_vec(),
            env: invocation.env.to_vec(),
            grants: invocation.grants.to_vec(),
            stdin: invocation.stdin.clone(),
            seed: invocation.seed,
            limits: WireLimits::of(invocation.limits),
        }
    }

    /// The limits that the child keeps; the one on output is the parent's.
    pub(super) fn limits(&self) -> Limits {
        self.limits.limits()
    }
}

impl ToChild<'_> {
    pub(super) fn write(self, writer: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Hello(hello) => write_message(writer, &ToChildHead::Hello(hello), &[]),
            Self::Module { sha256, form, code } => {
                write_message(writer, &ToChildHead::Module { sha256, form }, &code)
            }
            Self::Metadata(metadata) => write_message(
                writer,
                &ToChildHead::Metadata,
                &serde_json::to_vec(&metadata.texts())?,
            ),
            Self::Call(mut call) => {
                let args = std::mem::take(&mut call.args);
                write_message(writer, &ToChildHead::Call(call), &args)
            }
        }
    }

    pub(super) fn read(reader: &mut impl Read) -> io::Result<ToChild<'static>> {
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_TO_CHILD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length];
        reader.read_exact(&mut message)?;
        let (head, bytes) = split(&message)?;
        Ok(match serde_json::from_slice(head)? {
            ToChildHead::Hello(hello) => ToChild::Hello(hello),
            ToChildHead::Module { sha256, form } => ToChild::Module {
                sha256,
                form,
                code: Cow::Owned(bytes.to_vec()),
            },
            ToChildHead::Metadata => {
                let texts: HashMap<String, String> = serde_json::from_slice(bytes)?;
                ToChild::Metadata(TaskMetadata::from_texts(texts))
            }
            ToChildHead::Call(call) => ToChild::Call(WireInvocation {
                args: bytes.to_vec(),
                ..call
            }),
        })
    }
}

impl FromChild {
    pub(super) fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Ready {
                version,
                confinement,
                loaded,
            } => {
                let head = FromChildHead::Ready {
                    version: version.clone(),
                    confinement: confinement.clone(),
                    loaded: loaded.clone(),
                };
                write_message(writer, &head, &[])
            }
            Self::Unable { reason } => write_message(
                writer,
                &FromChildHead::Unable {
                    reason: reason.clone(),
                },
                &[],
            ),
            Self::Stdout(bytes) => write_message(writer, &FromChildHead::Stdout, bytes),
            Self::Stderr(bytes) => write_message(writer, &FromChildHead::Stderr, bytes),
            Self::Report(report) => write_message(
                writer,
                &FromChildHead::Report {
                    report: report.clone(),
                },
                &[],
            ),
            Self::Warning(message) => write_message(
                writer,
                &FromChildHead::Warning {
                    text: message.clone(),
                },
                &[],
            ),
            Self::Returned(bytes) => write_message(writer, &FromChildHead::Returned, bytes),
            Self::Ended {
                end,
                peak_memory_bytes,
                cpu_time_ns,
            } => {
                let head = FromChildHead::Ended {
                    end: end.clone(),
                    peak_memory_bytes: *peak_memory_bytes,
                    cpu_time_ns: *cpu_time_ns,
                };
                write_message(writer, &head, &[])
            }
        }
    }

    /// Takes the first message off `received`, if it is complete.
    pub(super) fn take(received: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some(length) = received.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FROM_CHILD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(message) = received.get(4..4 + length) else {
            return Ok(None);
        };
        let (head, bytes) = split(message)?;
        let message = match serde_json::from_slice(head)? {
            FromChildHead::Ready {
                version,
                confinement,
                loaded,
            } => Self::Ready {
                version,
                confinement,
                loaded,
            },
            FromChildHead::Unable { reason } => Self::Unable { reason },
            FromChildHead::Stdout => Self::Stdout(bytes.to_vec()),
            FromChildHead::Stderr => Self::Stderr(bytes.to_vec()),
            FromChildHead::Report { report } => Self::Report(report),
            FromChildHead::Warning { text } => Self::Warning(text),
            FromChildHead::Returned => Self::Returned(bytes.to_vec()),
            FromChildHead::Ended {
                end,
                peak_memory_bytes,
                cpu_time_ns,
            } => Self::Ended {
                end,
                peak_memory_bytes,
                cpu_time_ns,
            },
        };
        received.drain(..4 + length);
        Ok(Some(message))
    }
}

/// Reads bytes of a child as its parent does when they come in pieces: each message, as it is
/// written again, and whether one was wrong, after which a parent reads no more. For tests of that
/// reading.
///
/// * `piece_bytes`: bytes of a piece, at least 1.
#[doc(hidden)]
pub fn read_from_child(bytes: &[u8], piece_bytes: usize) -> (Vec<Vec<u8>>, bool) {
    let mut received = Vec::new();
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece_bytes.max(1)) {
        received.extend_from_slice(piece);
        loop {
            match FromChild::take(&mut received) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    let mut written = Vec::new();
                    if message.write(&mut written).is_err() {
                        return (messages, true);
                    }
                    messages.push(written);
                }
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

fn write_message(writer: &mut impl Write, head: &impl Serialize, bytes: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let length = u32::try_from(4 + head.len() + bytes.len()).map_err(too_long)?;
    let head_length = u32::try_from(head.len()).map_err(too_long)?;
    let mut start = Vec::with_capacity(8 + head.len());
    start.extend_from_slice(&length.to_le_bytes());
    start.extend_from_slice(&head_length.to_le_bytes());
    start.extend_from_slice(&head);
    writer.write_all(&start)?;
    writer.write_all(bytes)?;
    writer.flush()
}

fn split(message: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let (length, rest) = message.split_first_chunk::<4>().ok_or_else(invalid)?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let mut pipe = Vec::new();
        let sent = [
            FromChild::Ready {
                version: "1".to_owned(),
                confinement: Confinement::default(),
                loaded: vec!["k".to_owned()],
            },
            FromChild::Unable {
                reason: "no thread".to_owned(),
            },
            FromChild::Stdout(vec![0, 255, 10]),
            FromChild::Report(GuestReport::Progress {
                permille: 7,
                message: "\0é".to_owned(),
            }),
            FromChild::Returned(b"{}".to_vec()),
            FromChild::Ended {
                end: GuestEnd::MemoryExceeded {
                    limit_bytes: 1,
                    asked_bytes: 2,
                },
                peak_memory_bytes: 3,
                cpu_time_ns: 4,
            },
        ];
        for message in &sent {
            message.write(&mut pipe).expect("written");
        }
        let whole = pipe.clone();
        let mut received = Vec::new();
        let mut messages = Vec::new();
        for byte in whole {
            received.push(byte);
            messages.extend(FromChild::take(&mut received).expect("valid"));
        }
        assert_eq!(format!("{messages:?}"), format!("{sent:?}"));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused() {
        let mut received = u32::MAX.to_le_bytes().to_vec();
        assert!(FromChild::take(&mut received).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parent_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut received = bytes;
            if let Some(first) = received.first_chunk_mut::<4>() {
                *first = 40_u32.to_le_bytes();
            }
            let _ = FromChild::take(&mut received);
        }
    }
}
