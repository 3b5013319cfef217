//! docs/reference/cli.md is made of the help texts, the table of exit codes and answers to the recorded
//! fleet. Stale? Run the tests with EVENKEEL_BLESS=1.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use evenkeel::args::Cli;
use evenkeel::exit::Exit;
use evenkeel::output::json::pretty;
use evenkeel::view::{Guests, Hosts, MigrationDetail, Status};

use crate::fleet::{self, NOW_MS, RUNNING};

const HEAD: &str = "\
# The command line: `evenkeel`

<!-- Made by the tests of scheduler/cli from the help texts. To renew it:
     EVENKEEL_BLESS=1 cargo test -p evenkeel --test cli reference -->

Data goes to standard output, everything else to standard error, so that answers can be piped. Colours and
progress bars appear on a terminal only. Any scheduler answers reads; changes are carried out by the leader
whichever is asked. A read is tried on every scheduler in turn for up to 10 s (plans and snapshots: 60 s); a
change is sent once, because a lost answer does not say whether it was carried out.

## Configuration

`~/.config/evenkeel.toml`, else `/etc/evenkeel/evenkeel.toml`, else the file of `--config` or
`EVENKEEL_CONFIG`, which come before both:

```toml
schedulers = [\"https://10.90.0.2:7440\", \"https://10.90.0.3:7440\"]
# What each scheduler's certificate must be for, where that is not the host part of its address:
# server_names = [\"s1\", \"s2\"]

[tls]                          # relative paths start at this file's folder
ca = \"ca.pem\"
certificate = \"operator-anna.pem\"
key = \"operator-anna.key\"
```

The certificate's role decides what is permitted: `viewer` may look, `operator` may also change. Commands that
take `--snapshot FILE` need neither configuration nor scheduler then; `-` reads it from standard input.
";

const DOCUMENTS: &str = "\
## Documents

`-o json` prints one document; with `--watch` one a line, whenever something has changed. Each names its
`schema`, whose number changes only when a field is renamed, removed or gets another meaning: take unknown
fields and unknown values of names as they come. Units stand in the names, times are RFC 3339 in UTC, and
what is not known is null. `plan` prints the scheduler's `evenkeel.plan/1` and `snapshot` its
`evenkeel.snapshot/1` (see [snapshot.md](snapshot.md)) untouched. `explain` prints `evenkeel.explain/1`: what a
table of it means stands in [../explain.md](../explain.md). `policy show` prints `evenkeel.policy/1`, `policy history`
`evenkeel.policy_history/1`, `policy diff` `evenkeel.policy_diff/1`. Changing commands print `evenkeel.mode/1`,
`evenkeel.pause/1`, `evenkeel.migration_change/1` and (also `policy rollback`) `evenkeel.policy_applied/1`, `policy check` prints `evenkeel.policy_check/1`;
`evenkeel.intents/1` (cordons and drains) and `evenkeel.roll/1` are of this kind, too;
all but `evenkeel.policy_check/1` say in `dry_run` whether nothing was changed.
`drain` prints `evenkeel.drain/1` when it has followed to the end: the hosts as they were seen last.
`evenkeel.host/1` is a host with its guests, `evenkeel.guest/1` a guest with its migrations.
`doctor` prints `evenkeel.doctor/1`: each check with its result (`ok`, `warning` or `failed`), what was found and what would
mend it (null when nothing has to be), and the worst of all results. Names of checks stay; sentences are for people.
`simulate` prints `evenkeel.simulation/1`: per strategy what was lost, its moves and its history by half hours.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for (_, number, meaning) in Exit::ALL {
        writeln!(page, "| {number} | {meaning} |").unwrap();
    }
    page.push_str(
        "\n`migrate` exits with 0 only when the guest lives at its target; 130 after Ctrl-C, which detaches \
         and\nnever cancels. `drain` exits with 0 only when libvirt says of every host that nothing is left; with 4 \
         when nobody who is\nleft can go, 5 when the deadline has passed, 3 when somebody has ended the drain: in all \
         but the last case it\ngoes on. `drain --dry-run` exits with 4 when somebody could not go. `roll` exits with 1 \
         when it has stopped at a\nfailure. `doctor` exits with 1 when a check has failed, with 0 when there are \
         warnings only, with 6 when no\nscheduler answers.\n\n## Commands\n\nThe global options go with every command.\n",
    );
    // Colours and the width of a terminal have no place in a page.
    let mut command = Cli::command()
        .term_width(100)
        .color(clap::ColorChoice::Never);
    command.build();
    help(&mut page, &mut command, "evenkeel");
    page.push('\n');
    page.push_str(DOCUMENTS);
    for (name, text) in examples() {
        let json = text.trim_end();
        write!(page, "\n### `{name}`\n\n```json\n{json}\n```\n").unwrap();
    }
    page
}

fn help(page: &mut String, command: &mut Command, name: &str) {
    let mut text = command.render_help().to_string();
    // Told once, with the command itself.
    if let Some(at) = text
        .find("\nGlobal options:")
        .filter(|_| name.contains(' '))
    {
        text.truncate(at);
    }
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    write!(
        page,
        "\n### `{name}`\n\n```text\n{}\n```\n",
        lines.join("\n")
    )
    .unwrap();
    for inner in command.get_subcommands_mut() {
        let name = format!("{name} {}", inner.get_name());
        help(page, inner, &name);
    }
}

/// One document of each kind that is not told by its name.
fn examples() -> Vec<(&'static str, String)> {
    let running = || fleet::running(RUNNING, 62, NOW_MS).into();
    let status = Status::new(fleet::status(NOW_MS), vec![]);
    let known: Vec<_> = fleet::hosts().into_iter().map(Into::into).collect();
    let status = status.with_hosts(&known);
    let hosts = fleet::hosts().into_iter().skip(1).map(Into::into).collect();
    let guests = fleet::guests(NOW_MS)
        .into_iter()
        .skip(2)
        .map(Into::into)
        .collect();
    vec![
        ("evenkeel.status/1", pretty(&status).unwrap()),
        ("evenkeel.hosts/1", pretty(&Hosts::new(hosts)).unwrap()),
        ("evenkeel.guests/1", pretty(&Guests::new(guests)).unwrap()),
        (
            "evenkeel.migration/1",
            pretty(&MigrationDetail::new(running())).unwrap(),
        ),
    ]
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md")
}

#[test]
fn the_reference_page_is_up_to_date() {
    let page = page();
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        std::fs::create_dir_all(file().parent().unwrap()).unwrap();
        std::fs::write(file(), &page).unwrap();
    }
    let written = std::fs::read_to_string(file()).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/cli.md is stale; run with EVENKEEL_BLESS=1"
    );
}
