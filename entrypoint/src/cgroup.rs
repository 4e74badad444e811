//! What the container may use: its control group's limits (versions 1 and 2), where they are
//! lower than what the machine has.

use contract::Value;
use serde_json::json;

use crate::root::Root;

pub const MIB: u64 = 1 << 20;

/// What may be used at once: the processors that the process may run on (cpuset and
/// affinity alike), or the quota when it is less, part of a processor counted as one.
pub fn processors(quota: Option<u64>) -> u64 {
    let allowed = rustix::thread::sched_getaffinity(None).map_or(1, |set| u64::from(set.count()));
    quota.map_or(allowed, |quota| quota.min(allowed)).max(1)
}

/// The container's control group; in a container it is the root of what is mounted.
pub struct Cgroup<'a> {
    root: &'a Root,
    v2: bool,
}

impl<'a> Cgroup<'a> {
    pub fn new(root: &'a Root) -> Self {
        let v2 = root.is_file("/sys/fs/cgroup/cgroup.controllers");
        Cgroup { root, v2 }
    }

    /// A file's text where it lies: below the group of `/proc/self/cgroup` when the engine
    /// gave the container no namespace of its own, else at the top.
    pub fn read(&self, controller: &str, file: &str) -> Option<String> {
        let groups = self.root.read("/proc/self/cgroup").ok().flatten();
        let group = groups.unwrap_or_default().lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let own = match self.v2 {
                true => controllers.is_empty(),
                false => controllers.split(',').any(|c| c == controller),
            };
            own.then(|| path.trim_end_matches('/').to_owned())
        });
        let top = match self.v2 {
            true => "/sys/fs/cgroup".to_owned(),
            false => format!("/sys/fs/cgroup/{controller}"),
        };
        [group.unwrap_or_default(), String::new()]
            .iter()
            .find_map(|group| {
                self.root
                    .read(&format!("{top}{group}/{file}"))
                    .ok()
                    .flatten()
            })
    }

    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.read(controller, file)?.trim().parse().ok()
    }

    /// The quota in whole processors, rounded up.
    pub fn processors(&self) -> Option<u64> {
        let (quota, period): (u64, u64) = if self.v2 {
            let text = self.read("cpu", "cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            // `max` is no number: no limit.
            (quota.parse().ok()?, period.parse().ok()?)
        } else {
            // -1 is no limit.
            let quota = self.number("cpu", "cpu.cfs_quota_us")?;
            (quota, self.number("cpu", "cpu.cfs_period_us")?)
        };
        (period > 0).then(|| quota.div_ceil(period))
    }

    /// Bytes. Without a limit v1 gives a number near 2^63, which is above any machine's.
    pub fn memory(&self) -> Option<u64> {
        match self.v2 {
            true => self.number("memory", "memory.max"),
            false => self.number("memory", "memory.limit_in_bytes"),
        }
    }

    fn memory_used(&self) -> Option<u64> {
        let (used, cache) = match self.v2 {
            true => ("memory.current", "inactive_file"),
            false => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let used = self.number("memory", used)?;
        // Pages of files that the kernel gives back when they are wanted.
        let stat = self.read("memory", "memory.stat").unwrap_or_default();
        let cached = stat
            .lines()
            .find_map(|line| line.strip_prefix(cache)?.trim().parse().ok());
        Some(used.saturating_sub(cached.unwrap_or(0)))
    }

    fn swap(&self) -> Option<u64> {
        match self.v2 {
            true => self.number("memory", "memory.swap.max"),
            // Memory and swap together.
            false => Some(
                self.number("memory", "memory.memsw.limit_in_bytes")?
                    .saturating_sub(self.memory()?),
            ),
        }
    }
}

/// Bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    /// Free when the page cache counts as free.
    pub available: u64,
    pub swap_total: u64,
    pub swap_free: u64,
}

impl Memory {
    pub fn read(root: &Root, cgroup: &Cgroup<'_>) -> Option<Self> {
        let text = root.read("/proc/meminfo").ok()??;
        let field = |name: &str| -> Option<u64> {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
        };
        let zero = |name| field(name).unwrap_or(0);
        let mut memory = Memory {
            total: field("MemTotal")?,
            free: field("MemFree")?,
            available: zero("MemFree") + zero("Cached") + zero("Buffers"),
            swap_total: zero("SwapTotal"),
            swap_free: zero("SwapFree"),
        };
        if let Some(limit) = cgroup.memory().filter(|limit| *limit < memory.total) {
            let left = limit.saturating_sub(cgroup.memory_used().unwrap_or(0));
            memory.total = limit;
            memory.free = memory.free.min(left);
            memory.available = memory.available.min(left);
        }
        if let Some(limit) = cgroup.swap() {
            memory.swap_total = memory.swap_total.min(limit);
            memory.swap_free = memory.swap_free.min(limit);
        }
        Some(memory)
    }

    /// `ansible_memory_mb`.
    pub fn nested(&self) -> Value {
        let Memory {
            total,
            free,
            available,
            swap_total,
            swap_free,
        } = *self;
        json!({
            "real": {"total": total / MIB, "used": total.saturating_sub(free) / MIB, "free": free / MIB},
            "nocache": {"free": available / MIB, "used": total.saturating_sub(available) / MIB},
            "swap": {"total": swap_total / MIB, "free": swap_free / MIB,
                "used": swap_total.saturating_sub(swap_free) / MIB, "cached": 0},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 16384000 kB\nMemFree: 8192000 kB\nBuffers: 0 kB\nCached: 1024000 kB\nSwapTotal: 2048000 kB\nSwapFree: 2048000 kB\n";

    #[test]
    fn limits_of_both_cgroup_versions_count() {
        let v2 = [
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
            ("sys/fs/cgroup/memory.current", "136314880\n"),
            (
                "sys/fs/cgroup/memory.stat",
                "anon 1\ninactive_file 31457280\n",
            ),
            ("sys/fs/cgroup/memory.swap.max", "0\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("proc/meminfo", MEMINFO),
        ];
        let v1 = [
            (
                "proc/self/cgroup",
                "5:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n",
            ),
            ("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "150000\n"),
            ("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n"),
            (
                "sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
                "536870912\n",
            ),
            ("proc/meminfo", MEMINFO),
        ];
        for files in [&v2[..], &v1[..]] {
            let (_dir, root) = Root::made(files);
            let cgroup = Cgroup::new(&root);
            assert_eq!(cgroup.processors(), Some(2));
            let memory = Memory::read(&root, &cgroup).unwrap();
            assert_eq!((memory.total / MIB, memory.free / MIB), (512, 412));
            assert_eq!(memory.swap_total, 0);
        }
    }

    #[test]
    fn without_a_limit_it_is_the_machine() {
        let (_dir, root) = Root::made(&[
            ("sys/fs/cgroup/cgroup.controllers", ""),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("proc/meminfo", MEMINFO),
        ]);
        let cgroup = Cgroup::new(&root);
        assert_eq!(cgroup.processors(), None);
        assert_eq!(Memory::read(&root, &cgroup).unwrap().total / MIB, 16000);
        assert_eq!(processors(Some(1)), 1);
        assert!(processors(None) >= 1);
    }
}
