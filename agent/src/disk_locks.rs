//! Whether this host's libvirt takes locks on its guests' disks, by its configuration (`qemu.conf`).
//!
//! Called when the inventory is made. It tells what is configured: a libvirtd that has not been restarted since does
//! not know of it yet. What cannot be read or understood is unknown, never on.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use evenkeel_proto::v1::DiskLocks;

/// Larger than any `qemu.conf`: the one that Debian ships has 36 KiB.
const MOST_BYTES: u64 = 1 << 20;

/// What the file says.
///
/// # Errors
/// When it cannot be read: libvirt's own defaults are not assumed, for libvirt may well read another file.
pub fn read(file: &Path) -> io::Result<DiskLocks> {
    let mut text = String::new();
    // Opening anything else, such as a pipe, may take for ever.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let read = File::open(file)?
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > MOST_BYTES) {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(parse(&text))
}

/// What a `qemu.conf` says. Of a key that stands in it twice libvirt takes the first.
fn parse(text: &str) -> DiskLocks {
    let mut values = text.lines().filter_map(|line| {
        let value = line.trim_start().strip_prefix("lock_manager")?;
        value.trim_start().strip_prefix('=')
    });
    match values.next() {
        None => DiskLocks::Off,
        Some(value) => match quoted(value.trim_start()) {
            Some("lockd") => DiskLocks::Lockd,
            Some("sanlock") => DiskLocks::Sanlock,
            // libvirt's own name of taking none.
            Some("nop") => DiskLocks::Off,
            Some(_) | None => DiskLocks::Unknown,
        },
    }
}

/// What stands between quotation marks, single or double; behind it only a comment may follow.
fn quoted(value: &str) -> Option<&str> {
    let mark = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (text, rest) = value.strip_prefix(mark)?.split_once(mark)?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_libvirt_would_take_counts_as_on() {
        let cases = [
            ("", DiskLocks::Off),
            ("lock_manager = \"lockd\"", DiskLocks::Lockd),
            (
                "user = \"root\"\n  lock_manager='sanlock'  # san\n",
                DiskLocks::Sanlock,
            ),
            ("lock_manager = \"lockd\"\r\n", DiskLocks::Lockd),
            ("#lock_manager = \"lockd\"", DiskLocks::Off),
            (" # lock_manager = \"lockd\"", DiskLocks::Off),
            ("my_lock_manager = \"lockd\"", DiskLocks::Off),
            ("lock_manager_x = \"lockd\"", DiskLocks::Off),
            ("lock_manager = \"nop\"", DiskLocks::Off),
            (
                "lock_manager = \"nop\"\nlock_manager = \"lockd\"",
                DiskLocks::Off,
            ),
            ("lock_manager = lockd", DiskLocks::Unknown),
            ("lock_manager = \"lockd", DiskLocks::Unknown),
            ("lock_manager = \"lockd\" \"x\"", DiskLocks::Unknown),
            ("lock_manager = \"\"", DiskLocks::Unknown),
            ("lock_manager =", DiskLocks::Unknown),
            ("lock_manager = \"Lockd\"", DiskLocks::Unknown),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_anything() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("qemu.conf");
        assert!(read(&file).is_err(), "it is not there");
        assert!(read(folder.path()).is_err(), "it is a folder");
        std::fs::write(&file, b"lock_manager = \"lockd\"\n\xff").unwrap();
        assert!(read(&file).is_err(), "it is no text");
        let large = "#".repeat(1 << 20) + "\nlock_manager = \"lockd\"\n";
        std::fs::write(&file, large).unwrap();
        assert!(read(&file).is_err(), "it is too large");
        std::fs::write(&file, "lock_manager = \"lockd\"\n").unwrap();
        assert_eq!(read(&file).unwrap(), DiskLocks::Lockd);
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        for path in ["/dev/null", "/", "/nowhere/qemu.conf"] {
            assert!(read(Path::new(path)).is_err(), "{path}");
        }
    }
}
