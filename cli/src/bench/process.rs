//! What a process costs, from `/proc`.

use std::path::PathBuf;

use anyhow::Context;

/// `/proc/<pid>/stat` counts in these; it's 100 on every Linux that Rust knows.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// User and system time of a process so far.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything; the times are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').context("no name in stat")?.1;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    anyhow::ensure!(ticks.len() == 2, "no times in stat");
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// What a process holds, bytes.
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
    /// Not backed by files: what it allocated and wrote.
    pub(super) own: u64,
    /// Mapped files: code, mostly, which is shared and can be dropped.
    pub(super) files: u64,
    pub(super) threads: u64,
}

impl Memory {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/status"));
        let status = std::fs::read_to_string(path)?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            number.with_context(|| format!("no {name} in status"))
        };
        let kilobytes = |name: &str| number(name).map(|kilobytes| kilobytes.saturating_mul(1024));
        Ok(Self {
            resident: kilobytes("VmRSS:")?,
            peak: kilobytes("VmHWM:")?,
            own: kilobytes("RssAnon:")?,
            files: kilobytes("RssFile:")?,
            threads: number("Threads:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
        let memory = Memory::of(pid).unwrap();
        assert!(memory.peak >= memory.own && memory.threads > 0 && memory.resident > 1 << 20);
        assert!(Memory::of(u32::MAX).is_err());
    }
}
