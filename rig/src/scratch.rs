//! Folders that last as long as their process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Doing as _, Result};

/// The file that is locked as long as the folder's process lives.
const LOCK: &str = "lock";

/// A folder for state that nobody needs after this process.
///
/// The supervisor removes it. Where even that was killed, the next scratch folder's maker does.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    _held: File,
}

impl Scratch {
    pub fn new(kind: &str) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("millrace-rig-{}", nix::unistd::geteuid()));
        fs::create_dir_all(&root).doing(format!("make the folder {}", root.display()))?;
        sweep(&root);
        let folder = tempfile::Builder::new()
            .prefix(&format!("{kind}-"))
            .tempdir_in(&root)
            .doing(format!("make a folder in {}", root.display()))?
            .keep();
        let held = File::create(folder.join(LOCK)).doing(format!("make a file in {}", folder.display()))?;
        held.lock().doing("lock a file that nobody else knows")?;
        Ok(Self { folder, _held: held })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The supervisor has removed it already, unless it was never started.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes what processes left that had no time to. A folder without a lock is one that is just being made.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
