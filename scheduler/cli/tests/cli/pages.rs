//! Pages for people are held to the product: what a `console example` block shows is what the binary prints, every
//! link leads somewhere, and the picture of the loss is drawn by the model. Stale? Run the tests with
//! EVENKEEL_BLESS=1.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::picture;
use crate::world::binary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn blessing() -> bool {
    std::env::var_os("EVENKEEL_BLESS").is_some()
}

/// Every page of the project: the README, the change log and what is below `docs`.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What a shell prints for a command in the folder of examples, errors included.
fn printed(command: &str, examples: &Path) -> String {
    let folder = binary().parent().unwrap().display().to_string();
    let output = assert_cmd::Command::new("sh")
        .args(["-c", &format!("{{ {command}\n}} 2>&1")])
        .env_clear()
        .env("PATH", format!("{folder}:/usr/bin:/bin"))
        .env("HOME", examples)
        .current_dir(examples)
        .timeout(std::time::Duration::from_secs(60))
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
    let mut shown = lines.join("\n");
    if !shown.is_empty() {
        shown.push('\n');
    }
    shown
}

/// The page as it has to be, and how many commands it shows.
fn carried_out(page: &str, examples: &Path) -> (String, usize) {
    let (mut text, mut commands, mut inside) = (String::new(), 0, false);
    for line in page.lines() {
        let command = line.strip_prefix("$ ").filter(|_| inside);
        match (inside, line, command) {
            (false, "```console example", _) => inside = true,
            (true, "```", _) => inside = false,
            // Output: it is printed anew.
            (true, _, None) => continue,
            _ => {}
        }
        text.push_str(line);
        text.push('\n');
        if let Some(command) = command {
            commands += 1;
            text.push_str(&printed(command, examples));
        }
    }
    (text, commands)
}

#[test]
fn console_blocks_show_what_is_printed() {
    let examples = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join("docs/examples")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), examples.path().join(entry.file_name())).unwrap();
    }
    let mut commands = 0;
    for file in pages() {
        let page = std::fs::read_to_string(&file).unwrap();
        let (as_it_is, shown) = carried_out(&page, examples.path());
        commands += shown;
        if blessing() && as_it_is != page {
            std::fs::write(&file, as_it_is).unwrap();
        } else {
            assert!(
                as_it_is == page,
                "{} shows what is not printed any more:\n{}",
                file.display(),
                similar::TextDiff::from_lines(&page, &as_it_is).unified_diff()
            );
        }
    }
    assert!(commands > 5, "only {commands} commands were found");
}

/// The anchors that a page offers: its headings as GitHub makes links of them.
fn anchors(page: &str) -> BTreeSet<String> {
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == ' ';
    page.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|line| line.chars().filter(|&c| kept(c)).collect::<String>())
        .map(|line| line.replace(' ', "-"))
        .collect()
}

/// Where the links of a page lead, code left out.
fn links(page: &str) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in page.lines() {
        code ^= line.starts_with("```");
        let prose: String = line.split('`').step_by(2).collect();
        let targets = prose.split("](").skip(1).filter(|_| !code);
        found.extend(targets.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for file in pages() {
        let page = std::fs::read_to_string(&file).unwrap();
        for link in links(&page) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                file.clone()
            } else {
                file.parent().unwrap().join(path)
            };
            let from = file.display();
            assert!(target.exists(), "{from}: {link} leads nowhere");
            if !anchor.is_empty() {
                let there = std::fs::read_to_string(&target).unwrap();
                assert!(
                    anchors(&there).contains(anchor),
                    "{from}: {link} has no such heading"
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 50, "only {followed} links were found");
}

#[test]
fn the_picture_of_the_loss_is_what_the_model_says() {
    let file = root().join("docs/guest-seconds.svg");
    let drawn = picture::drawn(
        &std::fs::read_to_string(root().join("docs/examples/fleet.json")).unwrap(),
        &std::fs::read_to_string(root().join("docs/examples/policy.toml")).unwrap(),
    );
    if blessing() {
        std::fs::write(&file, &drawn).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == drawn,
        "docs/guest-seconds.svg is stale; run with EVENKEEL_BLESS=1"
    );
}
