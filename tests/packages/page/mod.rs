//! The start page, `docs/install.md`, carried out: every command on it, in order, on a lab's machines.
//!
//! A block of commands begins with three backticks, `sh` and the names of the machines it is for. Lines `# → PATTERN` say what the
//! command before them shows, `…` standing for anything. Of the machines, the lab has `h1`, `h2`, `h3` and a
//! scheduler's, which is `etcd1` here; each gets a root of its own, so that packages are really installed. Three things
//! are not as on a real machine: `systemctl` and `scp` are stand-ins (see there), and a drop-in says of the agents' hosts what
//! makes a part of this machine look like one.

mod machines;

use std::time::{Duration, Instant};

use evenkeel_tests::lab::repository;
use evenkeel_tests::tell;

use machines::Machines;

/// What is only looked at is looked at again for so long, as a reader would.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const AGAIN: Duration = Duration::from_secs(1);

/// Commands to be run at once, and what they are to show.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    machines: Vec<String>,
    commands: String,
    shown: Vec<String>,
}

/// The steps of a page, in order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = vec![];
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(machines) = line.strip_prefix("```sh ") else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        steps.extend(steps_of(machines, &block));
    }
    steps
}

fn steps_of(machines: &str, block: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = vec![];
    for line in block {
        let shown = line.strip_prefix("# → ");
        match (shown, steps.last_mut()) {
            (Some(pattern), Some(step)) => step.shown.push(pattern.to_owned()),
            (None, Some(step)) if step.shown.is_empty() => {
                step.commands.push('\n');
                step.commands.push_str(line);
            }
            (None, _) => steps.push(Step {
                machines: machines.split_whitespace().map(str::to_owned).collect(),
                commands: (*line).to_owned(),
                shown: vec![],
            }),
            (Some(pattern), None) => panic!("{pattern} follows no command"),
        }
    }
    steps
}

/// Whether a line is what the pattern says, spaces at its ends and the width of gaps left out.
fn matches(pattern: &str, line: &str) -> bool {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (squeezed(pattern), squeezed(line));
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut is_open = false;
    for part in parts {
        is_open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    // The last part must be at the end, which need not be where it was found first.
    is_open
        || rest.is_empty()
        || pattern
            .rsplit('…')
            .next()
            .is_some_and(|last| pattern.contains('…') && line.ends_with(last))
}

/// Each pattern is shown, in this order.
fn is_shown(patterns: &[String], output: &str) -> bool {
    let mut lines = output.lines();
    patterns
        .iter()
        .all(|pattern| lines.any(|line| matches(pattern, line)))
}

impl Step {
    /// Only looks: it may be repeated.
    fn is_a_look(&self) -> bool {
        let verbs = ["status", "hosts", "guests", "plan", "migrations", "doctor"];
        self.commands.lines().all(|line| {
            let mut words = line.split_whitespace();
            ["evenkeel", "systemctl"].contains(&words.next().unwrap_or_default())
                && verbs.contains(&words.next().unwrap_or_default())
        })
    }

    fn carry_out(&self, machines: &Machines) {
        for machine in &self.machines {
            let end = Instant::now() + PATIENCE;
            loop {
                let (is_well, output) = machines.run(machine, &self.commands);
                if is_well && is_shown(&self.shown, &output) {
                    tell!("{machine}$ {}\n{output}", self.commands);
                    break;
                }
                assert!(
                    self.is_a_look() && Instant::now() < end,
                    "on {machine}:\n{}\nshows\n{output}\nand not\n{:#?}",
                    self.commands,
                    self.shown
                );
                std::thread::sleep(AGAIN);
            }
        }
    }
}

#[test]
fn every_command_of_the_start_page_does_what_it_says() {
    let page = std::fs::read_to_string(repository().join("docs/install.md")).unwrap();
    let steps = steps(&page);
    assert!(steps.len() >= 10, "{steps:#?}");
    let machines = Machines::up();
    let before = machines.guests_on("h1");
    for step in &steps {
        step.carry_out(&machines);
    }
    let after = machines.guests_on("h1");
    assert!(after < before, "h1 had {before} guests and has {after}");
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let page = "a\n```sh h1 h2\nx\ny\n# → one…\n# → two\nz\n```\nb\n```\nno\n```\n";
    let step = |commands: &str, shown: &[&str]| Step {
        machines: vec!["h1".to_owned(), "h2".to_owned()],
        commands: commands.to_owned(),
        shown: shown.iter().map(|&s| s.to_owned()).collect(),
    };
    assert_eq!(
        steps(page),
        [step("x\ny", &["one…", "two"]), step("z", &[])]
    );
}

#[test]
fn a_pattern_is_the_whole_line() {
    assert!(matches("a  b", " a b "));
    assert!(!matches("a b", "a b c"));
    assert!(!matches("b", "a b"));
    assert!(matches("…b…", "a b c"));
    assert!(matches("a…c", "a c b c"));
    assert!(!matches("a…c", "a c b"));
    let both = ["x…".to_owned(), "y".to_owned()];
    assert!(is_shown(&both, "x1\nz\ny"));
    assert!(!is_shown(&both, "y\nx1"));
}
