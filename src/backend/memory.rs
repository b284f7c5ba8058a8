//! Memory of this machine, as far as this process may have it.

use std::path::Path;

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Memory in total.
    pub(super) total_bytes: u64,
    /// Memory that can be allocated now without taking it from other programs.
    pub(super) available_bytes: u64,
}

/// The memory of this machine, or of the control group that this process is in, whichever is less;
/// `None` where the system does not report it.
pub(super) fn machine_memory() -> Option<Memory> {
    memory_below(Path::new("/"))
}

/// [`machine_memory`] from the files below another folder than `/`.
fn memory_below(root: &Path) -> Option<Memory> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let meminfo = read("proc/meminfo")?;
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    };
    let of_machine = Memory {
        total_bytes: kibibytes("MemTotal:")?.saturating_mul(1024),
        available_bytes: kibibytes("MemAvailable:")?.saturating_mul(1024),
    };
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let of_groups = groups.lines().flat_map(|line| groups_of(root, line));
    Some(of_groups.fold(of_machine, |least, of_group| Memory {
        total_bytes: least.total_bytes.min(of_group.total_bytes),
        available_bytes: least.available_bytes.min(of_group.available_bytes),
    }))
}

/// The limits of a control group and those above it.
///
/// * `line`: of `/proc/self/cgroup`.
fn groups_of(root: &Path, line: &str) -> Vec<Memory> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (mounted, files) = match controllers {
        "" => (
            "sys/fs/cgroup",
            ["memory.max", "memory.current", "inactive_file "],
        ),
        _ if controllers.split(',').any(|name| name == "memory") => {
            let files = [
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file ",
            ];
            ("sys/fs/cgroup/memory", files)
        }
        _ => return Vec::new(),
    };
    let top = root.join(mounted);
    let group = top.join(path.trim_start_matches('/'));
    // In a container the path may be that of the host, of which only the end exists.
    group
        .ancestors()
        .take_while(|folder| folder.starts_with(&top))
        .filter_map(|folder| of_group(folder, files))
        .collect()
}

fn of_group(folder: &Path, [limit, usage, cache]: [&str; 3]) -> Option<Memory> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    // `max` means no limit.
    let total_bytes = number(limit)?;
    let cached = read("memory.stat").and_then(|stat| {
        stat.lines()
            .find_map(|line| line.strip_prefix(cache))
            .and_then(|bytes| bytes.trim().parse::<u64>().ok())
    });
    let used = number(usage)
        .unwrap_or(0)
        .saturating_sub(cached.unwrap_or(0));
    Some(Memory {
        total_bytes,
        available_bytes: total_bytes.saturating_sub(used),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: Option<(u64, u64)>) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let memory =
            memory_below(folder.path()).map(|memory| (memory.total_bytes, memory.available_bytes));
        assert_eq!(memory, expected, "{files:?}");
    }

    #[test]
    fn the_least_of_machine_and_control_groups_counts() {
        let meminfo = (
            "proc/meminfo",
            "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n",
        );
        check(&[], None);
        check(&[meminfo], Some((1_024_000, 614_400)));
        let unlimited = [
            meminfo,
            ("proc/self/cgroup", "0::/user/a\n"),
            ("sys/fs/cgroup/user/a/memory.max", "max\n"),
            ("sys/fs/cgroup/user/a/memory.current", "1\n"),
        ];
        check(&unlimited, Some((1_024_000, 614_400)));
        let limited_above = [
            meminfo,
            ("proc/self/cgroup", "0::/user/a\n"),
            ("sys/fs/cgroup/user/memory.max", "500000\n"),
            ("sys/fs/cgroup/user/memory.current", "400000\n"),
            (
                "sys/fs/cgroup/user/memory.stat",
                "anon 1\ninactive_file 150000\n",
            ),
        ];
        check(&limited_above, Some((500_000, 250_000)));
        let in_a_container = [
            meminfo,
            ("proc/self/cgroup", "9:cpu,memory:/docker/0123\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "500000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "100000\n"),
        ];
        check(&in_a_container, Some((500_000, 400_000)));
    }
}
