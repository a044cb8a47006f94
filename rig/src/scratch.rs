//! Folders that last as long as their process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Doing as _, Result};

/// A folder for state that nobody needs after this process, and a lock that says that the process lives.
///
/// The supervisor removes the folder. Where even that was killed, the next scratch folder's maker does.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    lock: PathBuf,
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
        let lock = folder.with_extension("lock");
        let held = File::create(&lock).doing(format!("make {}", lock.display()))?;
        held.lock().doing("lock a file that nobody else knows")?;
        Ok(Self { folder, lock, _held: held })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock);
    }
}

/// Removes what processes left that had no time to.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let lock = entry.path();
        let abandoned = lock.extension().is_some_and(|end| end == "lock")
            && File::open(&lock).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned {
            let _ = fs::remove_dir_all(lock.with_extension(""));
            let _ = fs::remove_file(&lock);
        }
    }
}
