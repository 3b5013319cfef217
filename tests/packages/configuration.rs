//! The configuration that is installed: each daemon takes it, and what it shows as a choice is one.

use std::path::Path;

use evenkeel_tests::lab::binaries;

use crate::{DAEMONS, run, said, text_of};

fn check(daemon: &str, configuration: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("{daemon}.toml"));
    std::fs::write(&file, configuration).unwrap();
    let program = binaries().join(format!("evenkeel-{daemon}"));
    let words = ["--config", &file.display().to_string(), "--check-config"];
    let done = run(&program.display().to_string(), &words);
    assert!(done.status.success(), "{daemon}: {}", said(&done));
}

#[test]
fn daemons_take_their_examples_as_they_are() {
    for daemon in DAEMONS {
        check(daemon, &text_of(&format!("config/{daemon}.toml")));
    }
}

#[test]
fn daemons_take_what_the_examples_offer() {
    for daemon in DAEMONS {
        let text = text_of(&format!("config/{daemon}.toml"));
        // A choice is a comment without a space after its sign.
        let chosen: Vec<&str> = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(choice) if !choice.starts_with(' ') => choice,
                Some(_) | None => line,
            })
            .collect();
        assert_ne!(
            chosen.join("\n").trim(),
            text.trim(),
            "{daemon} offers nothing"
        );
        check(daemon, &chosen.join("\n"));
    }
}

#[test]
fn the_client_reads_its_example() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    std::fs::write(&file, text_of("config/evenkeel.toml")).unwrap();
    let program = binaries().join("evenkeel").display().to_string();
    let done = run(
        &program,
        &["--config", &file.display().to_string(), "status"],
    );
    // All that is missing is the operator's certificate.
    let words = said(&done);
    assert!(!Path::new("/etc/evenkeel/tls/ca.pem").exists());
    assert!(words.contains("/etc/evenkeel/tls/"), "{words}");
    assert!(!words.contains("evenkeel.toml:"), "{words}");
}
