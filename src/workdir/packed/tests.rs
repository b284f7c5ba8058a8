use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::format::{FILE_START_BYTES, RECORD_MARK};
use super::{AttemptKey, MAX_BUFFERED_BYTES, PackedCall, PackedCalls, find_packed};
use crate::workdir::layout::PACKED_CALLS_FILE;

fn key(call_index: usize) -> AttemptKey {
    AttemptKey {
        session: 0,
        batch: 0,
        call_index,
        attempt: 1,
    }
}

/// Runs a call: its streams are written, and then its record.
fn pack(calls: &Arc<PackedCalls>, call_index: usize, streams: [&[u8]; 2], output: Option<&[u8]>) {
    let call = PackedCall::new(calls, key(call_index), Some(call_index.into()));
    for (stream, bytes) in streams.into_iter().enumerate() {
        call.writer(stream).write_all(bytes).expect("written");
    }
    let args = args_of(call_index);
    call.finish("stem", false, args.as_bytes(), output)
        .expect("packed");
}

fn args_of(call_index: usize) -> String {
    format!("{{\"call\":{call_index}}}")
}

/// Creates a file with three calls. Returns its bytes and the ends of its records.
fn three_calls(folder: &Path) -> (Vec<u8>, Vec<usize>) {
    let calls = Arc::new(PackedCalls::new(folder));
    let mut ends = vec![FILE_START_BYTES];
    for index in 0..3 {
        pack(&calls, index, [b"out", b""], (index == 1).then_some(b"{}"));
        ends.push(fs::metadata(calls.path()).expect("there").len() as usize);
    }
    (fs::read(calls.path()).expect("there"), ends)
}

/// Returns the calls that are found in a file with these bytes, after checking their parts.
fn found_in(folder: &Path, bytes: &[u8]) -> io::Result<Vec<usize>> {
    let path = folder.join(PACKED_CALLS_FILE);
    fs::write(&path, bytes).expect("written");
    let mut found = Vec::new();
    for index in 0..4 {
        let Some(record) = find_packed(&path, key(index))? else {
            continue;
        };
        let args = record.args()?.expect("it has ended");
        assert_eq!(String::from_utf8_lossy(&args), args_of(index));
        assert_eq!(record.stdout()?, b"out");
        assert!(record.stderr()?.is_empty() && record.has_ended);
        let output = (index == 1).then(|| b"{}".to_vec());
        assert_eq!(record.output()?, output);
        found.push(index);
    }
    Ok(found)
}

#[test]
fn a_file_can_be_cut_at_every_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let (bytes, ends) = three_calls(folder.path());
    assert_eq!(found_in(folder.path(), &bytes).expect("read"), [0, 1, 2]);
    for cut in 0..bytes.len() {
        let found = found_in(folder.path(), &bytes[..cut]);
        if cut < FILE_START_BYTES {
            let err = found.expect_err("no key");
            assert_eq!(err.kind(), io::ErrorKind::InvalidData);
            continue;
        }
        let n_whole = ends[1..].iter().filter(|end| **end <= cut).count();
        let whole: Vec<_> = (0..n_whole).collect();
        assert_eq!(found.expect("read"), whole, "cut at {cut}");
    }
}

#[test]
fn a_record_after_a_torn_one_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (bytes, ends) = three_calls(folder.path());
    let path = folder.path().join(PACKED_CALLS_FILE);
    for cut in 0..ends[1] {
        fs::write(&path, &bytes[..cut]).expect("written");
        // What a resumed run does.
        let calls = Arc::new(PackedCalls::new(folder.path()));
        pack(&calls, 1, [b"out", b""], Some(b"{}"));
        pack(&calls, 2, [b"out", b""], None);
        let bytes = fs::read(&path).expect("there");
        let mut found = found_in(folder.path(), &bytes).expect("read");
        // One of 256 torn records lacks just a byte that is also the first one of the next record.
        if cut + 1 == ends[1] && found[0] == 0 {
            found.remove(0);
        }
        assert_eq!(found, [1, 2], "cut at {cut}");
    }
}

#[test]
fn a_record_that_begins_in_the_sum_of_a_torn_one_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(PACKED_CALLS_FILE);
    let calls = Arc::new(PackedCalls::new(folder.path()));
    // The sum of about one of 256 records ends with the first byte of a mark.
    let (bytes, torn_call) = (0..100_000)
        .find_map(|call_index| {
            pack(&calls, call_index, [b"out", b""], None);
            let bytes = fs::read(&path).expect("there");
            bytes
                .ends_with(&RECORD_MARK[..1])
                .then_some((bytes, call_index))
        })
        .expect("a sum that ends with the first byte of a mark");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    let calls = Arc::new(PackedCalls::new(folder.path()));
    for call_index in [torn_call + 1, torn_call + 2] {
        pack(&calls, call_index, [b"out", b""], None);
    }
    for call_index in [torn_call, torn_call + 1, torn_call + 2] {
        let found = find_packed(&path, key(call_index)).expect("read");
        assert!(found.is_some_and(|record| record.has_ended), "{call_index}");
    }
}

