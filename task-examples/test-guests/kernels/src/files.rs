//! Reading and writing: large files in large blocks, and many small ones.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::checksum;

const BLOCK_BYTES: usize = 1 << 20;
const BLOCKS: usize = 256;
const SMALL_FILES: usize = 10_000;
const SMALL_BYTES: usize = 4096;
/// Small files that share a folder, as the chunks of an image do.
const IN_A_FOLDER: usize = 100;
const LARGE_FILE: &str = "large";

/// Writes a file of 256 MiB in blocks of 1 MiB, `n` times over.
pub(super) fn write(n: u32, folder: &Path) -> io::Result<u64> {
    let block = vec![1; BLOCK_BYTES];
    for _ in 0..n {
        let mut file = File::create(folder.join(LARGE_FILE))?;
        for _ in 0..BLOCKS {
            file.write_all(&block)?;
        }
    }
    Ok(fs::metadata(folder.join(LARGE_FILE))?.len())
}

/// Reads the file that [`write`] leaves, in blocks of 1 MiB, `n` times.
pub(super) fn read(n: u32, folder: &Path) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut sums = Vec::new();
    for _ in 0..n {
        let mut file = File::open(folder.join(LARGE_FILE))?;
        for _ in 0..BLOCKS {
            file.read_exact(&mut block)?;
            sums.push(u64::from(block[BLOCK_BYTES - 1]));
        }
    }
    Ok(checksum(sums))
}

/// Writes 10,000 files of 4 KiB in folders of 100, looks at them, reads them back and removes them,
/// `n` times.
pub(super) fn small_files(n: u32, folder: &Path) -> io::Result<u64> {
    let bytes = [1; SMALL_BYTES];
    let mut sizes = Vec::new();
    for _ in 0..n {
        for chunk in 0..SMALL_FILES / IN_A_FOLDER {
            let folder = folder.join(format!("chunk{chunk}"));
            fs::create_dir(&folder)?;
            let file = |index: usize| folder.join(index.to_string());
            for index in 0..IN_A_FOLDER {
                fs::write(file(index), bytes)?;
            }
            for index in 0..IN_A_FOLDER {
                sizes.push(fs::metadata(file(index))?.len());
                sizes.push(fs::read(file(index))?.len() as u64);
            }
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(checksum(sizes))
}
