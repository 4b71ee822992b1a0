//! What the kernel says of this process, read when somebody asks.

use super::list;

/// Hands over the present figures. What cannot be read is left out.
pub(super) fn observe(mut set: impl FnMut(&'static str, f64)) {
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        if let Some(kibibytes) = field("VmRSS:") {
            set(list::PROCESS_MEMORY, kibibytes * 1024.0);
        }
        if let Some(threads) = field("Threads:") {
            set(list::PROCESS_THREADS, threads);
        }
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        set(list::PROCESS_FDS, f64::from(u32::try_from(descriptors.count()).unwrap_or(u32::MAX)));
    }
}
