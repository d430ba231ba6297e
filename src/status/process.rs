//! What the kernel says of this process, for the metrics `process_*`. What cannot be read is 0.

use std::fs;

/// The kernel's unit of time in `/proc` (USER_HZ), which is the same on all architectures that matter.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process, as of now.
#[derive(Debug, Default)]
pub struct Process {
    /// When it started, in seconds since 1970.
    pub start_time: f64,
    /// The CPU time that it used.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Virtual memory, in bytes.
    pub virtual_memory: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The most file descriptors that it may have open.
    pub max_fds: u64,
}

impl Process {
    /// Reads `/proc`.
    pub fn read() -> Process {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        let ticks = |field| field_of_stat(&stat, field);
        let booted = number_after(&read("/proc/stat"), "btime ") as f64;
        let fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
        Process {
            start_time: booted + ticks(22) / TICKS_PER_SECOND,
            cpu_seconds: (ticks(14) + ticks(15)) / TICKS_PER_SECOND,
            resident: number_after(&status, "VmRSS:") * 1024,
            virtual_memory: number_after(&status, "VmSize:") * 1024,
            // One of them is the folder itself.
            open_fds: fds.saturating_sub(1),
            max_fds: number_after(&read("/proc/self/limits"), "Max open files"),
        }
    }
}

/// A field of `/proc/self/stat`, numbered as in proc(5). The second is the name in parentheses, which may hold spaces.
fn field_of_stat(stat: &str, number: usize) -> f64 {
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = number.checked_sub(3).and_then(|index| after_name.split(' ').nth(index));
    field.and_then(|field| field.parse().ok()).unwrap_or_default()
}

/// The number that follows the beginning of a line.
fn number_after(text: &str, beginning: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(beginning)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T4: `/proc` is read as proc(5) describes it.
    #[test]
    fn the_kernel_is_understood() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 90 0 0 0 150 50 0 0 20 0 9 0 123400 1 2";
        assert_eq!(
            (field_of_stat(stat, 14), field_of_stat(stat, 15), field_of_stat(stat, 22)),
            (150.0, 50.0, 123_400.0)
        );
        assert_eq!(
            number_after("a 1\nMax open files            1024                 4096 files\n", "Max open files"),
            1024
        );
        let process = Process::read();
        assert!(process.start_time > 1.5e9 && process.resident > 100_000 && process.virtual_memory > process.resident);
        assert!(process.open_fds >= 3 && process.max_fds >= process.open_fds, "{process:?}");
    }
}
