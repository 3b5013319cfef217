//! A root to install packages in: the machine's own below, what is written above it and gone afterwards.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::said;

/// Mounts the root in a mount namespace of its own, says so, and lives until its input ends.
const SETUP: &str = r#"set -e
mount -t tmpfs none "$1"
mkdir "$1/above" "$1/work" "$1/root"
mount -t overlay none -o "lowerdir=/,upperdir=$1/above,workdir=$1/work" "$1/root"
mount -t proc none "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs none "$1/root/run"
mount -t tmpfs none "$1/root/tmp"
echo ready
cat >/dev/null"#;

/// The scratch root; its namespace ends with it.
pub(crate) struct Scratch {
    keeper: Child,
    root: PathBuf,
    _folder: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display().to_string();
        let mut keeper = Command::new("unshare")
            .args([
                "--mount",
                "--propagation=private",
                "sh",
                "-c",
                SETUP,
                "sh",
                &place,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        let output = keeper.stdout.take().unwrap();
        drop(BufReader::new(output).read_line(&mut line));
        assert_eq!(line, "ready\n", "the scratch root was not made");
        Self {
            keeper,
            root: folder.path().join("root"),
            _folder: folder,
        }
    }

    /// Runs a line of shell in the root.
    pub(crate) fn attempt(&self, line: &str) -> Output {
        let pid = self.keeper.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-m", "chroot"]).arg(&self.root);
        command.args(["env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", line]);
        command.stdin(Stdio::null()).output().expect("nsenter")
    }

    /// Runs a line of shell that must succeed; what it said.
    pub(crate) fn run(&self, line: &str) -> String {
        let done = self.attempt(line);
        assert!(done.status.success(), "{line}: {}", said(&done));
        said(&done)
    }

    /// Brings files into the root's `/tmp`.
    pub(crate) fn bring(&self, files: &[PathBuf]) {
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap();
            let mut command = Command::new("nsenter");
            let pid = self.keeper.id().to_string();
            let to = self.root.join("tmp").join(name);
            // Seen from outside the root, by the namespace's own mounts.
            command.args(["-t", &pid, "-m", "cp"]).arg(file).arg(&to);
            let done = command.output().expect("nsenter");
            assert!(done.status.success(), "{}: {}", file.display(), said(&done));
        }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        assert!(Path::new(path).is_absolute());
        self.attempt(&format!("test -e {path}")).status.success()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}
