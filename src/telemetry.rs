//! Measurements of this process for monitoring.

/// Resident memory of this process in MiB, if the system reports it.
pub fn process_memory_mib() -> Option<f64> {
    // Kept by the kernel in memory: reading it does not block.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
