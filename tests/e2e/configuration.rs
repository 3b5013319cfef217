//! A wrong configuration is refused at once, with file, line and column, and exit code 78.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use evenkeel_tests::lab::binaries;

const AGENT: &str = r#"cluster = "lab"
host = "h1"
state_dir = "/tmp/evenkeel-test-no-such"

[etcd]
endpoints = ["https://127.0.0.1:2379"]

[tls]
ca = "ca.pem"
certificate = "h1.pem"
key = "h1.key"

[report]
interval = "1s"
"#;

const SCHEDULER: &str = r#"cluster = "lab"
name = "s1"

[etcd]
endpoints = ["https://127.0.0.1:2379"]

[tls]
ca = "ca.pem"
certificate = "s1.pem"
key = "s1.key"

[listen]
grpc = "127.0.0.1:7440"
metrics = "127.0.0.1:9640"

[election]
lease_ttl = "5s"
"#;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn start(program: &str, file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(binaries().join(program));
    command.arg("--config").arg(file).args(more);
    command.output().expect("the daemon's program")
}

/// The configuration with `from` replaced by `to` is refused at `place`, in words that contain `words`.
fn check(program: &str, good: &str, (from, to): (&str, &str), place: &str, words: &str) {
    let name = format!("evenkeel-test-{}-{program}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).unwrap();
    let file = folder.0.join("daemon.toml");
    assert!(good.contains(from), "{from:?} is not in the example");
    std::fs::write(&file, good.replace(from, to)).unwrap();
    let done = start(program, &file, &["--check-config"]);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(done.status.code(), Some(78), "{program}, {to:?}: {said}");
    let where_it_is = format!("{}:{place}", file.display());
    assert!(said.contains(&where_it_is), "{where_it_is} in: {said}");
    assert!(said.contains(words), "{words:?} in: {said}");
    // Without the flag it does not start either.
    let started = start(program, &file, &[]);
    assert_eq!(started.status.code(), Some(78), "{program} started");
}

#[test]
fn a_good_configuration_is_accepted() {
    let name = format!("evenkeel-test-{}-good", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).unwrap();
    for (program, text) in [("evenkeel-agent", AGENT), ("evenkeel-scheduler", SCHEDULER)] {
        let file = folder.0.join(format!("{program}.toml"));
        std::fs::write(&file, text).unwrap();
        let done = start(program, &file, &["--check-config"]);
        assert_eq!(done.status.code(), Some(0), "{program}: {done:?}");
    }
}

#[test]
fn agents_say_where_their_configuration_is_wrong() {
    let program = "evenkeel-agent";
    let unknown = ("[report]", "[reports]");
    check(program, AGENT, unknown, "13:2", "reports");
    let number = (r#"host = "h1""#, "host = 1");
    check(program, AGENT, number, "2:1", "host");
    let range = (r#"interval = "1s""#, r#"interval = "1ms""#);
    check(program, AGENT, range, "14:1", "200");
    let syntax = (r#"ca = "ca.pem""#, r#"ca = "ca.pem"#);
    check(program, AGENT, syntax, "9:", "string");
    let plain = ("https://127", "http://127");
    check(program, AGENT, plain, "6:1", "https");
}

#[test]
fn schedulers_say_where_their_configuration_is_wrong() {
    let program = "evenkeel-scheduler";
    let unknown = ("lease_ttl", "lease");
    check(program, SCHEDULER, unknown, "17:1", "lease_ttl");
    let address = ("127.0.0.1:7440", "127.0.0.1");
    check(program, SCHEDULER, address, "13:1", "grpc");
    let range = (r#"lease_ttl = "5s""#, r#"lease_ttl = "1s""#);
    check(program, SCHEDULER, range, "17:1", "3s to 60s");
    let name = (r#"name = "s1""#, r#"name = "S 1""#);
    check(program, SCHEDULER, name, "2:1", "name");
}
