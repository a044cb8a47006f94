//! The control groups that hold a node's pods, on machines with version 1, version 2, or both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Doing as _, Error, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// What a kubelet wants to account for and limit.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// Makes the group in every hierarchy, ready for a kubelet.
pub(crate) fn make(name: &str) -> Result<()> {
    if is_v2() {
        return make_v2(name);
    }
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).doing(format!("make the control group {}", group.display()))?;
        // A cpuset group takes no process before it knows its processors and memory nodes.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read_to_string(hierarchy.join(file)) {
                fs::write(group.join(file), all.trim())
                    .doing(format!("fill {file} of {}", group.display()))?;
            }
        }
    }
    Ok(())
}

/// Removes the group and all below it, waiting for the last of its dying processes.
pub(crate) fn remove(name: &str) -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(10);
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        while group.is_dir() {
            match remove_tree(&group) {
                Ok(()) => break,
                Err(_) if Instant::now() < patience => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => {
                    return Err(error).doing(format!("remove the control group {}", group.display()));
                }
            }
        }
    }
    Ok(())
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The roots of the hierarchies. Several names of one hierarchy are links to it, which are left out.
fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        return vec![ROOT.into()];
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

fn make_v2(name: &str) -> Result<()> {
    let root = Path::new(ROOT);
    let there =
        fs::read_to_string(root.join("cgroup.controllers")).doing("read the controllers of cgroup v2")?;
    let wanted: Vec<&str> =
        CONTROLLERS.into_iter().filter(|c| there.split_whitespace().any(|t| t == *c)).collect();
    let group = root.join(name);
    fs::create_dir_all(&group).doing(format!("make the control group {}", group.display()))?;
    let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in &wanted {
        if enabled.split_whitespace().any(|e| e == *controller) {
            continue;
        }
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")).map_err(|error| {
            Error::Needs(format!(
                "cgroup v2 does not hand the controller `{controller}` down from {ROOT} ({error}): processes live in its root. \
                 In a container, move them to a group of their own first, or start the container with the host's cgroup namespace."
            ))
        })?;
    }
    for controller in &wanted {
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))
            .doing(format!("hand the controller `{controller}` down from {}", group.display()))?;
    }
    Ok(())
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
