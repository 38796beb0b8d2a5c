//! The texts of cgroup v2, PSI and `/proc`. Each parser takes any text and never panics.

use drover_common::cluster::ContainerId;

/// A kernel file that does not look as documented.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is missing or no number")]
pub struct UnreadableFile {
    /// The field that was looked for.
    pub field: &'static str,
}

fn unreadable(field: &'static str) -> UnreadableFile {
    UnreadableFile { field }
}

/// The number after `key` in lines of `key number`.
fn field(text: &str, key: &'static str) -> Result<u64, UnreadableFile> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or(unreadable(key))
}

/// CPU time in a cgroup's `cpu.stat`, microseconds.
///
/// # Errors
/// There is no `usage_usec`.
pub fn cpu_usage(cpu_stat: &str) -> Result<u64, UnreadableFile> {
    field(cpu_stat, "usage_usec")
}

/// Page cache that can be dropped without harm, from `memory.stat`, bytes. The kubelet subtracts
/// it from `memory.current` to get the working set.
///
/// # Errors
/// There is no `inactive_file`.
pub fn inactive_file(memory_stat: &str) -> Result<u64, UnreadableFile> {
    field(memory_stat, "inactive_file")
}

/// A file that holds one number, such as `memory.current`.
///
/// # Errors
/// It doesn't.
pub fn number(text: &str) -> Result<u64, UnreadableFile> {
    text.trim().parse().map_err(|_| unreadable("value"))
}

/// Total time in which some task stalled, from a `*.pressure` file, microseconds.
///
/// # Errors
/// There is no line `some` with a `total`.
pub fn stalled(pressure: &str) -> Result<u64, UnreadableFile> {
    pressure
        .lines()
        .find_map(|line| line.strip_prefix("some "))
        .and_then(|fields| fields.split_whitespace().find_map(|f| f.strip_prefix("total=")))
        .and_then(|total| total.parse().ok())
        .ok_or(unreadable("some total"))
}

/// The periods of a cgroup's CPU limit.
///
/// The kernel's `throttled_usec` would not do: it counts each CPU that waits, so that it grows faster than time.
/// Both it and these are the group's own, without those of the groups in it (`cpu_extra_stat_show` of Linux).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitPeriods {
    /// Those in which something ran.
    pub elapsed: u64,
    /// Those of them in which the limit held something back.
    pub throttled: u64,
}

impl LimitPeriods {
    /// The share of those since `before` in which the limit held something back, in thousandths.
    pub fn permille_since(self, before: Self) -> u32 {
        let elapsed = self.elapsed.saturating_sub(before.elapsed);
        super::permille(before.throttled, self.throttled, elapsed)
    }
}

/// The periods of a cgroup's CPU limit, from `cpu.stat`; none where there is no limit.
pub fn limit_periods(cpu_stat: &str) -> LimitPeriods {
    let count = |name| field(cpu_stat, name).unwrap_or(0);
    LimitPeriods { elapsed: count("nr_periods"), throttled: count("nr_throttled") }
}

/// Processes killed for memory, from `memory.events` or the whole machine's `/proc/vmstat`.
///
/// # Errors
/// There is no `oom_kill`.
pub fn oom_kills(memory_events: &str) -> Result<u64, UnreadableFile> {
    field(memory_events, "oom_kill")
}

/// Bytes that a cgroup had read from disks and written to them, from `io.stat`; none where it's empty.
/// What goes through loop devices and software RAID is counted at the disks below them.
///
/// # Errors
/// A disk's count is no number.
pub fn io_bytes(io_stat: &str) -> Result<[u64; 2], UnreadableFile> {
    /// Major numbers of loop devices and software RAID.
    const UPPER: [&str; 2] = ["7:", "9:"];
    let mut total = [0_u64; 2];
    // Not by lines: kernels print the numbers of a device that did nothing, and no end of its line.
    let mut counts = true;
    for word in io_stat.split_whitespace() {
        let Some((name, value)) = word.split_once('=') else {
            counts = !UPPER.iter().any(|major| word.starts_with(major));
            continue;
        };
        let (at, field) = match name {
            "rbytes" => (0, "rbytes"),
            "wbytes" => (1, "wbytes"),
            _ => continue,
        };
        let bytes: u64 = value.parse().map_err(|_| unreadable(field))?;
        if let Some(sum) = total.get_mut(at).filter(|_| counts) {
            *sum = sum.saturating_add(bytes);
        }
    }
    Ok(total)
}

/// Bytes received and sent by the machine's own interfaces, from `/proc/net/dev`. The ends of pods'
/// pairs (`eni…`, `veth…`) carry the same bytes once more and don't count.
///
/// # Errors
/// It names no such interface, or a line of one is short or holds no numbers.
pub fn network_bytes(net_dev: &str) -> Result<[u64; 2], UnreadableFile> {
    // As systemd's naming scheme has them: by slot, by path (`enP…` in another PCI domain), on board, of Xen (`enX…`).
    let own = |name: &str| {
        ["eth", "ens", "enp", "enP", "eno", "enX"].iter().any(|prefix| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
    };
    interface_bytes(net_dev, own)?.ok_or(unreadable("interface"))
}

/// Bytes received and sent by all interfaces but the loopback, from a `/proc/<pid>/net/dev` of a pod's.
///
/// # Errors
/// It has no interface at all, or a line of one is short or holds no numbers.
pub fn pod_network_bytes(net_dev: &str) -> Result<[u64; 2], UnreadableFile> {
    if !net_dev.contains(':') {
        return Err(unreadable("interface"));
    }
    Ok(interface_bytes(net_dev, |name| name != "lo")?.unwrap_or_default())
}

/// The sum over the interfaces that count; `None` where none does.
fn interface_bytes(
    net_dev: &str,
    counts: impl Fn(&str) -> bool,
) -> Result<Option<[u64; 2]>, UnreadableFile> {
    let mut sum: Option<[u64; 2]> = None;
    for line in net_dev.lines() {
        let Some((name, fields)) = line.split_once(':') else { continue };
        if !counts(name.trim()) {
            continue;
        }
        // Eight fields of what was received, then eight of what was sent; bytes come first.
        let mut numbers = fields.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.nth(7)) {
            (Some(Ok(received)), Some(Ok(sent))) => {
                let [earlier, before] = sum.unwrap_or_default();
                sum = Some([earlier.saturating_add(received), before.saturating_add(sent)]);
            }
            _ => return Err(unreadable("bytes")),
        }
    }
    Ok(sum)
}