#[test]
fn a_flipped_byte_costs_its_record_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let (bytes, ends) = three_calls(folder.path());
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x20;
        let found = found_in(folder.path(), &damaged);
        if position < FILE_START_BYTES {
            assert!(found.is_err(), "flipped at {position}");
            continue;
        }
        let lost = ends[1..].iter().filter(|end| **end <= position).count();
        let whole: Vec<_> = (0..3).filter(|index| *index != lost).collect();
        assert_eq!(found.expect("read"), whole, "flipped at {position}");
    }
}

#[test]
fn a_file_with_a_damaged_start_is_kept_and_a_new_one_begun() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut bytes, _) = three_calls(folder.path());
    bytes[30] ^= 1;
    for number in 1..3 {
        fs::write(folder.path().join(PACKED_CALLS_FILE), &bytes).expect("written");
        let calls = Arc::new(PackedCalls::new(folder.path()));
        pack(&calls, 0, [b"out", b""], None);
        let kept = folder.path().join(format!("calls.damaged-{number}.packed"));
        assert_eq!(fs::read(kept).expect("kept"), bytes);
        let found = find_packed(&calls.path(), key(0)).expect("read");
        assert!(found.is_some_and(|record| record.has_ended));
    }
}

#[test]
fn guests_cannot_forge_records() {
    let other = tempfile::tempdir().expect("a folder");
    let (forged, _) = three_calls(other.path());
    let folder = tempfile::tempdir().expect("a folder");
    let calls = Arc::new(PackedCalls::new(folder.path()));
    let marks = RECORD_MARK.repeat(1000);
    pack(&calls, 7, [&forged, &marks], None);
    let mut bytes = fs::read(calls.path()).expect("there");
    assert!(found_in(folder.path(), &bytes).expect("read").is_empty());
    // The record is damaged, so the search goes through what the guest has written.
    bytes[FILE_START_BYTES] ^= 1;
    fs::write(calls.path(), &bytes).expect("written");
    pack(&calls, 2, [b"out", b""], None);
    let bytes = fs::read(calls.path()).expect("there");
    assert_eq!(found_in(folder.path(), &bytes).expect("read"), [2]);
}

#[test]
fn long_streams_are_written_in_pieces() {
    let folder = tempfile::tempdir().expect("a folder");
    let calls = Arc::new(PackedCalls::new(folder.path()));
    let long = |byte: u8| -> Vec<u8> {
        let numbers = (0..2 * MAX_BUFFERED_BYTES + 7).map(|n| (n / 1000) as u8);
        numbers.map(|n| n ^ byte).collect()
    };
    let call = PackedCall::new(&calls, key(0), None);
    let mut writers = [call.writer(0), call.writer(1)];
    let streams = [long(0), long(0xff)];
    for (stdout, stderr) in streams[0].chunks(9999).zip(streams[1].chunks(9999)) {
        writers[0].write_all(stdout).expect("written");
        writers[1].write_all(stderr).expect("written");
    }
    let record = find_packed(&calls.path(), key(0)).expect("read");
    let record = record.expect("pieces are there before the call has ended");
    assert!(!record.has_ended && record.args().expect("read").is_none());
    assert_eq!(
        record.stdout().expect("read"),
        streams[0][..2 * MAX_BUFFERED_BYTES]
    );
    call.finish("stem", false, b"{}", None).expect("packed");
    let record = find_packed(&calls.path(), key(0))
        .expect("read")
        .expect("there");
    assert_eq!(record.stdout().expect("read"), streams[0]);
    assert_eq!(record.stderr().expect("read"), streams[1]);
    for (stream, expected) in streams.iter().enumerate() {
        let path = folder.path().join(stream.to_string());
        call.write_stream(stream, &path).expect("written");
        assert_eq!(&fs::read(path).expect("there"), expected);
    }
}

#[test]
fn threads_do_not_mix_their_records() {
    let folder = tempfile::tempdir().expect("a folder");
    // Two writers, as two processes have.
    let writers = [0, 1].map(|_| Arc::new(PackedCalls::new(folder.path())));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let calls = &writers[thread % 2];
            scope.spawn(move || {
                for n in 0..50 {
                    let index = thread * 50 + n;
                    let text = index.to_string().repeat(n * 100);
                    pack(calls, index, [text.as_bytes(), b""], None);
                }
            });
        }
    });
    let path = folder.path().join(PACKED_CALLS_FILE);
    for index in 0..200 {
        let record = find_packed(&path, key(index))
            .expect("read")
            .expect("there");
        let text = index.to_string().repeat(index % 50 * 100);
        assert_eq!(record.stdout().expect("read"), text.as_bytes());
        let args = record.args().expect("read").expect("there");
        assert_eq!(args, args_of(index).as_bytes());
    }
}

#[test]
fn links_and_folders_in_place_of_the_file_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(PACKED_CALLS_FILE);
    let outside = folder.path().join("outside");
    fs::write(&outside, "kept").expect("written");
    let calls = Arc::new(PackedCalls::new(folder.path()));
    let is_refused = || {
        let call = PackedCall::new(&calls, key(0), None);
        call.finish("stem", false, b"{}", None).is_err() && find_packed(&path, key(0)).is_err()
    };
    std::os::unix::fs::symlink(&outside, &path).expect("made");
    assert!(is_refused());
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    assert!(is_refused());
    assert_eq!(fs::read(&outside).expect("there"), b"kept");
}
