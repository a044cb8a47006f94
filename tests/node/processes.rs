//! The processes of the node's pods, as the host counts them.
#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::fs;
use std::net::Ipv4Addr;

/// The processes of a role on the node at this address: others may run beside it.
pub fn of(role: &str, node: Ipv4Addr) -> Vec<i32> {
    let group = format!("/millrace-rig-{}/", node.octets()[2]);
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let runs = |process: &i32| {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        match role {
            "nats" => words[0] == "/nats-server",
            "component" => words[0] == "/component",
            role => words[0] == "/millrace" && words.get(1).is_some_and(|word| word == role),
        }
    };
    let there = |process: &i32| {
        fs::read_to_string(format!("/proc/{process}/cgroup")).is_ok_and(|groups| groups.contains(&group))
    };
    numbers.filter(runs).filter(there).collect()
}

/// The memory of a process and its share of what it shares with others (PSS), in KiB.
pub fn memory(process: i32) -> Option<u64> {
    let all = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let pss = all.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    pss.trim().trim_end_matches("kB").trim().parse().ok()
}