/// Processes in the beginning of a `cgroup.procs`, which may be cut off anywhere. Those of whom the kernel
/// says 0 live outside of the reader's pid namespace: which they are is unknown.
pub fn processes(cgroup_procs: &str) -> impl Iterator<Item = u32> {
    let line = |line: &str| line.strip_suffix('\n')?.parse().ok();
    cgroup_procs.split_inclusive('\n').filter_map(line).filter(|pid| *pid != 0)
}

/// Bytes read from whole disks and written to them, from `/proc/diskstats`; partitions and mappings
/// carry the same bytes once more.
///
/// # Errors
/// A line of a disk is short or holds no numbers.
pub fn disk_bytes(diskstats: &str) -> Result<[u64; 2], UnreadableFile> {
    /// The unit of the file, whatever the disk's own sectors are.
    const SECTOR: u64 = 512;
    let whole = |name: &str| match name.strip_prefix("nvme") {
        Some(rest) => rest.contains('n') && !rest.contains('p'),
        None => {
            ["xvd", "sd", "vd"].iter().any(|prefix| name.starts_with(prefix))
                && !name.ends_with(|last: char| last.is_ascii_digit())
        }
    };
    let mut total = [0_u64; 2];
    for line in diskstats.lines() {
        let mut fields = line.split_whitespace().skip(2);
        if !fields.next().is_some_and(whole) {
            continue;
        }
        // Reads, merged, sectors, ms; the same four of writes.
        let mut numbers = fields.map(str::parse::<u64>);
        match (numbers.nth(2), numbers.nth(3)) {
            (Some(Ok(read)), Some(Ok(written))) => {
                let bytes = |sectors: u64| sectors.saturating_mul(SECTOR);
                total =
                    [total[0].saturating_add(bytes(read)), total[1].saturating_add(bytes(written))];
            }
            _ => return Err(unreadable("sectors")),
        }
    }
    Ok(total)
}

/// CPU time of the node that was not idle, from `/proc/stat`, microseconds; time stolen by the
/// hypervisor and time waiting for I/O are not use.
///
/// # Errors
/// The line `cpu` is missing or short.
pub fn node_cpu_usage(proc_stat: &str) -> Result<u64, UnreadableFile> {
    // USER_HZ is 100 on every architecture that Linux' ABI allows for here.
    const USEC_PER_TICK: u64 = 10_000;
    let line = proc_stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks: Option<Vec<u64>> = line
        .and_then(|line| line.split_whitespace().take(8).map(|ticks| ticks.parse().ok()).collect());
    match ticks.as_deref() {
        // user, nice, system, idle, iowait, irq, softirq, steal; guest time is within user's.
        Some([user, nice, system, _idle, _iowait, irq, softirq, _steal]) => {
            let busy = [user, nice, system, irq, softirq];
            let sum = busy.into_iter().fold(0_u64, |sum, &ticks| sum.saturating_add(ticks));
            Ok(sum.saturating_mul(USEC_PER_TICK))
        }
        _ => Err(unreadable("cpu")),
    }
}

/// Total and available memory in `/proc/meminfo`, bytes.
///
/// # Errors
/// `MemTotal` or `MemAvailable` is missing.
pub fn available_memory(meminfo: &str) -> Result<(u64, u64), UnreadableFile> {
    let bytes = |key: &'static str| {
        meminfo
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map(|kilobytes| kilobytes.saturating_mul(1024))
            .ok_or(unreadable(key))
    };
    Ok((bytes("MemTotal")?, bytes("MemAvailable")?))
}

/// The UID of the pod that a directory below `kubepods` belongs to; `None` for QoS classes and
/// anything else. Knows both drivers: `kubepods-burstable-pod<uid with _>.slice` of systemd, and
/// `pod<uid>` of cgroupfs.
pub fn pod_uid_of_directory(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => {
            let rest = slice.strip_prefix("kubepods-")?;
            let uid = ["pod", "burstable-pod", "besteffort-pod"]
                .into_iter()
                .find_map(|prefix| rest.strip_prefix(prefix))?;
            uid.replace('_', "-")
        }
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let is_uid = !uid.is_empty()
        && uid.len() <= 64
        && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_uid.then_some(uid)
}

/// The container that a directory below a pod's belongs to; `None` for anything else, as a runtime's own
/// helpers. Knows both drivers: `cri-containerd-<id>.scope` and `crio-<id>.scope` of systemd, and `<id>` of
/// cgroupfs.
pub fn container_of_directory(name: &str) -> Option<ContainerId> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let runtime = ["cri-containerd-", "crio-", "docker-"];
    let id = runtime.into_iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    ContainerId::of_hex(id)
}
